//! Removal of whole sets of sessions: those of a dropped install, those that a TRUNCATE removed, and old tombstones.

use super::{
    layout::NONE,
    state::{SessionFlag, SessionState},
    sweep::BATCH,
    sweep_clock,
    tenant::Tenant,
    writer::Writer,
};
use crate::rules::status::Reason;

/// Frees what a dropped install left in the roster. Returns whether nothing is left of it; otherwise transactions in
/// flight still need some of it, and the call has to be repeated.
pub fn purge(tenant: Tenant) -> bool {
    const BATCH: u32 = 512;
    let roster = tenant.roster();
    let now = roster.now();
    let mut left = 0;
    let mut from = 0;
    loop {
        let writer = roster.write();
        let ever = roster.header.free_lists.slots_ever.get();
        let to = ever.min(from + BATCH);
        for at in from..to {
            let slot = &roster.slots[at as usize];
            if slot.tenant.get() as usize != tenant.index() || slot.user.get() == NONE || !writer.in_use(at) {
                continue;
            }
            if slot.state.get() != SessionState::Empty {
                writer.set_state(at, SessionState::Ended, Reason::Deleted);
                slot.flags.clear();
            }
            if slot.pins.get() == 0 && writer.may_free(slot) {
                writer.free_session(at);
            } else {
                left += 1;
            }
        }
        while writer.take_one_dirty(tenant.index(), 0, &now).is_some() {}
        // There is nothing left to do for a worker of this tenant.
        writer.unlock_without_waking();
        from = to;
        if from == ever {
            break;
        }
    }
    if left == 0 {
        let _writer = roster.write();
        tenant.entry().set_purged();
    }
    left == 0
}

impl Tenant {
    /// Ends every session that a TRUNCATE has removed. Returns how many. For the worker.
    pub fn reap_truncated(&self) -> usize {
        let floor = self.entry().floor.get();
        let reaped = self.for_each_slot(|writer, at| {
            let slot = &writer.roster.slots[at as usize];
            let is_removed = !matches!(slot.state.get(), SessionState::Empty | SessionState::Ended)
                && !writer.roster.survives_truncate(slot);
            if is_removed {
                writer.set_state(at, SessionState::Ended, Reason::Deleted);
                slot.flags.assign(SessionFlag::EndUnwritten, false);
            }
            is_removed
        });
        self.entry().reaped.set(floor);
        reaped
    }

    /// Frees up to `max` tombstones that no transaction in flight, and no unwritten end, needs. Returns how many.
    pub fn free_tombstones(&self, max: usize) -> usize {
        if self.entry().counts.ended.get() == 0 {
            return 0;
        }
        let roster = self.roster();
        let ever = roster.header.free_lists.slots_ever.get() as usize;
        let mut freed = 0;
        for (at, seen) in roster.seen[..ever].iter().enumerate() {
            if seen.get() != sweep_clock::TOMBSTONE {
                continue;
            }
            let slot = &roster.slots[at];
            if slot.tenant.get() as usize != self.index() {
                continue;
            }
            let writer = roster.write();
            if slot.state.get() == SessionState::Ended
                && slot.tenant.get() as usize == self.index()
                && writer.may_free(slot)
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

    /// Calls `f` for every session of this tenant, under the writers' lock; returns for how many it returned true. For the
    /// worker, which needs no waking.
    pub(super) fn for_each_slot(&self, mut f: impl FnMut(&Writer, u32) -> bool) -> usize {
        let roster = self.roster();
        let ever = roster.header.free_lists.slots_ever.get();
        let mut count = 0;
        for from in (0..ever).step_by(BATCH) {
            let writer = roster.write();
            for at in from..ever.min(from + BATCH as u32) {
                let mine = roster.slots[at as usize].tenant.get() as usize == self.index();
                if mine && writer.in_use(at) {
                    count += usize::from(f(&writer, at));
                }
            }
            writer.unlock_without_waking();
        }
        count
    }
}
