//! The worker's loop: sweep deadlines, write and tell changes, flush, clean up.
//!
//! Everything is done in short steps, changes first, so that whatever else there is to do delays a change by one step.

use std::{
    ffi::CStr,
    time::{Duration, Instant},
};

use pgrx::{bgworkers::BackgroundWorker, pg_sys};

use super::{
    changes::{self, Batch, Changes},
    cleaner::Cleaner,
    flusher::Flusher,
    loader,
    notifier::{LONGEST_WAIT, Notifier},
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

/// How often deadlines are swept, and the catalog lock is tried. A change is told at most a second after it is due: a
/// fifth of that leaves room for a slow commit, and a sweep of a million sessions takes a hundredth of this.
const SWEEP: Duration = Duration::from_millis(200);
/// A sweep may take one part in so many of the worker's time, whatever the number of sessions.
const SWEEP_SHARE: u32 = 20;
/// The longest time between two sweeps.
const LONGEST_SWEEP: Duration = Duration::from_millis(500);
/// How often the small things are looked after: state, statistics, tombstones.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often users are compared with the tables while the roster does not know everything.
const OVERFLOW: Duration = Duration::from_secs(1);
/// What that comparison may take of the worker's time: one part in so many.
const OVERFLOW_SHARE: u32 = 3;
/// How often the log is told that the roster is full.
const WARNING: Duration = Duration::from_secs(60);
/// What flushing and cleaning take of the worker's time while changes wait: one part to so many.
const BACKGROUND_SHARE: u32 = 7;
/// How often a load is tried again after the roster was full.
const RELOAD: Duration = Duration::from_secs(5);
/// Tombstones freed at once.
const TOMBSTONES: usize = 10_000;

/// One database's worker.
pub struct Worker {
    slot: &'static WorkerSlot,
    database: pg_sys::Oid,
    install: Installed,
    tenant: Tenant,
    state: FeedState,
    changes: Changes,
    notifier: Notifier,
    flusher: Flusher,
    cleaner: Cleaner,
    timeout: Micros,
    sweep: Instant,
    housekeeping: Instant,
    /// When changes may be written again.
    write: Instant,
    /// When flushing and cleaning may take a step although changes wait.
    background: Instant,
    load: Option<Instant>,
    compare: Option<Instant>,
    /// Why users differ from the tables when they are compared next, if that is known.
    why: Option<Reason>,
    /// When the log was last told that the roster is full.
    warned: Option<Instant>,
}

impl Worker {
    /// Takes up service: finds the extension, attaches to the roster, settles the state. Otherwise says why not.
    pub fn begin(slot: &'static WorkerSlot, database: pg_sys::Oid) -> Result<Worker, WorkerStatus> {
        let (install, tenant) = loop {
            match run_transaction(None, Durability::Flushed, |install| (install, roster::tenant())) {
                Ok(found) => break found,
                Err(Aborted::Dropped) => return Err(absent(database)),
                Err(_) => wait_for_others(slot, database)?,
            }
        };
        let state = loop {
            match changes::reconcile(tenant) {
                Ok(state) => break state,
                Err(Aborted::Dropped) => return Err(WorkerStatus::Recreated),
                Err(_) => wait_for_others(slot, database)?,
            }
        };
        tenant.worker().seq.set(state.seq as u64);
        tenant.attach_worker(std::process::id(), compat::now());
        tenant.take_reconcile();
        let timeout = settings::active_timeout();
        // It may have been changed while there was no worker.
        tenant.reschedule_all(timeout);
        let now = Instant::now();
        Ok(Worker {
            slot,
            database,
            install,
            tenant,
            notifier: Notifier::begin(&state),
            state,
            changes: Changes::default(),
            flusher: Flusher::begin(),
            cleaner: Cleaner::begin(),
            timeout,
            sweep: now,
            housekeeping: now,
            write: now,
            background: now,
            load: (!tenant.is_complete()).then_some(now),
            compare: Some(now),
            why: Some(Reason::Recovered),
            warned: None,
        })
    }

    /// Serves until it has to leave; says why.
    pub fn serve(&mut self) -> WorkerStatus {
        // Before anything is written, so that what changes from now on is told as it is.
        self.notifier.send(&self.state, self.tenant);
        loop {
            if let Some(status) = self.tick() {
                report_activity(None);
                return status;
            }
            report_activity(None);
            self.tenant.set_worker_asleep(true);
            let wait = match self.has_changes() {
                true => self.write.saturating_duration_since(Instant::now()),
                false => self.next().saturating_duration_since(Instant::now()),
            };
            let alive = if wait.is_zero() && !signals::shutdown_requested() {
                pgrx::check_for_interrupts!();
                true
            } else {
                // A little above the exact time, so as not to wake just before it.
                BackgroundWorker::wait_latch(Some(wait + Duration::from_millis(1)))
            };
            self.tenant.set_worker_asleep(false);
            if signals::shutdown_requested() {
                // A forced DROP DATABASE terminates us, and then waits for a few seconds only.
                if !locks::is_database_locked(self.database) {
                    report_activity(Some(c"writing the last activity of sessions"));
                    Flusher::last(self.tenant);
                }
                return WorkerStatus::Starting;
            }
            if !alive {
                // The postmaster is dead: nothing may be written any more, another server may be about to start.
                return WorkerStatus::Starting;
            }
        }
    }

    /// Does what is due. Gives why to leave, if there is a reason.
    fn tick(&mut self) -> Option<WorkerStatus> {
        if BackgroundWorker::sighup_received() {
            self.reload();
        }
        let began = Instant::now();
        if began >= self.sweep {
            if self.slot.is_stop_requested() || locks::is_database_locked(self.database) {
                return Some(WorkerStatus::Yielded);
            }
            self.sweep();
        }
        if began >= self.housekeeping {
            self.housekeeping = began + HOUSEKEEPING;
            if let Some(status) = self.housekeeping() {
                return Some(status);
            }
        }
        if self.load.is_some_and(|due| began >= due) {
            self.load();
        }
        if self.tenant.take_reconcile() {
            self.compare = Some(began);
        }
        if self.compare.is_some_and(|due| began >= due) && self.load.is_none_or(|due| due > began) {
            self.compare();
        }
        if self.has_changes()
            && Instant::now() >= self.write
            && let Some(status) = self.write()
        {
            return Some(status);
        }
        if self.notifier.due().is_some_and(|due| Instant::now() >= due) {
            report_activity(Some(c"notifying"));
            self.notifier.send(&self.state, self.tenant);
        }
        let changes_wait = self.has_changes() && Instant::now() >= self.write;
        if !changes_wait || Instant::now() >= self.background {
            self.step_in_background();
        }
        self.tenant.worker().tick_us.set(began.elapsed().as_micros() as u64);
        None
    }

    /// Does one step of each thing that can wait. Changes go first, but a stream of them without end may not keep the
    /// table from being flushed and cleaned.
    fn step_in_background(&mut self) {
        let began = Instant::now();
        if began >= self.flusher.due() {
            report_activity(Some(c"flushing sessions"));
            self.flusher.step(self.tenant);
        }
        if Instant::now() >= self.cleaner.due() {
            report_activity(Some(c"cleaning up"));
            self.cleaner.step(self.tenant, &mut self.state);
        }
        self.background = Instant::now() + began.elapsed() * BACKGROUND_SHARE;
    }

    /// When something is due, if nobody has news before.
    fn next(&self) -> Instant {
        let others = [self.load, self.compare, self.changes.due(), self.notifier.due()];
        others.into_iter().flatten().fold(
            self.sweep
                .min(self.housekeeping)
                .min(self.flusher.due())
                .min(self.cleaner.due()),
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
        self.flusher.reconsider();
        self.cleaner.reconsider();
    }

    fn sweep(&mut self) {
        let began = Instant::now();
        let now = compat::now();
        self.tenant.sweep(now, self.timeout);
        self.tenant.tick_done(now);
        let took = began.elapsed();
        self.sweep = began + SWEEP.max(took * SWEEP_SHARE).min(LONGEST_SWEEP).max(took * 2);
    }

    /// Looks whether the extension is still the same and its state what we believe; frees tombstones; reports.
    fn housekeeping(&mut self) -> Option<WorkerStatus> {
        let believed = &self.state;
        match run_transaction(None, Durability::Flushed, |install| {
            (install, feed_state::matches(believed))
        }) {
            Ok((install, _)) if install.sessions != self.install.sessions => {
                return Some(WorkerStatus::Recreated);
            }
            Ok((install, stands)) => {
                self.install = install;
                if !stands && let Some(status) = self.reconcile_again() {
                    return Some(status);
                }
            }
            Err(Aborted::Dropped) => return Some(absent(self.database)),
            Err(_) => {}
        }
        self.tenant.free_tombstones(TOMBSTONES);
        loader::purge_dropped(self.database, self.install.sessions);
        // SAFETY: outside a transaction, as autovacuum and others do it.
        unsafe { pg_sys::pgstat_report_stat(false) };
        None
    }

    /// Somebody has changed `_feed_state`, as a restore does. What is in `user_presence` may be changed too.
    fn reconcile_again(&mut self) -> Option<WorkerStatus> {
        match changes::reconcile(self.tenant) {
            Ok(state) => {
                if state.epoch != self.state.epoch {
                    self.notifier = Notifier::begin(&state);
                    self.compare = Some(Instant::now());
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
            Ok(true) => {
                self.load = None;
                self.compare = Some(Instant::now());
            }
            // The roster is full, or somebody is in the way.
            Ok(false) => self.load = Some(Instant::now() + RELOAD),
            Err(_) => self.load = Some(Instant::now() + SWEEP),
        }
    }

    /// Compares everybody with the tables: at the start, after a TRUNCATE, and again and again in overflow.
    fn compare(&mut self) {
        report_activity(Some(c"comparing users with the tables"));
        let began = Instant::now();
        if self.tenant.in_overflow() && self.warned.is_none_or(|warned| began - warned >= WARNING) {
            self.warned = Some(began);
            warn_of_overflow();
        }
        self.tenant.reap_truncated();
        let (tenant, why) = (self.tenant, self.why);
        match run_transaction(Some(tenant), Durability::Flushed, |_| changes::compare(tenant, why)) {
            Ok(candidates) => {
                self.changes.also(candidates);
                self.why = None;
                let again = OVERFLOW.max(began.elapsed() * OVERFLOW_SHARE);
                self.compare = (!self.tenant.is_complete()).then(|| began + again);
                if !self.tenant.is_complete() && self.load.is_none() {
                    self.load = Some(Instant::now() + RELOAD);
                }
            }
            Err(_) => self.compare = Some(began + SWEEP),
        }
    }

    fn write(&mut self) -> Option<WorkerStatus> {
        report_activity(Some(c"writing changes"));
        let began = Instant::now();
        match self.changes.write(self.tenant, &mut self.state) {
            Batch::Empty => {}
            Batch::Blocked => self.write = Instant::now() + changes::RETRY_AFTER,
            Batch::Written(changes) => {
                fault_point::reach("written");
                if !changes.is_empty() {
                    self.notifier.add(changes);
                }
                let interval = Duration::from_micros(settings::notify_interval() as u64);
                self.write = began + interval.min(LONGEST_WAIT);
            }
            Batch::StateChanged => return self.reconcile_again(),
            Batch::Dropped => return Some(WorkerStatus::Recreated),
        }
        None
    }
}

/// The extension is not there: sessions of an install that was dropped leave the roster, whose room others need.
fn absent(database: pg_sys::Oid) -> WorkerStatus {
    loader::purge_dropped(database, pg_sys::InvalidOid);
    WorkerStatus::NotInstalled
}

/// Waits a moment for whoever is in the way; says why to leave, if there is a reason.
fn wait_for_others(slot: &WorkerSlot, database: pg_sys::Oid) -> Result<(), WorkerStatus> {
    if slot.is_stop_requested() || locks::is_database_locked(database) {
        return Err(WorkerStatus::Yielded);
    }
    if BackgroundWorker::wait_latch(Some(SWEEP)) {
        Ok(())
    } else {
        Err(WorkerStatus::Starting)
    }
}

fn warn_of_overflow() {
    pgrx::warning!(
        "pg_presence has more sessions than presence.max_sessions = {}: statuses stay right, but calls read the table; \
         raise it and restart the server",
        settings::max_sessions()
    );
}

/// What `pg_stat_activity` shows; nothing: idle.
fn report_activity(doing: Option<&CStr>) {
    // SAFETY: copies the text into this process's entry.
    unsafe {
        match doing {
            Some(doing) => pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, doing.as_ptr()),
            None => pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null()),
        }
    }
}
