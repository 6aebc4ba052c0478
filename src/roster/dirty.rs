//! The queue of dirty users: those whose status may have changed.
//!
//! The queue is linked through the users' entries, so it cannot overflow. A user is in it at most once, and its status is
//! derived when it is taken out, so flips in between coalesce. Unless others need the room, it keeps its entry until the
//! worker has written it: readers look into memory first and into the tables then, so that they find its last activity in
//! one of them.

use uuid::Uuid;

use super::{
    atomic::{uuid_words, words_uuid},
    clock::Now,
    layout::{NONE, Roster, User},
    lock::{self, Index},
    state::UserFlag,
    sweep::BATCH,
    tenant::Tenant,
    user::Summary,
    writer::Writer,
};
use crate::{
    pg::clock,
    rules::{
        status::{Reason, Status},
        time::{Micros, SteadyTime},
    },
};

/// A user whose status may have changed, with the status as it is now.
#[derive(Clone, Copy, Debug)]
pub struct DirtyUser {
    pub user_id: Uuid,
    pub status: Status,
    pub last_seen: Option<Micros>,
    /// When somebody was last at one of its sessions, of a user who is idle.
    pub idle_since: Option<Micros>,
    pub reason: Reason,
    /// Has a key that cannot be derived from its id.
    pub keyed: bool,
    /// Whether it is hidden, or unresolved: nobody knows yet; see [`super::hidden`].
    pub is_hidden: bool,
    pub is_unresolved: bool,
    /// Whether a write of one of its sessions is still to be applied: one that is in the table already, or may never be.
    pub is_being_written: bool,
}

impl Writer {
    /// Queues a user for the worker, which is woken once the lock is released. Does nothing while sessions are loaded.
    pub fn mark_dirty(&self, user_at: u32, reason: Reason) {
        if !self.is_loading() {
            self.queue(user_at, reason);
        }
    }

    /// Queues a user, also while sessions are loaded.
    pub fn queue(&self, user_at: u32, reason: Reason) {
        let user = &self.roster.users[user_at as usize];
        let is_dirty = user.flags.has(UserFlag::Dirty);
        // Why the user has come or gone stays known until it is written: between two statuses that are online, these tell the
        // reason.
        let is_unwritten = is_dirty || user.flags.has(UserFlag::Taken);
        if !(is_unwritten && reason.is_while_online()) {
            user.reason.set(reason as u8);
        }
        if is_dirty {
            return;
        }
        user.flags.assign(UserFlag::Dirty, true);
        user.dirty_next.set(NONE);
        let tenant = user.tenant.get() as usize;
        let queue = &self.roster.tenants[tenant].dirty;
        let tail = queue.tail.get();
        if tail == NONE {
            queue.head.set(user_at);
        } else {
            self.roster.users[tail as usize].dirty_next.set(user_at);
        }
        queue.tail.set(user_at);
        queue.length.add(1);
        if queue.since.some().is_none() {
            queue.since.set(clock::steady());
        }
        self.wake_worker_of(tenant);
    }

    /// Takes some users out of the queues of tenants that have no worker to read them, for the entries that others need. The
    /// worker such a tenant gets compares all users with the tables.
    pub fn drop_users_without_worker(&self) {
        let ever = self.roster.header.free_lists.tenants_ever.get() as usize;
        let used = self.roster.user_blocks.used();
        for (index, tenant) in self.roster.tenants[..ever].iter().enumerate() {
            if tenant.worker.pid.get() == 0 && tenant.dirty.length.get() > 0 {
                tenant.compare.set(1);
                for _ in 0..BATCH {
                    self.drop_one_dirty(index);
                }
                if self.roster.user_blocks.used() < used {
                    return;
                }
            }
        }
    }

    /// Times out the sessions of a user that are due, if the user is idle by its counts, or `all`. Where the last session that
    /// was not idle has ended, the others may be due that the sweep has not reached: nobody has seen such a user idle. Where
    /// something else is declared, what shows may be what the sessions make of the user, which readers see by the clock.
    fn time_out_due(&self, user_at: u32, all: bool, timeout: Micros, now: &Now) {
        let user = &self.roster.users[user_at as usize];
        let mut at = user.first.get();
        while at != NONE && (all || user.counted_status() == Status::Idle) {
            let next = self.roster.slots[at as usize].user_next.get();
            self.time_out(at, timeout, now);
            at = next;
        }
    }

    /// Takes the first user out of the queue.
    fn unqueue(&self, tenant: usize) -> Option<u32> {
        let roster = self.roster;
        let queue = &roster.tenants[tenant].dirty;
        let at = queue.head.get();
        if at == NONE {
            return None;
        }
        let user = &roster.users[at as usize];
        let next = user.dirty_next.get();
        queue.head.set(next);
        if next == NONE {
            queue.tail.set(NONE);
        }
        queue.length.sub(1);
        user.flags.assign(UserFlag::Dirty, false);
        if user.flags.has(UserFlag::QueuedAbsent) {
            user.flags.assign(UserFlag::QueuedAbsent, false);
            queue.absent.sub(1);
        }
        Some(at)
    }

    /// Takes the first user out of the queue, whom nobody will write. Returns whether there was one.
    pub fn drop_one_dirty(&self, tenant: usize) -> bool {
        let dropped = self.unqueue(tenant);
        dropped.into_iter().for_each(|at| self.free_user_if_unused(at));
        dropped.is_some()
    }

    /// Takes the first user out of the queue, with its status at `now`, to be written.
    fn take_one_dirty(&self, tenant: usize, timeout: Micros, now: &Now) -> Option<DirtyUser> {
        let at = self.unqueue(tenant)?;
        let roster = self.roster;
        let user = &roster.users[at as usize];
        let dirty = roster.dirty(user, user.reason(), &roster.summarize(user, timeout, now), now);
        user.flags.assign(UserFlag::Taken, dirty.last_seen.is_some());
        self.free_user_if_unused(at);
        Some(dirty)
    }

    /// Notes that a user who was taken out of the queue is written.
    fn finish_taken(&self, tenant: usize, id: [u64; 2]) {
        let roster = self.roster;
        if let Some(at) = roster.find_user(tenant, roster.user_bucket(tenant, id), id) {
            roster.users[at as usize].flags.assign(UserFlag::Taken, false);
            self.free_user_if_unused(at);
        }
    }
}

impl User {
    /// Why its status may have changed last.
    fn reason(&self) -> Reason {
        Reason::from_repr(self.reason.get()).unwrap_or(Reason::Started)
    }
}

impl Roster {
    /// A user as the worker has to write it. The counts of states decide, not the clock: a beat on a session that is due,
    /// but not yet swept, keeps it live without queueing anybody.
    pub fn dirty(&self, user: &User, reason: Reason, summary: &Summary, now: &Now) -> DirtyUser {
        let status = user.counted_status();
        DirtyUser {
            user_id: words_uuid(user.id.get()),
            status,
            last_seen: summary.last_activity.map(|at| now.to_wall(at)),
            // There is none where a TRUNCATE has removed the sessions, and that is still to be counted.
            idle_since: (status == Status::Idle).then(|| now.to_wall(summary.active_at.unwrap_or(now.steady))),
            reason,
            keyed: user.flags.has(UserFlag::Keyed),
            is_hidden: user.is_left_out(),
            is_unresolved: !user.is_resolved(),
            is_being_written: user.pins.get() > 0,
        }
    }
}

impl Tenant {
    /// Takes up to `max` users out of the queue, each with its status now.
    pub fn take_dirty(&self, max: usize, timeout: Micros, now: &Now) -> Vec<DirtyUser> {
        let waiting = (self.entry().dirty.length.get() as usize).min(max);
        let mut dirty = Vec::with_capacity(waiting);
        while dirty.len() < waiting {
            let room = (waiting - dirty.len()).min(BATCH);
            let mut taken = 0;
            let writer = self.roster().write();
            // Within the capacity reserved above: nothing is allocated under the lock.
            while taken < room {
                let first = self.entry().dirty.head.get();
                if first == NONE {
                    break;
                }
                let all = self.roster().users[first as usize].reason().is_while_online();
                writer.time_out_due(first, all, timeout, now);
                dirty.extend(writer.take_one_dirty(self.index(), timeout, now));
                taken += 1;
            }
            writer.give_way();
            if taken < room {
                break;
            }
        }
        dirty
    }

    /// Why the status of a user may have changed last, if that is yet to be written.
    pub fn unwritten_reason(&self, user_id: &Uuid) -> Option<Reason> {
        let (roster, words) = (self.roster(), uuid_words(user_id));
        let bucket = roster.user_bucket(self.index(), words);
        let _held = lock::shared(Index::User, bucket);
        let user = &roster.users[roster.find_user(self.index(), bucket, words)? as usize];
        user.flags
            .has_any([UserFlag::Dirty, UserFlag::Taken])
            .then(|| user.reason())
    }

    /// Notes that users who were taken out of the queue are written, or that there is nothing to write of them.
    pub fn finish_taken<'a>(&self, users: impl Iterator<Item = &'a Uuid>) {
        let mut users = users.peekable();
        while users.peek().is_some() {
            let writer = self.roster().write();
            let some = users.by_ref().take(BATCH);
            some.for_each(|id| writer.finish_taken(self.index(), uuid_words(id)));
            writer.give_way();
        }
    }

    /// Queues again whom a worker before has taken, and has not written.
    pub fn requeue_taken(&self) {
        let roster = self.roster();
        for word in roster.user_blocks.words_of(self.index()) {
            let writer = roster.write();
            for at in roster.user_blocks.entries_in(word) {
                let user = &roster.users[at as usize];
                if user.tenant.get() as usize == self.index() && user.flags.has(UserFlag::Taken) {
                    user.flags.assign(UserFlag::Taken, false);
                    writer.queue(at, user.reason());
                }
            }
            writer.give_way_without_waking();
        }
    }

    /// Makes the counts of a user what the sweep would make of them: what shows besides is of `now`, too. Returns the reason if
    /// that has taken the user offline.
    pub fn time_out_due(&self, user_id: &Uuid, timeout: Micros, now: &Now) -> Option<Reason> {
        let roster = self.roster();
        let words = uuid_words(user_id);
        let writer = roster.write();
        let at = roster.find_user(self.index(), roster.user_bucket(self.index(), words), words)?;
        let user = &roster.users[at as usize];
        let was_online = user.counted_status().is_online();
        writer.time_out_due(at, true, timeout, now);
        let has_gone = was_online && !user.counted_status().is_online();
        has_gone.then(|| user.reason())
    }

    /// Notes that every change that was queued before `at` is written.
    pub fn set_written(&self, at: SteadyTime) {
        let queue = &self.entry().dirty;
        queue.since.clear();
        // What was queued meanwhile found a time, and did not set its own.
        if queue.length.get() > 0 {
            queue.since.set(at);
        }
    }

    /// Returns since when the oldest change has waited to be written, if there is one.
    pub fn oldest_unwritten(&self) -> Option<SteadyTime> {
        self.entry().dirty.since.some()
    }

    /// How many users wait for the worker.
    pub fn dirty_users(&self) -> u32 {
        self.entry().dirty.length.get()
    }
}
