//! What the worker of a tenant publishes about itself, for everybody to read.

use std::{
    ptr::null_mut,
    sync::atomic::{Ordering::SeqCst, fence},
};

use super::{
    clock::Now,
    layout::{ERROR_WORDS, WorkerEntry},
    tenant::Tenant,
};
use crate::{
    pg::compat,
    rules::time::{Micros, SteadyTime, USECS_PER_SEC},
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
    pub fn worker_on_time(&self, now: &Now) -> bool {
        self.worker_pid() != 0 && now.steady.since(self.worker().last_tick.get()) < LATE
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
        // Nobody looks after the triggers that say so.
        self.set_may_have_hidden();
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

    /// Notes an error of the worker, cut to what there is room for. For the worker alone.
    pub fn set_worker_error(&self, text: &str, now: Micros) {
        let mut bytes = [0u8; ERROR_WORDS * 8];
        let length = text.floor_char_boundary(bytes.len());
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        let (words, _) = bytes.as_chunks::<8>();
        let error = &self.worker().error;
        error.version.publish(error.version.get() | 1);
        fence(SeqCst);
        error.text.set(std::array::from_fn(|at| u64::from_ne_bytes(words[at])));
        error.length.set(length as u32);
        error.at.set(now);
        fence(SeqCst);
        error.version.publish((error.version.get() | 1) + 1);
    }

    /// Returns the last error of the worker, and when it was; `None` if there has been none, or it is being written.
    pub fn worker_error(&self) -> Option<(String, Micros)> {
        let error = &self.worker().error;
        let read = || {
            let before = error.version.get();
            fence(SeqCst);
            let (words, length, at) = (error.text.get(), error.length.get(), error.at.get());
            fence(SeqCst);
            (before.is_multiple_of(2) && error.version.get() == before).then_some((words, length, at))
        };
        let (words, length, at) = (0..100).find_map(|_| read())?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let text = bytes.get(..length as usize)?;
        (length > 0).then(|| (String::from_utf8_lossy(text).into_owned(), at))
    }

    /// Notes that the worker has handled everything that was due at `now`, when it had been running for `uptime`.
    pub fn tick_done(&self, now: &Now, uptime: SteadyTime) {
        self.worker().last_tick.set(now.steady);
        self.worker().alive_at.set(uptime);
    }
}
