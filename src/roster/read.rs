//! What readers see. A status is decided here, against the clock at the call.

use uuid::Uuid;

use super::{
    atomic::{digest_words, uuid_words, words_uuid},
    clock::Now,
    deadline::is_live,
    dirty::DirtyUser,
    layout::{Slot, User},
    lock::{self, Index},
    lookup::Key,
    prefetch::USERS_AHEAD,
    state::{SessionFlag, SessionState, UserFlag},
    tenant::Tenant,
    user::Summary,
};
use crate::{
    pg::memory,
    rules::{
        hiding::Visible,
        status::{Reason, Status},
        time::Micros,
    },
    settings,
};

/// A session as the roster knows it.
#[derive(Clone, Copy, Debug)]
pub struct SessionView {
    pub id: Uuid,
    pub user_id: Uuid,
    pub auth_id: Uuid,
    pub live: bool,
    pub ended: bool,
    pub expires_at: Micros,
    pub last_activity: Micros,
}

/// A user as the roster knows it.
#[derive(Clone, Copy, Debug)]
pub struct UserView {
    pub user_id: Uuid,
    pub live_sessions: u32,
    pub last_activity: Option<Micros>,
    /// When somebody was last at one of its sessions, of a user who is idle.
    pub idle_since: Option<Micros>,
    /// Has a key that cannot be derived from its id: the tables have it.
    pub keyed: bool,
    /// What of all this is visible to anybody.
    pub visible: Visible,
    /// Whether it was hidden as far as the roster ever knew.
    pub is_hidden: bool,
}

impl Tenant {
    /// A session, if the roster knows it and it is more than a reservation.
    pub fn session(&self, key: &Key, now: &Now, timeout: Micros) -> Option<SessionView> {
        let roster = self.roster();
        // Rare, so it takes the lock under which nothing changes.
        let _writer = roster.write();
        let at = match key {
            Key::Id(id) => {
                let words = uuid_words(id);
                roster.find_id(self.index(), roster.id_bucket(self.index(), words), words)
            }
            Key::Digest(digest) => {
                let bucket = roster.digest_bucket(self.index(), digest_words(digest.as_bytes()));
                roster.find_digest(self.index(), bucket, digest)
            }
        }?;
        let slot = &roster.slots[at as usize];
        let is_visible = match slot.state.get() {
            SessionState::Empty => false,
            SessionState::Ended => !slot.flags.has(SessionFlag::Deleted),
            SessionState::Live | SessionState::TimedOut => true,
        };
        if !is_visible || !roster.survives_truncate(slot) {
            return None;
        }
        Some(SessionView {
            id: words_uuid(slot.id.get()),
            user_id: words_uuid(roster.users[slot.user.get() as usize].id.get()),
            auth_id: words_uuid(slot.auth_id.get()),
            live: self.is_session_live(slot, timeout, now),
            ended: slot.state.get() == SessionState::Ended || now.wall() >= slot.expires_at.get(),
            expires_at: slot.expires_at.get(),
            last_activity: now.to_wall(slot.activity(now.steady)),
        })
    }

    /// Whether there is a slot for a session, be it that of a reservation or a tombstone.
    pub fn knows(&self, id: &Uuid) -> bool {
        let (roster, words) = (self.roster(), uuid_words(id));
        let bucket = roster.id_bucket(self.index(), words);
        let _held = lock::shared(Index::Id, bucket);
        roster.find_id(self.index(), bucket, words).is_some()
    }

    /// Whether the roster knows a live session of the user, who is not hidden.
    #[inline]
    pub fn is_online(&self, user_id: &Uuid, now: &Now, timeout: Micros) -> bool {
        self.read_user(
            user_id,
            |user| !user.visible(now).is_hidden() && self.roster().any_live(user, timeout, now),
            |user, live| *live || !user.counted_status().is_online(),
        )
        .unwrap_or(false)
    }

    /// Whether the roster knows a live session of the user, hidden or not.
    pub fn has_live(&self, user_id: &Uuid, now: &Now, timeout: Micros) -> bool {
        self.user(user_id, now, timeout)
            .is_some_and(|user| user.live_sessions > 0)
    }

    /// The status that shows of a user, by the sessions that the roster knows.
    pub fn user_status(&self, user_id: &Uuid, now: &Now, timeout: Micros) -> Status {
        let read = |user: &User| match user.visible(now) {
            Visible::ALL => self.roster().status(user, timeout, now),
            visible => {
                let summary = self.roster().summarize(user, timeout, now);
                let idle_since = summary.active_at.map(|at| now.to_wall(at));
                let by_sessions = Status::of(summary.live, summary.idle);
                visible.status(by_sessions, idle_since, now.wall(), settings::idle_timeout())
            }
        };
        self.read_user(user_id, read, |user, status| *status == user.counted_status())
            .unwrap_or(Status::Inactive)
    }

    /// Reads a user under its lock, as [`Tenant::again_after_standstill`]; `None` where the roster has no entry of it.
    #[inline]
    fn read_user<T>(
        &self,
        user_id: &Uuid,
        read: impl Fn(&User) -> T,
        is_as_left: impl Fn(&User, &T) -> bool,
    ) -> Option<T> {
        let roster = self.roster();
        let words = uuid_words(user_id);
        let bucket = roster.user_bucket(self.index(), words);
        let _held = lock::shared(Index::User, bucket);
        let user = &roster.users[roster.find_user(self.index(), bucket, words)? as usize];
        Some(self.again_after_standstill(|| read(user), |found| is_as_left(user, found)))
    }

    fn is_session_live(&self, slot: &Slot, timeout: Micros, now: &Now) -> bool {
        self.again_after_standstill(
            || is_live(slot, self.entry(), timeout, now),
            |live| *live || slot.state.get() != SessionState::Live,
        )
    }

    /// Reads something. Where it is not as the worker has left it, because time has passed, the server may have stood
    /// still: then it is read again, with the grace of that.
    #[inline]
    fn again_after_standstill<T>(&self, read: impl Fn() -> T, is_as_left: impl Fn(&T) -> bool) -> T {
        let before = self.stood_until();
        let found = read();
        if is_as_left(&found) {
            return found;
        }
        self.note_standstill();
        if self.stood_until() == before { found } else { read() }
    }

    /// A user, if the roster has an entry of it.
    pub fn user(&self, user_id: &Uuid, now: &Now, timeout: Micros) -> Option<UserView> {
        let roster = self.roster();
        let words = uuid_words(user_id);
        let bucket = roster.user_bucket(self.index(), words);
        let _held = lock::shared(Index::User, bucket);
        let at = roster.find_user(self.index(), bucket, words)?;
        Some(self.view(at, now, timeout))
    }

    fn view(&self, at: u32, now: &Now, timeout: Micros) -> UserView {
        let user = &self.roster().users[at as usize];
        let summary = self.summarize(user, now, timeout);
        let is_idle = Status::of(summary.live, summary.idle) == Status::Idle;
        let to_wall = |at| now.to_wall(at);
        UserView {
            user_id: words_uuid(user.id.get()),
            live_sessions: summary.live,
            last_activity: summary.last_activity.map(to_wall),
            idle_since: summary.active_at.filter(|_| is_idle).map(to_wall),
            keyed: user.flags.has(UserFlag::Keyed),
            visible: user.visible(now),
            is_hidden: user.is_hidden(now),
        }
    }

    fn summarize(&self, user: &User, now: &Now, timeout: Micros) -> Summary {
        self.again_after_standstill(
            || self.roster().summarize(user, timeout, now),
            |summary| summary.is_as_counted(user),
        )
    }

    /// Reads every user of the tenant with `read`, under the user's lock, and calls `f` with the result; no lock is held
    /// during that call.
    fn for_each_user<T>(&self, read: impl Fn(u32) -> T, mut f: impl FnMut(T)) {
        let roster = self.roster();
        let entries = || roster.user_blocks.entries_of(self.index(), 0);
        let mut ahead = entries();
        let prefetch = |at| roster.prefetch_user(self.index(), at);
        ahead.by_ref().take(USERS_AHEAD).for_each(prefetch);
        for at in entries() {
            ahead.next().into_iter().for_each(prefetch);
            let user = &roster.users[at as usize];
            if user.tenant.get() as usize != self.index() {
                continue;
            }
            // The entry may become another user's before its lock is taken: only what is still found counts.
            let words = user.id.get();
            let bucket = roster.user_bucket(self.index(), words);
            let held = lock::shared(Index::User, bucket);
            let found = match roster.find_user(self.index(), bucket, words) {
                Some(found) if found == at => Some(read(at)),
                _ => None,
            };
            drop(held);
            if let Some(found) = found {
                f(found);
            }
        }
    }

    /// All users with a live session, as the roster knows them, hidden or not, in no order.
    pub fn users_online(&self, now: &Now, timeout: Micros) -> Vec<UserView> {
        let mut users = Vec::new();
        let add = |view: UserView| {
            if view.live_sessions > 0 {
                memory::push(&mut users, view);
            }
        };
        self.for_each_user(|at| self.view(at, now, timeout), add);
        users
    }

    /// How many users show as online: kept, in constant time, while the worker is on time; otherwise counted.
    pub fn online_count(&self, now: &Now, timeout: Micros) -> u64 {
        if self.counts_are_kept(now) {
            return self.entry().counts.users_live.get();
        }
        let mut count = 0;
        let add = |view: UserView| count += u64::from(view.live_sessions > 0 && !view.visible.is_hidden());
        self.for_each_user(|at| self.view(at, now, timeout), add);
        count
    }

    /// Whether the counts are as good as counting.
    pub fn counts_are_kept(&self, now: &Now) -> bool {
        // After a TRUNCATE they are stale until the worker has reaped.
        self.worker_on_time(now) && self.entry().reaped.get() == self.entry().floor.get()
    }

    /// All users who are online as far as the sweep has got: what the worker compares the tables with.
    pub fn counted_online(&self, now: &Now, timeout: Micros) -> Vec<DirtyUser> {
        let mut users = Vec::new();
        let add = |user: DirtyUser| {
            if user.status.is_online() {
                memory::push(&mut users, user);
            }
        };
        self.for_each_user(|at| self.dirty(at, Reason::Started, now, timeout), add);
        users
    }

    /// A user as the worker has to write it; inactive and without a last activity if the roster has no entry.
    pub fn dirty_user(&self, user_id: &Uuid, reason: Reason, now: &Now, timeout: Micros) -> DirtyUser {
        let roster = self.roster();
        let words = uuid_words(user_id);
        let bucket = roster.user_bucket(self.index(), words);
        let _held = lock::shared(Index::User, bucket);
        match roster.find_user(self.index(), bucket, words) {
            Some(at) => self.dirty(at, reason, now, timeout),
            None => DirtyUser {
                user_id: *user_id,
                status: Status::Inactive,
                last_seen: None,
                idle_since: None,
                reason,
                keyed: true,
                is_hidden: false,
                is_unresolved: false,
                is_being_written: false,
            },
        }
    }

    fn dirty(&self, at: u32, reason: Reason, now: &Now, timeout: Micros) -> DirtyUser {
        let user = &self.roster().users[at as usize];
        self.roster()
            .dirty(user, reason, &self.summarize(user, now, timeout), now)
    }
}
