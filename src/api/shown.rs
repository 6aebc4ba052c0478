//! What readers are shown of users: what their sessions make of them, with what is declared, and without who is hidden.
//!
//! The roster says who is hidden beside what its sessions are. Where sessions have to be read from the table, or it does not know,
//! the table of what is declared does, which is read twice: before and after the sessions, as what is read of them says nothing
//! of a moment at which the user was hidden. [`shown`] decides what shows.

use std::collections::HashMap;

use uuid::Uuid;

use super::presence_reader::{LiveSessions, PresenceReader};
use crate::{
    pg::memory::{self, Reserve},
    roster,
    rules::{declared::shown, hiding::Visible, status::Status, time::Micros},
    store::{
        declared::{self, Declared, Shown},
        visibility,
    },
};

/// Of more users than these, what is declared is read from the whole table.
const MAX_BY_KEY: usize = 1000;

impl LiveSessions {
    /// As [`LiveSessions::shown`], by what the table says. A commit that both ends sessions and shows their user again is seen
    /// there before it is in the roster: until then, the user is hidden as far as `trusts_hidden`.
    fn shown_by_table(self, visible: &Visible, trusts_hidden: bool, now: Micros) -> Option<LiveSessions> {
        match trusts_hidden && self.is_hidden {
            true => None,
            false => self.shown(visible, now),
        }
    }
}

fn visible_of<'a>(visible: &'a HashMap<Uuid, Visible>, user: &Uuid) -> &'a Visible {
    visible.get(user).unwrap_or(&Visible::ALL)
}

/// One user as shown, without what only the tables have of it.
pub struct ShownUser {
    pub user_id: Uuid,
    pub shown: Shown,
    /// `None`: offline, as far as anybody can see.
    pub live: Option<LiveSessions>,
}

impl ShownUser {
    fn of(user_id: Uuid, live: Option<LiveSessions>, declared: Declared) -> ShownUser {
        let by_sessions = live.as_ref().map_or(Status::Inactive, LiveSessions::status);
        ShownUser {
            user_id,
            shown: shown(by_sessions, declared),
            live,
        }
    }

    /// Returns whether its row needs the tables: for all of it while the user is offline, else for a key that the roster does
    /// not have.
    pub fn needs_tables(&self) -> bool {
        self.live
            .as_ref()
            .is_none_or(|live| live.keyed && live.user_key.is_none())
    }
}

impl PresenceReader {
    /// Returns whether a user shows as online.
    #[inline]
    pub fn is_online(&self, user_id: Uuid) -> bool {
        if self.has_visibility_in_table() {
            return self.status(user_id).is_online();
        }
        // It may have been lost meanwhile.
        self.is_live(user_id) && (!self.has_visibility_in_table() || self.status(user_id).is_online())
    }

    /// Returns the status that shows of a user.
    #[inline]
    pub fn status(&self, user_id: Uuid) -> Status {
        let by_sessions = match self.has_visibility_in_table() {
            true => None,
            false => Some(self.status_by_sessions(user_id)).filter(|_| !self.has_visibility_in_table()),
        };
        let by_sessions = by_sessions.unwrap_or_else(|| {
            let live = self.shown_live_of(&[user_id]).pop().flatten();
            live.map_or(Status::Inactive, |live| live.status())
        });
        // Of who is offline, nothing that is declared changes the status.
        if !by_sessions.is_online() || !self.may_have_declared() {
            return by_sessions;
        }
        let declared = self.declared_of(&[user_id]).remove(&user_id);
        shown(by_sessions, declared.unwrap_or_default()).status
    }

    /// Returns the last activity that shows of a user.
    pub fn last_seen(&self, user_id: Uuid) -> Option<Micros> {
        match self.shown_live_of(&[user_id]).pop().flatten() {
            Some(live) => live.last_activity,
            None => self.stored(&[user_id]).pop().and_then(|stored| stored.last_seen),
        }
    }

    /// Returns what is shown of each of these users, in the same order. The users must be distinct.
    pub fn shown_of(&self, users: &[Uuid]) -> Vec<ShownUser> {
        let live = self.shown_live_of(users);
        let mut declared = self.declared_of(users);
        let of_user =
            |(user_id, live): (&Uuid, _)| ShownUser::of(*user_id, live, declared.remove(user_id).unwrap_or_default());
        memory::collect(users.iter().zip(live).map(of_user))
    }

    /// Returns what shows of the live sessions of each of these users, in the same order; `None`: nothing.
    fn shown_live_of(&self, users: &[Uuid]) -> Vec<Option<LiveSessions>> {
        let now = self.wall();
        if !self.has_visibility_in_table() {
            let live = self.live_of(users);
            if !self.has_visibility_in_table() {
                let shown = live.into_iter().map(|live| {
                    let live = live?;
                    let visible = live.visible;
                    live.shown(&visible, now)
                });
                return memory::collect(shown);
            }
        }
        let visible = self.visible(Some(users));
        let live = self.live_of(users);
        let visible = visibility::throughout(visible, &self.visible(Some(users)));
        let trusts_hidden = self.trusts_hidden();
        let shown = |(user, live): (&Uuid, Option<LiveSessions>)| {
            live?.shown_by_table(visible_of(&visible, user), trusts_hidden, now)
        };
        memory::collect(users.iter().zip(live).map(shown))
    }

    /// Returns what shows of the live sessions of all users who show as online.
    fn shown_live_of_all(&self) -> Vec<(Uuid, LiveSessions)> {
        let now = self.wall();
        if !self.has_visibility_in_table() {
            let live = self.live_of_all();
            if !self.has_visibility_in_table() {
                let shown = live.into_iter().filter_map(|(user, live)| {
                    let visible = live.visible;
                    Some((user, live.shown(&visible, now)?))
                });
                return memory::collect(shown);
            }
        }
        let visible = self.visible(None);
        let live = self.live_of_all();
        let visible = visibility::throughout(visible, &self.visible(None));
        let trusts_hidden = self.trusts_hidden();
        let shown = |(user, live): (Uuid, LiveSessions)| {
            Some((
                user,
                live.shown_by_table(visible_of(&visible, &user), trusts_hidden, now)?,
            ))
        };
        memory::collect(live.into_iter().filter_map(shown))
    }

    /// Returns what is shown of every user who shows as online.
    pub fn shown_of_online(&self) -> Vec<ShownUser> {
        let live = self.shown_live_of_all();
        let mut declared = match self.may_have_declared() {
            true => self.declared_of(&memory::collect(live.iter().map(|&(user_id, _)| user_id))),
            false => HashMap::new(),
        };
        let of_user =
            |(user_id, live)| ShownUser::of(user_id, Some(live), declared.remove(&user_id).unwrap_or_default());
        memory::collect(live.into_iter().map(of_user))
    }

    /// Returns how many users show as online.
    pub fn online_count(&self) -> i64 {
        let count = match self.has_visibility_in_table() {
            true => None,
            false => Some(self.live_count()),
        };
        // It may have been lost meanwhile.
        count
            .filter(|_| !self.has_visibility_in_table())
            .unwrap_or_else(|| self.shown_live_of_all().len() as i64)
    }

    /// Returns what is visible of users, these or all, who are hidden, or were. Others are not in it.
    pub fn visible(&self, only: Option<&[Uuid]>) -> HashMap<Uuid, Visible> {
        let mut found = HashMap::new();
        if !self.may_have_hidden() {
            return found;
        }
        let now = self.wall();
        if !declared::try_lock() {
            return self.visible_by_last_written(only, now);
        }
        let hidings = match only {
            Some(users) => visibility::of_users(users),
            None => visibility::all(),
        };
        found.make_room(hidings.len());
        found.extend(hidings.into_iter().map(|(user, hiding)| (user, hiding.visible(now))));
        found
    }

    /// The same by what was last written, where others have locked what is declared: whoever is not written as online may be
    /// hidden.
    fn visible_by_last_written(&self, only: Option<&[Uuid]>, now: Micros) -> HashMap<Uuid, Visible> {
        let all;
        let users = match only {
            Some(users) => users,
            None => {
                all = memory::collect(self.live_of_all().into_iter().map(|(user_id, _)| user_id));
                &all[..]
            }
        };
        let written = declared::last_written(users, now);
        let mut found = HashMap::new();
        for user_id in users {
            let written = written.get(user_id);
            if !written.is_some_and(|written| written.is_online) || self.is_hidden_by_roster(*user_id) {
                found.make_room(1);
                found.insert(
                    *user_id,
                    Visible::nothing(written.and_then(|written| written.last_seen)),
                );
            }
        }
        found
    }

    /// Returns what is declared of these users; nobody is in it of whom nothing is.
    pub fn declared_of(&self, users: &[Uuid]) -> HashMap<Uuid, Declared> {
        if users.is_empty() || !self.may_have_declared() {
            return HashMap::new();
        }
        // The table has the time of day.
        let now = roster::synchronize_clock().wall();
        if !declared::try_lock() {
            let written = declared::last_written(users, now);
            let mut found = HashMap::new();
            found.make_room(written.len());
            found.extend(
                written
                    .into_iter()
                    .map(|(user_id, written)| (user_id, written.declared)),
            );
            return found;
        }
        // Of most users, nothing is declared, which a look by the key tells much sooner than a statement.
        if let [user] = users
            && !visibility::declares_else(user)
        {
            return HashMap::new();
        }
        match users.len() <= MAX_BY_KEY {
            true => declared::of_users(users, now),
            false => declared::of_many(users, now),
        }
    }
}
