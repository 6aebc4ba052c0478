//! Between SQL and the roster: triggers → pending writes → commit, and beats that find their session.

mod beat;
mod commit;
mod feed;
mod pending;

use std::cell::Cell;

pub use beat::{Answer, expect_heartbeat, expect_slot, heartbeat, heartbeat_many, release};

thread_local! {
    static IGNORED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with the feeding of the roster off: for the worker, who writes what the roster told it.
pub fn ignored<R>(f: impl FnOnce() -> R) -> R {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            IGNORED.set(self.0);
        }
    }
    let _reset = Reset(IGNORED.replace(true));
    f()
}

/// Whether the running statement is the worker's own.
pub fn is_ignored() -> bool {
    IGNORED.get()
}

/// Registers the callbacks that apply pending writes. To be called once, from `_PG_init`.
pub fn init() {
    commit::register();
}
