//! Writes: what a transaction did to sessions, reserved before its commit and applied after it.
//!
//! Everything that can fail (room in the roster, memory) happens in [`Tenant::reserve`], where an error is still
//! possible. [`Tenant::apply`] runs in the commit callback: it takes locks and stores words, nothing else.

use uuid::Uuid;

use super::{
    atomic::uuid_words,
    clock::Now,
    deadline::deadline,
    free_list::Full,
    layout::{NONE, Roster},
    stamp,
    state::{SessionFlag, SessionState},
    sweep::BATCH,
    sweep_clock,
    tenant::Tenant,
    writer::Writer,
};
use crate::rules::{
    status::Reason,
    time::{Micros, SteadyTime},
    token::Digest,
};

/// A row of `user_sessions`, as far as the roster is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowImage {
    pub id: Uuid,
    pub user_id: Uuid,
    pub auth_id: Uuid,
    pub digest: Digest,
    pub is_active: bool,
    pub last_activity: Micros,
    pub expires_at: Micros,
    pub ended: bool,
    /// Whether the user has a key that cannot be derived from its id.
    pub keyed: bool,
    /// Since when the user is idle by `user_presence`. Only of a row that is loaded; what is written says nothing of it.
    pub idle_since: Option<Micros>,
}

/// One write of one row.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub image: RowImage,
    pub stamp: u64,
    pub effect: Effect,
}

impl Write {
    /// Whether the session is over. Such a write needs no slot of its own: it is applied to the one that is there. Where
    /// there is none, no other write of the session is in flight, as that would have one; only a load may bring it.
    pub fn is_end(&self) -> bool {
        self.effect.deleted || self.image.ended
    }
}

/// What a write did to a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    pub deleted: bool,
    /// `last_activity` was set to a later time: a beat.
    pub beat: bool,
    /// `is_active` became true, or the row is new and active.
    pub activated: bool,
    /// `is_active` became false without an end: timed out.
    pub deactivated: bool,
}

/// The slot and the user that a write keeps pinned until it is applied or cancelled.
#[derive(Clone, Copy, Debug)]
pub struct Reservation {
    /// `NONE`: the user alone is pinned.
    pub(super) slot: u32,
    pub(super) user: u32,
}

impl Writer {
    /// Pins the slot of a row, and its user; both are added where there are none.
    pub fn reserve(&self, tenant: usize, image: &RowImage) -> Result<Reservation, Full> {
        let roster = self.roster;
        let user = self.pin_user(tenant, &image.user_id, image.keyed)?;
        let words = uuid_words(&image.id);
        let slot = match roster.find_id(tenant, roster.id_bucket(tenant, words), words) {
            Some(at) => at,
            None => match self.add_session(tenant, &image.id, &image.auth_id, &image.digest, user) {
                Ok(at) => at,
                Err(full) => {
                    self.unpin_user(user);
                    return Err(full);
                }
            },
        };
        roster.slots[slot as usize].pins.add(1);
        Ok(Reservation { slot, user })
    }

    /// Releases a reservation; a slot that is still Empty is freed.
    pub fn unpin(&self, reservation: Reservation) {
        if reservation.slot != NONE {
            let slot = &self.roster.slots[reservation.slot as usize];
            slot.pins.sub(1);
            if slot.pins.get() == 0 && slot.state.get() == SessionState::Empty {
                self.free_session(reservation.slot);
            }
        }
        self.unpin_user(reservation.user);
    }

    /// Applies a committed end to its slot, unless a newer write has been applied.
    fn apply_end(&self, at: u32, write: &Write, timeout: Micros, now: &Now) {
        let slot = &self.roster.slots[at as usize];
        if slot.state.get() != SessionState::Empty && !stamp::after(write.stamp, slot.stamp.get()) {
            return;
        }
        slot.stamp.set(write.stamp);
        if write.image.last_activity != Micros::MAX {
            slot.last_activity.raise(now.activity(write.image.last_activity));
        }
        self.end(at, write.effect.deleted, timeout, now);
    }

    /// Ends a session as its row has, or as it is deleted.
    pub fn end(&self, at: u32, deleted: bool, timeout: Micros, now: &Now) {
        // What ends after its deadline went offline then, whether the worker has come by or not.
        self.time_out(at, timeout, now);
        self.unbind(at, now);
        let flags = &self.roster.slots[at as usize].flags;
        flags.assign(SessionFlag::EndUnwritten, false);
        flags.assign(SessionFlag::Deleted, deleted);
        let reason = if deleted { Reason::Deleted } else { Reason::Ended };
        self.set_state(at, SessionState::Ended, reason);
    }

    /// Applies a committed write other than an end to its slot, unless a newer one has been applied.
    fn apply(&self, reservation: &Reservation, write: &Write, timeout: Micros, now: &Now) {
        let roster = self.roster;
        let at = reservation.slot;
        let slot = &roster.slots[at as usize];
        if slot.state.get() != SessionState::Empty && !stamp::after(write.stamp, slot.stamp.get()) {
            return;
        }
        if !roster.survives_truncate(slot) && slot.state.get() != SessionState::Empty {
            self.unbind(at, now);
            self.set_state(at, SessionState::Ended, Reason::Deleted);
        }
        slot.stamp.set(write.stamp);
        self.update(reservation, &write.image, &write.effect, timeout, now);
    }

    /// Makes a slot what its row is. The user reserved is the row's.
    pub fn update(&self, reservation: &Reservation, image: &RowImage, effect: &Effect, timeout: Micros, now: &Now) {
        let roster = self.roster;
        let at = reservation.slot;
        let slot = &roster.slots[at as usize];
        // Read before adopt(), which changes the state when the session moves to another user.
        let old = slot.state.get();
        let fresh = matches!(old, SessionState::Empty | SessionState::Ended);
        if fresh {
            slot.last_activity.set(SteadyTime::PAST);
            slot.flags.clear();
        }
        if slot.is_bound() {
            // As the flush has written: what the row shows is no news, and the user that it leaves was there until now.
            slot.last_activity.raise(now.steady);
        }
        // A write that is committed, but still to be applied, will be ignored then, as its stamp is older. So what the row
        // shows counts, not only what this write has changed of it.
        let table_active = !slot.flags.has(SessionFlag::TableInactive);
        let known_activity = slot.last_activity.get();
        let activity = now.activity(image.last_activity);
        // After the clock was set, a time in the table may be one of before, which says nothing.
        let is_comparable =
            image.last_activity > roster.header.ambiguous_until.get() && !now.is_future(image.last_activity);
        let beat = effect.beat || is_comparable && activity > known_activity;
        let activated = effect.activated || image.is_active && !table_active;
        let deactivated =
            effect.deactivated || is_comparable && !image.is_active && table_active && activity >= known_activity;
        self.adopt(reservation, image);
        if beat || fresh {
            slot.last_activity.raise(activity);
        }
        slot.expires_at.set(image.expires_at);
        slot.flags.assign(SessionFlag::TableInactive, !image.is_active);
        slot.flags.assign(SessionFlag::EndUnwritten, false);
        self.set_flushed(at, image.last_activity, now);
        if beat || fresh {
            slot.release_at.clear();
            slot.flags.assign(SessionFlag::Recovered, false);
            self.set_attended(at);
        }
        let wanted = if deactivated || (fresh && !image.is_active) {
            SessionState::TimedOut
        } else if beat || activated || fresh {
            SessionState::Live
        } else {
            old
        };
        if wanted == SessionState::Live && now.steady < deadline(slot, roster.tenant_of(slot), timeout, now) {
            let reason = if old == SessionState::TimedOut {
                Reason::Resumed
            } else {
                Reason::Started
            };
            if slot.flags.has(SessionFlag::Unseen) {
                self.set_attended(at);
            }
            self.set_state(at, SessionState::Live, reason);
            self.update_idle(at, now);
            roster.schedule_sweep(at, timeout, now);
        } else {
            self.unbind(at, now);
            self.set_state(at, SessionState::TimedOut, Reason::TimedOut);
        }
    }

    /// Notes which activity the table has. One in the future is to be written again.
    pub fn set_flushed(&self, at: u32, last_activity: Micros, now: &Now) {
        let flushed = match now.is_future(last_activity) {
            true => 0,
            false => sweep_clock::ceil(now.to_steady(last_activity), self.roster.header.origin.get()),
        };
        self.roster.slots[at as usize].flushed.set(flushed);
    }

    /// Makes token, owner and user of a slot those of its row.
    pub fn adopt(&self, reservation: &Reservation, row: &RowImage) {
        let at = reservation.slot;
        self.change_digest(at, &row.digest);
        self.change_auth_id(at, &row.auth_id);
        let slot = &self.roster.slots[at as usize];
        if slot.user.get() != reservation.user {
            if slot.state.get() == SessionState::Live {
                let is_bound = slot.is_bound();
                self.set_state(at, SessionState::TimedOut, Reason::Deleted);
                // It becomes live again, or is unbound, under the same hold of the lock.
                slot.flags.assign(SessionFlag::Bound, is_bound);
            }
            self.unlink_user(at);
            self.link_user(at, reservation.user);
        }
    }
}

impl Roster {
    /// Cancels reservations, a few under one hold of the writers' lock. Cannot fail.
    pub fn cancel_reservations(&'static self, reservations: impl Iterator<Item = Reservation>) {
        let mut reservations = reservations.peekable();
        while reservations.peek().is_some() {
            let writer = self.write();
            reservations.by_ref().take(BATCH).for_each(|one| writer.unpin(one));
            match reservations.peek() {
                Some(_) => writer.give_way(),
                None => drop(writer),
            }
        }
    }
}

impl Tenant {
    /// Reserves a slot for a row that a transaction has written, before its commit.
    pub fn reserve(&self, image: &RowImage) -> Result<Reservation, Full> {
        self.roster().write().reserve(self.index(), image)
    }

    /// Cancels a reservation. Cannot fail.
    pub fn cancel_reservation(&self, reservation: Reservation) {
        self.roster().write().unpin(reservation);
    }

    /// Applies committed writes under one hold of the writers' lock, so that nobody sees some of them only. Cannot fail:
    /// where the roster has no room for one, the tenant is in overflow, and the worker compares all users with the tables.
    /// `more`: others of the same commit follow.
    pub fn apply<'a>(
        &self,
        writes: impl Iterator<Item = (&'a Write, Option<Reservation>)>,
        timeout: Micros,
        more: bool,
    ) {
        let now = self.roster().synchronize_clock();
        self.note_standstill();
        let writer = self.roster().write();
        let mut is_full = false;
        for (write, reservation) in writes {
            let known = self.find_locked(&writer, &write.image.id);
            match known {
                Some(at) if write.is_end() => {
                    writer.apply_end(at, write, timeout, &now);
                    continue;
                }
                // Nothing can bring a session that a complete roster does not know.
                None if write.is_end() && self.is_complete() => continue,
                _ => {}
            }
            let reservation = match reservation {
                Some(reservation) => Ok(reservation),
                // To find again that there is no room takes long, and others wait.
                None if is_full => Err(Full),
                // The roster was full when the row was written: perhaps it has room now.
                None => writer.reserve(self.index(), &write.image).inspect(|reservation| {
                    if self.is_unresolved(reservation) && !write.is_end() {
                        // Nobody can look now.
                        self.lose_visibility_locked(&writer);
                    }
                }),
            };
            match reservation {
                Ok(reservation) => {
                    if write.is_end() {
                        writer.apply_end(reservation.slot, write, timeout, &now);
                    } else {
                        writer.apply(&reservation, write, timeout, &now);
                    }
                    writer.unpin(reservation);
                }
                Err(Full) => {
                    self.entry().counts.overflowed.add(1);
                    self.set_overflow_locked(&writer);
                    is_full = true;
                }
            }
        }
        match more {
            true => writer.give_way(),
            false => drop(writer),
        }
    }

    pub(super) fn find_locked(&self, writer: &Writer, id: &Uuid) -> Option<u32> {
        let words = uuid_words(id);
        let bucket = writer.roster.id_bucket(self.index(), words);
        writer.roster.find_id(self.index(), bucket, words)
    }

    /// Counts a user who is to be forgotten, for [`Tenant::forgotten`].
    pub fn count_forgotten(&self) {
        self.entry().counts.forgotten.add(1);
    }

    /// Returns a number that changes before a transaction commits that forgets a user, and after it has blanked the
    /// user's changes.
    pub fn forgotten(&self) -> u64 {
        self.entry().counts.forgotten.get()
    }

    /// Forgets the last activity of a user whose sessions were deleted. Cannot fail.
    pub fn forget_user(&self, user_id: &Uuid) {
        self.roster().write().forget_user(self.index(), user_id);
    }

    /// Has the worker compare all users with the tables. Cannot fail.
    pub fn request_compare(&self) {
        let writer = self.roster().write();
        self.entry().compare.set(1);
        writer.wake_worker_of(self.index());
    }

    /// Applies a committed TRUNCATE: everything older than its stamp is gone at once. Cannot fail.
    pub fn truncate(&self, stamp: u64) {
        let writer = self.roster().write();
        self.entry().floor.raise(stamp);
        self.entry().compare.set(1);
        writer.wake_worker_of(self.index());
    }
}
