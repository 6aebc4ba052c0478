//! Heartbeats: the calls that every client makes all the time. They touch shared memory, and nothing else.

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

use super::args::Uuids;
use crate::{
    identity,
    pg::text::Text,
    roster::{Key, Owner},
    rules::token::{self, Digest},
    session::{self, Answer},
    store::value::Value,
};

/// Tells that a session's user is there. Returns 'ok', 'ended' (sign in again) or 'unknown' (no such session, or not the
/// caller's: start one). Counts at once, whatever becomes of the transaction. Errors with 25006 on a standby.
#[pg_extern(volatile, parallel_unsafe)]
fn heartbeat(session_id: Option<pgrx::Uuid>, fcinfo: pg_sys::FunctionCallInfo) -> Answer {
    // SAFETY: PostgreSQL says whom it calls.
    if let Some(called) = unsafe { (*fcinfo).flinfo.as_ref() } {
        identity::learn(called.fn_oid, "heartbeat_wrapper");
    }
    let session = session_id.map(|id| Uuid::from_bytes(*id));
    if let Some(id) = &session {
        session::prefetch_heartbeat(id);
    }
    beat(session)
}

/// One heartbeat, however it was asked for; see [`super::fast_path`]. What it needs of memory has been asked for.
#[inline(always)]
pub(super) fn beat(session: Option<Uuid>) -> Answer {
    match session {
        Some(id) => session::heartbeat(Key::Id(id), identity::owner()),
        None => Answer::Unknown,
    }
}

/// As `heartbeat`, for whoever holds the session's token.
#[pg_extern(volatile, parallel_unsafe)]
fn heartbeat_by_token(session_token: Option<Text>) -> Answer {
    match session_token.as_deref() {
        Some(token) if token::check(token).is_ok() => session::heartbeat(Key::Digest(Digest::of(token)), Owner::Any),
        _ => Answer::Unknown,
    }
}

/// As `heartbeat`, for many sessions. Returns the ids that were not counted; NULLs are passed over.
#[pg_extern(volatile, parallel_unsafe)]
fn heartbeat_many(session_ids: Option<Uuids>) -> NotCounted {
    let ids = session_ids.map_or(&[][..], Uuids::ids);
    let owner = identity::owner();
    let mut missed = Vec::new();
    for ids in ids.chunks(BETWEEN_INTERRUPTS) {
        missed.append(&mut session::heartbeat_many(ids, owner));
        check_for_interrupts!();
    }
    NotCounted(missed)
}

/// How many sessions are beaten before somebody may cancel the call.
const BETWEEN_INTERRUPTS: usize = 10_000;

/// A text that is never freed or written: PostgreSQL copies what it keeps of a function's result.
#[repr(C, align(8))]
struct StaticText {
    header: u32,
    bytes: [u8; 7],
}

impl StaticText {
    const fn new(text: &str) -> StaticText {
        let mut bytes = [0; 7];
        let (used, _) = bytes.split_at_mut(text.len());
        used.copy_from_slice(text.as_bytes());
        let size = (size_of::<u32>() + text.len()) as u32;
        // The header of an uncompressed varlena: two zero bits, at the end of the word that is stored first.
        let header = if cfg!(target_endian = "little") {
            size << 2
        } else {
            size
        };
        StaticText { header, bytes }
    }
}

/// In the order of [`Answer`], and side by side, so that the place of one is reckoned, not looked up in one more page of
/// memory.
static ANSWERS: [StaticText; 3] = [
    StaticText::new("ok"),
    StaticText::new("ended"),
    StaticText::new("unknown"),
];

impl Answer {
    /// As a `text` that is valid for ever.
    #[inline(always)]
    pub(super) fn datum(self) -> pg_sys::Datum {
        let word: *const StaticText = &ANSWERS[self as usize];
        pg_sys::Datum::from(word)
    }
}

// SAFETY: a static text, valid for ever.
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

/// A `uuid[]`.
struct NotCounted(Vec<Uuid>);

// SAFETY: an array in the current context, with the type that RETURN_SQL declares.
unsafe impl BoxRet for NotCounted {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        match Value::Uuids(&self.0).datum() {
            // SAFETY: the function returns uuid[].
            Some(array) => unsafe { fcinfo.return_raw_datum(array) },
            None => fcinfo.return_null(),
        }
    }
}

// SAFETY: as above.
unsafe impl SqlTranslatable for NotCounted {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(NotCounted);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Err(ArgumentError::NotValidAsArgument("NotCounted"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::As("uuid[]")));
}
