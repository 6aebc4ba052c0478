//! Users: their index, their lists of sessions, and the queue of those whose status may have changed.
//!
//! The queue runs through the users themselves, so it cannot overflow. A user is in it at most once; whoever takes
//! it out derives the status then, so flips in between coalesce.

use uuid::Uuid;

use super::{
    Full,
    cell::{uuid_words, words_uuid},
    layout::{NONE, Roster, User},
    lock::{self, Index},
    state::{DIRTY, EMPTY, KEYED, is_live},
    write::Writer,
};
use crate::core::{status::Reason, time::Micros};

/// A user whose status may have changed, with the status as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Dirty {
    pub user_id: Uuid,
    pub active: bool,
    pub last_seen: Option<Micros>,
    pub reason: Reason,
    /// Has a key that its id does not tell.
    pub keyed: bool,
}

impl Roster {
    /// The entry of a user. The caller holds the bucket's user partition or the writers' lock.
    #[inline]
    pub fn find_user(&self, space: usize, bucket: usize, id: [u64; 2]) -> Option<u32> {
        let mut at = self.by_user[bucket].get();
        while at != NONE {
            let user = &self.users[at as usize];
            if user.id.words() == id && user.space.get() as usize == space {
                return Some(at);
            }
            at = user.hash_next.get();
        }
        None
    }

    /// Live sessions and last activity of a user, from its sessions. The caller holds the user's partition or the
    /// writers' lock.
    pub fn derive(&self, user: &User, timeout: Micros, now: Micros) -> (u32, Option<Micros>) {
        let space = &self.spaces[user.space.get() as usize];
        let mut live = 0;
        let mut last = user.last_seen.get();
        let mut at = user.first.get();
        while at != NONE {
            let slot = &self.slots[at as usize];
            if slot.state.get() != EMPTY && self.stands(slot) {
                last = last.max(slot.last_activity.get());
                live += u32::from(is_live(slot, space, timeout, now));
            }
            at = slot.user_next.get();
        }
        (live, (last != i64::MIN).then_some(last))
    }

    /// Whether one session at least is live; the caller holds what [`Roster::derive`] asks for.
    #[inline]
    pub fn any_live(&self, user: &User, timeout: Micros, now: Micros) -> bool {
        if user.live.get() == 0 {
            return false;
        }
        let space = &self.spaces[user.space.get() as usize];
        let mut at = user.first.get();
        while at != NONE {
            let slot = &self.slots[at as usize];
            if is_live(slot, space, timeout, now) {
                return true;
            }
            at = slot.user_next.get();
        }
        false
    }
}

impl Writer {
    /// The entry of a user, made where there is none, and pinned.
    pub fn pin_user(&self, space: usize, id: &Uuid, keyed: bool) -> Result<u32, Full> {
        let roster = self.roster;
        let words = uuid_words(id);
        let bucket = roster.user_bucket(space, words);
        let at = match roster.find_user(space, bucket, words) {
            Some(at) => at,
            None => self.add_user(space, words, bucket)?,
        };
        let user = &roster.users[at as usize];
        user.pins.add(1);
        user.flags.assign(KEYED, keyed || user.flags.has(KEYED));
        Ok(at)
    }

    /// Lets go of a user; it leaves the roster if nothing else needs it.
    pub fn unpin_user(&self, at: u32) {
        self.roster.users[at as usize].pins.sub(1);
        self.drop_user_if_unused(at);
    }

    fn add_user(&self, space: usize, id: [u64; 2], bucket: usize) -> Result<u32, Full> {
        let roster = self.roster;
        let heap = &roster.header.heap;
        let free = heap.free_user.get();
        let ever = heap.users_ever.get();
        let at = if free != NONE {
            heap.free_user
                .set(roster.users[free as usize].hash_next.get());
            free
        } else if (ever as usize) < roster.users.len() {
            heap.users_ever.set(ever + 1);
            ever
        } else {
            return Err(Full);
        };
        heap.users_used.add(1);
        roster.spaces[space].counts.users.add(1);
        let user = &roster.users[at as usize];
        let _held = lock::exclusive(Index::User, bucket);
        user.id.set(id);
        user.last_seen.set(i64::MIN);
        user.first.set(NONE);
        user.dirty_next.set(NONE);
        user.sessions.set(0);
        user.live.set(0);
        user.pins.set(0);
        user.space.set(space as u16);
        user.flags.set(0);
        user.reason.set(0);
        user.hash_next.set(roster.by_user[bucket].get());
        roster.by_user[bucket].set(at);
        Ok(at)
    }

    fn drop_user_if_unused(&self, at: u32) {
        let roster = self.roster;
        let user = &roster.users[at as usize];
        if user.sessions.get() > 0 || user.pins.get() > 0 || user.flags.has(DIRTY) {
            return;
        }
        let space = user.space.get() as usize;
        let bucket = roster.user_bucket(space, user.id.words());
        {
            let _held = lock::exclusive(Index::User, bucket);
            let mut link = &roster.by_user[bucket];
            while link.get() != at {
                link = &roster.users[link.get() as usize].hash_next;
            }
            link.set(user.hash_next.get());
            // A scan over all users takes an entry by its space: this one is nobody's.
            user.space.set(u16::MAX);
        }
        let heap = &roster.header.heap;
        user.hash_next.set(heap.free_user.get());
        heap.free_user.set(at);
        heap.users_used.sub(1);
        roster.spaces[space].counts.users.sub(1);
    }

    /// Puts a session first in its user's list: the one to ask first.
    pub fn link_user(&self, at: u32, user_at: u32) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        let user = &roster.users[user_at as usize];
        let bucket = roster.user_bucket(slot.space.get() as usize, user.id.words());
        let _held = lock::exclusive(Index::User, bucket);
        let first = user.first.get();
        slot.user.set(user_at);
        slot.user_prev.set(NONE);
        slot.user_next.set(first);
        if first != NONE {
            roster.slots[first as usize].user_prev.set(at);
        }
        user.first.set(at);
        user.sessions.add(1);
    }

    /// Takes a session out of its user's list; the user keeps its last activity.
    pub fn unlink_user(&self, at: u32) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        let user_at = slot.user.get();
        let user = &roster.users[user_at as usize];
        let bucket = roster.user_bucket(slot.space.get() as usize, user.id.words());
        {
            let _held = lock::exclusive(Index::User, bucket);
            let (prev, next) = (slot.user_prev.get(), slot.user_next.get());
            if prev == NONE {
                user.first.set(next);
            } else {
                roster.slots[prev as usize].user_next.set(next);
            }
            if next != NONE {
                roster.slots[next as usize].user_prev.set(prev);
            }
            user.sessions.sub(1);
            user.last_seen.raise(slot.last_activity.get());
        }
        self.drop_user_if_unused(user_at);
    }

    /// A session of the user became live.
    pub fn one_more_live(&self, user_at: u32, reason: Reason) {
        let user = &self.roster.users[user_at as usize];
        let counts = &self.roster.spaces[user.space.get() as usize].counts;
        counts.live.add(1);
        if user.live.add(1) == 0 {
            counts.users_live.add(1);
            self.queue(user_at, reason);
        }
    }

    /// A session of the user is live no more.
    pub fn one_less_live(&self, user_at: u32, reason: Reason) {
        let user = &self.roster.users[user_at as usize];
        let counts = &self.roster.spaces[user.space.get() as usize].counts;
        counts.live.sub(1);
        if user.live.sub(1) == 1 {
            counts.users_live.sub(1);
            self.queue(user_at, reason);
        }
    }

    fn queue(&self, user_at: u32, reason: Reason) {
        if !self.quiet {
            self.mark_dirty(user_at, reason);
        }
    }

    /// Queues a user for the worker to look at.
    pub fn mark_dirty(&self, user_at: u32, reason: Reason) {
        let user = &self.roster.users[user_at as usize];
        user.reason.set(reason as u8);
        if user.flags.has(DIRTY) {
            return;
        }
        user.flags.assign(DIRTY, true);
        user.dirty_next.set(NONE);
        let space = user.space.get() as usize;
        let queue = &self.roster.spaces[space].dirty;
        let tail = queue.tail.get();
        if tail == NONE {
            queue.head.set(user_at);
        } else {
            self.roster.users[tail as usize].dirty_next.set(user_at);
        }
        queue.tail.set(user_at);
        queue.length.add(1);
        self.has_news(space);
    }

    /// Takes the first user out of the queue, with its status at `now`.
    pub fn take_one_dirty(&self, space: usize, timeout: Micros, now: Micros) -> Option<Dirty> {
        let roster = self.roster;
        let queue = &roster.spaces[space].dirty;
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
        user.flags.assign(DIRTY, false);
        // The count of live states decides, not the clock: a beat on a session that is due, but not yet swept, keeps
        // it live without telling anybody.
        let (_, last_seen) = roster.derive(user, timeout, now);
        let dirty = Dirty {
            user_id: words_uuid(user.id.words()),
            active: user.live.get() > 0,
            last_seen,
            reason: Reason::from_repr(user.reason.get()).unwrap_or(Reason::Started),
            keyed: user.flags.has(KEYED),
        };
        self.drop_user_if_unused(at);
        Some(dirty)
    }
}
