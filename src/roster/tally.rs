//! Tallies: how many heartbeats came.
//!
//! Each process counts in a cache line of its own, whose counts nobody else writes, so that a beat neither waits for another
//! processor nor takes an atomic step for it. The line says which space its counts belong to. A process that comes to
//! another space, or gets the number of one that has gone, first settles what the line holds with the old space's
//! totals. It does so, and whoever adds the lines up does that, under the writers' lock: a sum never goes back.

use super::{
    Space,
    layout::{NONE, Tally},
    write::Writer,
};
use crate::compat;

impl Tally {
    /// Counts a heartbeat.
    #[inline]
    pub fn count_beat(&self) {
        // A plain sum, as this process alone writes it.
        self.beats.set(self.beats.get() + 1);
    }

    /// Counts a heartbeat of a session that is not there, or has ended.
    #[inline]
    pub fn count_rejected(&self) {
        self.rejected.set(self.rejected.get() + 1);
    }
}

impl Space {
    /// Makes this process's tally count for this space.
    pub(super) fn take_tally(&self) -> &'static Tally {
        let roster = self.roster();
        let tally = &roster.tallies[compat::process_number()];
        let writer = roster.write();
        if tally.space.get() as usize != self.index() {
            // Nothing to settle where the space has been given to another install since.
            if let Some(old) = roster.spaces.get(tally.space.get() as usize) {
                old.counts.beats.add(tally.beats.get());
                old.counts.rejected.add(tally.rejected.get());
            }
            tally.beats.set(0);
            tally.rejected.set(0);
            tally.space.set(self.index() as u32);
        }
        drop(writer);
        tally
    }

    /// How many heartbeats were counted, and how many were refused, since the space began.
    pub fn tallied(&self) -> (u64, u64) {
        let roster = self.roster();
        let counts = &self.entry().counts;
        let writer = roster.write();
        let (mut beats, mut rejected) = (counts.beats.get(), counts.rejected.get());
        for tally in roster.tallies {
            if tally.space.get() as usize == self.index() {
                beats += tally.beats.get();
                rejected += tally.rejected.get();
            }
        }
        drop(writer);
        (beats, rejected)
    }
}

impl Writer {
    /// Lets no tally count for a space any more: it is about to be another install's.
    pub fn forget_tallies(&self, space: usize) {
        for tally in self.roster.tallies {
            if tally.space.get() as usize == space {
                tally.space.set(NONE);
            }
        }
    }
}
