//! What the worker of a tenant publishes about itself, for everybody to read.

use std::{ptr::null_mut, sync::atomic::Ordering::SeqCst};

use super::{layout::WorkerEntry, tenant::Tenant};
use crate::{
    pg::compat,
    rules::time::{Micros, USECS_PER_SEC},
};

/// A worker that has not ticked for this long is late: the kept counts are not trusted.
const LATE: Micros = USECS_PER_SEC;

impl Tenant {
    /// Times and counts of the worker, for the worker to write.
    pub fn worker(&self) -> &'static WorkerEntry {
        &self.entry().worker
    }

    /// The process id of the worker, 0 if there is none.
    pub fn worker_pid(&self) -> u32 {
        self.worker().pid.get()
    }

    /// Whether the worker has ticked within the last second, so that the kept counts are right.
    pub fn worker_on_time(&self, now: Micros) -> bool {
        self.worker_pid() != 0 && now - self.worker().last_tick.get() < LATE
    }

    /// Makes this process the tenant's worker, to be woken by its latch.
    pub fn attach_worker(&self, pid: u32, now: Micros) {
        let worker = self.worker();
        worker.latch.store(compat::my_latch(), SeqCst);
        worker.started_at.set(now);
        worker.pid.set(pid);
    }

    /// Ends what [`Tenant::attach_worker`] began. Cannot fail: it runs when the process exits.
    pub fn detach_worker(&self) {
        // A load that was in progress is none any more.
        self.roster().clear_inflight();
        let worker = self.worker();
        worker.asleep.swap(0);
        worker.pid.set(0);
        worker.latch.store(null_mut(), SeqCst);
    }

    /// Notes whether the worker waits. To be followed by a check for something to do, and only then by the wait: whoever
    /// queues something after this sets the latch.
    pub fn set_worker_asleep(&self, asleep: bool) {
        self.worker().asleep.swap_fenced(u32::from(asleep));
    }

    /// Notes that the worker has handled everything that was due at `now`.
    pub fn tick_done(&self, now: Micros) {
        self.worker().last_tick.set(now);
    }
}
