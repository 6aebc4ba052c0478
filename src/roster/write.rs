//! Writes: what a transaction did to sessions, reserved before its commit and applied after it.
//!
//! Everything that can fail (room in the roster, memory) happens in [`Space::reserve`], where an error is still
//! possible. [`Space::apply`] runs in the commit callback: it takes locks and stores words, nothing else.

use uuid::Uuid;

use super::{
    Full, Space,
    cell::uuid_words,
    layout::{NONE, Roster},
    lock::{self, Held, Index},
    stamp,
    state::{
        self, DELETED, EMPTY, END_UNWRITTEN, ENDED, LIVE, RECOVERED, TABLE_INACTIVE, TIMED_OUT,
    },
    units,
};
use crate::{
    compat,
    core::{status::Reason, time::Micros, token::Digest},
};

/// A row of `user_sessions` as a write left it.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    pub id: Uuid,
    pub user_id: Uuid,
    pub auth_id: Uuid,
    pub digest: Digest,
    pub is_active: bool,
    pub last_activity: Micros,
    pub expires_at: Micros,
    pub ended: bool,
    /// Whether the user has a key that its id does not tell.
    pub keyed: bool,
}

/// One write of one row.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub image: Image,
    pub stamp: u64,
    pub what: What,
}

/// What a write did, as far as the roster cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct What {
    pub deleted: bool,
    /// `last_activity` was set: a beat.
    pub beat: bool,
    /// `is_active` became true, or the row is new and active.
    pub activated: bool,
    /// `is_active` became false without an end: timed out.
    pub deactivated: bool,
}

/// What a write holds on to until it is applied or given up.
#[derive(Clone, Copy, Debug)]
pub struct Reserved {
    pub(super) slot: u32,
    pub(super) user: u32,
}

/// The writers' lock, and what may be done under it.
pub struct Writer {
    pub roster: &'static Roster,
    news: std::cell::Cell<u32>,
    /// No user is queued: the caller compares all of them afterwards.
    pub quiet: bool,
    _held: Held,
}

impl Roster {
    pub fn write(&'static self) -> Writer {
        let held = lock::writers();
        Writer {
            roster: self,
            news: std::cell::Cell::new(NONE),
            quiet: false,
            _held: held,
        }
    }

    /// The writers' lock for changes that queue nobody.
    pub fn write_quietly(&'static self) -> Writer {
        Writer {
            quiet: true,
            ..self.write()
        }
    }
}

impl Writer {
    /// Something for a space's worker to do; it is woken once the lock is released.
    pub fn has_news(&self, space: usize) {
        self.news.set(space as u32);
    }

    /// Releases the lock and wakes the worker if there is something new for it.
    pub fn done(self) {
        let (news, roster) = (self.news.get(), self.roster);
        drop(self);
        if news != NONE {
            wake(roster, news as usize);
        }
    }

    /// Changes a session's state, and with it its user's count; the only place that does.
    pub fn set_state(&self, at: u32, new: u8, reason: Reason) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        let old = slot.state.get();
        if old == new {
            return;
        }
        let bucket = roster.id_bucket(slot.space.get() as usize, slot.id.words());
        {
            let _held = lock::exclusive(Index::Id, bucket);
            slot.state.set(new);
            match new {
                ENDED => roster.seen[at as usize].set(units::TOMBSTONE),
                LIVE => {}
                _ => roster.seen[at as usize].set(units::NEVER),
            }
        }
        let counts = &roster.space_of(slot).counts;
        if new == ENDED {
            counts.ended.add(1);
        } else if old == ENDED {
            counts.ended.sub(1);
        }
        if new == LIVE {
            self.one_more_live(slot.user.get(), reason);
        } else if old == LIVE {
            self.one_less_live(slot.user.get(), reason);
        }
    }

    pub fn reserve(&self, space: usize, image: &Image) -> Result<Reserved, Full> {
        let roster = self.roster;
        let user = self.pin_user(space, &image.user_id, image.keyed)?;
        let words = uuid_words(&image.id);
        let slot = match roster.find_id(space, roster.id_bucket(space, words), words) {
            Some(at) => at,
            None => match self.add_session(space, &image.id, &image.auth_id, &image.digest, user) {
                Ok(at) => at,
                Err(full) => {
                    self.unpin_user(user);
                    return Err(full);
                }
            },
        };
        roster.slots[slot as usize].pins.add(1);
        Ok(Reserved { slot, user })
    }

    pub fn let_go(&self, reserved: Reserved) {
        let slot = &self.roster.slots[reserved.slot as usize];
        slot.pins.sub(1);
        if slot.pins.get() == 0 && slot.state.get() == EMPTY {
            self.free_session(reserved.slot);
        }
        self.unpin_user(reserved.user);
    }

    /// Gives the slot what the row says.
    fn apply(&self, reserved: &Reserved, write: &Write, timeout: Micros, now: Micros) {
        let roster = self.roster;
        let at = reserved.slot;
        let slot = &roster.slots[at as usize];
        if slot.state.get() != EMPTY && !stamp::after(write.stamp, slot.stamp.get()) {
            return;
        }
        let space = roster.space_of(slot);
        if !roster.stands(slot) && slot.state.get() != EMPTY {
            self.set_state(at, ENDED, Reason::Deleted);
        }
        slot.stamp.set(write.stamp);
        let (image, what) = (&write.image, &write.what);
        if what.deleted || image.ended {
            if image.last_activity != i64::MAX {
                slot.last_activity.raise(image.last_activity);
            }
            slot.flags.assign(END_UNWRITTEN, false);
            slot.flags.assign(DELETED, what.deleted);
            let reason = if what.deleted {
                Reason::Deleted
            } else {
                Reason::Ended
            };
            self.set_state(at, ENDED, reason);
            return;
        }
        // Before another user makes it pass through another state.
        let old = slot.state.get();
        let fresh = matches!(old, EMPTY | ENDED);
        if fresh {
            slot.last_activity.set(i64::MIN);
            slot.flags.set(0);
        }
        self.adopt(reserved, image);
        slot.last_activity.raise(image.last_activity);
        slot.expires_at.set(image.expires_at);
        slot.flags.assign(TABLE_INACTIVE, !image.is_active);
        slot.flags.assign(END_UNWRITTEN, false);
        slot.flushed
            .set(units::ceil(image.last_activity, roster.header.origin.get()));
        if what.beat || fresh {
            slot.release_at.set(0);
            slot.flags.assign(RECOVERED, false);
        }
        let wanted = if what.deactivated || (fresh && !image.is_active) {
            TIMED_OUT
        } else if what.beat || what.activated || fresh {
            LIVE
        } else {
            old
        };
        if wanted == LIVE {
            let deadline = state::deadline(slot, space, timeout);
            if now < deadline {
                let reason = if old == TIMED_OUT {
                    Reason::Resumed
                } else {
                    Reason::Started
                };
                self.set_state(at, LIVE, reason);
                roster.expect(at, deadline, timeout);
                return;
            }
        }
        self.set_state(at, TIMED_OUT, Reason::TimedOut);
    }

    /// Gives a slot its row's token, owner and user. The user reserved is the row's.
    pub fn adopt(&self, reserved: &Reserved, row: &Image) {
        let at = reserved.slot;
        self.change_digest(at, &row.digest);
        self.change_auth(at, &row.auth_id);
        if self.roster.slots[at as usize].user.get() != reserved.user {
            self.change_user(at, reserved.user);
        }
    }

    fn change_auth(&self, at: u32, auth_id: &Uuid) {
        let slot = &self.roster.slots[at as usize];
        let words = uuid_words(auth_id);
        if slot.auth_id.words() != words {
            let bucket = self
                .roster
                .id_bucket(slot.space.get() as usize, slot.id.words());
            let _held = lock::exclusive(Index::Id, bucket);
            slot.auth_id.set(words);
        }
    }

    fn change_user(&self, at: u32, user: u32) {
        let slot = &self.roster.slots[at as usize];
        if slot.state.get() == LIVE {
            self.set_state(at, TIMED_OUT, Reason::Deleted);
        }
        self.unlink_user(at);
        self.link_user(at, user);
    }

    /// Whether the table knows all that the roster knows of a session.
    pub fn is_flushed(&self, slot: &super::layout::Slot) -> bool {
        let known = units::ceil(slot.last_activity.get(), self.roster.header.origin.get());
        known <= slot.flushed.get()
            && slot.flags.has(TABLE_INACTIVE) == (slot.state.get() == TIMED_OUT)
    }
}

/// Wakes a space's worker if it waits; asks for one where there is none.
fn wake(roster: &Roster, space: usize) {
    let entry = &roster.spaces[space];
    let worker = &entry.worker;
    if worker.pid.get() == 0 {
        crate::worker::poke_launcher(pgrx::pg_sys::Oid::from(entry.database.get()));
    } else if worker.asleep.swap(0) == 1 {
        let latch = worker.latch.load(std::sync::atomic::Ordering::SeqCst);
        if !latch.is_null() {
            // SAFETY: a process latch, published by the worker itself.
            unsafe { compat::set_latch(latch) };
        }
    }
}

impl Space {
    /// Holds a slot for a row that a transaction has written, before its commit.
    pub fn reserve(&self, image: &Image) -> Result<Reserved, Full> {
        let writer = self.roster().write();
        let reserved = writer.reserve(self.index(), image);
        writer.done();
        reserved
    }

    /// Gives up a reservation. Cannot fail.
    pub fn release_reservation(&self, reserved: Reserved) {
        let writer = self.roster().write();
        writer.let_go(reserved);
        writer.done();
    }

    /// Applies committed writes, all before the worker looks at any of their users; cannot fail. If the roster has no
    /// room for one, the worker is told to look for itself.
    pub fn apply<'a>(
        &self,
        writes: impl Iterator<Item = (&'a Write, Option<Reserved>)>,
        timeout: Micros,
    ) {
        let now = compat::now();
        let writer = self.roster().write();
        for (write, reserved) in writes {
            // The roster was full when the row was written: perhaps it has room now.
            let reserved = reserved.map_or_else(|| writer.reserve(self.index(), &write.image), Ok);
            match reserved {
                Ok(reserved) => {
                    writer.apply(&reserved, write, timeout, now);
                    writer.let_go(reserved);
                }
                Err(Full) => {
                    self.entry().counts.overflowed.add(1);
                    self.overflow_under(&writer);
                }
            }
        }
        writer.done();
    }

    /// Applies a committed TRUNCATE: all that is older than its stamp is gone at once. Cannot fail.
    pub fn truncate(&self, stamp: u64) {
        let writer = self.roster().write();
        self.entry().floor.raise(stamp);
        self.entry().reconcile.set(1);
        writer.has_news(self.index());
        writer.done();
    }
}
