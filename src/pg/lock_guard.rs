//! A debug build ends the process where it allocates memory while it holds a lock of ours.
//!
//! That also finds whatever is raised or logged there, as the text of each report is allocated. An error under a lock
//! would leave memory half changed, and whatever takes its time would keep everybody waiting.

#[cfg(debug_assertions)]
mod checked {
    use std::{
        alloc::{GlobalAlloc, Layout, System},
        cell::Cell,
    };

    thread_local! {
        static HELD: Cell<u32> = const { Cell::new(0) };
    }

    /// Counts a lock that was taken.
    pub fn taken() {
        HELD.set(HELD.get() + 1);
    }

    /// Counts a lock that is released.
    pub fn released() {
        HELD.set(HELD.get() - 1);
    }

    struct CheckedAllocator;

    #[global_allocator]
    static ALLOCATOR: CheckedAllocator = CheckedAllocator;

    // SAFETY: all calls are passed on to the system's allocator.
    unsafe impl GlobalAlloc for CheckedAllocator {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            check();
            // SAFETY: as the caller promises.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            // SAFETY: as the caller promises.
            unsafe { System.dealloc(memory, layout) }
        }

        unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            check();
            // SAFETY: as the caller promises.
            unsafe { System.realloc(memory, layout, size) }
        }
    }

    fn check() {
        if HELD.get() > 0 {
            const MESSAGE: &[u8] = b"pg_presence: memory is allocated while a lock is held\n";
            // SAFETY: writes a static text to the server log; a panic would allocate memory.
            unsafe { libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
            std::process::abort();
        }
    }
}

#[cfg(debug_assertions)]
pub use checked::{released, taken};

/// Counts a lock that was taken.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn taken() {}

/// Counts a lock that is released.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn released() {}
