//! The writers' lock, and the one place that changes a session's state.
//!
//! ```text
//!                 a commit or a load brings it, silent for too long
//!   Empty ─────────────────────────────────────────────────────────▶ TimedOut
//!     │ ▲                                                             ▲   │
//!     │ │                         silence, release, recovery (sweep)  │   │
//!     │ │                      ┌──────────────────────────────────────┘   │
//!     │ │                      │                                          │
//!     │ │ a commit or a        │      a beat, or a commit that beats      │
//!     └─┼─ load brings it ──▶ Live ◀──────────────────────────────────────┤
//!       │                      │                                          │
//!       │ freed                │ logout, DELETE, TRUNCATE; expiry (sweep) │ logout, DELETE, TRUNCATE
//!       └────────── Ended ◀────┴──────────────────────────────────────────┘
//! ```
//!
//! A timed out session that expires stays TimedOut here: the cleaner ends it in the table, whose commit ends it here. A
//! commit with a newer stamp may bring an Ended session back, as a service can by plain SQL.

use std::{cell::Cell, mem::ManuallyDrop};

use super::{
    layout::{NONE, Roster},
    lock::{self, Held, Index},
    state::{SessionFlag, SessionState},
    sweep_clock,
};
use crate::rules::status::Reason;

/// The writers' lock, and what may be done under it. When it is dropped, the worker that has got something to do is
/// woken, after the lock is released.
pub struct Writer {
    pub roster: &'static Roster,
    /// The tenant whose worker has got something to do.
    to_wake: Cell<u32>,
    loading: bool,
    held: ManuallyDrop<Held>,
}

impl Roster {
    /// Takes the writers' lock.
    pub fn write(&'static self) -> Writer {
        self.lock_writers(false)
    }

    /// Takes the writers' lock for a load, which queues no users: the worker compares all of them afterwards.
    pub fn write_for_load(&'static self) -> Writer {
        self.lock_writers(true)
    }

    fn lock_writers(&'static self, loading: bool) -> Writer {
        Writer {
            roster: self,
            to_wake: Cell::new(NONE),
            loading,
            held: ManuallyDrop::new(lock::writers()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // SAFETY: dropped here, and nowhere else.
        unsafe { ManuallyDrop::drop(&mut self.held) };
        let tenant = self.to_wake.get();
        if tenant != NONE {
            self.roster.wake_worker(tenant as usize);
        }
    }
}

impl Writer {
    /// Wakes the worker of a tenant once the lock is released.
    pub fn wake_worker_of(&self, tenant: usize) {
        self.to_wake.set(tenant as u32);
    }

    /// Releases the lock, and lets others have it who wait for it: for whoever takes it again at once, with more to do. A
    /// lightweight lock goes to the first who asks for it, and those who are asleep are never the first.
    pub fn give_way(self) {
        let is_waited_for = self.held.is_waited_for();
        drop(self);
        if is_waited_for {
            lock::give_way();
        }
    }

    /// As [`Writer::give_way`], without waking the worker: for the worker itself.
    pub fn give_way_without_waking(self) {
        self.to_wake.set(NONE);
        self.give_way();
    }

    /// Whether users whose status changes are left to a comparison of all users.
    pub fn is_loading(&self) -> bool {
        self.loading
    }

    /// Changes a session's state, and with it the counts of its user and tenant.
    pub fn set_state(&self, at: u32, new: SessionState, reason: Reason) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        if slot.state.get() == new {
            return;
        }
        let bucket = roster.id_bucket(slot.tenant.get() as usize, slot.id.get());
        let old = {
            let _held = lock::exclusive(Index::Id, bucket);
            self.set_state_locked(at, new)
        };
        self.count_transition(at, old, new, reason);
    }

    /// Stores a state, and returns the old one. The caller holds the session's id partition exclusively, and calls
    /// [`Writer::count_transition`] once it is released.
    pub fn set_state_locked(&self, at: u32, new: SessionState) -> SessionState {
        let slot = &self.roster.slots[at as usize];
        let old = slot.state.get();
        if old != new {
            slot.state.set(new);
            if new != SessionState::Live && slot.is_bound() {
                slot.flags.assign(SessionFlag::Bound, false);
            }
            match new {
                SessionState::Ended => self.roster.seen[at as usize].set(sweep_clock::TOMBSTONE),
                SessionState::Live => {}
                SessionState::Empty | SessionState::TimedOut => self.roster.seen[at as usize].set(sweep_clock::NEVER),
            }
        }
        old
    }

    /// Counts a change of state.
    pub fn count_transition(&self, at: u32, old: SessionState, new: SessionState, reason: Reason) {
        if old == new {
            return;
        }
        let slot = &self.roster.slots[at as usize];
        let counts = &self.roster.tenant_of(slot).counts;
        if new == SessionState::Ended {
            counts.ended.add(1);
        } else if old == SessionState::Ended {
            counts.ended.sub(1);
        }
        if new == SessionState::Live {
            let reason = match slot.flags.has(SessionFlag::Unseen) {
                true => Reason::Started,
                false => reason,
            };
            slot.flags.assign(SessionFlag::Unseen, false);
            self.add_live(slot.user.get(), reason);
        } else if old == SessionState::Live {
            let was_idle = slot.flags.has(SessionFlag::Idle);
            slot.flags.assign(SessionFlag::Idle, false);
            self.remove_live(slot.user.get(), was_idle, reason);
        }
    }
}
