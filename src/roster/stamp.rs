//! Stamps: the order in which writes to a session were made, whatever the order in which their commits are applied.
//!
//! Commit callbacks run after the row locks are released, so two writes of one row may be applied in the wrong order. A
//! trigger takes a stamp while it holds the row's lock; the roster keeps the newest stamp applied to a session and
//! ignores older ones. An ended session stays as a tombstone for as long as a transaction with an older stamp may still
//! be applied: each process publishes the first stamp of its transaction until it has applied its writes.

use super::{
    atomic::SharedU64,
    layout::{Roster, Slot, TenantEntry},
};
use crate::pg::compat;

/// Marks a slot filled from the table rather than by a commit: any commit overrides it. The low bits are the stamp
/// counter at that time, so that an older TRUNCATE does not remove it.
pub const LOADED: u64 = 1 << 63;

impl Roster {
    /// Takes the next stamp, and publishes it where this is the transaction's first.
    pub fn take_stamp(&self) -> u64 {
        let mine = &self.inflight[compat::process_number()];
        if mine.get() == 0 {
            // First the lower bound, then the stamp: nobody may conclude that nothing older is in flight.
            mine.publish(self.header.stamps.0.get());
        }
        self.header.stamps.0.add(1)
    }

    /// A stamp for a whole table that is about to be read. Everything in flight counts as older, also after it has been
    /// applied: the snapshot may not see it.
    pub fn take_stamp_for_load(&self) -> u64 {
        let oldest = self.oldest_inflight().min(self.header.stamps.0.get());
        self.inflight[compat::process_number()].publish(oldest);
        self.load_stamp()
    }

    /// A stamp for what is about to be read from the table.
    pub fn load_stamp(&self) -> u64 {
        self.header.stamps.0.add(1) | LOADED
    }

    /// Ends this process's stamps: all its writes are applied.
    pub fn clear_inflight(&self) {
        self.inflight[compat::process_number()].set(0);
    }

    /// No write with a stamp below this is still to be applied.
    pub fn oldest_inflight(&self) -> u64 {
        self.inflight
            .iter()
            .map(SharedU64::get)
            .filter(|&stamp| stamp != 0)
            .min()
            .unwrap_or(u64::MAX)
    }
}

/// Whether a write with stamp `new` comes after one with stamp `old`.
pub fn after(new: u64, old: u64) -> bool {
    old & LOADED != 0 || new > old
}

/// Whether a session is younger than the last TRUNCATE of its tenant. Stamps begin at 1, so where there was no
/// TRUNCATE, the session's own stamp is not read: that spares a beat the second line of the slot.
#[inline]
pub fn survives_truncate(slot: &Slot, tenant: &TenantEntry) -> bool {
    let floor = tenant.floor.get();
    floor == 0 || slot.stamp.get() & !LOADED > floor
}
