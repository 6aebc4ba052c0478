//! Stamps: the order in which writes to a session were made, whatever the order in which their commits are applied.
//!
//! Commit callbacks run after the row locks are released, so two writes of one row may be applied in the wrong order. A
//! trigger takes a stamp while it holds the row's lock; the roster keeps the newest stamp applied to a session and
//! ignores older ones.
//!
//! A write keeps its slot pinned until it is applied, so an end that overtakes it leaves its mark there. Two others have no
//! slot to keep: a write that finds the roster full, and a load, which meets its sessions one by one. Each publishes a
//! bound, and while it is in flight, ended sessions of the same database with a newer stamp stay as tombstones.

use pgrx::pg_sys;

use super::layout::{InFlight, Roster, Slot, TenantEntry};
use crate::pg::compat;

/// The first stamp.
pub const FIRST: u64 = 1;
/// Marks a slot filled from the table rather than by a commit: any commit overrides it. The low bits are the stamp
/// counter at that time, so that an older TRUNCATE does not remove it.
pub const LOADED: u64 = 1 << 63;

impl Roster {
    /// Takes the next stamp.
    pub fn take_stamp(&self) -> u64 {
        self.header.stamps.0.add(1)
    }

    /// Takes the next stamp for a write without a slot; its bound stays published until [`Roster::clear_inflight`].
    pub fn take_unreserved_stamp(&self) -> u64 {
        let mine = &self.inflight[compat::process_number()];
        if mine.stamp.get() == 0 {
            // First the lower bound, then the stamp: nobody may conclude that nothing older is in flight.
            self.publish(mine, self.header.stamps.0.get());
        }
        self.take_stamp()
    }

    /// Publishes the bound of a load that is about to read the table: no end that its snapshot may not see is forgotten.
    /// Returns the stamp its rows are filed under.
    pub fn take_stamp_for_load(&self) -> u64 {
        self.publish(&self.inflight[compat::process_number()], FIRST);
        self.load_stamp()
    }

    fn publish(&self, mine: &InFlight, bound: u64) {
        // SAFETY: reads a global variable of this process.
        mine.database.set(unsafe { pg_sys::MyDatabaseId }.to_u32());
        mine.stamp.publish(bound);
    }

    /// A stamp for what is about to be read from the table.
    pub fn load_stamp(&self) -> u64 {
        self.header.stamps.0.add(1) | LOADED
    }

    /// Ends this process's bound: everything it covered is applied.
    pub fn clear_inflight(&self) {
        self.inflight[compat::process_number()].stamp.set(0);
    }

    /// No write of this database without a slot, and no load, has a bound below this. To be called under the writers' lock
    /// where a tombstone is freed by it: a bound that is published later belongs to newer writes.
    pub fn oldest_inflight(&self, database: u32) -> u64 {
        self.inflight
            .iter()
            .map(|entry| (entry.stamp.get_acquire(), entry))
            .filter(|(stamp, entry)| *stamp != 0 && entry.database.get() == database)
            .map(|(stamp, _)| stamp)
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
