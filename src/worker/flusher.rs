//! Writes to `user_sessions` what the roster knows: states at once, activity spread over the flush interval.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::transaction::{Aborted, Durability, RETRY_AFTER, run_transaction};
use crate::{
    pg::{compat, fault_point},
    roster::{FlushRow, FlushScope, Tenant},
    settings,
    store::flush::{self, SessionUpdate},
};

/// Rows per transaction: a few milliseconds, so that changes are not delayed for longer.
const BATCH: usize = 500;
/// The least time between two scans for states that differ in the table.
const STATE_INTERVAL: Duration = Duration::from_secs(1);
/// These scans take at most 1 / `STATE_SHARE` of the time.
const STATE_SHARE: u32 = 50;
/// The time limit of the final flush.
const FINAL_FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// The progress of flushing.
pub struct Flusher {
    states: SlotScan,
    activity: SlotScan,
    /// The start of the current scan for activity, or of the next one if none is in progress.
    activity_scan_start: Instant,
}

/// A scan of all slots of the roster, in batches.
struct SlotScan {
    cursor: u32,
    due: Instant,
}

impl Flusher {
    pub fn new() -> Flusher {
        let now = Instant::now();
        let scan = || SlotScan {
            cursor: 0,
            due: now + STATE_INTERVAL,
        };
        Flusher {
            states: scan(),
            activity: scan(),
            activity_scan_start: now,
        }
    }

    /// Returns when the next batch is due.
    pub fn due(&self) -> Instant {
        self.states.due.min(self.activity.due)
    }

    /// Reschedules after a reload of the settings, as the interval may be shorter now.
    pub fn reschedule(&mut self) {
        let latest = Instant::now() + flush_interval();
        self.activity_scan_start = self.activity_scan_start.min(latest);
        self.activity.due = self.activity.due.min(latest);
    }

    /// Writes one batch of what is due. Does nothing where the extension was dropped, which housekeeping finds out.
    pub fn step(&mut self, tenant: Tenant) {
        let start = Instant::now();
        if self.due() > start {
            return;
        }
        // The one that has been due for longer, so that neither delays the other forever.
        if self.states.due <= self.activity.due {
            let result = flush_batch(tenant, &mut self.states.cursor, FlushScope::States);
            self.states.due = match result {
                Err(_) => start + RETRY_AFTER,
                Ok(_) if self.states.cursor != 0 => start,
                Ok(_) => start + STATE_INTERVAL.max(start.elapsed() * STATE_SHARE),
            };
        } else {
            let result = flush_batch(tenant, &mut self.activity.cursor, FlushScope::All);
            self.activity.due = match result {
                Err(_) => start + RETRY_AFTER,
                Ok(_) => self.next_activity_batch(tenant, start),
            };
        }
    }

    /// Spreads the batches of a scan over the flush interval, and starts scans an interval apart.
    fn next_activity_batch(&mut self, tenant: Tenant, now: Instant) -> Instant {
        let interval = flush_interval();
        if self.activity.cursor == 0 {
            self.activity_scan_start = (self.activity_scan_start + interval).max(now);
            tenant.worker().last_flush.set(compat::now());
            return self.activity_scan_start;
        }
        let batches = tenant.stats().live_sessions / BATCH as u64 + 1;
        // A little faster than needed, as sessions come and go.
        now + interval / (batches + batches / 4 + 1) as u32
    }

    /// Writes all that is not written yet, the newest activity first, within the time limit.
    pub fn final_flush(tenant: Tenant) {
        let start = Instant::now();
        let mut rows = tenant.flush_candidates(&mut 0, tenant.stats().used as usize, FlushScope::All);
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.last_activity));
        for batch in rows.chunks(BATCH) {
            if start.elapsed() >= FINAL_FLUSH_LIMIT || write_rows(tenant, batch) == Err(Aborted::Dropped) {
                return;
            }
        }
    }
}

fn flush_interval() -> Duration {
    Duration::from_micros(settings::flush_interval() as u64)
}

/// Writes the next batch and advances `cursor`, which is 0 again after the last one.
fn flush_batch(tenant: Tenant, cursor: &mut u32, scope: FlushScope) -> Result<(), Aborted> {
    let start = Instant::now();
    let from = *cursor;
    let rows = tenant.flush_candidates(cursor, BATCH, scope);
    if rows.is_empty() {
        return Ok(());
    }
    let result = write_rows(tenant, &rows);
    if result.is_err() {
        *cursor = from;
    }
    tenant.worker().flush_us.set(start.elapsed().as_micros() as u64);
    result
}

/// Writes rows, and marks in the roster those that the table has now.
fn write_rows(tenant: Tenant, rows: &[FlushRow]) -> Result<(), Aborted> {
    let updates: Vec<SessionUpdate> = rows.iter().map(SessionUpdate::from).collect();
    let (written, unwritten) = run_transaction(Some(tenant), Durability::Lazy, |_| {
        let written = flush::write(&updates);
        fault_point::reach("flush");
        let missing: Vec<Uuid> = rows
            .iter()
            .map(|row| row.id)
            .filter(|id| !written.contains(id))
            .collect();
        let unwritten = match missing.is_empty() {
            true => HashSet::new(),
            false => flush::not_ended(&missing),
        };
        (written, unwritten)
    })?;
    fault_point::reach("flushed");
    tenant.worker().flushed_rows.add(written.len() as u64);
    // A row that is missing from the table or has ended there needs no further write, so it counts as flushed.
    tenant.mark_flushed(rows.iter().filter(|row| !unwritten.contains(&row.id)));
    Ok(())
}
