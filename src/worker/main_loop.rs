//! The worker's main loop: sweeps deadlines, writes and sends changes, flushes, cleans up.
//!
//! Everything is done in short steps, changes first, so that any other work delays a change by one step at most.

use std::time::{Duration, Instant};

use pgrx::{bgworkers::BackgroundWorker, pg_sys};

use super::{
    activity::{OverflowWarning, report_activity},
    changes::{self, Batch, ChangeWriter},
    cleaner::Cleaner,
    compare,
    declared::DeclaredWatch,
    flusher::Flusher,
    hidden::HiddenWatch,
    loader::{self, Loaded, Loader, TOMBSTONES_PER_ROUND},
    notifier::Notifier,
    schedule::{SWEEP_INTERVAL, Schedule},
    set_aside::{MAX_TABLE_PAUSE, Pause},
    signals,
    table_watch::TableWatch,
    transaction::{Aborted, Durability, run_transaction},
    trouble::{self, Work},
};
use crate::{
    launcher::{
        locks::{self, DatabaseWatch},
        slots::{WorkerSlot, WorkerStatus},
    },
    pg::{compat, fault_point, installed::Installed},
    roster::{self, Now, Tenant},
    rules::{status::Reason, time::Micros},
    settings,
    store::{
        capture_state, declared as table,
        feed_state::{self, FeedState},
    },
};

/// Blocks of shared memory looked at at once, whether one tenant has them alone.
const BLOCKS_PER_ROUND: usize = 8;

/// The worker of one database.
pub struct Worker {
    slot: &'static WorkerSlot,
    database: pg_sys::Oid,
    install: Installed,
    tenant: Tenant,
    state: FeedState,
    changes: ChangeWriter,
    declared: DeclaredWatch,
    hidden: HiddenWatch,
    notifier: Notifier,
    flusher: Flusher,
    cleaner: Cleaner,
    schedule: Schedule,
    timeout: Micros,
    idle_timeout: Option<Micros>,
    /// Why users will differ from the tables in the next comparison, if that is known.
    compare_reason: Option<Reason>,
    overflow: OverflowWarning,
    database_watch: DatabaseWatch,
    /// Whether `state` is the table's. Until then, and after somebody else has changed the table, nothing is written to
    /// the feed.
    is_reconciled: bool,
    /// Set after `_feed_state` could not be reconciled.
    reconcile_pause: Option<Pause>,
    loader: Loader,
    /// By how much the clock had been set at the last sweep.
    clock_moved: u64,
    tables: TableWatch,
}

impl Worker {
    /// Finds the extension and attaches to the roster. Otherwise returns the status to exit with.
    pub fn start(slot: &'static WorkerSlot, database: pg_sys::Oid) -> Result<Worker, WorkerStatus> {
        let mut database_watch = DatabaseWatch::default();
        let (install, tenant) = loop {
            match run_transaction(None, Durability::Flushed, None, |install| (install, roster::tenant())) {
                Ok(found) => break found,
                Err(Aborted::Dropped) => return Err(not_installed(database)),
                Err(aborted) => {
                    if let Aborted::Failed(failure) = &aborted {
                        trouble::log(Work::State, failure);
                    }
                    wait_for_retry(slot, database, &mut database_watch)?;
                }
            }
        };
        tenant.worker().set_aside.set(0);
        tenant.attach_worker(std::process::id(), compat::now());
        tenant.take_compare();
        tenant.requeue_taken();
        let timeout = settings::active_timeout();
        let now = tenant.synchronize_clock();
        // It may have been changed while there was no worker.
        tenant.reschedule_all(timeout, &now);
        Ok(Worker {
            slot,
            database,
            install,
            tenant,
            notifier: Notifier::new(&FeedState::default()),
            state: FeedState::default(),
            changes: ChangeWriter::default(),
            declared: DeclaredWatch::new(tenant),
            hidden: HiddenWatch::new(),
            flusher: Flusher::new(),
            cleaner: Cleaner::new(),
            schedule: Schedule::new(Instant::now(), !tenant.is_complete()),
            timeout,
            idle_timeout: settings::idle_timeout(),
            compare_reason: Some(Reason::Recovered),
            overflow: OverflowWarning::default(),
            database_watch,
            is_reconciled: false,
            reconcile_pause: None,
            loader: Loader::default(),
            clock_moved: 0,
            tables: TableWatch::default(),
        })
    }

    /// Serves until there is a reason to exit, and returns the status to exit with.
    pub fn serve(&mut self) -> WorkerStatus {
        loop {
            if let Some(status) = self.tick() {
                report_activity(None);
                return status;
            }
            report_activity(None);
            self.tenant.set_worker_asleep(true);
            fault_point::pause("idle");
            let wake_at = match self.has_changes() {
                true => self.schedule.write.min(self.schedule.next()),
                false => self.next_due(),
            };
            let wait = wake_at.saturating_duration_since(Instant::now());
            let postmaster_alive = if signals::shutdown_requested() {
                // The latch that its handler has set may have been reset by code that waited in a statement.
                true
            } else if wait.is_zero() {
                pgrx::check_for_interrupts!();
                true
            } else {
                // A little above the exact time, so as not to wake just before it.
                BackgroundWorker::wait_latch(Some(wait + Duration::from_millis(1)))
            };
            self.tenant.set_worker_asleep(false);
            if signals::shutdown_requested() {
                return self.terminate();
            }
            if !postmaster_alive {
                // Nothing may be written any more, as another server may be about to start.
                return WorkerStatus::Starting;
            }
        }
    }

    /// Writes what would be lost, after SIGTERM.
    fn terminate(&self) -> WorkerStatus {
        // DROP DATABASE WITH (FORCE) terminates the worker, and then waits for a few seconds only.
        if !locks::is_database_locked(self.database) {
            report_activity(Some(c"writing the last activity of sessions"));
            Flusher::final_flush(self.tenant);
        }
        WorkerStatus::Terminated
    }

    /// Does what is due. Returns the status to exit with, if there is a reason to exit.
    fn tick(&mut self) -> Option<WorkerStatus> {
        if BackgroundWorker::sighup_received() {
            self.reload();
        }
        let start = Instant::now();
        let is_due = |due: Option<Instant>| due.is_some_and(|due| start >= due);
        if start >= self.schedule.yield_check {
            self.schedule.before_yield_check(start);
            if self.slot.is_stop_requested() || self.database_watch.must_leave(self.database) {
                return Some(WorkerStatus::Yielded);
            }
        }
        if start >= self.schedule.sweep {
            self.sweep();
        }
        if self.is_reconciled && !self.knows_too_little() {
            let expired = self.declared.find_expired(self.tenant);
            self.changes.add(expired);
        }
        if start >= self.schedule.housekeeping {
            self.schedule.before_housekeeping(start);
            if let Some(status) = self.housekeeping() {
                return Some(status);
            }
        }
        if !self.is_reconciled
            && self.reconcile_pause.is_none_or(|pause| start >= pause.until)
            && let Some(status) = self.reconcile_state()
        {
            return Some(status);
        }
        if is_due(self.schedule.load) {
            self.load();
        }
        if self.declared.take_own_hiding() {
            self.hidden.own_hiding_seen();
        }
        self.hidden.follow_setting(self.tenant);
        self.hidden.read(self.tenant, &mut self.declared);
        if self.tenant.take_compare() | self.declared.catches_up(self.tenant) {
            self.schedule.compare_soon(start);
        }
        if is_due(self.schedule.compare) && !is_due(self.schedule.load) {
            match self.schedule.load.filter(|_| self.knows_too_little()) {
                Some(load) => self.schedule.compare = Some(load),
                None => self.compare(),
            }
        }
        if self.has_changes()
            && Instant::now() >= self.schedule.write
            && let Some(status) = self.write()
        {
            return Some(status);
        }
        if self.is_reconciled && self.notifier.due().is_some_and(|due| Instant::now() >= due) {
            report_activity(Some(c"notifying"));
            self.notifier.send(&self.state, self.tenant);
        }
        let changes_pending = self.has_changes() && Instant::now() >= self.schedule.write;
        if !changes_pending || Instant::now() >= self.schedule.background {
            self.step_in_background();
        }
        let waiting = self.changes.waiting(self.tenant)
            + self.flusher.waiting()
            + self.cleaner.waiting()
            + usize::from(self.reconcile_pause.is_some());
        self.tenant.worker().set_aside.set(waiting as u64);
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
            if self.cleaner.take_cleaned_declared() {
                self.declared.check_empty_soon();
            }
        }
        self.declared.check_empty(self.tenant);
        self.schedule.after_background(start);
    }

    /// Returns the next deadline, unless the worker is woken earlier.
    fn next_due(&self) -> Instant {
        let optional = match self.is_reconciled {
            true => [self.changes.due(self.tenant), self.notifier.due()],
            false => [self.reconcile_pause.map(|pause| pause.until), None],
        };
        optional.into_iter().flatten().fold(
            self.schedule.next().min(self.flusher.due()).min(self.cleaner.due()),
            Instant::min,
        )
    }

    fn has_changes(&self) -> bool {
        self.is_reconciled && self.changes.due(self.tenant).is_some_and(|due| Instant::now() >= due)
    }

    fn reload(&mut self) {
        signals::reload_configuration();
        let (timeout, idle_timeout) = (settings::active_timeout(), settings::idle_timeout());
        if (timeout, idle_timeout) != (self.timeout, self.idle_timeout) {
            (self.timeout, self.idle_timeout) = (timeout, idle_timeout);
            self.tenant.reschedule_all(timeout, &self.tenant.now());
        }
        self.hidden.setting_changed();
        self.flusher.reschedule();
        self.cleaner.reschedule();
    }

    fn sweep(&mut self) {
        let start = Instant::now();
        let now = self.tenant.synchronize_clock();
        self.follow_clock(&now);
        // Before this says that it runs again.
        let uptime = self.tenant.note_standstill();
        self.tenant.sweep(&now, self.timeout);
        self.tenant.tick_done(&now, uptime);
        let holds_back = self.changes.holds_back() || self.declared.is_behind();
        if self.is_reconciled && self.tenant.dirty_users() == 0 && !holds_back {
            self.tenant.set_written(now.steady);
        }
        self.schedule.after_sweep(start);
    }

    /// After the clock was set: sessions expire earlier or later, and the tables have times of another clock.
    fn follow_clock(&mut self, now: &Now) {
        let moved = self.tenant.clock_moved() - self.clock_moved;
        self.clock_moved += moved;
        if moved > 0 {
            self.tenant.reschedule_all(self.timeout, now);
        }
        if moved > roster::SMALL_STEP {
            self.tenant.reflush_all();
            self.cleaner.clean_sessions_now();
            // What has expired may be valid again.
            if self.tenant.may_have_hidden() {
                self.tenant.lose_visibility();
            }
            if self.tenant.may_have_declared() {
                self.schedule.compare_soon(Instant::now());
            }
        }
    }

    /// Checks that the extension and its feed state are the same as before, frees tombstones, and reports statistics.
    fn housekeeping(&mut self) -> Option<WorkerStatus> {
        if self.tables.must_check(self.install.state) || !self.is_reconciled {
            let expected = &self.state;
            match run_transaction(None, Durability::Flushed, None, |install| {
                let capture = (capture_state::read(&install), table::capture_state(&install));
                (install, (feed_state::matches(expected), capture))
            }) {
                Ok((install, _)) if install.sessions != self.install.sessions => {
                    return Some(WorkerStatus::Recreated);
                }
                Ok((install, (matches, (capture, declared)))) => {
                    self.install = install;
                    self.is_reconciled &= matches;
                    if self.loader.follow(self.tenant, capture) {
                        self.schedule.load = Some(Instant::now());
                    }
                    if self.declared.follow(self.tenant, declared) {
                        self.schedule.compare_soon(Instant::now());
                    }
                }
                Err(Aborted::Dropped) => return Some(not_installed(self.database)),
                Err(aborted) => {
                    trouble::report_aborted(self.tenant, Work::State, &aborted);
                    self.tables.check_again();
                }
            }
        }
        self.tenant.free_tombstones(TOMBSTONES_PER_ROUND);
        self.tenant.unmix_blocks(BLOCKS_PER_ROUND);
        loader::purge_dropped(self.database, self.install.sessions);
        // SAFETY: outside a transaction, as in autovacuum and other processes of the server.
        unsafe { pg_sys::pgstat_report_stat(false) };
        None
    }

    /// Reconciles the feed state, at the start and after somebody else has changed it, as a restore does. A new epoch
    /// means that `user_presence` may have been changed as well.
    fn reconcile_state(&mut self) -> Option<WorkerStatus> {
        match changes::reconcile_state(self.tenant) {
            Ok(state) => {
                if state.epoch != self.state.epoch {
                    self.notifier = Notifier::new(&state);
                    self.schedule.compare = Some(Instant::now());
                    // Before anything is written, so that the changes from now on are sent as changes.
                    self.notifier.send(&state, self.tenant);
                }
                self.tenant.worker().seq.set(state.seq as u64);
                self.state = state;
                self.is_reconciled = true;
                self.reconcile_pause = None;
                None
            }
            Err(Aborted::Dropped) => Some(WorkerStatus::Recreated),
            Err(aborted) => {
                trouble::report_aborted(self.tenant, Work::State, &aborted);
                let is_error = matches!(aborted, Aborted::Failed(_));
                let previous = self.reconcile_pause.filter(|_| is_error);
                self.reconcile_pause = Some(Pause::after(previous, MAX_TABLE_PAUSE));
                None
            }
        }
    }

    fn load(&mut self) {
        report_activity(Some(c"loading sessions"));
        let start = Instant::now();
        // Where nothing hides users, nobody has to look for it of all that are loaded.
        self.hidden.read(self.tenant, &mut self.declared);
        self.declared.check_empty(self.tenant);
        match self.loader.load(self.tenant, self.timeout) {
            Ok(Loaded::Complete) => self.schedule.after_complete_load(),
            Ok(Loaded::Incomplete) => self.schedule.load_later(start),
            // At once, after what is due before.
            Ok(Loaded::Continues) => {}
            Err(aborted @ Aborted::Failed(_)) => {
                trouble::report_aborted(self.tenant, Work::Load, &aborted);
                self.schedule.load_later(start);
            }
            Err(_) => self.schedule.retry_load(),
        }
        self.hidden.read_soon();
    }

    /// Whether only a load can tell who was heard from just before a crash, as the table lags behind: to compare users
    /// with it now would take them offline.
    fn knows_too_little(&self) -> bool {
        !self.tenant.is_complete()
            && !self.loader.has_read_table()
            && !self.tenant.in_overflow()
            && self.tenant.now().steady < self.tenant.grace_until()
    }

    /// Compares all users with the tables: at the start, after a TRUNCATE, and repeatedly in overflow.
    fn compare(&mut self) {
        report_activity(Some(c"comparing users with the tables"));
        let start = Instant::now();
        if self.tenant.in_overflow() {
            self.overflow.warn();
        }
        self.tenant.reap_truncated();
        let (tenant, reason) = (self.tenant, self.compare_reason);
        match run_transaction(Some(tenant), Durability::Flushed, None, |_| {
            compare::compare_all(tenant, reason)
        }) {
            Ok(comparison) => {
                self.declared.compared(&comparison);
                self.changes.add(comparison.updates);
                self.compare_reason = None;
                self.schedule.after_compare(start, self.tenant.is_complete());
            }
            Err(aborted @ Aborted::Failed(_)) => {
                trouble::report_aborted(tenant, Work::Compare, &aborted);
                self.schedule.compare_later();
            }
            Err(_) => self.schedule.retry_compare(start),
        }
    }

    fn write(&mut self) -> Option<WorkerStatus> {
        report_activity(Some(c"writing changes"));
        let (start, forgotten) = (Instant::now(), self.tenant.forgotten());
        match self.changes.write(self.tenant, &mut self.state, &mut self.declared) {
            Batch::Empty | Batch::Failed => {}
            Batch::Blocked => self.schedule.retry_write(),
            Batch::Written(changes) => {
                fault_point::reach("written");
                if !changes.is_empty() {
                    self.notifier.add(changes, forgotten);
                }
                let interval = Duration::from_micros(settings::notify_interval() as u64);
                self.schedule.after_write(start, interval);
            }
            Batch::StateChanged => {
                self.is_reconciled = false;
                return self.reconcile_state();
            }
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
fn wait_for_retry(slot: &WorkerSlot, database: pg_sys::Oid, watch: &mut DatabaseWatch) -> Result<(), WorkerStatus> {
    if slot.is_stop_requested() || watch.must_leave(database) {
        return Err(WorkerStatus::Yielded);
    }
    // It is no longer starting: other databases' workers may.
    slot.set_status(WorkerStatus::Serving);
    let postmaster_alive = BackgroundWorker::wait_latch(Some(SWEEP_INTERVAL));
    if signals::shutdown_requested() {
        return Err(WorkerStatus::Terminated);
    }
    postmaster_alive.then_some(()).ok_or(WorkerStatus::Starting)
}
