//! The functions that a statement may consist of, and that are then run without PostgreSQL calling them.

use std::cell::Cell;

use pgrx::pg_sys;

use crate::pg::process_local::ProcessLocal;

/// A function that the fast path may call. Each has one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callable {
    Heartbeat,
    HeartbeatByToken,
    IsOnline,
    UserStatus,
    LastSeen,
    HeartbeatIdle,
    HeartbeatIdleByToken,
}

impl Callable {
    pub const COUNT: usize = 7;
    pub const ALL: [Callable; Callable::COUNT] = [
        Callable::Heartbeat,
        Callable::HeartbeatByToken,
        Callable::IsOnline,
        Callable::UserStatus,
        Callable::LastSeen,
        Callable::HeartbeatIdle,
        Callable::HeartbeatIdleByToken,
    ];

    /// The function's symbol in the library.
    pub fn symbol(self) -> &'static str {
        match self {
            Callable::Heartbeat => "heartbeat_wrapper",
            Callable::HeartbeatByToken => "heartbeat_by_token_wrapper",
            Callable::IsOnline => "is_online_wrapper",
            Callable::UserStatus => "user_status_wrapper",
            Callable::LastSeen => "last_seen_wrapper",
            Callable::HeartbeatIdle => "heartbeat_idle_wrapper",
            Callable::HeartbeatIdleByToken => "heartbeat_idle_by_token_wrapper",
        }
    }

    /// Where the function is in this process; `None` until it has been called.
    #[inline(always)]
    pub fn address(self) -> pg_sys::PGFunction {
        ADDRESSES[self as usize].get()
    }

    /// Keeps the address for the next call.
    pub fn found_at(self, address: pg_sys::PGFunction) {
        ADDRESSES[self as usize].set(address);
    }
}

static ADDRESSES: [ProcessLocal<Cell<pg_sys::PGFunction>>; Callable::COUNT] =
    [const { ProcessLocal::new(Cell::new(None)) }; Callable::COUNT];
