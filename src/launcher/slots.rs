//! The workers' slots: the shared state of the launcher and its workers.
//!
//! Locks: none. Each word is written by one process at a time: `database` by the launcher alone, `pid` and `status` by
//! the worker attached to the slot (and by the launcher while no worker is), `stop_requested` by the launcher.

use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

use pgrx::{pg_guard, pg_shmem_init, pg_sys};

use crate::{pg::shmem::Block, roster::wake};

/// The status of a worker. The numbers are kept in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum WorkerStatus {
    /// Started, or exited without setting another status.
    Starting = 0,
    /// It serves the database.
    Serving = 1,
    /// The database does not have the extension.
    NotInstalled = 2,
    /// It exited because the database is being dropped, renamed, moved or copied, or may have no worker any more.
    Yielded = 3,
    /// Another worker serves the database already.
    AlreadyRunning = 4,
    /// The extension was created again: a new worker is to start at once.
    Recreated = 5,
    /// It was terminated, by an administrator or because the server stops.
    Terminated = 6,
}

impl WorkerStatus {
    fn from_number(number: u32) -> WorkerStatus {
        match number {
            1 => WorkerStatus::Serving,
            2 => WorkerStatus::NotInstalled,
            3 => WorkerStatus::Yielded,
            4 => WorkerStatus::AlreadyRunning,
            5 => WorkerStatus::Recreated,
            6 => WorkerStatus::Terminated,
            _ => WorkerStatus::Starting,
        }
    }
}

/// One worker's slot.
#[repr(C)]
pub struct WorkerSlot {
    database: AtomicU32,
    pid: AtomicI32,
    status: AtomicU32,
    stop_requested: AtomicBool,
    /// A worker was attached, and has exited.
    has_exited: AtomicBool,
}

impl WorkerSlot {
    /// Returns the database that the slot is assigned to; 0 if it is free.
    pub fn database(&self) -> u32 {
        self.database.load(SeqCst)
    }

    /// Whether a worker is attached.
    pub fn is_attached(&self) -> bool {
        self.pid.load(SeqCst) != 0
    }

    /// Whether a worker was attached since the slot was assigned, and has exited.
    pub fn has_exited(&self) -> bool {
        self.has_exited.load(SeqCst)
    }

    /// Returns the status that the worker set last.
    pub fn status(&self) -> WorkerStatus {
        WorkerStatus::from_number(self.status.load(SeqCst))
    }

    /// Assigns the slot to a database and resets its status.
    pub fn assign(&self, database: u32) {
        self.status.store(WorkerStatus::Starting as u32, SeqCst);
        self.stop_requested.store(false, SeqCst);
        self.has_exited.store(false, SeqCst);
        self.database.store(database, SeqCst);
    }

    /// Frees the slot.
    pub fn free(&self) {
        self.pid.store(0, SeqCst);
        self.database.store(0, SeqCst);
    }

    /// Requests the worker to stop. It checks for that several times a second.
    pub fn request_stop(&self) {
        self.stop_requested.store(true, SeqCst);
    }

    /// Whether the worker was requested to stop.
    pub fn is_stop_requested(&self) -> bool {
        self.stop_requested.load(Relaxed)
    }

    /// Sets the worker's status, and wakes the launcher.
    pub fn set_status(&self, status: WorkerStatus) {
        self.status.store(status as u32, SeqCst);
        wake::wake_launcher();
    }

    /// Attaches this process, a worker.
    pub fn attach(&self) {
        self.pid.store(std::process::id() as i32, SeqCst);
    }

    /// Sets the status of a worker that has received SIGTERM. Safe in a signal handler.
    pub fn note_termination(&self) {
        self.status.store(WorkerStatus::Terminated as u32, SeqCst);
    }

    /// Detaches the worker, and wakes the launcher. Cannot fail: it runs when the process exits.
    pub fn detach(&self) {
        self.has_exited.store(true, SeqCst);
        self.pid.store(0, SeqCst);
        wake::wake_launcher();
    }
}

static BLOCK: Block = Block::new(c"pg_presence workers", size, attach);
static SLOTS: AtomicPtr<WorkerSlot> = AtomicPtr::new(std::ptr::null_mut());

/// Requests the slots' shared memory. To be called from `_PG_init` while the server preloads libraries.
pub fn init() {
    pg_shmem_init!(BLOCK = ());
}

/// Returns all slots; none where the library was not preloaded.
pub fn slots() -> &'static [WorkerSlot] {
    let first = SLOTS.load(Relaxed);
    if first.is_null() {
        return &[];
    }
    // SAFETY: `attach` has stored the start of an array of this length. It stays mapped for the life of the process,
    // and all fields are atomics, for which any bit pattern is valid, so shared references may be handed out freely.
    unsafe { std::slice::from_raw_parts(first, count()) }
}

/// Returns the number of slots: as many as there can be workers.
fn count() -> usize {
    // SAFETY: reads a global variable, set from the configuration before shared memory is laid out.
    unsafe { pg_sys::max_worker_processes.max(1) as usize }
}

fn size() -> usize {
    count() * size_of::<WorkerSlot>()
}

/// # Safety
/// As [`Block::new`] describes.
unsafe fn attach(base: *mut u8, is_new: bool) {
    if is_new {
        // SAFETY: the block is of this size, and nobody else uses it yet.
        unsafe { base.write_bytes(0, size()) };
    }
    SLOTS.store(base.cast(), Relaxed);
}
