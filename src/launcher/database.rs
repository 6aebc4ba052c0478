//! What the launcher knows of one database, and what it does about it.

use std::time::{Duration, Instant};

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys, pg_sys::panic::ErrorReport};

use super::{
    handle::WorkerHandle,
    locks,
    slots::{WorkerSlot, WorkerStatus},
};

/// A worker that has served for this long had no trouble starting.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Backoff after yielding to DROP, RENAME or TEMPLATE.
const YIELD_BACKOFF: Duration = Duration::from_secs(1);
/// Backoff where another worker was found, which may still be writing.
const ALREADY_RUNNING_BACKOFF: Duration = Duration::from_millis(500);
/// How soon a start is tried again when there was no free worker slot, unless a worker ends before.
const NO_SLOT_RETRY: Duration = Duration::from_secs(5);
/// The backoff after a first failure, and the longest one.
const FAILURE_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_FAILURE_BACKOFF: Duration = Duration::from_secs(30);
/// The backoff after a first refusal that was followed by a request, and the longest one.
const REFUSAL_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_REFUSAL_BACKOFF: Duration = Duration::from_secs(5);

/// See the drawing in [`super`].
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
    /// Workers in a row that died without having served for long.
    failures: u32,
    /// Refusals in a row.
    refusals: u32,
    /// A worker was asked for since the last one was started.
    requested: bool,
    /// It may have a worker: it exists, is no template and allows connections.
    pub open: bool,
    /// Its name, for the log.
    pub name: String,
}

impl Database {
    /// A database of which nothing is known.
    pub fn new(oid: u32) -> Database {
        Database {
            oid,
            state: State::Untried,
            failures: 0,
            refusals: 0,
            requested: false,
            open: true,
            name: String::new(),
        }
    }

    /// A database whose worker was started by another launcher.
    pub fn adopt(oid: u32, slot: &'static WorkerSlot) -> Database {
        Database {
            state: State::Starting(WorkerHandle::adopt(slot)),
            ..Database::new(oid)
        }
    }

    /// Notes that a call found no worker here.
    pub fn request_worker(&mut self) {
        self.requested = true;
    }

    /// Whether a worker was started that does not serve yet.
    pub fn is_starting(&self) -> bool {
        matches!(self.state, State::Starting(_))
    }

    /// Whether there is a worker, or what may be left of one.
    pub fn has_worker(&self) -> bool {
        matches!(self.state, State::Starting(_) | State::Serving(..))
    }

    /// When something falls due here after `now`. What was due before waits for a worker's status, which wakes the
    /// launcher.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Backoff(until) => Some(until),
            State::NoSlot(retry) => Some(retry),
            _ => None,
        }
        .filter(|&due| due > now)
    }

    /// Checks the worker, where there is one. Returns whether it has ended.
    pub fn check_worker(&mut self, now: Instant) -> bool {
        let (State::Starting(worker) | State::Serving(worker, _)) = &self.state else {
            return false;
        };
        if !worker.is_alive() {
            self.worker_ended(now);
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

    /// Whether a worker is to be started now. `slot_freed`: a worker has ended since the last check.
    pub fn wants_worker(&mut self, now: Instant, slot_freed: bool) -> bool {
        if let State::Refused(at) = self.state
            && self.requested
        {
            let backoff = doubled(REFUSAL_BACKOFF, self.refusals, LONGEST_REFUSAL_BACKOFF);
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
        // Whoever drops, renames or copies the database is not done: a worker would wait for that, and perhaps in vain.
        if locks::is_database_locked(pg_sys::Oid::from(self.oid)) {
            self.state = State::Backoff(now + YIELD_BACKOFF);
            return;
        }
        self.requested = false;
        let had_no_slot = matches!(self.state, State::NoSlot(_));
        self.state = match WorkerHandle::start(self.oid) {
            Some(worker) => State::Starting(worker),
            None => {
                if !had_no_slot {
                    self.log_that_no_slot_is_free();
                }
                State::NoSlot(now + NO_SLOT_RETRY)
            }
        };
    }

    fn log_that_no_slot_is_free(&self) {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!("out of background worker slots for database \"{}\"", self.name),
            pgrx::function_name!(),
        )
        .set_detail("Without its worker, presence in this database goes on without notifications and cleanup.")
        .set_hint("You might need to increase max_worker_processes.")
        .report(PgLogLevel::LOG);
    }

    /// Chooses the next state by the last status of a worker that has ended.
    fn worker_ended(&mut self, now: Instant) {
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
            WorkerStatus::Starting | WorkerStatus::Serving => {
                self.failures = if served >= STABLE_AFTER { 0 } else { self.failures };
                let backoff = doubled(FAILURE_BACKOFF, self.failures, LONGEST_FAILURE_BACKOFF);
                self.failures += 1;
                State::Backoff(now + backoff)
            }
        };
    }
}

/// `first`, doubled `times` times, but at most `longest`.
fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}
