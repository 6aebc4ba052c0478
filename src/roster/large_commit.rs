//! Large commits: those that are applied in parts, with the writers' lock free for others in between. So are those that end some
//! sessions and bind others, or hide users.
//!
//! A user who ends one session and starts another in such a commit is offline between two parts. Nobody is to be told
//! of that, so the worker writes no changes meanwhile: each commit is announced, and the worker is woken at its end.

use super::tenant::Tenant;
use crate::{
    pg::clock,
    rules::time::{Micros, SteadyTime, USECS_PER_SEC},
};

/// For how long the worker waits at most, as there may be one large commit after another.
const PATIENCE: Micros = 5 * USECS_PER_SEC;

/// How many large commits have begun, at a time at which all of them had ended; or that the worker waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled(Option<u32>);

impl Tenant {
    /// Announces a commit that is about to be applied in parts; to be followed by [`Tenant::end_large_commit`]. Cannot
    /// fail.
    pub fn begin_large_commit(&self) {
        let _writer = self.roster().write();
        let queue = &self.entry().dirty;
        if queue.large_commits.add(1) == 0 {
            queue.large_commits_since.set(clock::steady());
        }
        queue.large_commits_begun.add(1);
    }

    /// Ends what [`Tenant::begin_large_commit`] began. Cannot fail.
    pub fn end_large_commit(&self) {
        let writer = self.roster().write();
        self.entry().dirty.large_commits.sub(1);
        writer.wake_worker_of(self.index());
    }

    /// `None` while a large commit is applied. What was read between two calls that returned the same is not from the
    /// midst of one.
    pub fn settled(&self, now: SteadyTime) -> Option<Settled> {
        let queue = &self.entry().dirty;
        if queue.large_commits.get() == 0 {
            return Some(Settled(Some(queue.large_commits_begun.get())));
        }
        let waited = now.since(queue.large_commits_since.get());
        (waited >= PATIENCE).then_some(Settled(None))
    }
}
