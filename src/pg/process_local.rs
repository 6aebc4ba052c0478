//! Memory that each process has for itself.

use std::ops::Deref;

/// A value of this process alone: a static that may hold a `Cell`.
///
/// What every heartbeat reads is kept so, and not in a `thread_local!`: in a library that is loaded at run time, that is a
/// call into the loader, and code and tables of it which a process that has slept has to fetch first. For the same
/// reason it begins with a cache line.
#[repr(align(64))]
pub struct Local<T>(T);

// SAFETY: PostgreSQL runs each process in one thread, and we start none: no two threads ever meet here.
unsafe impl<T> Sync for Local<T> {}

impl<T> Local<T> {
    pub const fn new(value: T) -> Local<T> {
        Local(value)
    }
}

impl<T> Deref for Local<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}
