//! A client that listens.

use std::time::Duration;

use chrono::{DateTime, Utc};
use fallible_iterator::FallibleIterator;
use postgres::Client;
use serde::Deserialize;
use uuid::Uuid;

use crate::wait::wait_until;

/// One notification, exactly as the contract has it: an unknown key is an error.
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
}

/// A connection that has committed a LISTEN, and what it has received since.
pub struct Listener {
    client: Client,
    /// Every payload, in order, as it came.
    pub payloads: Vec<String>,
    /// Every payload, parsed.
    pub messages: Vec<Message>,
}

impl Listener {
    /// Listens on a channel with this connection.
    pub fn new(mut client: Client, channel: &str) -> Listener {
        client
            .batch_execute(&format!("LISTEN \"{channel}\""))
            .expect("to listen");
        Listener {
            client,
            payloads: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// Takes in what has arrived, and waits a little for more when nothing has.
    pub fn receive(&mut self) {
        let mut notifications = self.client.notifications();
        // Bounded, so that a stream without end still gets looked at.
        let pending = notifications
            .timeout_iter(Duration::from_millis(20))
            .take(1000);
        let arrived: Vec<_> = pending.collect().expect("a connection");
        for notification in arrived {
            let payload = notification.payload();
            assert!(payload.len() < 8000, "too long: {} bytes", payload.len());
            let message =
                serde_json::from_str(payload).unwrap_or_else(|error| panic!("{error}: {payload}"));
            self.payloads.push(payload.to_owned());
            self.messages.push(message);
        }
    }

    /// Every change received, in order.
    pub fn changes(&self) -> Vec<Change> {
        self.messages
            .iter()
            .filter_map(|message| message.changes.clone())
            .flatten()
            .collect()
    }

    /// The statuses told of one user, in order.
    pub fn told(&self, user: Uuid) -> Vec<String> {
        self.changes()
            .into_iter()
            .filter(|change| change.user_id == user)
            .map(|change| change.status)
            .collect()
    }

    /// Receives until the statuses told of one user are these; a wrong one fails at once.
    pub fn wait_for(&mut self, user: Uuid, statuses: &[&str]) {
        wait_until(&format!("{user} told as {statuses:?}"), || {
            self.receive();
            let told = self.told(user);
            assert!(
                told.len() <= statuses.len() && told.iter().zip(statuses).all(|(a, b)| a == b),
                "told {told:?}"
            );
            told.len() == statuses.len()
        });
    }
}
