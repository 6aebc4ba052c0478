//! Waking the worker of a tenant, or the launcher where there is no worker.
//!
//! Launcher and workers publish their latches here; nothing here takes a lock, allocates or fails, so that a commit
//! callback may call it.

use std::sync::atomic::Ordering::SeqCst;

use pgrx::pg_sys;

use super::layout::Roster;
use crate::pg::compat;

/// Databases that the launcher is asked to start a worker in.
#[derive(Debug, Default)]
pub struct Requests {
    pub databases: Vec<u32>,
    /// More were asked for than could be noted: any database may be one of them.
    pub any: bool,
}

impl Roster {
    /// Wakes the worker of a tenant if it waits; asks for one where there is none.
    pub fn wake_worker(&self, tenant: usize) {
        let entry = &self.tenants[tenant];
        let worker = &entry.worker;
        if worker.pid.get() == 0 {
            self.request_worker(entry.database.get());
        } else if worker.asleep.swap_fenced(0) == 1 {
            let latch = worker.latch.load(SeqCst);
            if !latch.is_null() {
                // SAFETY: a process latch, published by the worker itself.
                unsafe { compat::set_latch(latch) };
            }
        }
    }

    fn request_worker(&self, database: u32) {
        let launcher = &self.header.launcher;
        let requested = &launcher.requested;
        let noted = requested.iter().any(|entry| entry.get() == database)
            || requested.iter().any(|entry| entry.set_if_zero(database));
        if !noted {
            launcher.any_requested.swap(1);
        }
        self.wake_launcher();
    }

    fn wake_launcher(&self) {
        let latch = self.header.launcher.latch.load(SeqCst);
        if !latch.is_null() {
            // SAFETY: a process latch, published by the launcher itself.
            unsafe { compat::set_latch(latch) };
        }
    }
}

/// Asks the launcher for a worker in a database. Does nothing where the library is not preloaded.
pub fn request_worker(database: pg_sys::Oid) {
    if let Some(roster) = Roster::attached() {
        roster.request_worker(database.to_u32());
    }
}

/// Wakes the launcher, if there is one.
pub fn wake_launcher() {
    if let Some(roster) = Roster::attached() {
        roster.wake_launcher();
    }
}

/// Makes this process the launcher that is woken.
pub fn attach_launcher() {
    if let Some(roster) = Roster::attached() {
        roster.header.launcher.latch.store(compat::my_latch(), SeqCst);
    }
}

/// Ends what [`attach_launcher`] began. Cannot fail: it runs when the process exits.
pub fn detach_launcher() {
    if let Some(roster) = Roster::attached() {
        roster.header.launcher.latch.store(std::ptr::null_mut(), SeqCst);
    }
}

/// Returns and clears what the launcher has been asked for.
pub fn take_requests() -> Requests {
    let Some(roster) = Roster::attached() else {
        return Requests::default();
    };
    let launcher = &roster.header.launcher;
    let any = launcher.any_requested.swap(0) != 0;
    let databases = launcher.requested.iter().map(|entry| entry.swap(0));
    Requests {
        databases: databases.filter(|&database| database != 0).collect(),
        any,
    }
}
