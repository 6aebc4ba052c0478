//! Figures for `presence_stats`.

use super::tenant::Tenant;

/// What the roster knows of a tenant, without its tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct TenantStats {
    pub live_sessions: u64,
    pub known_sessions: u64,
    pub users_online: u64,
    pub known_users: u64,
    /// Sessions that the roster has room for, all databases together.
    pub capacity: u64,
    /// Sessions in the roster, all databases together.
    pub used: u64,
    pub complete: bool,
    pub in_overflow: bool,
    /// Writes that the roster had no room for.
    pub overflowed: u64,
    /// Sessions that were evicted to make room for others.
    pub evicted: u64,
    /// Calls that had to read or write the table.
    pub slow_paths: u64,
    pub dirty_users: u64,
    pub worker_pid: u32,
}

impl Tenant {
    /// The figures now. Each is right by itself; together they are no snapshot.
    pub fn stats(&self) -> TenantStats {
        let (entry, roster) = (self.entry(), self.roster());
        let counts = &entry.counts;
        TenantStats {
            live_sessions: counts.live.get(),
            known_sessions: counts.sessions.get().saturating_sub(counts.ended.get()),
            users_online: counts.users_live.get(),
            known_users: counts.users.get(),
            capacity: roster.slots.len() as u64,
            used: u64::from(roster.slot_blocks.used()),
            complete: self.is_complete(),
            in_overflow: self.in_overflow(),
            overflowed: counts.overflowed.get(),
            evicted: counts.evicted.get(),
            slow_paths: counts.slow_paths.get(),
            dirty_users: u64::from(self.dirty_users()),
            worker_pid: self.worker_pid(),
        }
    }

    /// How many users the tenant has entries of.
    pub fn known_users(&self) -> u64 {
        self.entry().counts.users.get()
    }

    /// How many slots the tenant has in use.
    pub fn sessions(&self) -> usize {
        self.entry().counts.sessions.get() as usize
    }

    /// Counts a call that had to read or write the table.
    pub fn count_slow_path(&self) {
        self.entry().counts.slow_paths.add(1);
    }
}
