//! What readers see. Truth is decided here, against the clock at the call.

use uuid::Uuid;

use super::{
    Key, Space,
    cell::{digest_words, uuid_words, words_uuid},
    layout::NONE,
    lock::{self, Index},
    state::{DELETED, EMPTY, ENDED, KEYED, is_live},
    user::Dirty,
};
use crate::core::{status::Reason, time::Micros};

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
    /// Has a key that its id does not tell: it stands in the tables.
    pub keyed: bool,
}

impl Space {
    /// A session, if the roster knows it and it is more than a reservation.
    pub fn session(&self, key: &Key, now: Micros, timeout: Micros) -> Option<SessionView> {
        let roster = self.roster();
        // Rare, so it takes the lock under which everything holds still.
        let writer = roster.write();
        let at = match key {
            Key::Id(id) => {
                let words = uuid_words(id);
                roster.find_id(self.index(), roster.id_bucket(self.index(), words), words)
            }
            Key::Digest(digest) => {
                let bucket = roster.digest_bucket(self.index(), digest_words(digest.as_bytes()));
                roster.find_digest(self.index(), bucket, digest)
            }
        };
        let view = at.and_then(|at| {
            let slot = &roster.slots[at as usize];
            let is_gone = slot.state.get() == ENDED && slot.flags.has(DELETED);
            if slot.state.get() == EMPTY || is_gone || !roster.stands(slot) {
                return None;
            }
            Some(SessionView {
                id: words_uuid(slot.id.words()),
                user_id: words_uuid(roster.users[slot.user.get() as usize].id.words()),
                auth_id: words_uuid(slot.auth_id.words()),
                live: is_live(slot, self.entry(), timeout, now),
                ended: slot.state.get() == ENDED || now >= slot.expires_at.get(),
                expires_at: slot.expires_at.get(),
                last_activity: slot.last_activity.get(),
            })
        });
        drop(writer);
        view
    }

    /// Whether the roster knows a live session of the user.
    #[inline]
    pub fn is_online(&self, user_id: &Uuid, now: Micros, timeout: Micros) -> bool {
        let roster = self.roster();
        let words = uuid_words(user_id);
        let bucket = roster.user_bucket(self.index(), words);
        let _held = lock::shared(Index::User, bucket);
        match roster.find_user(self.index(), bucket, words) {
            Some(at) => roster.any_live(&roster.users[at as usize], timeout, now),
            None => false,
        }
    }

    /// A user, if the roster has an entry of it.
    pub fn user(&self, user_id: &Uuid, now: Micros, timeout: Micros) -> Option<UserView> {
        let roster = self.roster();
        let words = uuid_words(user_id);
        let bucket = roster.user_bucket(self.index(), words);
        let _held = lock::shared(Index::User, bucket);
        let at = roster.find_user(self.index(), bucket, words)?;
        Some(self.view(at, now, timeout))
    }

    fn view(&self, at: u32, now: Micros, timeout: Micros) -> UserView {
        let roster = self.roster();
        let user = &roster.users[at as usize];
        let (live_sessions, last_activity) = roster.derive(user, timeout, now);
        UserView {
            user_id: words_uuid(user.id.words()),
            live_sessions,
            last_activity,
            keyed: user.flags.has(KEYED),
        }
    }

    /// Calls `f` with every user of the space; no lock is held during the call.
    fn for_each_user(&self, now: Micros, timeout: Micros, mut f: impl FnMut(UserView, u32)) {
        let roster = self.roster();
        let ever = roster.header.heap.users_ever.get();
        for at in 0..ever {
            let user = &roster.users[at as usize];
            if user.space.get() as usize != self.index() {
                continue;
            }
            // The entry may go to somebody else while its lock is taken: only what is still found counts.
            let words = user.id.words();
            let bucket = roster.user_bucket(self.index(), words);
            let held = lock::shared(Index::User, bucket);
            let view = match roster.find_user(self.index(), bucket, words) {
                Some(found) if found == at => Some((self.view(at, now, timeout), user.live.get())),
                _ => None,
            };
            drop(held);
            if let Some((view, live)) = view {
                f(view, live);
            }
        }
    }

    /// All users with a live session, as the roster knows them, in no order.
    pub fn users_online(&self, now: Micros, timeout: Micros) -> Vec<UserView> {
        let mut users = Vec::new();
        self.for_each_user(now, timeout, |view, _| {
            if view.live_sessions > 0 {
                users.push(view);
            }
        });
        users
    }

    /// How many users have a live session: kept, in constant time, while the worker is on time; else counted.
    pub fn online_count(&self, now: Micros, timeout: Micros) -> u64 {
        let entry = self.entry();
        // After a TRUNCATE the counts are of before, until the worker has looked.
        if self.worker_on_time(now) && entry.reaped.get() == entry.floor.get() {
            return entry.counts.users_live.get();
        }
        let mut count = 0;
        self.for_each_user(now, timeout, |view, _| {
            count += u64::from(view.live_sessions > 0)
        });
        count
    }

    /// All users who are active as far as the sweep has got: what the worker compares the tables with.
    pub fn active_users(&self, now: Micros, timeout: Micros) -> Vec<Dirty> {
        let mut users = Vec::new();
        self.for_each_user(now, timeout, |view, live| {
            if live > 0 {
                users.push(Dirty {
                    user_id: view.user_id,
                    active: true,
                    last_seen: view.last_activity,
                    reason: Reason::Started,
                    keyed: view.keyed,
                });
            }
        });
        users
    }

    /// A user as the worker has to write it; inactive and without a last activity if the roster has no entry.
    pub fn as_dirty(&self, user_id: &Uuid, reason: Reason, now: Micros, timeout: Micros) -> Dirty {
        let roster = self.roster();
        let words = uuid_words(user_id);
        let bucket = roster.user_bucket(self.index(), words);
        let _held = lock::shared(Index::User, bucket);
        let at = roster
            .find_user(self.index(), bucket, words)
            .unwrap_or(NONE);
        if at == NONE {
            return Dirty {
                user_id: *user_id,
                active: false,
                last_seen: None,
                reason,
                keyed: true,
            };
        }
        let view = self.view(at, now, timeout);
        let active = roster.users[at as usize].live.get() > 0;
        Dirty {
            user_id: *user_id,
            active,
            last_seen: view.last_activity,
            reason,
            keyed: view.keyed,
        }
    }
}
