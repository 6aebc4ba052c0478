//! Slots and user entries that are in use, those that are free, and those that can be evicted.
//!
//! Everything here happens under the writers' lock.

use super::{
    deadline::deadline,
    layout::{NONE, Slot},
    stamp::LOADED,
    state::{SessionFlag, SessionState},
    sweep_clock,
    writer::Writer,
};
use crate::{rules::status::Reason, settings};

/// The roster has no room for another session.
#[derive(Clone, Copy, Debug)]
pub struct Full;

impl Writer {
    /// Takes a free slot, evicting a session where there is none.
    pub fn allocate_slot(&self) -> Result<u32, Full> {
        let lists = &self.roster.header.free_lists;
        let never_used = lists.slots_ever.get();
        let at = if let Some(free) = self.pop_free_slot() {
            free
        } else if (never_used as usize) < self.roster.slots.len() {
            lists.slots_ever.set(never_used + 1);
            never_used
        } else {
            self.evict()?;
            self.pop_free_slot().ok_or(Full)?
        };
        lists.slots_used.add(1);
        Ok(at)
    }

    fn pop_free_slot(&self) -> Option<u32> {
        let lists = &self.roster.header.free_lists;
        let free = lists.free_slot.get();
        (free != NONE).then(|| {
            lists.free_slot.set(self.roster.slots[free as usize].id_next.get());
            free
        })
    }

    /// Returns a slot that is in no chain any more.
    pub fn release_slot(&self, at: u32) {
        let slot = &self.roster.slots[at as usize];
        self.roster.seen[at as usize].set(sweep_clock::NEVER);
        slot.state.set(SessionState::Empty);
        let lists = &self.roster.header.free_lists;
        slot.id_next.set(lists.free_slot.get());
        lists.free_slot.set(at);
        lists.slots_used.sub(1);
    }

    /// Takes a free user entry. Where there is none, tenants without a worker give some up.
    pub fn allocate_user(&self) -> Result<u32, Full> {
        let lists = &self.roster.header.free_lists;
        let never_used = lists.users_ever.get();
        let at = if let Some(free) = self.pop_free_user() {
            free
        } else if (never_used as usize) < self.roster.users.len() {
            lists.users_ever.set(never_used + 1);
            never_used
        } else {
            self.drop_users_without_worker();
            self.pop_free_user().ok_or(Full)?
        };
        lists.users_used.add(1);
        Ok(at)
    }

    fn pop_free_user(&self) -> Option<u32> {
        let lists = &self.roster.header.free_lists;
        let free = lists.free_user.get();
        (free != NONE).then(|| {
            lists.free_user.set(self.roster.users[free as usize].hash_next.get());
            free
        })
    }

    /// Returns a user entry that is in no chain any more.
    pub fn release_user(&self, at: u32) {
        let lists = &self.roster.header.free_lists;
        self.roster.users[at as usize].hash_next.set(lists.free_user.get());
        lists.free_user.set(at);
        lists.users_used.sub(1);
    }

    /// Frees one slot that nobody needs: an ended session whose end is written, or a timed out one that the table has.
    fn evict(&self) -> Result<(), Full> {
        /// Slots tried before giving up.
        const ATTEMPTS: usize = 256;
        let lists = &self.roster.header.free_lists;
        let slots = self.roster.slots.len() as u32;
        for _ in 0..ATTEMPTS.min(slots as usize) {
            let at = lists.evict_hand.get() % slots;
            lists.evict_hand.set(at + 1);
            let slot = &self.roster.slots[at as usize];
            let spare = match slot.state.get() {
                SessionState::Ended => true,
                SessionState::TimedOut => self.is_flushed(slot) || self.is_abandoned(slot),
                SessionState::Live => self.is_abandoned(slot),
                SessionState::Empty => false,
            };
            if spare && self.may_free(slot) {
                let tenant = self.roster.tenant_of(slot);
                tenant.counts.evicted.add(1);
                if !self.is_flushed(slot) {
                    // The table has to be loaded again; until then calls read it.
                    tenant.complete.set(0);
                    tenant.compare.set(1);
                    self.set_state(at, SessionState::TimedOut, Reason::TimedOut);
                }
                self.free_session(at);
                return Ok(());
            }
        }
        Err(Full)
    }

    /// Whether a slot may leave the roster as far as writes in flight, loads and unwritten ends are concerned.
    pub fn may_free(&self, slot: &Slot) -> bool {
        let stamp = slot.stamp.get();
        slot.pins.get() == 0
            && !slot.flags.has(SessionFlag::EndUnwritten)
            && (stamp & LOADED != 0 || stamp < self.roster.oldest_inflight(self.roster.tenant_of(slot).database.get()))
    }

    /// Whether the slot holds a session, or is reserved for one.
    pub fn in_use(&self, at: u32) -> bool {
        let slot = &self.roster.slots[at as usize];
        // A free slot is Empty and unpinned; a reserved one is pinned.
        slot.state.get() != SessionState::Empty || slot.pins.get() > 0
    }

    /// Whether a session is over, and its tenant has no worker that would write that to the table.
    fn is_abandoned(&self, slot: &Slot) -> bool {
        let tenant = self.roster.tenant_of(slot);
        let now = self.roster.now();
        tenant.worker.pid.get() == 0 && now.steady >= deadline(slot, tenant, settings::active_timeout(), &now)
    }

    /// Whether the table has everything that the roster knows of a session.
    fn is_flushed(&self, slot: &Slot) -> bool {
        let known = sweep_clock::ceil(slot.last_activity.get(), self.roster.header.origin.get());
        known <= slot.flushed.get()
            && slot.flags.has(SessionFlag::TableInactive) == (slot.state.get() == SessionState::TimedOut)
    }
}
