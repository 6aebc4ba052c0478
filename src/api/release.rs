//! Releases: sessions whose client may be leaving time out early, unless they beat again.

use pgrx::{check_for_interrupts, datum::Interval, default, pg_extern};

use super::args::{UuidArray, grace_micros, to_uuid};
use crate::{
    identity,
    pg::{memory, text::AnyText},
    roster::{Key, Owner},
    rules::token::{self, Digest},
    session,
};

/// Makes a session time out after `grace` unless it beats before, in shared memory only. Returns whether there is such
/// a session of the caller's that has not ended. Errors: 22023 where `grace` is not positive or exceeds a day, 25006 on
/// a standby, 55000 where the library is not preloaded.
#[pg_extern(volatile, parallel_unsafe)]
fn release_session(session_id: Option<pgrx::Uuid>, grace: default!(Option<Interval>, "'10 s'")) -> bool {
    let grace = grace_micros(grace);
    session_id.is_some_and(|id| session::release(Key::Id(to_uuid(id)), identity::owner(), grace))
}

/// As `release_session`, for the holder of the session's token.
#[pg_extern(volatile, parallel_unsafe)]
fn release_session_by_token(session_token: Option<AnyText>, grace: default!(Option<Interval>, "'10 s'")) -> bool {
    let grace = grace_micros(grace);
    session_token.and_then(AnyText::text).is_some_and(|token| {
        token::check(token).is_ok() && session::release(Key::Digest(Digest::of(token)), Owner::Any, grace)
    })
}

/// As `release_session`, for many sessions. Returns how many of them there are.
#[pg_extern(volatile, parallel_unsafe)]
fn release_sessions(session_ids: Option<UuidArray>, grace: default!(Option<Interval>, "'10 s'")) -> i32 {
    let grace = grace_micros(grace);
    let owner = identity::owner();
    let mut ids = session_ids.map_or(Vec::new(), |ids| memory::copy(ids.ids()));
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter()
        .filter(|&id| {
            check_for_interrupts!();
            session::release(Key::Id(id), owner, grace)
        })
        .count() as i32
}
