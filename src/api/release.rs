//! "I may be going": sessions that time out early unless they beat again.

use pgrx::{datum::Interval, default, pg_extern};
use uuid::Uuid;

use super::args::{self, Uuids};
use crate::{
    identity,
    pg::{errors, text::Text},
    roster::{Key, Owner},
    rules::{
        time::{Micros, USECS_PER_SEC},
        token::{self, Digest},
    },
    session,
};

const LONGEST_GRACE: Micros = 24 * 60 * 60 * USECS_PER_SEC;

/// Lets a session time out after `grace` unless it beats before. True if there is such a session, not ended and the
/// caller's. Touches shared memory only. Errors with 22023 on a grace that is not positive or above a day, with 25006 on
/// a standby.
#[pg_extern(volatile, parallel_unsafe)]
fn release_session(session_id: Option<pgrx::Uuid>, grace: default!(Option<Interval>, "'10 s'")) -> bool {
    let grace = checked(grace);
    session_id.is_some_and(|id| session::release(Key::Id(Uuid::from_bytes(*id)), identity::owner(), grace))
}

/// As `release_session`, for whoever holds the session's token.
#[pg_extern(volatile, parallel_unsafe)]
fn release_session_by_token(session_token: Option<Text>, grace: default!(Option<Interval>, "'10 s'")) -> bool {
    let grace = checked(grace);
    session_token.as_deref().is_some_and(|token| {
        token::check(token).is_ok() && session::release(Key::Digest(Digest::of(token)), Owner::Any, grace)
    })
}

/// As `release_session`, for many sessions. Returns how many there were.
#[pg_extern(volatile, parallel_unsafe)]
fn release_sessions(session_ids: Option<Uuids>, grace: default!(Option<Interval>, "'10 s'")) -> i32 {
    let grace = checked(grace);
    let owner = identity::owner();
    let mut ids = session_ids.map_or(Vec::new(), |ids| ids.ids().to_vec());
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter()
        .filter(|&id| session::release(Key::Id(id), owner, grace))
        .count() as i32
}

fn checked(grace: Option<Interval>) -> Micros {
    match grace.and_then(|grace| args::length(grace, LONGEST_GRACE)) {
        Some(grace) => grace,
        None => errors::bad_value(
            "grace must be a positive interval of at most a day",
            "",
            "Give an interval such as '10 seconds', or leave it out for that.",
        ),
    }
}
