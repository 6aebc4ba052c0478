//! Stamps: the order in which writes to a session were made, whatever order their commits are told in.
//!
//! Commit callbacks run after the row locks are gone, so two writes of one row may be told the wrong way round. A
//! trigger takes a stamp while it holds the row's lock; the roster keeps the newest stamp applied to a session and
//! ignores older ones. What ended stays as a tombstone for as long as a transaction with an older stamp may still
//! be told: each process publishes the first stamp of its transaction until it has told its writes.

use super::layout::{Roster, Slot, SpaceEntry};
use crate::compat;

/// A slot filled from the table, not by a commit: any commit's word counts more. The low bits are the stamp
/// counter at that time, so that an older TRUNCATE does not remove it.
pub const LOADED: u64 = 1 << 63;

impl Roster {
    /// Takes the next stamp, and publishes it where this is the transaction's first.
    pub fn take_stamp(&self) -> u64 {
        let mine = &self.inflight[compat::process_number()];
        if mine.get() == 0 {
            // First the lower bound, then the stamp: nobody may believe that nothing older is under way.
            mine.publish(self.header.stamps.0.get());
        }
        self.header.stamps.0.add(1)
    }

    /// A stamp for a whole table that is about to be read. All that is under way counts as older, also after it has been
    /// told: the snapshot may not see it.
    pub fn take_stamp_for_load(&self) -> u64 {
        let oldest = self.oldest_inflight().min(self.header.stamps.0.get());
        self.inflight[compat::process_number()].publish(oldest);
        self.load_stamp()
    }

    /// A stamp for what is about to be read from the table.
    pub fn load_stamp(&self) -> u64 {
        self.header.stamps.0.add(1) | LOADED
    }

    /// This process has told all its writes.
    pub fn stamps_told(&self) {
        self.inflight[compat::process_number()].set(0);
    }

    /// No write with a stamp below this is still to be told.
    pub fn oldest_inflight(&self) -> u64 {
        self.inflight
            .iter()
            .map(super::cell::W64::get)
            .filter(|&stamp| stamp != 0)
            .min()
            .unwrap_or(u64::MAX)
    }
}

/// Whether a write with stamp `new` comes after one with stamp `old`.
pub fn after(new: u64, old: u64) -> bool {
    old & LOADED != 0 || new > old
}

/// Whether the session is younger than the last TRUNCATE of its space. Stamps begin at 1, so where there was none, its
/// own is not read: a beat spares the second line of the slot.
#[inline]
pub fn survives(slot: &Slot, space: &SpaceEntry) -> bool {
    let floor = space.floor.get();
    floor == 0 || slot.stamp.get() & !LOADED > floor
}
