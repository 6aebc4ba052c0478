//! Shared memory that is requested, and laid out once, while the server starts.

use std::ffi::CStr;

use pgrx::{PgSharedMemoryInitialization, pg_sys};

/// A block of shared memory. Make it a static and hand it to `pg_shmem_init!(STATIC = ())` in `_PG_init`.
pub struct Block {
    name: &'static CStr,
    size: fn() -> usize,
    attach: unsafe fn(base: *mut u8, is_new: bool),
}

impl Block {
    /// `size`: in bytes, asked for when memory is requested and again when it is laid out. `attach` is called with the
    /// block's start, aligned to a cache line, once in each process that does not inherit it by fork. Where the block
    /// `is_new`, its content is arbitrary, no other process has it, and `attach` initializes it; it runs under the lock
    /// that PostgreSQL keeps for this.
    pub const fn new(name: &'static CStr, size: fn() -> usize, attach: unsafe fn(*mut u8, bool)) -> Block {
        Block { name, size, attach }
    }
}

impl PgSharedMemoryInitialization for Block {
    type Value = ();

    unsafe fn on_shmem_request(&'static self) {
        // SAFETY: called from the request hook, as the function requires.
        unsafe { pg_sys::RequestAddinShmemSpace((self.size)()) };
    }

    unsafe fn on_shmem_startup(&'static self, _: ()) {
        // AddinShmemInitLock has no binding; it has had this number since 9.5.
        const ADDIN_SHMEM_INIT: usize = 21;
        // SAFETY: called from the startup hook, with the block requested above. ShmemInitStruct returns memory that is
        // aligned to a cache line and stays mapped for the life of the process.
        unsafe {
            let lock = &raw mut (*pg_sys::MainLWLockArray.add(ADDIN_SHMEM_INIT)).lock;
            pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
            let mut found = false;
            let base = pg_sys::ShmemInitStruct(self.name.as_ptr(), (self.size)(), &mut found);
            (self.attach)(base.cast(), !found);
            pg_sys::LWLockRelease(lock);
        }
    }
}
