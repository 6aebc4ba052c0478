//! Statements that write what the roster already knows, which the triggers on our tables leave alone.

use std::cell::Cell;

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, whose statements the triggers neither correct nor capture.
pub fn run<R>(f: impl FnOnce() -> R) -> R {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            RUNNING.set(self.0);
        }
    }
    let _reset = Reset(RUNNING.replace(true));
    f()
}

/// Whether the running statement is one of these.
pub fn is_running() -> bool {
    RUNNING.get()
}
