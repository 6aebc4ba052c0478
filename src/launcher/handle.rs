//! The launcher's handle for a worker: its slot, and PostgreSQL's handle for the process.

use std::{
    ptr::null_mut,
    time::{Duration, Instant},
};

use pgrx::{bgworkers::BackgroundWorkerBuilder, pg_sys};

use super::{
    LIBRARY,
    slots::{WorkerSlot, slots},
};
use crate::pg::background_workers::WORKER_TYPE;

/// How long an adopted slot that no worker has attached to counts as that of a worker that is still starting.
const STARTUP_LIMIT: Duration = Duration::from_secs(10);

/// A worker that was started, and the slot assigned to it.
pub struct WorkerHandle {
    slot: &'static WorkerSlot,
    origin: Origin,
}

enum Origin {
    /// Started by this launcher.
    Started(*mut pg_sys::BackgroundWorkerHandle),
    /// Started by an earlier launcher, and adopted at this time: there is no handle, only the slot.
    Adopted(Instant),
}

impl WorkerHandle {
    /// Starts a worker for a database. Returns `None` where no slot of ours, or no background worker slot of
    /// PostgreSQL's, is free.
    pub fn start(database: u32) -> Option<WorkerHandle> {
        let number = slots().iter().position(|slot| slot.database() == 0)?;
        let slot = &slots()[number];
        slot.assign(database);
        let builder = BackgroundWorkerBuilder::new(&format!("pg_presence worker for database {database}"))
            .set_type(WORKER_TYPE)
            .set_library(LIBRARY)
            .set_function("pg_presence_worker")
            .enable_spi_access()
            .set_restart_time(None)
            .set_argument(Some(pg_sys::Datum::from(database)))
            .set_extra(&number.to_string())
            // SAFETY: reads a global variable of this process.
            .set_notify_pid(unsafe { pg_sys::MyProcPid });
        let mut worker = pg_sys::BackgroundWorker::from(&builder);
        let mut handle = null_mut();
        // SAFETY: both point to locals; the server copies the first and sets the second on success. The handle is
        // allocated in the context that lives as long as this process.
        let registered = unsafe {
            let previous = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let registered = pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle);
            pg_sys::MemoryContextSwitchTo(previous);
            registered
        };
        if !registered {
            slot.free();
            return None;
        }
        Some(WorkerHandle {
            slot,
            origin: Origin::Started(handle),
        })
    }

    /// Takes over a slot that an earlier launcher assigned.
    pub fn adopt(slot: &'static WorkerSlot) -> WorkerHandle {
        WorkerHandle {
            slot,
            origin: Origin::Adopted(Instant::now()),
        }
    }

    /// Returns the worker's slot.
    pub fn slot(&self) -> &'static WorkerSlot {
        self.slot
    }

    /// Whether the worker is running or starting.
    pub fn is_alive(&self) -> bool {
        match self.origin {
            Origin::Started(handle) => {
                let mut pid = 0;
                // SAFETY: a handle that the server returned and that only `close` frees.
                let status = unsafe { pg_sys::GetBackgroundWorkerPid(handle, &mut pid) };
                status != pg_sys::BgwHandleStatus::BGWH_STOPPED
            }
            Origin::Adopted(since) => {
                self.slot.is_attached() || !self.slot.has_exited() && since.elapsed() < STARTUP_LIMIT
            }
        }
    }

    /// Frees the slot. To be called once the worker has exited.
    pub fn close(self) {
        self.slot.free();
        if let Origin::Started(handle) = self.origin {
            // SAFETY: allocated by the server for us, and not used any more.
            unsafe { pg_sys::pfree(handle.cast()) };
        }
    }
}
