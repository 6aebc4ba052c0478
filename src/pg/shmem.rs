//! Blocks of shared memory, requested and initialized while the server starts.

use std::ffi::CStr;

use pgrx::{PgSharedMemoryInitialization, pg_sys};

/// A block of shared memory: a static that `_PG_init` passes to `pg_shmem_init!(STATIC = ())`.
pub struct Block {
    name: &'static CStr,
    size: fn() -> usize,
    attach: unsafe fn(base: *mut u8, is_new: bool),
}

impl Block {
    /// `size` returns the size in bytes; it is called when memory is requested and again when it is allocated. `attach`
    /// is called with the start of the block, aligned to a cache line, once in each process that does not inherit the
    /// block by fork. If the block `is_new`, its content is undefined, no other process has it, and `attach`
    /// initializes it. The call holds AddinShmemInitLock.
    pub const fn new(name: &'static CStr, size: fn() -> usize, attach: unsafe fn(*mut u8, bool)) -> Block {
        Block { name, size, attach }
    }
}

impl PgSharedMemoryInitialization for Block {
    type Value = ();

    unsafe fn on_shmem_request(&'static self) {
        // SAFETY: called in the shmem_request hook, as the function requires.
        unsafe { pg_sys::RequestAddinShmemSpace((self.size)()) };
    }

    unsafe fn on_shmem_startup(&'static self, _: ()) {
        // AddinShmemInitLock has no binding. Its number has not changed since 9.5.
        const ADDIN_SHMEM_INIT: usize = 21;
        // SAFETY: called in the shmem_startup hook, for the memory requested above. ShmemInitStruct returns memory that
        // is aligned to a cache line and stays mapped for the life of the process.
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
