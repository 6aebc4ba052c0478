//! Slots and user entries: taking a free one, returning it, and evicting where there is none. [`super::blocks`] keeps
//! which are in use.
//!
//! Everything here happens under the writers' lock.

use super::{
    blocks::Blocks,
    deadline::deadline,
    layout::Slot,
    stamp::LOADED,
    state::{SessionFlag, SessionState, UserFlag},
    sweep_clock,
    tenant::Tenant,
    writer::Writer,
};
use crate::{rules::status::Reason, settings};

/// The roster has no room for another session.
#[derive(Clone, Copy, Debug)]
pub struct Full;

impl Writer {
    /// Takes a free slot for a tenant, evicting a session where there is none.
    pub fn allocate_slot(&self, tenant: usize) -> Result<u32, Full> {
        let blocks = &self.roster.slot_blocks;
        if let Some(at) = blocks.allocate(tenant) {
            return Ok(at);
        }
        self.evict()?;
        blocks.allocate(tenant).ok_or(Full)
    }

    /// Returns a slot that is in no chain any more.
    pub fn release_slot(&self, at: u32) {
        let slot = &self.roster.slots[at as usize];
        self.roster.seen[at as usize].set(sweep_clock::NEVER);
        slot.state.set(SessionState::Empty);
        self.roster.slot_blocks.release(at);
    }

    /// Takes a free user entry for a tenant. Where there is none, tenants without a worker give some up.
    pub fn allocate_user(&self, tenant: usize) -> Result<u32, Full> {
        let blocks = &self.roster.user_blocks;
        if let Some(at) = blocks.allocate(tenant) {
            return Ok(at);
        }
        self.drop_users_without_worker();
        if let Some(at) = blocks.allocate(tenant) {
            return Ok(at);
        }
        self.drop_taken_user();
        blocks.allocate(tenant).ok_or(Full)
    }

    /// Frees an entry that is kept only until the worker has written it: a worker, where there is one, has what it writes.
    fn drop_taken_user(&self) {
        const ATTEMPTS: usize = 256;
        let hand = &self.roster.header.free_lists.user_hand;
        let users = self.roster.users.len() as u32;
        for _ in 0..ATTEMPTS.min(users as usize) {
            let at = hand.get() % users;
            hand.set(at + 1);
            let user = &self.roster.users[at as usize];
            let is_queued = user.flags.has(UserFlag::Dirty);
            if user.flags.has(UserFlag::Taken) && !is_queued && user.sessions.get() == 0 && user.pins.get() == 0 {
                user.flags.assign(UserFlag::Taken, false);
                return self.free_user_if_unused(at);
            }
        }
    }

    /// Returns a user entry that is in no chain any more.
    pub fn release_user(&self, at: u32) {
        self.roster.user_blocks.release(at);
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
                }
                if slot.state.get() == SessionState::Live {
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

impl Tenant {
    /// Looks at up to `max` mixed blocks of slots, and as many of users, of whatever tenants, and gives those back to one
    /// tenant that has them alone by now. For the worker.
    pub fn unmix_blocks(&self, max: usize) {
        let roster = self.roster();
        let unmix = |blocks: &Blocks, tenant_of: &dyn Fn(u32) -> u16| {
            for _ in 0..max {
                let Some(block) = blocks.next_mixed() else {
                    return;
                };
                let writer = roster.write();
                blocks.unmix(block, tenant_of);
                writer.give_way_without_waking();
            }
        };
        unmix(&roster.slot_blocks, &|at| roster.slots[at as usize].tenant.get());
        unmix(&roster.user_blocks, &|at| roster.users[at as usize].tenant.get());
    }
}
