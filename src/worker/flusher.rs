//! Writes to `user_sessions` what the roster knows: states at once, activity spread over the flush interval.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    set_aside::{MAX_TABLE_PAUSE, Pause, SetAside},
    signals,
    transaction::{Aborted, Durability, Failure, RETRY_AFTER, run_transaction, write_limit},
    trouble::{self, Work},
};
use crate::{
    pg::{compat, fault_point},
    roster::{FlushRow, FlushScope, Tenant},
    settings,
    store::{
        flush::{self, SessionUpdate},
        load,
    },
};

/// Rows per transaction: a few milliseconds, so that changes are not delayed for longer.
const BATCH: usize = 500;
/// The least time between two scans for states that differ in the table.
const STATE_INTERVAL: Duration = Duration::from_secs(1);
/// These scans take at most 1 / `STATE_SHARE` of the time.
const STATE_SHARE: u32 = 50;
/// The time limit of the final flush.
const FINAL_FLUSH_LIMIT: Duration = Duration::from_secs(10);
/// The time limit of one of its batches: more than a few milliseconds only where somebody's trigger takes long.
const FINAL_BATCH_LIMIT: Duration = Duration::from_secs(3);
/// How long one step writes parts of a batch that has failed.
const SUSPECTS_LIMIT: Duration = Duration::from_millis(50);
/// Rows that are set aside and tried again, in one batch.
const RETRIES_PER_BATCH: usize = 4;

/// The progress of flushing.
pub struct Flusher {
    states: SlotScan,
    activity: SlotScan,
    /// The start of the current scan for activity, or of the next one if none is in progress.
    activity_scan_start: Instant,
    /// When the first batch of the current scan for activity was read.
    activity_scan_began: Instant,
    /// Parts of batches that have failed, to be written one by one.
    suspects: Vec<Vec<FlushRow>>,
    /// In the past: they are due as long as there are any.
    suspects_due: Instant,
    set_aside: SetAside,
    /// Set where no row at all can be written.
    stopped: Option<Pause>,
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
            activity_scan_began: now,
            suspects: Vec::new(),
            suspects_due: now,
            set_aside: SetAside::default(),
            stopped: None,
        }
    }

    /// Returns when the next batch is due.
    pub fn due(&self) -> Instant {
        match self.stopped {
            Some(pause) => pause.until,
            None if !self.suspects.is_empty() => self.suspects_due,
            None => self.states.due.min(self.activity.due),
        }
    }

    /// Returns how many rows wait because they could not be written; at least 1 where none can.
    pub fn waiting(&self) -> usize {
        let suspects: usize = self.suspects.iter().map(Vec::len).sum();
        (self.set_aside.len() + suspects).max(usize::from(self.stopped.is_some()))
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
        if self.stopped.is_some() {
            match write_rows(tenant, &[], write_limit(0)) {
                Err(Aborted::Failed(failure)) => return self.stop(tenant, &failure),
                Err(_) => return,
                Ok(()) => self.stopped = None,
            }
        }
        if !self.suspects.is_empty() {
            return self.write_suspects(tenant);
        }
        // The one that has been due for longer, so that neither delays the other forever.
        if self.states.due <= self.activity.due {
            let mut cursor = self.states.cursor;
            let result = self.flush_batch(tenant, &mut cursor, FlushScope::States);
            self.states.cursor = cursor;
            self.states.due = match result {
                Err(_) => start + RETRY_AFTER,
                Ok(()) if self.states.cursor != 0 => start,
                Ok(()) => start + STATE_INTERVAL.max(start.elapsed() * STATE_SHARE),
            };
        } else {
            let mut cursor = self.activity.cursor;
            if cursor == 0 {
                self.activity_scan_began = start;
            }
            let result = self.flush_batch(tenant, &mut cursor, FlushScope::All);
            self.activity.cursor = cursor;
            if result.is_ok() && self.activity.cursor == 0 && self.stopped.is_none() {
                self.set_aside.forget_unseen(self.activity_scan_began);
            }
            self.activity.due = match result {
                Err(_) => start + RETRY_AFTER,
                Ok(()) => self.next_activity_batch(tenant, start),
            };
        }
    }

    /// Writes the next batch and advances `cursor`, which is 0 again after the last one. Rows that could not be written
    /// before are tried alone.
    fn flush_batch(&mut self, tenant: Tenant, cursor: &mut u32, scope: FlushScope) -> Result<(), Aborted> {
        let start = Instant::now();
        let from = *cursor;
        let mut rows = tenant.flush_candidates(cursor, BATCH, scope, &tenant.now());
        rows.retain(|row| !self.set_aside.must_wait(&row.id));
        let (again, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| self.set_aside.contains(&row.id));
        self.suspects
            .extend(again.into_iter().take(RETRIES_PER_BATCH).map(|row| vec![row]));
        if rows.is_empty() {
            return Ok(());
        }
        let result = write_rows(tenant, &rows, write_limit(rows.len()));
        tenant.worker().flush_us.set(start.elapsed().as_micros() as u64);
        match result {
            Err(Aborted::Failed(failure)) => {
                match write_rows(tenant, &[], write_limit(0)) {
                    Err(Aborted::Failed(failure)) => {
                        *cursor = from;
                        self.stop(tenant, &failure);
                    }
                    _ => self.suspect(tenant, rows, &failure),
                }
                Ok(())
            }
            Err(aborted) => {
                *cursor = from;
                Err(aborted)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Halves rows that could not be written together, or sets a single one aside.
    fn suspect(&mut self, tenant: Tenant, mut rows: Vec<FlushRow>, failure: &Failure) {
        trouble::report_part(tenant, Work::Flush, failure, rows.len());
        if let [row] = rows[..] {
            self.set_aside.add(row.id, failure);
        } else {
            let second = rows.split_off(rows.len() / 2);
            self.suspects.extend([second, rows]);
        }
    }

    fn write_suspects(&mut self, tenant: Tenant) {
        let start = Instant::now();
        while start.elapsed() < SUSPECTS_LIMIT
            && let Some(rows) = self.suspects.pop()
        {
            match write_rows(tenant, &rows, write_limit(rows.len())) {
                Ok(()) => {
                    let mut has_recovered = false;
                    for row in &rows {
                        has_recovered |= self.set_aside.remove(&row.id);
                    }
                    if has_recovered {
                        self.set_aside.retry_all();
                    }
                }
                Err(Aborted::Failed(failure)) => self.suspect(tenant, rows, &failure),
                // They will be found again.
                Err(_) => return,
            }
        }
    }

    /// Waits for longer before the next attempt to write anything.
    fn stop(&mut self, tenant: Tenant, failure: &Failure) {
        trouble::report(tenant, Work::Flush, failure);
        self.stopped = Some(Pause::after(self.stopped, MAX_TABLE_PAUSE));
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

    /// Writes all that is not written yet, the newest activity first, within the time limit. What cannot be written is
    /// left out.
    pub fn final_flush(tenant: Tenant) {
        signals::finish();
        let start = Instant::now();
        let mut rows = tenant.flush_candidates(&mut 0, tenant.sessions(), FlushScope::All, &tenant.now());
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.last_activity));
        let mut batches: Vec<&[FlushRow]> = rows.chunks(BATCH).rev().collect();
        while let Some(batch) = batches.pop() {
            let left = FINAL_FLUSH_LIMIT.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            match write_rows(tenant, batch, left.min(FINAL_BATCH_LIMIT)) {
                Err(Aborted::Dropped) => return,
                Err(Aborted::Failed(_)) if batch.len() > 1 => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    batches.extend([second, first]);
                }
                _ => {}
            }
        }
    }
}

fn flush_interval() -> Duration {
    Duration::from_micros(settings::flush_interval() as u64)
}

/// Writes rows, and marks in the roster those that the table has now.
fn write_rows(tenant: Tenant, rows: &[FlushRow], limit: Duration) -> Result<(), Aborted> {
    let updates: Vec<SessionUpdate> = rows.iter().map(SessionUpdate::from).collect();
    let (written, others) = run_transaction(Some(tenant), Durability::Lazy, Some(limit), |_| {
        let written = flush::write(&updates);
        fault_point::reach("flush");
        let missing: Vec<Uuid> = rows
            .iter()
            .map(|row| row.id)
            .filter(|id| !written.contains(id))
            .collect();
        let others = match missing.is_empty() {
            true => HashMap::new(),
            false => load::sessions(&missing),
        };
        (written, others)
    })?;
    fault_point::reach("flushed");
    tenant.worker().flushed_rows.add(written.len() as u64);
    // A row that is missing from the table or has ended there needs no further write, so it counts as flushed.
    tenant.mark_flushed(
        rows.iter()
            .filter(|row| others.get(&row.id).is_none_or(|row| row.ended)),
    );
    Ok(())
}
