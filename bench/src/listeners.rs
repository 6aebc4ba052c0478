//! Clients that LISTEN, and the log of when each change reached them.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::connection::Connection;

/// When changes were sent during one measurement, and how long they took to be received. The change of a user is
/// identified by the user's number.
pub struct Log {
    began: Instant,
    sent: Vec<AtomicU64>,
    latencies: Mutex<Vec<f64>>,
    /// How many changes the recording listeners have received in total.
    pub received: AtomicU64,
}

impl Log {
    /// A log for the users with numbers below `users`.
    pub fn new(users: u64) -> Log {
        Log {
            began: Instant::now(),
            sent: (0..users).map(|_| AtomicU64::new(0)).collect(),
            latencies: Mutex::default(),
            received: AtomicU64::new(0),
        }
    }

    /// Records that the change of this user is about to be sent.
    pub fn record_sent(&self, user: u64) {
        let now = self.began.elapsed().as_nanos() as u64;
        self.sent[user as usize].store(now, Ordering::Release);
    }

    /// Returns all latencies, in milliseconds, sorted.
    pub fn latencies(self) -> Vec<f64> {
        let mut latencies = self.latencies.into_inner().expect("no panic");
        latencies.sort_by(f64::total_cmp);
        latencies
    }

    /// Receives notifications on a connection until `stop`. Records them only if `records` is set.
    pub fn listen(&self, mut connection: Connection, stop: &AtomicBool, records: bool) {
        let mut latencies = Vec::new();
        let mut seq = 0;
        while !stop.load(Ordering::Relaxed) {
            connection.wait_for_notifications(Duration::from_millis(20));
            let now = self.began.elapsed().as_nanos() as u64;
            for payload in std::mem::take(&mut connection.payloads) {
                if !records {
                    continue;
                }
                let (received, users) = if is_wakeup(&payload) {
                    self.catch_up(&mut connection, seq)
                } else {
                    (now, users(&payload).collect())
                };
                seq = number_after(&payload, "\"seq\":").unwrap_or(seq);
                for user in users {
                    if let Some(sent) = self.sent.get(user as usize) {
                        let sent = sent.load(Ordering::Acquire);
                        latencies.push(received.saturating_sub(sent) as f64 / 1e6);
                        self.received.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        self.latencies.lock().expect("no panic").append(&mut latencies);
    }

    /// Reads the changes that a wake-up announces; returns when they were read, and the users.
    fn catch_up(&self, connection: &mut Connection, seq: u64) -> (u64, Vec<u64>) {
        let waiting = std::mem::take(&mut connection.payloads);
        connection.keep_rows = true;
        connection.run(&format!(
            "SELECT user_id FROM presence.changes_since({seq}, NULL, 1000000)"
        ));
        connection.keep_rows = false;
        let rows = std::mem::replace(&mut connection.payloads, waiting);
        let users = rows.iter().flat_map(|row| users(row)).collect();
        (self.began.elapsed().as_nanos() as u64, users)
    }
}

fn is_wakeup(payload: &str) -> bool {
    payload.starts_with('{') && !payload.contains("\"changes\":")
}

/// Returns the numbers of the users in a payload, or in a bare id.
fn users(payload: &str) -> impl Iterator<Item = u64> {
    // All ids from `ids::id` begin like this; the other fifteen digits are the number.
    const PREFIX: &str = "00000000-0000-4000-8";
    payload.match_indices(PREFIX).filter_map(move |(at, _)| {
        let rest = payload.get(at + PREFIX.len()..at + 36)?;
        u64::from_str_radix(&rest.replace('-', ""), 16).ok()
    })
}

fn number_after(payload: &str, key: &str) -> Option<u64> {
    let rest = &payload[payload.find(key)? + key.len()..];
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}
