//! The launcher's state of one database, and its transitions.

use std::time::{Duration, Instant};

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys, pg_sys::panic::ErrorReport};

use super::{
    handle::WorkerHandle,
    locks::DatabaseWatch,
    slots::{WorkerSlot, WorkerStatus},
};

/// A worker that has served for this long resets the count of failures.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Back-off after a worker was terminated, which is no failure.
const TERMINATED_BACKOFF: Duration = Duration::from_millis(200);
/// The time between two checks whether one transaction keeps the database locked.
const LOCK_CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// Back-off after yielding to DROP, RENAME or TEMPLATE.
const YIELD_BACKOFF: Duration = Duration::from_secs(1);
/// Back-off after another worker was found, which may still be writing.
const ALREADY_RUNNING_BACKOFF: Duration = Duration::from_millis(500);
/// Retry delay when no worker slot is free. The start is retried earlier if a worker exits.
const NO_SLOT_RETRY_AFTER: Duration = Duration::from_secs(5);
/// Back-off after a first failure, and its maximum.
const FAILURE_BACKOFF: Duration = Duration::from_millis(100);
const MAX_FAILURE_BACKOFF: Duration = Duration::from_secs(30);
/// Back-off after a first refusal that is followed by a request, and its maximum.
const REFUSAL_BACKOFF: Duration = Duration::from_millis(100);
const MAX_REFUSAL_BACKOFF: Duration = Duration::from_secs(5);

/// See the diagram in [`super`].
enum State {
    Untried,
    Starting(WorkerHandle),
    Serving(WorkerHandle, Instant),
    Refused(Instant),
    NoSlot(Instant),
    Backoff(Instant),
}

/// One database.
pub struct Database {
    oid: u32,
    state: State,
    /// Workers in a row that died before they had served for long.
    failures: u32,
    /// Refusals in a row.
    refusals: u32,
    /// Whether a worker was requested since the last one was started.
    requested: bool,
    watch: DatabaseWatch,
    /// Whether it may have a worker: it exists, is no template and allows connections.
    pub open: bool,
    /// Its name, for the log.
    pub name: String,
}

impl Database {
    /// Returns a database for which no worker has been started yet.
    pub fn new(oid: u32) -> Database {
        Database {
            oid,
            state: State::Untried,
            failures: 0,
            refusals: 0,
            requested: false,
            watch: DatabaseWatch::default(),
            open: true,
            name: String::new(),
        }
    }

    /// Returns a database whose worker was started by an earlier launcher.
    pub fn adopt(oid: u32, slot: &'static WorkerSlot) -> Database {
        Database {
            state: State::Starting(WorkerHandle::adopt(slot)),
            ..Database::new(oid)
        }
    }

    /// Requests a worker, for a call that found none.
    pub fn request_worker(&mut self) {
        self.requested = true;
    }

    /// Whether a worker was started that does not serve yet.
    pub fn is_starting(&self) -> bool {
        matches!(self.state, State::Starting(_))
    }

    /// Whether there is a worker, or a slot of one that has exited.
    pub fn has_worker(&self) -> bool {
        matches!(self.state, State::Starting(_) | State::Serving(..))
    }

    /// Returns when the back-off or the retry delay ends, if that is after `now`. What is due already waits for a
    /// worker to set its status, which wakes the launcher.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Backoff(until) => Some(until),
            State::NoSlot(retry) => Some(retry),
            _ => None,
        }
        .filter(|&due| due > now)
    }

    /// Checks on the worker, if there is one. Returns whether it has exited.
    pub fn check_worker(&mut self, now: Instant) -> bool {
        let (State::Starting(worker) | State::Serving(worker, _)) = &self.state else {
            return false;
        };
        if !worker.is_alive() {
            self.worker_exited(now);
            return true;
        }
        if !self.open {
            worker.slot().request_stop();
        }
        if worker.slot().status() == WorkerStatus::Serving && self.is_starting() {
            self.state = match std::mem::replace(&mut self.state, State::Untried) {
                State::Starting(worker) => State::Serving(worker, now),
                other => other,
            };
            self.refusals = 0;
            self.requested = false;
        }
        false
    }

    /// Whether to start a worker now. `slot_freed`: whether a worker has exited since the last check.
    pub fn wants_worker(&mut self, now: Instant, slot_freed: bool) -> bool {
        if let State::Refused(at) = self.state
            && self.requested
        {
            let backoff = doubled(REFUSAL_BACKOFF, self.refusals, MAX_REFUSAL_BACKOFF);
            self.state = State::Backoff(at + backoff);
        }
        self.open
            && match self.state {
                State::Untried => true,
                State::Backoff(until) => now >= until,
                State::NoSlot(retry) => now >= retry || slot_freed,
                State::Refused(_) | State::Starting(_) | State::Serving(..) => false,
            }
    }

    /// Starts a worker, if a slot is free.
    pub fn start_worker(&mut self, now: Instant) {
        // A DROP, RENAME or copy of the database is in progress: a worker would wait for it, perhaps to find it gone.
        // Whoever tries these again and again without being allowed to keeps no worker away.
        let must_wait = self.watch.must_leave(pg_sys::Oid::from(self.oid));
        if self.watch.may_have_to_leave() {
            let backoff = if must_wait { YIELD_BACKOFF } else { LOCK_CHECK_INTERVAL };
            self.state = State::Backoff(now + backoff);
            return;
        }
        self.requested = false;
        let had_no_slot = matches!(self.state, State::NoSlot(_));
        self.state = match WorkerHandle::start(self.oid) {
            Some(worker) => State::Starting(worker),
            None => {
                if !had_no_slot {
                    self.log_no_slot();
                }
                State::NoSlot(now + NO_SLOT_RETRY_AFTER)
            }
        };
    }

    fn log_no_slot(&self) {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!("out of background worker slots for database \"{}\"", self.name),
            pgrx::function_name!(),
        )
        .set_detail("Without its worker, presence in this database goes on without notifications and cleanup.")
        .set_hint("You might need to increase max_worker_processes.")
        .report(PgLogLevel::LOG);
    }

    /// Chooses the next state by the status that an exited worker set last.
    fn worker_exited(&mut self, now: Instant) {
        let (worker, served) = match std::mem::replace(&mut self.state, State::Untried) {
            State::Starting(worker) => (worker, Duration::ZERO),
            State::Serving(worker, since) => (worker, now - since),
            other => {
                self.state = other;
                return;
            }
        };
        let status = worker.slot().status();
        worker.close();
        self.state = match status {
            WorkerStatus::NotInstalled => {
                self.refusals += 1;
                State::Refused(now)
            }
            WorkerStatus::Yielded => State::Backoff(now + YIELD_BACKOFF),
            WorkerStatus::AlreadyRunning => State::Backoff(now + ALREADY_RUNNING_BACKOFF),
            WorkerStatus::Recreated => State::Untried,
            WorkerStatus::Terminated => State::Backoff(now + TERMINATED_BACKOFF),
            WorkerStatus::Starting | WorkerStatus::Serving => {
                self.failures = if served >= STABLE_AFTER { 0 } else { self.failures };
                let backoff = doubled(FAILURE_BACKOFF, self.failures, MAX_FAILURE_BACKOFF);
                self.failures += 1;
                State::Backoff(now + backoff)
            }
        };
    }
}

/// Returns `first`, doubled `times` times, but at most `max`.
fn doubled(first: Duration, times: u32, max: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(max)
}
