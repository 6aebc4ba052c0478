//! A client that listens, and reads the feed.

use std::time::{Duration, Instant};

use fallible_iterator::FallibleIterator;
use pg_presence_test::patience;
use postgres::{Client, error::SqlState};
use uuid::Uuid;

use crate::place::Place;

/// Receives notifications.
pub struct Listener {
    client: Client,
    /// The newest message: epoch and sequence number.
    heard: (String, i64),
    /// Where the feed was when a user logged in.
    cursor: Option<(String, i64)>,
}

impl Listener {
    pub fn new(place: &Place) -> Listener {
        let mut client = place.connect();
        client.batch_execute("LISTEN presence").expect("to listen");
        Listener {
            client,
            heard: (String::new(), 0),
            cursor: None,
        }
    }

    /// Remembers where the feed is.
    pub fn mark(&mut self, place: &Place) {
        let sql = format!("SELECT epoch, seq FROM {}.presence_cursor()", place.schema());
        let row = place.connect().query_one(&sql, &[]);
        // NULL where there is no feed state.
        self.cursor = row
            .ok()
            .and_then(|row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?)));
    }

    fn receive(&mut self) {
        let mut arrived = self.client.notifications();
        let mut arrived = arrived.timeout_iter(Duration::from_millis(10));
        while let Some(notification) = arrived.next().expect("a connection") {
            let message: serde_json::Value = serde_json::from_str(notification.payload()).expect("JSON");
            let epoch = message["epoch"].as_str().expect("an epoch");
            let seq = message["seq"].as_i64().expect("a number");
            self.heard = (epoch.to_owned(), seq);
        }
    }

    /// Waits until a change of a user is in the feed, and a notification with its number or a higher one has arrived.
    pub fn wait_for(&mut self, place: &Place, user: Uuid, status: &str) {
        let schema = place.schema();
        let mut reader = place.connect();
        let table = place.fill("{presence_changes}", 0);
        let mut seen = String::new();
        let mut heard = String::new();
        let began = Instant::now();
        loop {
            self.receive();
            let epoch: Option<String> = reader
                .query_one(&format!("SELECT epoch FROM {schema}.presence_cursor()"), &[])
                .expect("the cursor")
                .get(0);
            let epoch = epoch.unwrap_or_default();
            let read = match &self.cursor {
                Some((epoch, seq)) => reader.query_opt(
                    &format!(
                        "SELECT max(seq) FROM {schema}.changes_since($1, $2, 1000000) WHERE user_id = $3 AND status = $4::text::{schema}.presence_status"
                    ),
                    &[seq, epoch, &user, &status],
                ),
                None => reader.query_opt(
                    &format!("SELECT max(seq) FROM {table} WHERE user_id = $1 AND status::text = $2"),
                    &[&user, &status],
                ),
            };
            match read {
                Ok(row) => {
                    let seq: Option<i64> = row.and_then(|row| row.get(0));
                    if seq.is_some_and(|seq| self.heard.0 == epoch && self.heard.1 >= seq) {
                        return;
                    }
                    seen = format!("{seq:?} in {epoch}");
                    heard = format!("{:?}", self.heard);
                }
                // Another epoch, as after a restore: start over.
                Err(error) if error.code() == Some(&SqlState::SNAPSHOT_TOO_OLD) => self.cursor = None,
                Err(error) => panic!("the feed cannot be read: {error:?}"),
            }
            assert!(
                began.elapsed() < patience(),
                "{user} is not told to be {status}: in the feed {seen}, heard {heard}"
            );
        }
    }
}
