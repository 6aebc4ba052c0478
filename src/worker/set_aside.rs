//! Rows that could not be written: each waits by itself, with growing pauses, so that nothing else does.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::transaction::Failure;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// The longest pause where another transaction is in the way, which will end.
const MAX_LOCK_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause of what a whole table waits for.
pub const MAX_TABLE_PAUSE: Duration = Duration::from_secs(5);
/// Rows remembered at most. Others are met again and again, which only costs time.
const MAX_ROWS: usize = 10_000;

/// The time until the next attempt. It doubles with each failure.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    pub until: Instant,
    length: Duration,
}

impl Pause {
    /// Starts with the first pause, or doubles `previous`.
    pub fn after(previous: Option<Pause>, max: Duration) -> Pause {
        let length = previous.map_or(FIRST_PAUSE, |pause| pause.length * 2).min(max);
        Pause {
            until: Instant::now() + length,
            length,
        }
    }
}

/// One row.
struct Waiting {
    pause: Pause,
    /// When it was last known that it has to be written.
    seen: Instant,
}

/// Rows, or users, by id.
#[derive(Default)]
pub struct SetAside {
    rows: HashMap<Uuid, Waiting>,
}

impl SetAside {
    /// Sets a row aside after an attempt to write it alone has failed.
    pub fn add(&mut self, id: Uuid, failure: &Failure) {
        let max = if failure.is_lock_conflict() {
            MAX_LOCK_PAUSE
        } else {
            MAX_PAUSE
        };
        let previous = self.rows.get(&id).map(|row| row.pause);
        if previous.is_some() || self.rows.len() < MAX_ROWS {
            let pause = Pause::after(previous, max);
            let seen = Instant::now();
            self.rows.insert(id, Waiting { pause, seen });
        }
    }

    /// Forgets a row that was written.
    pub fn remove(&mut self, id: &Uuid) -> bool {
        self.rows.remove(id).is_some()
    }

    pub fn contains(&self, id: &Uuid) -> bool {
        self.rows.contains_key(id)
    }

    /// Whether a row that has to be written is set aside, and not yet to be tried again.
    pub fn must_wait(&mut self, id: &Uuid) -> bool {
        if self.rows.is_empty() {
            return false;
        }
        self.rows.get_mut(id).is_some_and(|row| {
            row.seen = Instant::now();
            row.pause.until > row.seen
        })
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns when the next row is to be tried again.
    pub fn due(&self) -> Option<Instant> {
        self.rows.values().map(|row| row.pause.until).min()
    }

    /// Returns the row that has been due for longest.
    pub fn next_due(&self) -> Option<Uuid> {
        let (id, row) = self.rows.iter().min_by_key(|(_, row)| row.pause.until)?;
        (row.pause.until <= Instant::now()).then_some(*id)
    }

    /// Makes all rows due, because one of them could be written: what was in the way may be gone.
    pub fn retry_all(&mut self) {
        let now = Instant::now();
        for row in self.rows.values_mut() {
            row.pause.until = row.pause.until.min(now);
        }
    }

    /// Forgets rows that a scan of all, begun at `since`, has not found: they no longer need to be written.
    pub fn forget_unseen(&mut self, since: Instant) {
        self.rows.retain(|_, row| row.seen >= since);
    }
}
