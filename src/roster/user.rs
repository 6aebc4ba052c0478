//! Users: their entries, their lists of sessions, and their counts of live ones.

use uuid::Uuid;

use super::{
    atomic::uuid_words,
    deadline::is_live,
    free_list::Full,
    layout::{NONE, Roster, User},
    lock::{self, Index},
    state::{SessionFlag, SessionState, UserFlag},
    writer::Writer,
};
use crate::rules::{status::Reason, time::Micros};

impl Roster {
    /// How many live sessions a user has, and its last activity, from its sessions. The caller holds the user's
    /// partition or the writers' lock.
    pub fn summarize(&self, user: &User, timeout: Micros, now: Micros) -> (u32, Option<Micros>) {
        let tenant = &self.tenants[user.tenant.get() as usize];
        let mut live = 0;
        let mut last = user.last_seen.get();
        let mut at = user.first.get();
        while at != NONE {
            let slot = &self.slots[at as usize];
            if slot.state.get() != SessionState::Empty && self.survives_truncate(slot) {
                last = last.max(slot.last_activity.get());
                live += u32::from(is_live(slot, tenant, timeout, now));
            }
            at = slot.user_next.get();
        }
        (live, (last != i64::MIN).then_some(last))
    }

    /// Whether a user has a live session. The caller holds the same lock as for [`Roster::summarize`].
    #[inline]
    pub fn any_live(&self, user: &User, timeout: Micros, now: Micros) -> bool {
        if user.live.get() == 0 {
            return false;
        }
        let tenant = &self.tenants[user.tenant.get() as usize];
        let mut at = user.first.get();
        while at != NONE {
            let slot = &self.slots[at as usize];
            if is_live(slot, tenant, timeout, now) {
                return true;
            }
            at = slot.user_next.get();
        }
        false
    }
}

impl Writer {
    /// Pins the entry of a user, which is added where there is none.
    pub fn pin_user(&self, tenant: usize, id: &Uuid, keyed: bool) -> Result<u32, Full> {
        let roster = self.roster;
        let words = uuid_words(id);
        let bucket = roster.user_bucket(tenant, words);
        let at = match roster.find_user(tenant, bucket, words) {
            Some(at) => at,
            None => self.add_user(tenant, words, bucket)?,
        };
        let user = &roster.users[at as usize];
        user.pins.add(1);
        user.flags
            .assign(UserFlag::Keyed, keyed || user.flags.has(UserFlag::Keyed));
        Ok(at)
    }

    /// Unpins a user; it leaves the roster if nothing else needs it.
    pub fn unpin_user(&self, at: u32) {
        self.roster.users[at as usize].pins.sub(1);
        self.free_user_if_unused(at);
    }

    fn add_user(&self, tenant: usize, id: [u64; 2], bucket: usize) -> Result<u32, Full> {
        let at = self.allocate_user()?;
        let roster = self.roster;
        roster.tenants[tenant].counts.users.add(1);
        let user = &roster.users[at as usize];
        let _held = lock::exclusive(Index::User, bucket);
        user.id.set(id);
        user.last_seen.set(i64::MIN);
        user.first.set(NONE);
        user.dirty_next.set(NONE);
        user.sessions.set(0);
        user.live.set(0);
        user.pins.set(0);
        user.tenant.set(tenant as u16);
        user.flags.clear();
        user.reason.set(0);
        user.hash_next.set(roster.by_user[bucket].get());
        roster.by_user[bucket].set(at);
        Ok(at)
    }

    /// Frees a user's entry unless a session, a pin or the queue needs it.
    pub fn free_user_if_unused(&self, at: u32) {
        let roster = self.roster;
        let user = &roster.users[at as usize];
        if user.sessions.get() > 0 || user.pins.get() > 0 || user.flags.has(UserFlag::Dirty) {
            return;
        }
        let tenant = user.tenant.get() as usize;
        let bucket = roster.user_bucket(tenant, user.id.get());
        {
            let _held = lock::exclusive(Index::User, bucket);
            let mut link = &roster.by_user[bucket];
            while link.get() != at {
                link = &roster.users[link.get() as usize].hash_next;
            }
            link.set(user.hash_next.get());
            // A scan over all users selects entries by their tenant: this one has none now.
            user.tenant.set(u16::MAX);
        }
        self.release_user(at);
        roster.tenants[tenant].counts.users.sub(1);
    }

    /// Puts a session first in its user's list, where the search for a live one begins.
    pub fn link_user(&self, at: u32, user_at: u32) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        let user = &roster.users[user_at as usize];
        let bucket = roster.user_bucket(slot.tenant.get() as usize, user.id.get());
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
        let bucket = roster.user_bucket(slot.tenant.get() as usize, user.id.get());
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
        self.free_user_if_unused(user_at);
    }

    /// Forgets the last activity of a user and of its sessions that were deleted. A user who has started another session
    /// meanwhile is queued, as what was written of it is deleted.
    pub fn forget_user(&self, tenant: usize, id: &Uuid) {
        let roster = self.roster;
        let words = uuid_words(id);
        let Some(user_at) = roster.find_user(tenant, roster.user_bucket(tenant, words), words) else {
            return;
        };
        let user = &roster.users[user_at as usize];
        user.last_seen.set(i64::MIN);
        if user.live.get() > 0 {
            self.mark_dirty(user_at, Reason::Started);
        }
        let mut at = user.first.get();
        while at != NONE {
            let slot = &roster.slots[at as usize];
            if slot.state.get() == SessionState::Ended && slot.flags.has(SessionFlag::Deleted) {
                slot.last_activity.set(i64::MIN);
            }
            at = slot.user_next.get();
        }
    }

    /// Counts one more live session of a user; queues the user if it is the first.
    pub fn add_live(&self, user_at: u32, reason: Reason) {
        let user = &self.roster.users[user_at as usize];
        let counts = &self.roster.tenants[user.tenant.get() as usize].counts;
        counts.live.add(1);
        if user.live.add(1) == 0 {
            counts.users_live.add(1);
            self.mark_dirty(user_at, reason);
        }
    }

    /// Counts one live session of a user less; queues the user if it was the last.
    pub fn remove_live(&self, user_at: u32, reason: Reason) {
        let user = &self.roster.users[user_at as usize];
        let counts = &self.roster.tenants[user.tenant.get() as usize].counts;
        counts.live.sub(1);
        if user.live.sub(1) == 1 {
            counts.users_live.sub(1);
            self.mark_dirty(user_at, reason);
        }
    }
}
