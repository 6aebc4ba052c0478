//! When a session stops being live, and when it becomes idle. Readers compare this with the clock; the sweep acts on it.

use std::sync::atomic::{Ordering::Acquire, fence};

use super::{
    clock::Now,
    layout::{Roster, Slot, TenantEntry},
    stamp::survives_truncate,
    state::{SessionFlag, SessionState},
    sweep_clock,
};
use crate::{
    rules::{
        status,
        time::{Micros, SteadyTime},
    },
    settings,
};

/// The instant from which a session is no longer live, if it is not heard from before.
#[inline]
pub fn deadline(slot: &Slot, tenant: &TenantEntry, timeout: Micros, now: &Now) -> SteadyTime {
    if slot.is_bound() {
        return now.to_steady(slot.expires_at.get());
    }
    let (stood_from, grace_until) = (tenant.stood_from.get(), tenant.grace_until.get());
    let mut end = slot.last_activity.get().plus(timeout);
    if slot.flags.has(SessionFlag::Recovered) || end > stood_from {
        end = end.max(grace_until);
    }
    if let Some(release_at) = slot.release_at.some() {
        let ran_out_meanwhile = release_at > stood_from && release_at <= tenant.stood_until.get();
        end = end.min(if ran_out_meanwhile { grace_until } else { release_at });
    }
    end.min(now.to_steady(slot.expires_at.get()))
}

/// Whether a session has only been live by a grace, after a start or a standstill.
pub fn is_by_grace(slot: &Slot, tenant: &TenantEntry, timeout: Micros) -> bool {
    let silent = slot.last_activity.get().plus(timeout);
    slot.flags.has(SessionFlag::Recovered) || silent > tenant.stood_from.get() && silent <= tenant.grace_until.get()
}

/// Whether a session is live at `now`.
#[inline]
pub fn is_live(slot: &Slot, tenant: &TenantEntry, timeout: Micros, now: &Now) -> bool {
    slot.state.get() == SessionState::Live
        && survives_truncate(slot, tenant)
        && now.steady < deadline(slot, tenant, timeout, now)
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

    /// The instant from which a live session is idle, if nobody is at it before; in the distant future where its last
    /// heartbeat was not [`Tenant::beat_idle`](super::tenant::Tenant::beat_idle).
    #[inline]
    pub fn idle_from(&self, at: u32) -> SteadyTime {
        let slot = &self.slots[at as usize];
        if !slot.flags.has(SessionFlag::Unattended) {
            return SteadyTime::FUTURE;
        }
        // Whoever set the flag has stored the time before.
        fence(Acquire);
        let from = status::idle_from(self.active_at[at as usize].get(), settings::idle_timeout());
        let tenant = self.tenant_of(slot);
        // As nobody becomes inactive by a standstill. Who was idle before it stays so.
        match !slot.flags.has(SessionFlag::Idle) && from > tenant.stood_from.get() {
            true => from.max(tenant.grace_until.get()),
            false => from,
        }
    }

    /// Schedules the sweep's next visit to a session, for when it is no longer live or becomes idle, and returns that.
    #[inline]
    pub fn schedule_sweep(&self, at: u32, timeout: Micros, now: &Now) -> SteadyTime {
        let slot = &self.slots[at as usize];
        let mut due = deadline(slot, self.tenant_of(slot), timeout, now);
        if !slot.flags.has(SessionFlag::Idle) {
            due = due.min(self.idle_from(at));
        }
        let seen = sweep_clock::seen_for(due, timeout, self.header.origin.get());
        self.seen[at as usize].set(seen);
        due
    }
}
