//! What the launcher knows of one database, and what it does about it.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::{
    board::{Board, Report},
    lock,
    post::Post,
};

/// A worker that served for so long had no trouble starting.
const SETTLED: Duration = Duration::from_secs(10);
/// How long a database rests that somebody wants for themselves.
const AFTER_YIELD: Duration = Duration::from_secs(1);
/// How long a database rests where another worker was found; the one before may still be writing.
const AFTER_TAKEN: Duration = Duration::from_millis(500);
/// How soon a free worker slot is looked for again, unless a worker ends before.
const NO_SLOT: Duration = Duration::from_secs(5);
/// The rest after a first failure, and the longest one.
const REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// The rest after a first refusal that was followed by a poke, and the longest one.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const LONGEST_LOOK_AGAIN: Duration = Duration::from_secs(5);

/// See the drawing in [`super`].
enum State {
    Untried,
    Started(Post),
    Serving(Post, Instant),
    Refused(Instant),
    NoSlot(Instant),
    Resting(Instant),
}

/// One database.
pub struct Database {
    oid: u32,
    state: State,
    /// Workers in a row that died without having served for long.
    failures: u32,
    /// Refusals in a row.
    refusals: u32,
    /// Somebody asked for a worker since the last one was started.
    asked: bool,
    /// It may have a worker: it exists, is no template and allows connections.
    pub open: bool,
}

impl Database {
    /// A database nothing is known of.
    pub fn new(oid: u32) -> Database {
        Database {
            oid,
            state: State::Untried,
            failures: 0,
            refusals: 0,
            asked: false,
            open: true,
        }
    }

    /// A database whose worker was started by another launcher.
    pub fn adopt(oid: u32, desk: usize) -> Database {
        Database {
            state: State::Started(Post::found(desk)),
            ..Database::new(oid)
        }
    }

    /// Notes that somebody missed a worker here.
    pub fn poke(&mut self) {
        self.asked = true;
    }

    /// Whether a worker was started that has not said yet whether it serves.
    pub fn is_on_trial(&self) -> bool {
        matches!(self.state, State::Started(_))
    }

    /// Whether there is a worker, or what may be left of one.
    pub fn has_worker(&self) -> bool {
        matches!(self.state, State::Started(_) | State::Serving(..))
    }

    /// When something falls due here after `now`. What was due already waits for a word from a worker, which wakes
    /// the launcher.
    pub fn next_look(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Resting(until) => Some(until),
            State::NoSlot(retry) => Some(retry),
            _ => None,
        }
        .filter(|&due| due > now)
    }

    /// Looks after the worker, where there is one. Tells whether it has ended.
    pub fn watch(&mut self, board: &'static Board, now: Instant) -> bool {
        let (State::Started(post) | State::Serving(post, _)) = &self.state else {
            return false;
        };
        if !post.is_alive(board) {
            self.concluded(board, now);
            return true;
        }
        let desk = &board.desks[post.desk];
        if !self.open {
            desk.dismiss();
        }
        if desk.report() == Report::Serving && self.is_on_trial() {
            self.state = match std::mem::replace(&mut self.state, State::Untried) {
                State::Started(post) => State::Serving(post, now),
                other => other,
            };
            self.refusals = 0;
            self.asked = false;
        }
        false
    }

    /// Whether a worker is to be started now. `slot_freed`: a worker ended since the last look.
    pub fn wants_worker(&mut self, now: Instant, slot_freed: bool) -> bool {
        if let State::Refused(at) = self.state
            && self.asked
        {
            let rest = doubled(LOOK_AGAIN, self.refusals, LONGEST_LOOK_AGAIN);
            self.state = State::Resting(at + rest);
        }
        self.open
            && match self.state {
                State::Untried => true,
                State::Resting(until) => now >= until,
                State::NoSlot(retry) => now >= retry || slot_freed,
                State::Refused(_) | State::Started(_) | State::Serving(..) => false,
            }
    }

    /// Starts a worker, if a slot is free.
    pub fn start(&mut self, board: &'static Board, now: Instant) {
        // Whoever drops, renames or copies it is not done: a worker would wait for that, and perhaps find nothing.
        if lock::database_is_wanted(pg_sys::Oid::from(self.oid)) {
            self.state = State::Resting(now + AFTER_YIELD);
            return;
        }
        self.asked = false;
        let was_without = matches!(self.state, State::NoSlot(_));
        self.state = match Post::open(board, self.oid) {
            Some(post) => State::Started(post),
            None => {
                if !was_without {
                    pgrx::log!(
                        "pg_presence: no worker slot is free for database {}; presence there goes on without events \
                         (hint: raise max_worker_processes)",
                        self.oid
                    );
                }
                State::NoSlot(now + NO_SLOT)
            }
        };
    }

    /// The worker is gone: what next, by its last word.
    fn concluded(&mut self, board: &'static Board, now: Instant) {
        let (post, served) = match std::mem::replace(&mut self.state, State::Untried) {
            State::Started(post) => (post, Duration::ZERO),
            State::Serving(post, since) => (post, now - since),
            other => {
                self.state = other;
                return;
            }
        };
        let report = board.desks[post.desk].report();
        post.close(board);
        self.state = match report {
            Report::Absent => {
                self.refusals += 1;
                State::Refused(now)
            }
            Report::Yielded => State::Resting(now + AFTER_YIELD),
            Report::Taken => State::Resting(now + AFTER_TAKEN),
            Report::Anew => State::Untried,
            Report::Silent | Report::Serving => {
                self.failures = if served >= SETTLED { 0 } else { self.failures };
                let rest = doubled(REST, self.failures, LONGEST_REST);
                self.failures += 1;
                State::Resting(now + rest)
            }
        };
    }
}

/// `first`, doubled `times` times, but at most `longest`.
fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}
