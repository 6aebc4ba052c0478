//! Figures for `presence_stats`.

use super::{Space, layout::WorkerEntry};
use crate::core::time::Micros;

/// What the roster can tell of a space, without its tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpaceStats {
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
    /// Sessions that made room for others.
    pub evicted: u64,
    /// Calls that had to read or write the table.
    pub slow_paths: u64,
    pub dirty_users: u64,
    pub worker_pid: u32,
}

impl Space {
    /// The figures now. Each is right by itself; together they are no snapshot.
    pub fn stats(&self) -> SpaceStats {
        let entry = self.entry();
        let heap = &self.roster().header.heap;
        SpaceStats {
            live_sessions: entry.counts.live.get(),
            known_sessions: entry
                .counts
                .sessions
                .get()
                .saturating_sub(entry.counts.ended.get()),
            users_online: entry.counts.users_live.get(),
            known_users: entry.counts.users.get(),
            capacity: self.roster().slots.len() as u64,
            used: u64::from(heap.slots_used.get()),
            complete: self.is_complete(),
            in_overflow: self.in_overflow(),
            overflowed: entry.counts.overflowed.get(),
            evicted: entry.counts.evicted.get(),
            slow_paths: entry.counts.slow_paths.get(),
            dirty_users: u64::from(entry.dirty.length.get()),
            worker_pid: entry.worker.pid.get(),
        }
    }

    /// What the worker tells of itself: times and counts, for it to write and for anybody to read.
    pub fn worker(&self) -> &'static WorkerEntry {
        &self.entry().worker
    }

    /// Counts a heartbeat of a session that is not there, or has ended.
    pub fn count_rejected(&self) {
        self.tally().count_rejected();
    }

    /// Counts a call that had to go to the table.
    pub fn count_slow_path(&self) {
        self.entry().counts.slow_paths.add(1);
    }

    /// The worker has looked at everything that was due at `now`.
    pub fn tick_done(&self, now: Micros) {
        self.entry().worker.last_tick.set(now);
    }

    /// This process is the worker now, and is to be woken by its latch.
    pub fn attach_worker(&self, pid: u32, now: Micros) {
        let worker = &self.entry().worker;
        worker.latch.store(
            crate::compat::my_latch(),
            std::sync::atomic::Ordering::SeqCst,
        );
        worker.started_at.set(now);
        worker.pid.set(pid);
    }

    /// The worker is gone. Cannot fail: it runs when the process exits.
    pub fn detach_worker(&self) {
        // A load that was under way is none any more.
        self.roster().stamps_told();
        let worker = &self.entry().worker;
        worker.asleep.swap(0);
        worker.pid.set(0);
        worker
            .latch
            .store(std::ptr::null_mut(), std::sync::atomic::Ordering::SeqCst);
    }

    /// The worker is about to wait. To be followed by a look whether there is anything to do, and only then by the
    /// wait: whoever has news after this sets the latch.
    pub fn worker_sleeps(&self, asleep: bool) {
        self.entry().worker.asleep.swap(u32::from(asleep));
    }
}
