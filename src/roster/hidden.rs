//! Users who are hidden: to readers, and in the counts, all of their sessions have ended.
//!
//! The table has who is hidden, and is the durable truth. A user's entry says the same of a user who has sessions here, so that
//! one look at it, under one lock, tells what the sessions are and whether anybody may know: `hidden_until` and
//! `UserFlag::Unresolved` change under the writers' lock and the user's partition, held exclusively.
//!
//! A new entry says nothing yet. Whoever adds it looks into the table *after* that, and resolves it: a commit that the look does
//! not see finds the entry, as the transaction pins it before. Where two transactions pin one entry, their callbacks may run in
//! another order than their commits. Then, and where the roster has no room, and where rows were written that nobody was told
//! of, who is hidden is *lost*: readers look into the table until the worker has, see [`Tenant::is_visibility_lost`].

use std::cell::Cell;

use uuid::Uuid;

use super::{
    atomic::{uuid_words, words_uuid},
    clock::Now,
    deadline::is_live,
    free_list::Full,
    layout::{NONE, User},
    lock::{self, Index},
    state::{SessionFlag, SessionState, UserFlag},
    sweep::BATCH,
    tenant::Tenant,
    write::Reservation,
    writer::Writer,
};
use crate::{
    pg::memory,
    rules::{
        hiding::{Hiding, Visible},
        status::Reason,
        time::Micros,
    },
};

/// What a committed write has made of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    HiddenUntil(Micros),
    /// Back since then.
    ShownSince(Micros),
}

impl User {
    /// Whether the kept counts leave the user out: it is hidden, as far as the worker has told, or nobody has looked yet.
    pub fn is_left_out(&self) -> bool {
        self.hidden_until.get() != Micros::MIN || self.flags.has(UserFlag::Unresolved)
    }

    /// What is visible of its sessions at `now`. The caller holds the user's partition or the writers' lock.
    #[inline]
    pub fn visible(&self, now: &Now) -> Visible {
        match self.is_resolved() {
            false => Visible::nothing(None),
            true => match self.hidden_until.get() {
                Micros::MIN => Visible::ALL,
                until => Visible::unless_hidden_until(until, now.wall()),
            },
        }
    }

    /// Whether the entry says whether the user is hidden.
    pub fn is_resolved(&self) -> bool {
        !self.flags.has(UserFlag::Unresolved)
    }

    /// Whether the user was hidden when the entry last said, and is not shown by the clock.
    pub fn is_hidden(&self, now: &Now) -> bool {
        self.hidden_until.get() > now.wall()
    }
}

impl Writer {
    /// Makes a user hidden or shown, and so resolved. One who is back counts as if the live sessions had started then: as a
    /// heartbeat of each.
    fn set_visibility(&self, user_at: u32, visibility: Visibility, timeout: Micros, now: &Now) {
        let user = &self.roster.users[user_at as usize];
        let (until, reason) = match visibility {
            Visibility::HiddenUntil(until) => (until, Reason::Ended),
            Visibility::ShownSince(since) => {
                if user.is_left_out() && since != Micros::MIN {
                    self.restart_sessions(user_at, since, timeout, now);
                }
                (Micros::MIN, Reason::Started)
            }
        };
        if until == user.hidden_until.get() && !user.flags.has(UserFlag::Unresolved) {
            return;
        }
        self.change_visibility(user_at, reason, || {
            user.hidden_until.set(until);
            user.flags.assign(UserFlag::Unresolved, false);
            user.flags.assign(UserFlag::Reread, false);
        });
    }

    /// Has a user left out until the worker has read the table again.
    fn unresolve(&self, user_at: u32) {
        let flags = &self.roster.users[user_at as usize].flags;
        self.change_visibility(user_at, Reason::Ended, || {
            flags.assign(UserFlag::Unresolved, true);
            flags.assign(UserFlag::Reread, true);
        });
    }

    /// The same of one of whom the entry is wrong, perhaps.
    fn forget_visibility(&self, user_at: u32) {
        self.unresolve(user_at);
        self.change_visibility(user_at, Reason::Ended, || {
            self.roster.users[user_at as usize].hidden_until.set(Micros::MIN);
        });
    }

    fn change_visibility(&self, user_at: u32, reason: Reason, change: impl FnOnce()) {
        let roster = self.roster;
        let user = &roster.users[user_at as usize];
        let tenant = user.tenant.get() as usize;
        let live = &roster.tenants[tenant].counts.live;
        let was_left_out = user.is_left_out();
        self.recount(user_at, reason, || {
            let _held = lock::exclusive(Index::User, roster.user_bucket(tenant, user.id.get()));
            change();
        });
        match (was_left_out, user.is_left_out()) {
            (true, false) => {
                live.add(u64::from(user.live.get()));
            }
            (false, true) => {
                live.sub(u64::from(user.live.get()));
            }
            _ => {}
        }
    }

    /// Takes the live sessions of a user as active at `since`. Those that are over are so before anybody sees them, and to others
    /// start then, where they are live again.
    fn restart_sessions(&self, user_at: u32, since: Micros, timeout: Micros, now: &Now) {
        let roster = self.roster;
        let since = now.activity(since);
        let mut next = roster.users[user_at as usize].first.get();
        while next != NONE {
            let (at, slot) = (next, &roster.slots[next as usize]);
            next = slot.user_next.get();
            self.time_out(at, timeout, now);
            if is_live(slot, roster.tenant_of(slot), timeout, now) {
                slot.last_activity.raise(since);
                roster.active_at[at as usize].raise(since);
                self.update_idle(at, now);
                roster.schedule_sweep(at, timeout, now);
            } else if slot.state.get() == SessionState::TimedOut {
                let bucket = roster.id_bucket(slot.tenant.get() as usize, slot.id.get());
                let _held = lock::exclusive(Index::Id, bucket);
                // A beat that says that somebody is there makes it attended.
                self.set_unattended_locked(at, since);
                roster.active_at[at as usize].raise(since);
                slot.flags.assign(SessionFlag::Unseen, true);
            }
        }
    }

    /// Resolves a user by its row, if it is unresolved. `reread`: the worker has unresolved it, and read the row after that.
    /// Returns whether that is all: a commit that others see may be about to be applied, with what it has made of the sessions.
    fn resolve(&self, user_at: u32, reread: bool, hiding: Option<&Hiding>, timeout: Micros, now: &Now) -> bool {
        let user = &self.roster.users[user_at as usize];
        if !user.flags.has(UserFlag::Unresolved) || user.flags.has(UserFlag::Reread) != reread {
            return true;
        }
        let was_hidden = user.hidden_until.get() != Micros::MIN;
        if was_hidden && user.flags.has(UserFlag::VisibilityPinned) && !hiding.is_some_and(|it| it.hides(now.wall())) {
            return false;
        }
        let visibility = match hiding {
            // The row was deleted that has hidden it.
            None if was_hidden => Visibility::ShownSince(now.wall()),
            None => Visibility::ShownSince(Micros::MIN),
            Some(hiding) => match (hiding.hidden_until(), hiding.visible(now.wall())) {
                (Some(until), visible) if visible.is_hidden() => Visibility::HiddenUntil(until),
                (_, visible) => Visibility::ShownSince(visible.since),
            },
        };
        self.set_visibility(user_at, visibility, timeout, now);
        true
    }
}

impl Tenant {
    /// Pins the entry of a user whom a transaction hides or shows again, which is added where there is none. `again`: the
    /// transaction has done so before. `before`: what the row was that hides the user, before the write.
    pub fn pin_visibility(
        &self,
        user_id: &Uuid,
        again: bool,
        before: Option<&Hiding>,
        timeout: Micros,
    ) -> Result<Reservation, Full> {
        let roster = self.roster();
        let words = uuid_words(user_id);
        let now = roster.now();
        let writer = roster.write();
        let known = roster.find_user(self.index(), roster.user_bucket(self.index(), words), words);
        // Of one who has no session here, only the table knows whether there is a key.
        let at = writer.pin_user(self.index(), user_id, known.is_none())?;
        let flags = &roster.users[at as usize].flags;
        flags.assign(
            UserFlag::Contended,
            flags.has(UserFlag::VisibilityPinned) && !again || flags.has(UserFlag::Contended),
        );
        flags.assign(UserFlag::VisibilityPinned, true);
        if !again {
            writer.resolve(at, false, before, timeout, &now);
        }
        Ok(Reservation { slot: NONE, user: at })
    }

    /// Applies a committed write that hides a user or shows one again, and unpins the user. Cannot fail.
    pub fn apply_visibility(
        &self,
        user_id: &Uuid,
        reservation: Option<Reservation>,
        visibility: Visibility,
        timeout: Micros,
    ) {
        let roster = self.roster();
        let words = uuid_words(user_id);
        let now = roster.synchronize_clock();
        let writer = roster.write();
        let known = || roster.find_user(self.index(), roster.user_bucket(self.index(), words), words);
        let visibility = match visibility {
            // Before it was applied.
            Visibility::HiddenUntil(until) if until <= now.wall() => Visibility::ShownSince(until),
            visibility => visibility,
        };
        if let Some(at) = reservation.map(|reservation| reservation.user).or_else(known) {
            if reservation.is_none() || roster.users[at as usize].flags.has(UserFlag::Contended) {
                // First, as readers may see the user at once.
                self.lose_visibility_locked(&writer);
                writer.forget_visibility(at);
            } else {
                writer.set_visibility(at, visibility, timeout, &now);
                roster.users[at as usize]
                    .flags
                    .assign(UserFlag::VisibilityPinned, false);
            }
        }
        if let Some(reservation) = reservation {
            writer.unpin(reservation);
        }
        writer.give_way();
    }

    /// Whether nobody has looked yet whether the user of a reservation is hidden.
    pub fn is_unresolved(&self, reservation: &Reservation) -> bool {
        self.roster().users[reservation.user as usize]
            .flags
            .has(UserFlag::Unresolved)
    }

    /// Resolves the user of a reservation by the row that was found after the reservation, unless somebody else has. Cannot
    /// fail.
    pub fn resolve(&self, reservation: &Reservation, hiding: Option<&Hiding>, timeout: Micros) {
        let now = self.roster().now();
        let writer = self.roster().write();
        writer.resolve(reservation.user, false, hiding, timeout, &now);
    }

    /// Shows a user again whose hiding has expired at `at`, unless it has become another. Cannot fail.
    pub fn expire_hiding(&self, user_id: &Uuid, at: Micros, timeout: Micros) {
        let roster = self.roster();
        let words = uuid_words(user_id);
        let now = roster.now();
        let writer = roster.write();
        let Some(user_at) = roster.find_user(self.index(), roster.user_bucket(self.index(), words), words) else {
            return;
        };
        if roster.users[user_at as usize].hidden_until.get() == at {
            writer.set_visibility(user_at, Visibility::ShownSince(at), timeout, &now);
        }
        writer.give_way();
    }

    /// Notes that rows may say who is hidden that the roster has not heard of. Cannot fail.
    pub fn lose_visibility(&self) {
        self.lose_visibility_locked(&self.roster().write());
    }

    /// Notes that a commit has changed more of who is hidden than it could keep. Cannot fail.
    pub fn void_visibility(&self) {
        let writer = self.roster().write();
        self.lose_visibility_locked(&writer);
        let counts = &self.entry().counts;
        counts.visibility_void.set(counts.visibility_lost.get());
    }

    /// Whether those are hidden whom the roster has as hidden, and perhaps others. Otherwise, the table alone tells.
    pub fn trusts_hidden(&self) -> bool {
        let counts = &self.entry().counts;
        counts.visibility_known.get() >= counts.visibility_void.get()
    }

    pub(super) fn lose_visibility_locked(&self, writer: &Writer) {
        self.entry().counts.visibility_lost.add(1);
        writer.wake_worker_of(self.index());
    }

    /// Whether only the table tells who is hidden, until the worker has read it.
    #[inline]
    pub fn is_visibility_lost(&self) -> bool {
        let counts = &self.entry().counts;
        counts.visibility_known.get() != counts.visibility_lost.get()
    }

    /// Whether the roster knows who is hidden, of all sessions.
    pub fn knows_hidden(&self) -> bool {
        self.is_complete() && !self.is_visibility_lost()
    }

    /// How often it has been lost so far. For the worker, to be called before it reads the table.
    pub fn visibility_lost(&self) -> u64 {
        self.entry().counts.visibility_lost.get()
    }

    /// Notes that it is known again, but for what was lost after that. For the worker.
    pub fn set_visibility_known(&self, lost: u64) {
        // What was resolved comes first.
        let _writer = self.roster().write();
        self.entry().counts.visibility_known.set(lost);
    }

    /// Returns the users who are hidden by the roster, or of whom it does not say.
    pub fn left_out_users(&self) -> Vec<Uuid> {
        let roster = self.roster();
        let mut users = Vec::new();
        for word in roster.user_blocks.words_of(self.index()) {
            let writer = roster.write();
            let mut some = [Uuid::nil(); 64];
            let mut count = 0;
            for at in roster.user_blocks.entries_in(word) {
                let user = &roster.users[at as usize];
                if user.tenant.get() as usize == self.index() && user.is_left_out() && count < some.len() {
                    some[count] = words_uuid(user.id.get());
                    count += 1;
                }
            }
            writer.give_way_without_waking();
            some[..count].iter().for_each(|&user| memory::push(&mut users, user));
        }
        users
    }

    /// Has these users left out. To be followed by a read of the table, and [`Tenant::resolve_users`]. `quietly`: a comparison of
    /// all users follows.
    pub fn unresolve_users<'a>(&self, users: impl Iterator<Item = &'a Uuid>, quietly: bool) {
        let users = users.map(|user| (user, ()));
        self.for_each_in_batches(users, quietly, |writer, at, ()| writer.unresolve(at));
    }

    /// Resolves these users by the rows that were read after [`Tenant::unresolve_users`], except those whom somebody else has
    /// resolved. Returns false where some stay hidden until a commit is applied, see [`Writer::resolve`].
    pub fn resolve_users<'a>(
        &self,
        users: impl Iterator<Item = (&'a Uuid, Option<&'a Hiding>)>,
        quietly: bool,
        timeout: Micros,
    ) -> bool {
        let (now, all) = (self.roster().now(), Cell::new(true));
        self.for_each_in_batches(users, quietly, |writer, at, hiding| {
            let is_resolved = writer.resolve(at, true, hiding, timeout, &now);
            all.set(all.get() && is_resolved);
        });
        all.get()
    }

    fn for_each_in_batches<'a, T>(
        &self,
        users: impl Iterator<Item = (&'a Uuid, T)>,
        quietly: bool,
        f: impl Fn(&Writer, u32, T),
    ) {
        let roster = self.roster();
        let mut users = users.peekable();
        while users.peek().is_some() {
            let writer = match quietly {
                true => roster.write_for_load(),
                false => roster.write(),
            };
            for (id, with) in users.by_ref().take(BATCH) {
                let words = uuid_words(id);
                if let Some(at) = roster.find_user(self.index(), roster.user_bucket(self.index(), words), words) {
                    f(&writer, at, with);
                }
            }
            writer.give_way_without_waking();
        }
    }
}
