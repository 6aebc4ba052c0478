//! Heartbeats, the calls that clients make all the time. They touch shared memory only.

use pgrx::{
    callconv::{BoxRet, FcInfo},
    check_for_interrupts,
    datum::Datum,
    pg_extern, pg_sys, pgrx_resolved_type,
    pgrx_sql_entity_graph::metadata::{
        ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
    },
};
use uuid::Uuid;

use super::{
    args::{UuidArray, to_uuid},
    result::Uuids,
};
use crate::{
    identity::{self, Callable},
    pg::text::AnyText,
    roster::{Key, Owner},
    rules::token::{self, Digest},
    session::{self, Answer},
};

/// Records a heartbeat for a session, at once, whether or not the transaction commits. Returns 'ok', 'ended' (sign in
/// again) or 'unknown' (no such session, or not the caller's: start one). Errors: 25006 on a standby, 55000 where the
/// library is not preloaded.
#[pg_extern(volatile, parallel_unsafe)]
fn heartbeat(session_id: Option<pgrx::Uuid>, fcinfo: pg_sys::FunctionCallInfo) -> Answer {
    // SAFETY: the call frame is PostgreSQL's, of this function.
    unsafe { identity::remember_call_right(fcinfo, Callable::Heartbeat) };
    let session = session_id.map(to_uuid);
    if let Some(id) = &session {
        session::prefetch_heartbeat(id);
    }
    answer(session)
}

/// Returns the answer to a heartbeat, by a call of the function or on the fast path. The caller has prefetched what it
/// needs.
#[inline(always)]
pub(super) fn answer(session: Option<Uuid>) -> Answer {
    match session {
        Some(id) => session::heartbeat(Key::Id(id), identity::owner()),
        None => Answer::Unknown,
    }
}

/// As `heartbeat`, for the holder of the session's token.
#[pg_extern(volatile, parallel_unsafe)]
fn heartbeat_by_token(session_token: Option<AnyText>, fcinfo: pg_sys::FunctionCallInfo) -> Answer {
    // SAFETY: the call frame is PostgreSQL's, of this function.
    unsafe { identity::remember_call_right(fcinfo, Callable::HeartbeatByToken) };
    match session_token.and_then(AnyText::text) {
        Some(token) if token::check(token).is_ok() => session::heartbeat(Key::Digest(Digest::of(token)), Owner::Any),
        _ => Answer::Unknown,
    }
}

/// As `heartbeat`, of a client that is connected, but that nobody is at: once nobody has been for `presence.idle_timeout`,
/// the session is idle.
#[pg_extern(volatile, parallel_unsafe)]
fn heartbeat_idle(session_id: Option<pgrx::Uuid>, fcinfo: pg_sys::FunctionCallInfo) -> Answer {
    // SAFETY: the call frame is PostgreSQL's, of this function.
    unsafe { identity::remember_call_right(fcinfo, Callable::HeartbeatIdle) };
    match session_id.map(to_uuid) {
        Some(id) => {
            session::prefetch_heartbeat(&id);
            session::heartbeat_idle(Key::Id(id), identity::owner())
        }
        None => Answer::Unknown,
    }
}

/// As `heartbeat_idle`, for the holder of the session's token.
#[pg_extern(volatile, parallel_unsafe)]
fn heartbeat_idle_by_token(session_token: Option<AnyText>, fcinfo: pg_sys::FunctionCallInfo) -> Answer {
    // SAFETY: the call frame is PostgreSQL's, of this function.
    unsafe { identity::remember_call_right(fcinfo, Callable::HeartbeatIdleByToken) };
    match session_token.and_then(AnyText::text) {
        Some(token) if token::check(token).is_ok() => {
            session::heartbeat_idle(Key::Digest(Digest::of(token)), Owner::Any)
        }
        _ => Answer::Unknown,
    }
}

/// As `heartbeat`, for many sessions. Returns the ids of those that do not count; skips NULLs.
#[pg_extern(volatile, parallel_unsafe)]
fn heartbeat_many(session_ids: Option<UuidArray>) -> Uuids {
    let ids = session_ids.map_or(&[][..], UuidArray::ids);
    let owner = identity::owner();
    let mut not_counted = Vec::new();
    for ids in ids.chunks(INTERRUPT_INTERVAL) {
        session::heartbeat_many(ids, owner, &mut not_counted);
        check_for_interrupts!();
    }
    Uuids(not_counted)
}

/// The number of heartbeats between checks for interrupts.
const INTERRUPT_INTERVAL: usize = 10_000;

/// A `text` value in static memory. PostgreSQL does not write to a function's result, and copies what it keeps of it.
#[repr(C, align(8))]
struct StaticVarlena {
    header: u32,
    bytes: [u8; 7],
}

impl StaticVarlena {
    const fn new(text: &str) -> StaticVarlena {
        let mut bytes = [0; 7];
        let (used, _) = bytes.split_at_mut(text.len());
        used.copy_from_slice(text.as_bytes());
        let size = (size_of::<u32>() + text.len()) as u32;
        // The four-byte header of an uncompressed varlena: the size, and two zero bits in the byte that is stored
        // first.
        let header = if cfg!(target_endian = "little") {
            size << 2
        } else {
            size
        };
        StaticVarlena { header, bytes }
    }
}

/// The texts of the answers, in the order of [`Answer`]: one array, so that the address is computed rather than loaded.
static ANSWER_TEXTS: [StaticVarlena; 3] = [
    StaticVarlena::new("ok"),
    StaticVarlena::new("ended"),
    StaticVarlena::new("unknown"),
];

impl Answer {
    /// Returns the answer as a `text` that is never freed.
    #[inline(always)]
    pub(super) fn datum(self) -> pg_sys::Datum {
        let text: *const StaticVarlena = &ANSWER_TEXTS[self as usize];
        pg_sys::Datum::from(text)
    }
}

// SAFETY: returns a static text, with the type that RETURN_SQL declares.
unsafe impl BoxRet for Answer {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: the function returns text.
        unsafe { fcinfo.return_raw_datum(self.datum()) }
    }
}

// SAFETY: as above.
unsafe impl SqlTranslatable for Answer {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(Answer);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Err(ArgumentError::NotValidAsArgument("Answer"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::As("text")));
}
