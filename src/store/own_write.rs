//! Marks our own writes of what the roster already knows, which the triggers on our tables ignore.

use std::cell::Cell;

thread_local! {
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, whose statements the triggers neither correct nor capture.
pub fn run<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            IS_RUNNING.set(self.0);
        }
    }
    let _restore = Restore(IS_RUNNING.replace(true));
    f()
}

/// Whether the current statement is such a write.
pub fn is_running() -> bool {
    IS_RUNNING.get()
}
