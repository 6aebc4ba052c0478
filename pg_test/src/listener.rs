//! A client that listens.

use std::time::Duration;

use chrono::{DateTime, Utc};
use fallible_iterator::FallibleIterator;
use postgres::Client;
use serde::Deserialize;
use uuid::Uuid;

use crate::wait::wait_until;

/// One notification, exactly as documented: an unknown key is an error.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    pub v: u32,
    pub epoch: String,
    pub prev: i64,
    pub seq: i64,
    pub changes: Option<Vec<Change>>,
}

/// One change in a notification.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub seq: i64,
    pub user_id: Uuid,
    pub key: Option<String>,
    pub status: String,
    pub at: DateTime<Utc>,
    pub last_seen: Option<DateTime<Utc>>,
    #[serde(default)]
    pub details: bool,
}

/// A client that has committed a LISTEN, and what it has received since. It reads the feed wherever the protocol requires
/// it, as at the start of a worker.
pub struct Listener {
    client: Client,
    reader: Client,
    epoch: String,
    seq: i64,
    /// Every payload, in order, as received.
    pub payloads: Vec<String>,
    /// Every payload, parsed.
    pub messages: Vec<Message>,
    /// Every change, notified or read from the feed, in order.
    pub changes: Vec<Change>,
}

impl Listener {
    /// Listens on a channel with one connection, and reads the feed with the other.
    pub fn new(mut client: Client, mut reader: Client, channel: &str) -> Listener {
        client
            .batch_execute(&format!("LISTEN \"{channel}\""))
            .expect("to listen");
        let cursor = reader
            .query_one("SELECT epoch, seq FROM presence.presence_cursor()", &[])
            .expect("a cursor");
        Listener {
            client,
            reader,
            epoch: cursor.get(0),
            seq: cursor.get(1),
            payloads: Vec::new(),
            messages: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Receives the notifications that have arrived; waits a little if there are none.
    pub fn receive(&mut self) {
        // Bounded, so that an endless stream is still processed.
        let arrived: Vec<String> = self
            .client
            .notifications()
            .timeout_iter(Duration::from_millis(20))
            .take(1000)
            .map(|notification| Ok(notification.payload().to_owned()))
            .collect()
            .expect("a connection");
        for payload in arrived {
            assert!(payload.len() < 8000, "too long: {} bytes", payload.len());
            let message: Message = serde_json::from_str(&payload).unwrap_or_else(|error| panic!("{error}: {payload}"));
            self.payloads.push(payload);
            self.messages.push(message.clone());
            match message.changes {
                Some(changes) if message.epoch == self.epoch && message.prev <= self.seq => {
                    for change in changes {
                        self.accept(change);
                    }
                }
                _ => self.catch_up(message.epoch),
            }
        }
    }

    fn accept(&mut self, change: Change) {
        if change.seq > self.seq {
            self.seq = change.seq;
            self.changes.push(change);
        }
    }

    fn catch_up(&mut self, epoch: String) {
        if epoch != self.epoch {
            (self.epoch, self.seq) = (epoch, 0);
        }
        let sql = "SELECT seq, user_id, user_key, status::text, changed_at, last_seen, details
                   FROM presence.changes_since($1, $2, 1000000) WHERE user_id IS NOT NULL";
        let rows = self.reader.query(sql, &[&self.seq, &self.epoch]).expect("the feed");
        for row in rows {
            self.accept(Change {
                seq: row.get(0),
                user_id: row.get(1),
                key: row.get(2),
                status: row.get(3),
                at: row.get(4),
                last_seen: row.get(5),
                details: row.get(6),
            });
        }
    }

    /// Returns the changes that arrived in notifications, in order.
    pub fn notified_changes(&self) -> Vec<Change> {
        self.messages
            .iter()
            .filter_map(|message| message.changes.clone())
            .flatten()
            .collect()
    }

    /// Returns the statuses that one user has had, in order.
    pub fn statuses_of(&self, user: Uuid) -> Vec<&str> {
        self.changes
            .iter()
            .filter(|change| change.user_id == user)
            .map(|change| change.status.as_str())
            .collect()
    }

    /// Receives until one user has had these statuses; a wrong one fails at once.
    pub fn wait_for(&mut self, user: Uuid, statuses: &[&str]) {
        wait_until(&format!("{user} has been {statuses:?}"), || {
            self.receive();
            let found = self.statuses_of(user);
            assert!(
                found.len() <= statuses.len() && found.iter().zip(statuses).all(|(a, b)| a == b),
                "{user} has been {found:?}, not {statuses:?}"
            );
            found.len() == statuses.len()
        });
    }
}
