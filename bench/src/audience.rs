//! Clients that listen, and note when they learn of what.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::wire::Wire;

/// What is sent and told during one measurement: user `n`, by when each was.
pub struct Diary {
    began: Instant,
    sent: Vec<AtomicU64>,
    latencies: Mutex<Vec<f64>>,
    /// How many users the listeners have been told of, over all listeners that note it.
    pub told: AtomicU64,
}

impl Diary {
    /// For users below `users`.
    pub fn new(users: u64) -> Diary {
        Diary {
            began: Instant::now(),
            sent: (0..users).map(|_| AtomicU64::new(0)).collect(),
            latencies: Mutex::default(),
            told: AtomicU64::new(0),
        }
    }

    /// The change of this user is about to be sent.
    pub fn send(&self, user: u64) {
        let now = self.began.elapsed().as_nanos() as u64;
        self.sent[user as usize].store(now, Ordering::Release);
    }

    /// All latencies, in milliseconds, sorted.
    pub fn latencies(self) -> Vec<f64> {
        let mut latencies = self.latencies.into_inner().expect("no panic");
        latencies.sort_by(f64::total_cmp);
        latencies
    }

    /// Listens until told to stop. Who only `attends` reads and notes nothing, as the hundredth listener does.
    pub fn listen(&self, mut wire: Wire, stop: &AtomicBool, attends: bool) {
        let mut latencies = Vec::new();
        let mut seq = 0;
        while !stop.load(Ordering::Relaxed) {
            wire.listen(Duration::from_millis(20));
            let now = self.began.elapsed().as_nanos() as u64;
            for payload in std::mem::take(&mut wire.payloads) {
                if attends {
                    continue;
                }
                let told = if is_wakeup(&payload) {
                    self.catch_up(&mut wire, seq)
                } else {
                    (now, users(&payload).collect())
                };
                seq = number_after(&payload, "\"seq\":").unwrap_or(seq);
                for user in told.1 {
                    if let Some(sent) = self.sent.get(user as usize) {
                        let sent = sent.load(Ordering::Acquire);
                        latencies.push(told.0.saturating_sub(sent) as f64 / 1e6);
                        self.told.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        self.latencies
            .lock()
            .expect("no panic")
            .append(&mut latencies);
    }

    /// Reads what a message without changes tells of; returns when it was read, and the users.
    fn catch_up(&self, wire: &mut Wire, seq: u64) -> (u64, Vec<u64>) {
        let waiting = std::mem::take(&mut wire.payloads);
        wire.keeps_rows = true;
        wire.run(&format!(
            "SELECT user_id FROM presence.changes_since({seq}, NULL, 1000000)"
        ));
        wire.keeps_rows = false;
        let rows = std::mem::replace(&mut wire.payloads, waiting);
        let users = rows.iter().flat_map(|row| users(row)).collect();
        (self.began.elapsed().as_nanos() as u64, users)
    }
}

fn is_wakeup(payload: &str) -> bool {
    payload.starts_with('{') && !payload.contains("\"changes\":")
}

/// The numbers of the users in a payload, or in a bare id.
fn users(payload: &str) -> impl Iterator<Item = u64> {
    // All our users' ids begin so, and go on with sixteen digits that tell the number, marked as a variant.
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
