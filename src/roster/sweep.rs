//! The sweep: finds sessions that have been silent for too long, and tombstones that nobody needs.

use super::{
    Space,
    layout::Slot,
    lock::{self, Index},
    state::{self, EMPTY, END_UNWRITTEN, ENDED, LIVE, RECOVERED, TIMED_OUT},
    units,
    user::Dirty,
    write::Writer,
};
use crate::core::{status::Reason, time::Micros};

/// Sessions handled under one hold of the writers' lock.
const BATCH: usize = 64;

impl Writer {
    /// Whether the slot holds a session at all.
    pub fn in_use(&self, at: u32) -> bool {
        let slot = &self.roster.slots[at as usize];
        // A free slot is EMPTY and unpinned; a reserved one is pinned.
        slot.state.get() != EMPTY || slot.pins.get() > 0
    }

    /// Times one session out if it is due at `now`; else writes down when it will be.
    fn time_out(&self, at: u32, timeout: Micros, now: Micros) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        if slot.state.get() != LIVE {
            return;
        }
        let space = roster.space_of(slot);
        // Beats may be storing right now. They only put the deadline off, so that it is not before this.
        let deadline = state::deadline(slot, space, timeout);
        if now < deadline {
            roster.expect(at, deadline, timeout);
            return;
        }
        let bucket = roster.id_bucket(slot.space.get() as usize, slot.id.words());
        let (new, reason) = {
            // Under the exclusive lock a beat has been stored, or it will see the new state.
            let _held = lock::exclusive(Index::Id, bucket);
            let deadline = state::deadline(slot, space, timeout);
            if now < deadline {
                roster.expect(at, deadline, timeout);
                return;
            }
            let (new, reason) = why(slot, timeout, now);
            slot.state.set(new);
            roster.seen[at as usize].set(if new == ENDED {
                units::TOMBSTONE
            } else {
                units::NEVER
            });
            if new == ENDED {
                slot.flags.assign(END_UNWRITTEN, true);
                space.counts.ended.add(1);
            }
            (new, reason)
        };
        debug_assert!(new != LIVE);
        self.one_less_live(slot.user.get(), reason);
    }
}

/// What becomes of a session whose deadline has passed, and why.
fn why(slot: &Slot, timeout: Micros, now: Micros) -> (u8, Reason) {
    if now >= slot.expires_at.get() {
        return (ENDED, Reason::Expired);
    }
    let release_at = slot.release_at.get();
    if release_at != 0 && release_at <= slot.last_activity.get().saturating_add(timeout) {
        return (TIMED_OUT, Reason::Released);
    }
    if slot.flags.has(RECOVERED) {
        return (TIMED_OUT, Reason::Recovered);
    }
    (TIMED_OUT, Reason::TimedOut)
}

impl Space {
    /// Looks through all deadlines; times out what is due at `now`, ends what has expired. Gives how many sessions
    /// it handled. Takes the writers' lock for at most [`BATCH`] sessions at a time.
    pub fn sweep(&self, now: Micros, timeout: Micros) -> usize {
        let roster = self.roster();
        let due = units::due(now, timeout, roster.header.origin.get());
        let mut found = [0u32; BATCH];
        let mut handled = 0;
        let mut n = 0;
        let ever = roster.header.heap.slots_ever.get() as usize;
        let mut flush = |found: &[u32]| {
            let writer = roster.write();
            for &at in found {
                if roster.slots[at as usize].space.get() as usize == self.index() {
                    writer.time_out(at, timeout, now);
                    handled += 1;
                }
            }
            // The worker itself sweeps: it needs no waking.
            drop(writer);
        };
        for (at, seen) in roster.seen[..ever].iter().enumerate() {
            // NEVER wraps to the largest number, so that one comparison tells.
            if seen.get().wrapping_sub(1) < due {
                found[n] = at as u32;
                n += 1;
                if n == BATCH {
                    flush(&found);
                    n = 0;
                }
            }
        }
        if n > 0 {
            flush(&found[..n]);
        }
        handled
    }

    /// Ends every session that a TRUNCATE has removed. Gives how many.
    pub fn reap_truncated(&self) -> usize {
        let floor = self.entry().floor.get();
        let reaped = self.for_each_slot(|writer, at| {
            let slot = &writer.roster.slots[at as usize];
            if slot.state.get() != EMPTY && slot.state.get() != ENDED && !writer.roster.stands(slot)
            {
                writer.set_state(at, ENDED, Reason::Deleted);
                slot.flags.assign(END_UNWRITTEN, false);
                return true;
            }
            false
        });
        self.entry().reaped.set(floor);
        reaped
    }

    /// Frees up to `max` tombstones that no transaction under way, and no unwritten end, needs.
    pub fn collect(&self, max: usize) -> usize {
        if self.entry().counts.ended.get() == 0 {
            return 0;
        }
        let roster = self.roster();
        let oldest = roster.oldest_inflight();
        let ever = roster.header.heap.slots_ever.get() as usize;
        let mut freed = 0;
        for (at, seen) in roster.seen[..ever].iter().enumerate() {
            if seen.get() != units::TOMBSTONE {
                continue;
            }
            let slot = &roster.slots[at];
            if slot.space.get() as usize != self.index() {
                continue;
            }
            let writer = roster.write();
            if slot.state.get() == ENDED
                && slot.space.get() as usize == self.index()
                && writer.may_free(slot, oldest)
            {
                writer.free_session(at as u32);
                freed += 1;
            }
            drop(writer);
            if freed == max {
                break;
            }
        }
        freed
    }

    /// Takes up to `max` users out of the queue, each with its status now.
    pub fn take_dirty(&self, max: usize, timeout: Micros, now: Micros) -> Vec<Dirty> {
        let waiting = (self.entry().dirty.length.get() as usize).min(max);
        let mut dirty = Vec::with_capacity(waiting);
        while dirty.len() < waiting {
            let room = (waiting - dirty.len()).min(BATCH);
            let mut taken = 0;
            let writer = self.roster().write();
            // Within the capacity reserved above: nothing is allocated under the lock.
            while taken < room
                && let Some(user) = writer.take_one_dirty(self.index(), timeout, now)
            {
                dirty.push(user);
                taken += 1;
            }
            drop(writer);
            if taken < room {
                break;
            }
        }
        dirty
    }

    /// How many users wait for the worker.
    pub fn dirty_users(&self) -> u32 {
        self.entry().dirty.length.get()
    }

    /// Calls `f` for every session of this space, under the writers' lock; gives for how many it returned true.
    pub(super) fn for_each_slot(&self, mut f: impl FnMut(&Writer, u32) -> bool) -> usize {
        let roster = self.roster();
        let ever = roster.header.heap.slots_ever.get();
        let mut count = 0;
        for from in (0..ever).step_by(BATCH) {
            let writer = roster.write();
            for at in from..ever.min(from + BATCH as u32) {
                let mine = roster.slots[at as usize].space.get() as usize == self.index();
                if mine && writer.in_use(at) {
                    count += usize::from(f(&writer, at));
                }
            }
            drop(writer);
        }
        count
    }
}
