//! Removal of whole sets of sessions: those of a dropped install, those that a TRUNCATE removed, and old tombstones.

use super::{
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
    let mut left = 0;
    tenant.for_each_slot(|writer, at| {
        let slot = &writer.roster.slots[at as usize];
        if slot.state.get() != SessionState::Empty {
            writer.set_state(at, SessionState::Ended, Reason::Deleted);
            slot.flags.clear();
        }
        if slot.pins.get() == 0 && writer.may_free(slot) {
            writer.free_session(at);
        } else {
            left += 1;
        }
        false
    });
    tenant.requeue_taken();
    while tenant.drop_dirty() {}
    if left == 0 {
        let _writer = tenant.roster().write();
        tenant.entry().set_purged();
    }
    left == 0
}

impl Tenant {
    /// Ends every session that a TRUNCATE has removed. Returns how many. For the worker.
    pub fn reap_truncated(&self) -> usize {
        let (floor, now) = (self.entry().floor.get(), self.now());
        let reaped = self.for_each_slot(|writer, at| {
            let slot = &writer.roster.slots[at as usize];
            let is_removed = !matches!(slot.state.get(), SessionState::Empty | SessionState::Ended)
                && !writer.roster.survives_truncate(slot);
            if is_removed {
                writer.unbind(at, &now);
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
        let mut freed = 0;
        let slots = roster.slot_blocks.ranges_of(self.index()).flatten();
        for at in slots {
            if roster.seen[at].get() != sweep_clock::TOMBSTONE {
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
        // Every session that was added before this is seen from here on.
        roster.write().give_way_without_waking();
        let mut count = 0;
        for word in roster.slot_blocks.words_of(self.index()) {
            let writer = roster.write();
            for at in roster.slot_blocks.entries_in(word) {
                if roster.slots[at as usize].tenant.get() as usize == self.index() {
                    count += usize::from(f(&writer, at));
                }
            }
            writer.give_way_without_waking();
        }
        count
    }

    /// Takes some users out of the queue, whom no worker will read. Returns whether there may be more.
    fn drop_dirty(&self) -> bool {
        let writer = self.roster().write();
        let some = (0..BATCH).all(|_| writer.drop_one_dirty(self.index()));
        writer.give_way_without_waking();
        some
    }
}
