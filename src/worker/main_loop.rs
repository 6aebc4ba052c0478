//! The worker's main loop: sweeps deadlines, writes and sends changes, flushes, cleans up.
//!
//! Everything is done in short steps, changes first, so that any other work delays a change by one step at most.

use std::{
    ffi::CStr,
    time::{Duration, Instant},
};

use pgrx::{PgLogLevel, PgSqlErrorCode, bgworkers::BackgroundWorker, pg_sys, pg_sys::panic::ErrorReport};

use super::{
    changes::{self, Batch, ChangeWriter},
    cleaner::Cleaner,
    flusher::Flusher,
    loader,
    notifier::Notifier,
    schedule::{SWEEP_INTERVAL, Schedule},
    signals,
    transaction::{Aborted, Durability, run_transaction},
};
use crate::{
    launcher::{
        locks,
        slots::{WorkerSlot, WorkerStatus},
    },
    pg::{compat, fault_point, installed::Installed},
    roster::{self, Tenant},
    rules::{status::Reason, time::Micros},
    settings,
    store::feed_state::{self, FeedState},
};

/// The least time between two warnings that the roster is full.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// Tombstones freed at once.
const TOMBSTONES_PER_ROUND: usize = 10_000;

/// The worker of one database.
pub struct Worker {
    slot: &'static WorkerSlot,
    database: pg_sys::Oid,
    install: Installed,
    tenant: Tenant,
    state: FeedState,
    changes: ChangeWriter,
    notifier: Notifier,
    flusher: Flusher,
    cleaner: Cleaner,
    schedule: Schedule,
    timeout: Micros,
    /// Why users will differ from the tables in the next comparison, if that is known.
    compare_reason: Option<Reason>,
    overflow_warned_at: Option<Instant>,
}

impl Worker {
    /// Finds the extension, attaches to the roster and reconciles the feed state. Otherwise returns the status to exit
    /// with.
    pub fn start(slot: &'static WorkerSlot, database: pg_sys::Oid) -> Result<Worker, WorkerStatus> {
        let (install, tenant) = loop {
            match run_transaction(None, Durability::Flushed, |install| (install, roster::tenant())) {
                Ok(found) => break found,
                Err(Aborted::Dropped) => return Err(not_installed(database)),
                Err(_) => wait_for_retry(slot, database)?,
            }
        };
        let state = loop {
            match changes::reconcile_state(tenant) {
                Ok(state) => break state,
                Err(Aborted::Dropped) => return Err(WorkerStatus::Recreated),
                Err(_) => wait_for_retry(slot, database)?,
            }
        };
        tenant.worker().seq.set(state.seq as u64);
        tenant.attach_worker(std::process::id(), compat::now());
        tenant.take_compare();
        let timeout = settings::active_timeout();
        // It may have been changed while there was no worker.
        tenant.reschedule_all(timeout);
        Ok(Worker {
            slot,
            database,
            install,
            tenant,
            notifier: Notifier::new(&state),
            state,
            changes: ChangeWriter::default(),
            flusher: Flusher::new(),
            cleaner: Cleaner::new(),
            schedule: Schedule::new(Instant::now(), !tenant.is_complete()),
            timeout,
            compare_reason: Some(Reason::Recovered),
            overflow_warned_at: None,
        })
    }

    /// Serves until there is a reason to exit, and returns the status to exit with.
    pub fn serve(&mut self) -> WorkerStatus {
        // Before anything is written, so that the changes from now on are sent as changes.
        self.notifier.send(&self.state, self.tenant);
        loop {
            if let Some(status) = self.tick() {
                report_activity(None);
                return status;
            }
            report_activity(None);
            self.tenant.set_worker_asleep(true);
            let wake_at = match self.has_changes() {
                true => self.schedule.write,
                false => self.next_due(),
            };
            let wait = wake_at.saturating_duration_since(Instant::now());
            let postmaster_alive = if wait.is_zero() && !signals::shutdown_requested() {
                pgrx::check_for_interrupts!();
                true
            } else {
                // A little above the exact time, so as not to wake just before it.
                BackgroundWorker::wait_latch(Some(wait + Duration::from_millis(1)))
            };
            self.tenant.set_worker_asleep(false);
            if signals::shutdown_requested() {
                // DROP DATABASE WITH (FORCE) terminates the worker, and then waits for a few seconds only.
                if !locks::is_database_locked(self.database) {
                    report_activity(Some(c"writing the last activity of sessions"));
                    Flusher::final_flush(self.tenant);
                }
                return WorkerStatus::Starting;
            }
            if !postmaster_alive {
                // Nothing may be written any more, as another server may be about to start.
                return WorkerStatus::Starting;
            }
        }
    }

    /// Does what is due. Returns the status to exit with, if there is a reason to exit.
    fn tick(&mut self) -> Option<WorkerStatus> {
        if BackgroundWorker::sighup_received() {
            self.reload();
        }
        let start = Instant::now();
        let is_due = |due: Option<Instant>| due.is_some_and(|due| start >= due);
        if start >= self.schedule.sweep {
            if self.slot.is_stop_requested() || locks::is_database_locked(self.database) {
                return Some(WorkerStatus::Yielded);
            }
            self.sweep();
        }
        if start >= self.schedule.housekeeping {
            self.schedule.before_housekeeping(start);
            if let Some(status) = self.housekeeping() {
                return Some(status);
            }
        }
        if is_due(self.schedule.load) {
            self.load();
        }
        if self.tenant.take_compare() {
            self.schedule.compare = Some(start);
        }
        if is_due(self.schedule.compare) && !is_due(self.schedule.load) {
            self.compare();
        }
        if self.has_changes()
            && Instant::now() >= self.schedule.write
            && let Some(status) = self.write()
        {
            return Some(status);
        }
        if self.notifier.due().is_some_and(|due| Instant::now() >= due) {
            report_activity(Some(c"notifying"));
            self.notifier.send(&self.state, self.tenant);
        }
        let changes_pending = self.has_changes() && Instant::now() >= self.schedule.write;
        if !changes_pending || Instant::now() >= self.schedule.background {
            self.step_in_background();
        }
        self.tenant.worker().tick_us.set(start.elapsed().as_micros() as u64);
        None
    }

    /// Takes one step of flushing and one of cleanup, where they are due. Changes go first, but an endless stream of
    /// them must not keep the table from being flushed and cleaned up.
    fn step_in_background(&mut self) {
        let start = Instant::now();
        if start >= self.flusher.due() {
            report_activity(Some(c"flushing sessions"));
            self.flusher.step(self.tenant);
        }
        if Instant::now() >= self.cleaner.due() {
            report_activity(Some(c"cleaning up"));
            self.cleaner.step(self.tenant, &mut self.state);
        }
        self.schedule.after_background(start);
    }

    /// Returns the next deadline, unless the worker is woken earlier.
    fn next_due(&self) -> Instant {
        let optional = [self.changes.due(), self.notifier.due()];
        optional.into_iter().flatten().fold(
            self.schedule.next().min(self.flusher.due()).min(self.cleaner.due()),
            Instant::min,
        )
    }

    fn has_changes(&self) -> bool {
        self.tenant.dirty_users() > 0 || self.changes.due().is_some_and(|due| Instant::now() >= due)
    }

    fn reload(&mut self) {
        signals::reload_configuration();
        let timeout = settings::active_timeout();
        if timeout != self.timeout {
            self.timeout = timeout;
            self.tenant.reschedule_all(timeout);
        }
        self.flusher.reschedule();
        self.cleaner.reschedule();
    }

    fn sweep(&mut self) {
        let start = Instant::now();
        let now = compat::now();
        self.tenant.sweep(now, self.timeout);
        self.tenant.tick_done(now);
        self.schedule.after_sweep(start);
    }

    /// Checks that the extension and its feed state are the same as before, frees tombstones, and reports statistics.
    fn housekeeping(&mut self) -> Option<WorkerStatus> {
        let expected = &self.state;
        match run_transaction(None, Durability::Flushed, |install| {
            (install, feed_state::matches(expected))
        }) {
            Ok((install, _)) if install.sessions != self.install.sessions => {
                return Some(WorkerStatus::Recreated);
            }
            Ok((install, matches)) => {
                self.install = install;
                if !matches && let Some(status) = self.reconcile_state() {
                    return Some(status);
                }
            }
            Err(Aborted::Dropped) => return Some(not_installed(self.database)),
            Err(_) => {}
        }
        self.tenant.free_tombstones(TOMBSTONES_PER_ROUND);
        loader::purge_dropped(self.database, self.install.sessions);
        // SAFETY: outside a transaction, as in autovacuum and other processes of the server.
        unsafe { pg_sys::pgstat_report_stat(false) };
        None
    }

    /// Reconciles the feed state after somebody else has changed it, as a restore does. A new epoch means that
    /// `user_presence` may have been changed as well.
    fn reconcile_state(&mut self) -> Option<WorkerStatus> {
        match changes::reconcile_state(self.tenant) {
            Ok(state) => {
                if state.epoch != self.state.epoch {
                    self.notifier = Notifier::new(&state);
                    self.schedule.compare = Some(Instant::now());
                }
                self.state = state;
                None
            }
            Err(Aborted::Dropped) => Some(WorkerStatus::Recreated),
            Err(_) => None,
        }
    }

    fn load(&mut self) {
        report_activity(Some(c"loading sessions"));
        match loader::load(self.tenant, self.timeout) {
            Ok(true) => self.schedule.after_complete_load(),
            Ok(false) => self.schedule.load_later(),
            Err(_) => self.schedule.retry_load(),
        }
    }

    /// Compares all users with the tables: at the start, after a TRUNCATE, and repeatedly in overflow.
    fn compare(&mut self) {
        report_activity(Some(c"comparing users with the tables"));
        let start = Instant::now();
        let may_warn = self
            .overflow_warned_at
            .is_none_or(|warned_at| start - warned_at >= WARNING_INTERVAL);
        if self.tenant.in_overflow() && may_warn {
            self.overflow_warned_at = Some(start);
            warn_overflow();
        }
        self.tenant.reap_truncated();
        let (tenant, reason) = (self.tenant, self.compare_reason);
        match run_transaction(Some(tenant), Durability::Flushed, |_| {
            changes::compare_all(tenant, reason)
        }) {
            Ok(updates) => {
                self.changes.add(updates);
                self.compare_reason = None;
                self.schedule.after_compare(start, self.tenant.is_complete());
            }
            Err(_) => self.schedule.retry_compare(start),
        }
    }

    fn write(&mut self) -> Option<WorkerStatus> {
        report_activity(Some(c"writing changes"));
        let start = Instant::now();
        match self.changes.write(self.tenant, &mut self.state) {
            Batch::Empty => {}
            Batch::Blocked => self.schedule.retry_write(),
            Batch::Written(changes) => {
                fault_point::reach("written");
                if !changes.is_empty() {
                    self.notifier.add(changes);
                }
                let interval = Duration::from_micros(settings::notify_interval() as u64);
                self.schedule.after_write(start, interval);
            }
            Batch::StateChanged => return self.reconcile_state(),
            Batch::Dropped => return Some(WorkerStatus::Recreated),
        }
        None
    }
}

/// Frees what a dropped install has left in the roster, whose room others may need.
fn not_installed(database: pg_sys::Oid) -> WorkerStatus {
    loader::purge_dropped(database, pg_sys::InvalidOid);
    WorkerStatus::NotInstalled
}

/// Waits for a moment after a lock conflict. Returns the status to exit with, if there is a reason to exit.
fn wait_for_retry(slot: &WorkerSlot, database: pg_sys::Oid) -> Result<(), WorkerStatus> {
    if slot.is_stop_requested() || locks::is_database_locked(database) {
        return Err(WorkerStatus::Yielded);
    }
    if BackgroundWorker::wait_latch(Some(SWEEP_INTERVAL)) {
        Ok(())
    } else {
        Err(WorkerStatus::Starting)
    }
}

fn warn_overflow() {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!(
            "number of sessions exceeds presence.max_sessions ({})",
            settings::max_sessions()
        ),
        pgrx::function_name!(),
    )
    .set_detail("Statuses stay correct, but calls read user_sessions for sessions that are not in shared memory.")
    .set_hint("Increase presence.max_sessions and restart the server.")
    .report(PgLogLevel::WARNING);
}

/// Sets what `pg_stat_activity` shows; `None` is idle.
fn report_activity(activity: Option<&CStr>) {
    // SAFETY: copies the text into this process's entry.
    unsafe {
        match activity {
            Some(activity) => pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr()),
            None => pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null()),
        }
    }
}
