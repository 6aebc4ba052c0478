//! The sweep: finds sessions that have been silent for too long, have expired, or have become idle.

use super::{
    clock::Now,
    deadline::{deadline, is_by_grace},
    layout::{Slot, TenantEntry},
    lock::{self, Index},
    state::{SessionFlag, SessionState},
    sweep_clock,
    tenant::Tenant,
    writer::Writer,
};
use crate::rules::{status::Reason, time::Micros};

/// Sessions handled under one hold of the writers' lock.
pub const BATCH: usize = 64;

impl Writer {
    /// Times one session out, or counts it as idle, if it is due at `now`; otherwise schedules the next visit.
    pub fn time_out(&self, at: u32, timeout: Micros, now: &Now) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        if slot.state.get() != SessionState::Live {
            return;
        }
        // Beats may be storing right now. They only put what is due off, so that it is not before this.
        if now.steady < roster.schedule_sweep(at, timeout, now) {
            return;
        }
        let bucket = roster.id_bucket(slot.tenant.get() as usize, slot.id.get());
        let (new, reason) = {
            // Under the exclusive lock a beat has been stored, or it will see the new state.
            let _held = lock::exclusive(Index::Id, bucket);
            if now.steady < deadline(slot, roster.tenant_of(slot), timeout, now) {
                self.update_idle(at, now);
                roster.schedule_sweep(at, timeout, now);
                return;
            }
            self.unbind_locked(at, now);
            let (new, reason) = outcome(slot, roster.tenant_of(slot), timeout, now);
            self.set_state_locked(at, new);
            if new == SessionState::Ended {
                slot.flags.assign(SessionFlag::EndUnwritten, true);
            }
            (new, reason)
        };
        self.count_transition(at, SessionState::Live, new, reason);
    }
}

/// The next state of a session whose deadline has passed, and why.
fn outcome(slot: &Slot, tenant: &TenantEntry, timeout: Micros, now: &Now) -> (SessionState, Reason) {
    if now.wall() >= slot.expires_at.get() {
        return (SessionState::Ended, Reason::Expired);
    }
    let silent = slot.last_activity.get().plus(timeout);
    if slot.release_at.some().is_some_and(|release_at| release_at <= silent) {
        return (SessionState::TimedOut, Reason::Released);
    }
    if is_by_grace(slot, tenant, timeout) {
        return (SessionState::TimedOut, Reason::Recovered);
    }
    (SessionState::TimedOut, Reason::TimedOut)
}

impl Tenant {
    /// Checks all deadlines; times out what is due at `now`, ends what has expired. Returns how many sessions were
    /// visited. Takes the writers' lock for at most [`BATCH`] sessions at a time. For the worker, which needs no waking.
    pub fn sweep(&self, now: &Now, timeout: Micros) -> usize {
        let roster = self.roster();
        let due = sweep_clock::due(now.steady, timeout, roster.header.origin.get());
        let mut found = [0u32; BATCH];
        let mut visited = 0;
        let mut n = 0;
        let mut visit = |found: &[u32]| {
            let writer = roster.write();
            for &at in found {
                if roster.slots[at as usize].tenant.get() as usize == self.index() {
                    writer.time_out(at, timeout, now);
                    visited += 1;
                }
            }
            writer.give_way_without_waking();
        };
        for range in roster.slot_blocks.ranges_of(self.index()) {
            for (at, seen) in range.clone().zip(&roster.seen[range]) {
                // NEVER wraps to the largest number, so that one comparison is enough.
                let is_due = seen.get().wrapping_sub(1) < due;
                if is_due && roster.slots[at].tenant.get() as usize == self.index() {
                    found[n] = at as u32;
                    n += 1;
                    if n == BATCH {
                        visit(&found);
                        n = 0;
                    }
                }
            }
        }
        if n > 0 {
            visit(&found[..n]);
        }
        visited
    }

    /// Reschedules the sweep's visits to all sessions, after `presence.active_timeout` or `presence.idle_timeout` has
    /// changed or the clock was set.
    pub fn reschedule_all(&self, timeout: Micros, now: &Now) {
        self.for_each_slot(|writer, at| {
            if writer.roster.slots[at as usize].state.get() == SessionState::Live {
                writer.update_idle(at, now);
                writer.roster.schedule_sweep(at, timeout, now);
            }
            false
        });
    }
}
