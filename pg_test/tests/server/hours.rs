//! A server for tests in which hours pass, so that nothing depends on how long a step takes.

use std::cell::Cell;

use pg_presence_test::{Cluster, wait_until_equal};
use postgres::Client;
use uuid::Uuid;

/// One hour, in microseconds.
pub const HOUR: i64 = 3_600_000_000;

/// A server whose sessions are idle after one hour, and whose clock is some hours ahead.
pub struct Server {
    pub cluster: Cluster,
    pub hours: Cell<i64>,
}

impl Server {
    /// A session times out after `active_timeout`.
    pub fn new(active_timeout: &str) -> Server {
        Server::with(&[("presence.active_timeout", active_timeout)])
    }

    pub fn with(settings: &[(&str, &str)]) -> Server {
        // SQL's own clock, by which changes are dated, stays behind.
        let defaults = [("presence.idle_timeout", "1h"), ("presence.feed_retention", "3650d")];
        let settings = [&defaults[..], settings].concat();
        Server {
            cluster: Cluster::private(&settings),
            hours: Cell::new(0),
        }
    }

    /// Lets hours pass.
    pub fn pass(&self, hours: i64) {
        self.hours.set(self.hours.get() + hours);
        self.cluster.set_clock("clock", self.hours.get() * HOUR);
    }
}

/// The reason, the previous status and the status of each of a user's changes, in one line.
pub fn feed(client: &mut Client, user: Uuid) -> String {
    let sql = "SELECT coalesce(string_agg(format('%s: %s, %s', reason, previous, status), '; ' ORDER BY seq), '')
               FROM presence.presence_changes WHERE user_id = $1";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

pub fn wait_for_feed(client: &mut Client, user: Uuid, expected: &str) {
    wait_until_equal("the feed", &expected.to_owned(), || feed(client, user));
}
