//! Counts of heartbeats, kept by each backend for itself.
//!
//! Each process counts in a cache line of its own that no other process writes, so that a beat neither waits for another
//! processor nor needs an atomic addition. The line names the tenant its counts belong to. A backend that switches tenant,
//! or reuses a process number, first folds its counts into the old tenant's totals. Folding and summing hold the writers'
//! lock, so totals never decrease.

use super::{
    layout::{BackendCounters, NONE},
    tenant::Tenant,
    writer::Writer,
};
use crate::pg::compat;

impl BackendCounters {
    /// Counts a heartbeat.
    #[inline]
    pub fn count_beat(&self) {
        // Not an atomic addition, as this process alone writes it.
        self.beats.set(self.beats.get() + 1);
    }

    /// Counts a heartbeat of a session that does not exist, or has ended.
    #[inline]
    pub fn count_rejected(&self) {
        self.rejected.set(self.rejected.get() + 1);
    }
}

impl Tenant {
    /// Makes this process's counters count for this tenant.
    pub(super) fn attach_counters(&self) -> &'static BackendCounters {
        let roster = self.roster();
        let counters = &roster.backend_counters[compat::process_number()];
        let _writer = roster.write();
        if counters.tenant.get() as usize != self.index() {
            // Nothing to fold where the entry has been given to another install since.
            if let Some(old) = roster.tenants.get(counters.tenant.get() as usize) {
                old.counts.beats.add(counters.beats.get());
                old.counts.rejected.add(counters.rejected.get());
            }
            counters.beats.set(0);
            counters.rejected.set(0);
            counters.tenant.set(self.index() as u32);
        }
        counters
    }

    /// How many heartbeats were counted, and how many were rejected, since the tenant began.
    pub fn beat_counts(&self) -> (u64, u64) {
        let roster = self.roster();
        let counts = &self.entry().counts;
        let _writer = roster.write();
        let (mut beats, mut rejected) = (counts.beats.get(), counts.rejected.get());
        for counters in roster.backend_counters {
            if counters.tenant.get() as usize == self.index() {
                beats += counters.beats.get();
                rejected += counters.rejected.get();
            }
        }
        (beats, rejected)
    }

    /// Counts a heartbeat.
    pub fn count_beat(&self) {
        self.counters().count_beat();
    }

    /// Counts a heartbeat of a session that does not exist, or has ended.
    pub fn count_rejected(&self) {
        self.counters().count_rejected();
    }
}

impl Writer {
    /// Detaches all counters from a tenant whose entry is about to be another install's.
    pub fn detach_counters(&self, tenant: usize) {
        for counters in self.roster.backend_counters {
            if counters.tenant.get() as usize == tenant {
                counters.tenant.set(NONE);
            }
        }
    }
}
