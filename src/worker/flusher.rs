//! Writes to `user_sessions` what the roster knows: states at once, activity spread over the flush interval.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::transaction::{Aborted, Durability, run_transaction};
use crate::{
    pg::{compat, fault_point},
    roster::{FlushRow, FlushScope, Tenant},
    settings,
    store::flush::{self, SessionUpdate},
};

/// Rows in one transaction: a few milliseconds, so that changes wait no longer for it.
const BATCH: usize = 500;
/// How often states are looked for that the table has wrong.
const STATES: Duration = Duration::from_secs(1);
/// What the search for them may take of the worker's time: one part in so many.
const SHARE: u32 = 50;
/// How long a batch waits that found somebody in its way.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How long the last flush may take.
const LAST: Duration = Duration::from_secs(10);

/// Where the flush has got to.
pub struct Flusher {
    states: Walk,
    activity: Walk,
    /// When the current walk over all activity began.
    walk_began: Instant,
}

struct Walk {
    cursor: u32,
    due: Instant,
}

impl Flusher {
    pub fn begin() -> Flusher {
        let now = Instant::now();
        let walk = || Walk {
            cursor: 0,
            due: now + STATES,
        };
        Flusher {
            states: walk(),
            activity: walk(),
            walk_began: now,
        }
    }

    /// When there is something to do.
    pub fn due(&self) -> Instant {
        self.states.due.min(self.activity.due)
    }

    /// The settings have changed: the interval may be shorter now.
    pub fn reconsider(&mut self) {
        let interval = Duration::from_micros(settings::flush_interval() as u64);
        // Between two walks the next one's beginning is noted already.
        let latest = Instant::now() + interval;
        self.walk_began = self.walk_began.min(latest);
        self.activity.due = self.activity.due.min(latest);
    }

    /// Does one batch of what is due. Does nothing where the extension is gone: others find out.
    pub fn step(&mut self, tenant: Tenant) {
        let began = Instant::now();
        // Whichever has been due for longer, so that neither keeps the other waiting.
        if self.due() > began {
            return;
        }
        if self.states.due <= self.activity.due {
            let result = batch(tenant, &mut self.states.cursor, FlushScope::States);
            self.states.due = match result {
                Err(_) => began + RETRY_AFTER,
                Ok(_) if self.states.cursor != 0 => began,
                Ok(_) => began + STATES.max(began.elapsed() * SHARE),
            };
        } else {
            let result = batch(tenant, &mut self.activity.cursor, FlushScope::All);
            self.activity.due = match result {
                Err(_) => began + RETRY_AFTER,
                Ok(_) => self.next_step(tenant, began),
            };
        }
    }

    /// Spreads the batches of one walk over the interval, and the walks an interval apart.
    fn next_step(&mut self, tenant: Tenant, now: Instant) -> Instant {
        let interval = Duration::from_micros(settings::flush_interval() as u64);
        if self.activity.cursor == 0 {
            self.walk_began = (self.walk_began + interval).max(now);
            tenant.worker().last_flush.set(compat::now());
            return self.walk_began;
        }
        let batches = tenant.stats().live_sessions / BATCH as u64 + 1;
        // A little faster than needed, as sessions come and go.
        now + interval / (batches + batches / 4 + 1) as u32
    }

    /// Writes all there is to write, what is newest first, for at most ten seconds.
    pub fn last(tenant: Tenant) {
        let began = Instant::now();
        let mut rows = tenant.flush_candidates(&mut 0, tenant.stats().used as usize, FlushScope::All);
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.last_activity));
        for rows in rows.chunks(BATCH) {
            if began.elapsed() >= LAST || write(tenant, rows) == Err(Aborted::Dropped) {
                return;
            }
        }
    }
}

fn batch(tenant: Tenant, cursor: &mut u32, scope: FlushScope) -> Result<(), Aborted> {
    let began = Instant::now();
    let from = *cursor;
    let rows = tenant.flush_candidates(cursor, BATCH, scope);
    if rows.is_empty() {
        return Ok(());
    }
    let result = write(tenant, &rows);
    if result.is_err() {
        *cursor = from;
    }
    tenant.worker().flush_us.set(began.elapsed().as_micros() as u64);
    result
}

/// Writes rows and tells the roster which of them the table has now.
fn write(tenant: Tenant, rows: &[FlushRow]) -> Result<(), Aborted> {
    let targets: Vec<SessionUpdate> = rows.iter().map(SessionUpdate::from).collect();
    let (written, locked) = run_transaction(Some(tenant), Durability::Lazy, |_| {
        let written = flush::write(&targets);
        fault_point::reach("flush");
        let missing: Vec<Uuid> = rows
            .iter()
            .map(|row| row.id)
            .filter(|id| !written.contains(id))
            .collect();
        let locked = if missing.is_empty() {
            Default::default()
        } else {
            flush::existing(&missing)
        };
        (written, locked)
    })?;
    fault_point::reach("flushed");
    tenant.worker().flushed_rows.add(written.len() as u64);
    // A row that is not there, or has ended, will not come back: there is nothing left to write.
    tenant.mark_flushed(rows.iter().filter(|row| !locked.contains(&row.id)));
    Ok(())
}
