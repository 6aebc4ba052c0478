//! Sessions bound to a connection: live without heartbeats while it is open, released when it ends.
//!
//! [`Roster::bindings`] has the process that a session is bound to, which counts while the session has the flag `Bound`; only
//! a live session has it. Both change under the writers' lock. Readers hold another lock: whoever clears the flag stores
//! before what a reader needs that does not see it any more.

use std::sync::atomic::{
    Ordering::{Acquire, Release},
    fence,
};

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    beat::{Beat, Found},
    clock::Now,
    layout::{Roster, Slot},
    lock::{self, Index},
    lookup::{Key, Owner},
    state::{SessionFlag, SessionState},
    sweep::BATCH,
    tenant::{Tenant, tenants},
    writer::Writer,
};
use crate::{
    pg::compat,
    rules::{
        status::Reason,
        time::{Micros, SteadyTime},
    },
    settings,
};

/// Bits of a binding that are the grace, in microseconds: a day needs 37.
const GRACE_BITS: u32 = 40;

/// The process that a session is bound to, and the grace that the session has when that exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    pub process: usize,
    pub grace: Micros,
}

impl Binding {
    fn to_word(self) -> u64 {
        (self.process as u64 + 1) << GRACE_BITS | self.grace as u64
    }

    fn from_word(word: u64) -> Option<Binding> {
        Some(Binding {
            process: (word >> GRACE_BITS).checked_sub(1)? as usize,
            grace: (word & ((1 << GRACE_BITS) - 1)) as Micros,
        })
    }
}

impl Slot {
    /// Whether the session is bound to a connection.
    #[inline]
    pub fn is_bound(&self) -> bool {
        let is_bound = self.flags.has(SessionFlag::Bound);
        // Where it is bound no more, what was stored before is read after this.
        fence(Acquire);
        is_bound
    }

    /// When the session was last heard from: now, while it is bound.
    #[inline]
    pub fn activity(&self, now: SteadyTime) -> SteadyTime {
        match self.is_bound() {
            true => now.max(self.last_activity.get()),
            false => self.last_activity.get(),
        }
    }
}

impl Roster {
    /// The grace of a session if it is bound to a process. The caller holds the writers' lock.
    fn grace_of_bound(&self, at: u32, process: usize) -> Option<Micros> {
        let binding = Binding::from_word(self.bindings[at as usize].get())?;
        (self.slots[at as usize].is_bound() && binding.process == process).then_some(binding.grace)
    }
}

impl Writer {
    /// Ends what binds a session, which was heard from until now. The caller holds the session's id partition exclusively.
    pub fn unbind_locked(&self, at: u32, now: &Now) {
        let slot = &self.roster.slots[at as usize];
        if slot.is_bound() {
            slot.last_activity.raise(now.steady);
            fence(Release);
            slot.flags.assign(SessionFlag::Bound, false);
            self.roster.bindings[at as usize].set(0);
        }
    }

    /// As [`Writer::unbind_locked`], where no lock but the writers' is held.
    pub fn unbind(&self, at: u32, now: &Now) {
        let slot = &self.roster.slots[at as usize];
        if slot.is_bound() {
            let bucket = self.roster.id_bucket(slot.tenant.get() as usize, slot.id.get());
            let _held = lock::exclusive(Index::Id, bucket);
            self.unbind_locked(at, now);
        }
    }

    /// Makes a live session time out after `grace`, unless it beats first, whatever it was bound to.
    fn release(&self, at: u32, grace: Micros, timeout: Micros, now: &Now) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        let bucket = roster.id_bucket(slot.tenant.get() as usize, slot.id.get());
        let _held = lock::exclusive(Index::Id, bucket);
        let until = now.steady.plus(grace);
        slot.release_at
            .set(slot.release_at.some().map_or(until, |before| until.min(before)));
        self.unbind_locked(at, now);
        roster.schedule_sweep(at, timeout, now);
    }
}

impl Tenant {
    /// Binds a session to this process, which is a heartbeat that does not say whether somebody is at it. Whatever it was
    /// bound to before does not count any more. Cannot fail.
    pub fn bind(&self, id: &Uuid, grace: Micros, timeout: Micros) -> Beat {
        let roster = self.roster();
        let writer = roster.write();
        let now = &roster.now();
        let (found, held) = self.find(&Key::Id(*id), &Owner::Any, now);
        drop(held);
        let beat = match found {
            Found::Live(at) | Found::TimedOut(at) => {
                roster.touch(at, now.steady);
                if roster.slots[at as usize].flags.has(SessionFlag::Unseen) {
                    writer.set_attended(at);
                }
                writer.set_state(at, SessionState::Live, Reason::Resumed);
                let binding = Binding {
                    process: compat::process_number(),
                    grace,
                };
                roster.bindings[at as usize].set(binding.to_word());
                roster.slots[at as usize].flags.assign(SessionFlag::Bound, true);
                writer.update_idle(at, now);
                roster.schedule_sweep(at, timeout, now);
                Beat::Counted
            }
            Found::Ended => Beat::Ended,
            Found::Missing => Beat::Missing,
        };
        writer.give_way();
        beat
    }

    /// Makes a live session time out after `grace`, unless it beats first. Where it is bound to another connection, a release
    /// does not count.
    pub fn release(&self, key: &Key, owner: &Owner, grace: Micros, timeout: Micros) -> Beat {
        let roster = self.roster();
        // A release and a beat of the same session exclude each other: the one writes what the other clears.
        let writer = roster.write();
        let now = &roster.now();
        let (found, held) = self.find(key, owner, now);
        drop(held);
        match found {
            Found::Live(at) => {
                let is_bound = roster.slots[at as usize].is_bound();
                if !is_bound || roster.grace_of_bound(at, compat::process_number()).is_some() {
                    writer.release(at, grace, timeout, now);
                }
                Beat::Counted
            }
            // Silent already: there is nothing to shorten.
            Found::TimedOut(_) => Beat::Counted,
            Found::Ended => Beat::Ended,
            Found::Missing => Beat::Missing,
        }
    }

    /// Releases what is bound to a process that exits. Cannot fail.
    fn release_bound(&self, process: usize) {
        let roster = self.roster();
        let timeout = settings::active_timeout();
        let mut found = [0; BATCH];
        let mut n = 0;
        let release = |found: &[u32]| {
            let writer = roster.write();
            let now = roster.now();
            for &at in found {
                if roster.slots[at as usize].tenant.get() as usize == self.index()
                    && let Some(grace) = roster.grace_of_bound(at, process)
                {
                    writer.release(at, grace, timeout, &now);
                }
            }
            writer.give_way();
        };
        for at in roster.slot_blocks.ranges_of(self.index()).flatten() {
            if Binding::from_word(roster.bindings[at].get()).is_some_and(|binding| binding.process == process) {
                found[n] = at as u32;
                n += 1;
                if n == BATCH {
                    release(&found);
                    n = 0;
                }
            }
        }
        release(&found[..n]);
    }
}

/// Releases all sessions that are bound to a process, which is about to exit. Cannot fail.
pub fn end_connection(process: usize) {
    // SAFETY: reads a variable of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    tenants()
        .filter(|tenant| tenant.database() == database)
        .for_each(|tenant| tenant.release_bound(process));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::time::USECS_PER_SEC;

    #[test]
    fn a_binding_reads_back_as_it_was_written() {
        for process in [0, 1, 1 << 18] {
            for grace in [1, 24 * 60 * 60 * USECS_PER_SEC] {
                let binding = Binding { process, grace };
                assert_eq!(Binding::from_word(binding.to_word()), Some(binding));
            }
        }
        assert_eq!(Binding::from_word(0), None);
    }
}
