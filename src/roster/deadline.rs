//! When a session stops being live. Readers compare this with the clock; the sweep acts on it.

use super::{
    layout::{Roster, Slot, TenantEntry},
    stamp::survives_truncate,
    state::{SessionFlag, SessionState},
    sweep_clock,
};
use crate::rules::time::Micros;

/// The instant from which a session is no longer live, if it is not heard from before.
#[inline]
pub fn deadline(slot: &Slot, tenant: &TenantEntry, timeout: Micros) -> Micros {
    let mut end = slot.last_activity.get().saturating_add(timeout);
    if slot.flags.has(SessionFlag::Recovered) {
        end = end.max(tenant.grace_until.get());
    }
    let release_at = slot.release_at.get();
    if release_at != 0 {
        end = end.min(release_at);
    }
    end.min(slot.expires_at.get())
}

/// Whether a session is live at `now`.
#[inline]
pub fn is_live(slot: &Slot, tenant: &TenantEntry, timeout: Micros, now: Micros) -> bool {
    slot.state.get() == SessionState::Live && survives_truncate(slot, tenant) && now < deadline(slot, tenant, timeout)
}

impl Roster {
    /// The tenant that a slot belongs to.
    #[inline]
    pub fn tenant_of(&self, slot: &Slot) -> &'static TenantEntry {
        &self.tenants[slot.tenant.get() as usize]
    }

    /// Whether no TRUNCATE has removed a session.
    #[inline]
    pub fn survives_truncate(&self, slot: &Slot) -> bool {
        survives_truncate(slot, self.tenant_of(slot))
    }

    /// Schedules the sweep's next visit to a session for its deadline, and returns the deadline.
    #[inline]
    pub fn schedule_sweep(&self, at: u32, timeout: Micros) -> Micros {
        let slot = &self.slots[at as usize];
        let deadline = deadline(slot, self.tenant_of(slot), timeout);
        let seen = sweep_clock::seen_for(deadline, timeout, self.header.origin.get());
        self.seen[at as usize].set(seen);
        deadline
    }
}
