//! Statics that belong to one process.

use std::ops::Deref;

/// A static of this process, which may contain a `Cell`.
///
/// A heartbeat reads these instead of a `thread_local!`, which in a library loaded at run time is a call to
/// `__tls_get_addr`, whose code and tables are cold after a context switch. Aligned to a cache line, so that one access
/// fetches the value.
#[repr(align(64))]
pub struct ProcessLocal<T>(T);

// SAFETY: each PostgreSQL process has a single thread, and the extension starts no other.
unsafe impl<T> Sync for ProcessLocal<T> {}

impl<T> ProcessLocal<T> {
    pub const fn new(value: T) -> ProcessLocal<T> {
        ProcessLocal(value)
    }
}

impl<T> Deref for ProcessLocal<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}
