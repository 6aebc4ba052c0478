//! Users: their entries, their lists of sessions, and their counts of live and idle ones.

use std::sync::atomic::{Ordering::Release, fence};

use uuid::Uuid;

use super::{
    atomic::uuid_words,
    clock::Now,
    deadline::is_live,
    free_list::Full,
    layout::{NONE, Roster, User},
    lock::{self, Index},
    state::{SessionFlag, SessionState, UserFlag},
    writer::Writer,
};
use crate::rules::{
    status::{Reason, Status},
    time::{Micros, SteadyTime},
};

/// What the sessions of a user amount to.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub live: u32,
    /// Those of them that are idle.
    pub idle: u32,
    pub last_activity: Option<SteadyTime>,
    /// When somebody was last at one of the live sessions that are unattended; where there are none, at one of those that
    /// the sweep has still to reach.
    pub active_at: Option<SteadyTime>,
}

impl Summary {
    /// Whether no time has passed that the counts of the user lack: nothing is over or idle that they have not so.
    pub fn is_as_counted(&self, user: &User) -> bool {
        self.live >= user.live.get() && self.idle <= user.idle.get()
    }
}

impl User {
    /// The status that shows by the counts, as far as sweep and worker have got.
    pub fn counted_status(&self) -> Status {
        match self.is_left_out() {
            true => Status::Inactive,
            false => Status::of(self.live.get(), self.idle.get()),
        }
    }
}

impl Roster {
    /// What the sessions of a user amount to. The caller holds the user's partition or the writers' lock.
    pub fn summarize(&self, user: &User, timeout: Micros, now: &Now) -> Summary {
        let tenant = &self.tenants[user.tenant.get() as usize];
        let (mut live, mut idle) = (0, 0);
        let mut last = user.last_seen.get();
        let (mut active_at, mut active_at_unswept) = (None, None);
        let mut at = user.first.get();
        while at != NONE {
            let slot = &self.slots[at as usize];
            let is_session = slot.state.get() != SessionState::Empty;
            if is_session && !self.survives_truncate(slot) {
                last = last.max(slot.last_activity.get());
            } else if is_session {
                last = last.max(slot.activity(now.steady));
                let is_live = is_live(slot, tenant, timeout, now);
                if is_live {
                    live += 1;
                    idle += u32::from(now.steady >= self.idle_from(at));
                }
                if slot.state.get() == SessionState::Live && slot.flags.has(SessionFlag::Unattended) {
                    let active_at = match is_live {
                        true => &mut active_at,
                        false => &mut active_at_unswept,
                    };
                    *active_at = (*active_at).max(Some(self.active_at[at as usize].get()));
                }
            }
            at = slot.user_next.get();
        }
        Summary {
            live,
            idle,
            last_activity: (last != SteadyTime::PAST).then_some(last),
            active_at: active_at.or(active_at_unswept),
        }
    }

    /// The status of a user. The caller holds the same lock as for [`Roster::summarize`].
    #[inline]
    pub fn status(&self, user: &User, timeout: Micros, now: &Now) -> Status {
        let mut status = Status::Inactive;
        if user.live.get() == 0 {
            return status;
        }
        let tenant = &self.tenants[user.tenant.get() as usize];
        let mut at = user.first.get();
        while at != NONE {
            let slot = &self.slots[at as usize];
            if is_live(slot, tenant, timeout, now) {
                if now.steady < self.idle_from(at) {
                    return Status::Active;
                }
                status = Status::Idle;
            }
            at = slot.user_next.get();
        }
        status
    }

    /// Whether a user has a live session. The caller holds the same lock as for [`Roster::summarize`].
    #[inline]
    pub fn any_live(&self, user: &User, timeout: Micros, now: &Now) -> bool {
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
        let user = &self.roster.users[at as usize];
        user.pins.sub(1);
        if user.pins.get() == 0 {
            user.flags.assign(UserFlag::VisibilityPinned, false);
            user.flags.assign(UserFlag::Contended, false);
        }
        self.free_user_if_unused(at);
    }

    fn add_user(&self, tenant: usize, id: [u64; 2], bucket: usize) -> Result<u32, Full> {
        let at = self.allocate_user(tenant)?;
        let roster = self.roster;
        roster.tenants[tenant].counts.users.add(1);
        let user = &roster.users[at as usize];
        let _held = lock::exclusive(Index::User, bucket);
        user.id.set(id);
        user.last_seen.set(SteadyTime::PAST);
        user.hidden_until.set(Micros::MIN);
        user.first.set(NONE);
        user.dirty_next.set(NONE);
        user.sessions.set(0);
        user.live.set(0);
        user.idle.set(0);
        user.pins.set(0);
        user.tenant.set(tenant as u16);
        user.flags.clear();
        user.flags
            .assign(UserFlag::Unresolved, roster.tenants[tenant].may_have_hidden());
        user.reason.set(0);
        user.hash_next.set(roster.by_user[bucket].get());
        roster.by_user[bucket].set(at);
        Ok(at)
    }

    /// Frees a user's entry unless a session, a pin, the queue or the worker needs it.
    pub fn free_user_if_unused(&self, at: u32) {
        let roster = self.roster;
        let user = &roster.users[at as usize];
        let is_awaited = user.flags.has(UserFlag::Dirty) || user.flags.has(UserFlag::Taken);
        if user.sessions.get() > 0 || user.pins.get() > 0 || is_awaited {
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
        user.last_seen.set(SteadyTime::PAST);
        if user.live.get() > 0 {
            self.mark_dirty(user_at, Reason::Started);
        }
        let mut at = user.first.get();
        while at != NONE {
            let slot = &roster.slots[at as usize];
            let is_deleted = slot.state.get() == SessionState::Ended && slot.flags.has(SessionFlag::Deleted);
            if is_deleted || !roster.survives_truncate(slot) {
                self.unbind(at, &roster.now());
                slot.last_activity.set(SteadyTime::PAST);
            }
            at = slot.user_next.get();
        }
    }

    /// Counts one more live session of a user, which is not idle.
    pub fn add_live(&self, user_at: u32, reason: Reason) {
        let user = &self.roster.users[user_at as usize];
        if !user.is_left_out() {
            self.roster.tenants[user.tenant.get() as usize].counts.live.add(1);
        }
        self.recount(user_at, reason, || {
            user.live.add(1);
        });
    }

    /// Counts one live session of a user less, which was idle or not.
    pub fn remove_live(&self, user_at: u32, was_idle: bool, reason: Reason) {
        let user = &self.roster.users[user_at as usize];
        if !user.is_left_out() {
            self.roster.tenants[user.tenant.get() as usize].counts.live.sub(1);
        }
        self.recount(user_at, reason, || {
            user.live.sub(1);
            user.idle.sub(u32::from(was_idle));
        });
    }

    /// Counts a live session as idle or not, as it is at `now`.
    pub fn update_idle(&self, at: u32, now: &Now) {
        let slot = &self.roster.slots[at as usize];
        if slot.state.get() == SessionState::Live {
            self.set_idle(at, now.steady >= self.roster.idle_from(at));
        }
    }

    /// Notes that somebody is at a session.
    pub fn set_attended(&self, at: u32) {
        self.roster.slots[at as usize]
            .flags
            .assign(SessionFlag::Unattended, false);
        self.set_idle(at, false);
    }

    /// Notes that nobody is at a session, and that somebody last was at `active_at`. Where nobody was before, that stays.
    /// The caller holds the session's id partition exclusively, so that each beat is either stored or meets the flag.
    pub fn set_unattended_locked(&self, at: u32, active_at: SteadyTime) {
        let slot = &self.roster.slots[at as usize];
        if !slot.flags.has(SessionFlag::Unattended) {
            self.roster.active_at[at as usize].set(active_at);
            // Readers hold another lock.
            fence(Release);
            slot.flags.assign(SessionFlag::Unattended, true);
        }
    }

    /// Counts a live session as idle or not.
    pub fn set_idle(&self, at: u32, is_idle: bool) {
        let slot = &self.roster.slots[at as usize];
        if slot.flags.has(SessionFlag::Idle) == is_idle {
            return;
        }
        slot.flags.assign(SessionFlag::Idle, is_idle);
        let user_at = slot.user.get();
        let idle = &self.roster.users[user_at as usize].idle;
        match is_idle {
            true => self.recount(user_at, Reason::Idle, || {
                idle.add(1);
            }),
            false => self.recount(user_at, Reason::Returned, || {
                idle.sub(1);
            }),
        }
    }

    /// Changes the counts of a user, or whether it is left out of them; queues the user if that changes the status that shows,
    /// or may change since when it is idle.
    pub(super) fn recount(&self, user_at: u32, reason: Reason, change: impl FnOnce()) {
        let user = &self.roster.users[user_at as usize];
        let before = user.counted_status();
        change();
        let after = user.counted_status();
        let users_live = &self.roster.tenants[user.tenant.get() as usize].counts.users_live;
        match (before.is_online(), after.is_online()) {
            (false, true) => {
                users_live.add(1);
            }
            (true, false) => {
                users_live.sub(1);
            }
            _ => {}
        }
        match (before, after) {
            (Status::Idle, Status::Idle) => self.mark_dirty(user_at, Reason::Idle),
            _ if before != after => self.mark_dirty(user_at, reason.of_change(before, after)),
            _ => {}
        }
    }
}
