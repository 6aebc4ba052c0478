//! Bindings: gateways keep sessions live by the connection that they have bound them with.

use pgrx::{check_for_interrupts, datum::Interval, default, pg_extern};

use super::{
    args::{UuidArray, grace_micros},
    caller,
    result::Uuids,
};
use crate::{pg::memory, session};

/// Keeps sessions live without heartbeats until the connection ends, and then for `grace`. Returns the ids of those that are
/// not bound, as they are unknown, have ended, or have no room in shared memory; skips NULLs. Errors: 42501 where the caller
/// is no service, 22023 where `grace` is not positive or exceeds a day, 25006 on a standby, 53200 where there is no memory,
/// 55000 where the library is not preloaded.
#[pg_extern(volatile, parallel_unsafe)]
fn bind_sessions(session_ids: Option<UuidArray>, grace: default!(Option<Interval>, "'30 s'")) -> Uuids {
    caller::require_writable();
    caller::require_service();
    let grace = grace_micros(grace);
    let mut not_bound = Vec::new();
    for &id in session_ids.map_or(&[][..], UuidArray::ids) {
        check_for_interrupts!();
        if !session::bind(id, grace) {
            memory::push(&mut not_bound, id);
        }
    }
    Uuids(not_bound)
}
