//! Registers the settings with PostgreSQL: names, descriptions, bounds and check hooks.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    ops::RangeInclusive,
    sync::atomic::{AtomicBool, Ordering},
};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_guard, pg_sys};

use super::{
    ACTIVE_TIMEOUT, ALLOW_INVISIBLE, CHANNEL, CLAIM, CLAIM_FORMAT, DAY, FAST_HEARTBEAT, FEED_RETENTION, FLUSH_INTERVAL,
    HEARTBEAT_INTERVAL, HOUR, IDLE_TIMEOUT, MAX_CLAIM_LENGTH, MAX_SESSIONS, MAX_SESSIONS_PER_USER, MINUTE,
    NOTIFY_INTERVAL, NOTIFY_MAX, NOTIFY_PAYLOAD, RETENTION, SESSION_LIFETIME, TEN_YEARS, USER_ID, USER_ID_FUNCTION,
    USER_RETENTION,
};
use crate::rules::claims::parse_uuid;

/// Whether the settings are defined, which is the case only if the library was preloaded.
static DEFINED: AtomicBool = AtomicBool::new(false);

/// Defines the settings if the library is being preloaded. A library that is loaded later defines none: its functions
/// do not work, and defining a setting that only a restart can change is a FATAL error.
pub fn init() {
    // SAFETY: reads a global that the server sets before it loads libraries.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        define_timing();
        define_capacity();
        define_notifications();
        define_identity();
        define_visibility();
        define_fast_path();
        reserve_prefix();
        DEFINED.store(true, Ordering::Relaxed);
    }
}

/// Returns whether the library was preloaded. The value of a setting cannot show that, as one that is only in the
/// configuration file has a value too.
#[inline]
pub fn is_preloaded() -> bool {
    DEFINED.load(Ordering::Relaxed)
}

fn define_timing() {
    seconds(
        c"presence.active_timeout",
        c"Sets the time without a heartbeat after which a session times out.",
        c"A session that has timed out becomes active again with its next heartbeat.",
        &ACTIVE_TIMEOUT,
        1..=DAY,
    );
    seconds(
        c"presence.idle_timeout",
        c"Sets the time without activity after which a session is idle whose client sends heartbeat_idle().",
        c"A session whose client sends only heartbeat() is never idle. Zero makes no session idle.",
        &IDLE_TIMEOUT,
        0..=DAY,
    );
    seconds(
        c"presence.heartbeat_interval",
        c"Sets the interval at which clients send heartbeats.",
        c"start_session() returns this interval, or two fifths of presence.active_timeout if that is less.",
        &HEARTBEAT_INTERVAL,
        1..=DAY,
    );
    seconds(
        c"presence.session_lifetime",
        c"Sets the maximum lifetime of a session.",
        c"A change applies to new sessions. Heartbeats do not extend the lifetime.",
        &SESSION_LIFETIME,
        1..=TEN_YEARS,
    );
    seconds(
        c"presence.retention",
        c"Sets the time for which inactive sessions are kept.",
        c"A session that is not active and has had no activity for this long is deleted. Cleanup runs ten times in this period, but at least every ten minutes and at most every second.",
        &RETENTION,
        1..=TEN_YEARS,
    );
    seconds(
        c"presence.feed_retention",
        c"Sets the time for which changes are kept in presence_changes.",
        c"A listener that has been disconnected for longer must read user_presence again.",
        &FEED_RETENTION,
        1..=TEN_YEARS,
    );
    seconds(
        c"presence.user_retention",
        c"Sets the time for which offline users are kept in user_presence.",
        c"Zero keeps them, and the time when they were last seen, forever.",
        &USER_RETENTION,
        0..=TEN_YEARS,
    );
    seconds(
        c"presence.flush_interval",
        c"Sets the maximum time by which last_activity in user_sessions lags behind the heartbeats.",
        c"At most half of (presence.active_timeout - presence.heartbeat_interval) is used, so that queries on the table are correct too.",
        &FLUSH_INTERVAL,
        1..=HOUR,
    );
}

fn define_capacity() {
    GucRegistry::define_int_guc(
        c"presence.max_sessions",
        c"Sets the maximum number of sessions in shared memory, for all databases.",
        c"Counts sessions that have neither ended nor been cleaned up. If there are more, presence remains correct but becomes slower.",
        &MAX_SESSIONS,
        64,
        50_000_000,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"presence.max_sessions_per_user",
        c"Sets the maximum number of sessions of a user that have not ended.",
        c"The limit applies to sessions started by clients, not by services.",
        &MAX_SESSIONS_PER_USER,
        1,
        1_000_000,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

fn define_notifications() {
    GucRegistry::define_int_guc(
        c"presence.notify_interval",
        c"Sets the minimum time between two batches of notifications.",
        c"A change that follows none is notified immediately; the changes after it are collected for this time.",
        &NOTIFY_INTERVAL,
        0,
        MINUTE * 1000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"presence.notify_max",
        c"Sets the maximum number of changes that are notified individually.",
        c"More changes at once are notified by one message without changes, upon which listeners call changes_since().",
        &NOTIFY_MAX,
        1,
        100_000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"presence.notify_payload",
        c"Sets the contents of notifications.",
        c"\"changes\" sends the changes, \"wakeup\" only the fact that there are changes, for listeners that must not know whose, and \"off\" sends no notifications.",
        &NOTIFY_PAYLOAD,
        GucContext::Sighup,
        GucFlags::default(),
    );
    text(
        c"presence.channel",
        c"Sets the channel on which notifications are sent.",
        c"The name of the channel must be 1 to 63 bytes long.",
        &CHANNEL,
        GucContext::Sighup,
        Some(check_channel),
    );
}

fn define_identity() {
    text(
        c"presence.claim",
        c"Sets the claim in request.jwt.claims that identifies the user.",
        c"The claim must be at the top level, and its name 1 to 255 bytes long.",
        &CLAIM,
        GucContext::Suset,
        Some(check_claim),
    );
    GucRegistry::define_enum_guc(
        c"presence.claim_format",
        c"Sets the format of the claim that identifies the user.",
        c"\"uuid\" accepts a UUID; \"text\" accepts any string or integer, which presence_id() maps to a UUID.",
        &CLAIM_FORMAT,
        GucContext::Suset,
        GucFlags::default(),
    );
    text(
        c"presence.user_id_function",
        c"Sets the function that maps an identity to a user.",
        c"The schema-qualified name of a function that takes a uuid and returns a uuid. If empty, the identity is the ID of the user.",
        &USER_ID_FUNCTION,
        GucContext::Suset,
        None,
    );
    text(
        c"presence.user_id",
        c"Sets the identity of the caller if request.jwt.claims is not set.",
        c"A UUID, set for the session or transaction by the application that has authenticated the user, or empty for no identity.",
        &USER_ID,
        GucContext::Userset,
        Some(check_user_id),
    );
}

fn define_visibility() {
    GucRegistry::define_bool_guc(
        c"presence.allow_invisible",
        c"Allows users to hide themselves.",
        c"If off, users who have hidden themselves show as they are; services can hide users all the same.",
        &ALLOW_INVISIBLE,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

fn define_fast_path() {
    GucRegistry::define_bool_guc(
        c"presence.fast_heartbeat",
        c"Runs a statement that is a single heartbeat or status query without calling the function.",
        c"The result is the same; turn this off to find out whether the fast path is the cause of a problem.",
        &FAST_HEARTBEAT,
        GucContext::Suset,
        GucFlags::default(),
    );
}

fn seconds(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<i32>,
    bounds: RangeInclusive<i32>,
) {
    let (min, max) = bounds.into_inner();
    GucRegistry::define_int_guc(
        name,
        short,
        long,
        setting,
        min,
        max,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
}

fn text(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
    context: GucContext,
    check: pg_sys::GucStringCheckHook,
) {
    // SAFETY: the check hooks below are guarded; there are no other hooks.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            short,
            long,
            setting,
            context,
            GucFlags::default(),
            check,
            None,
            None,
        );
    }
}

/// Reserves the prefix, so that a misspelled setting is reported.
fn reserve_prefix() {
    // SAFETY: a static string; called while libraries are loaded, after all settings are defined.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(c"presence".as_ptr());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_channel(
    new: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a valid pointer to a string.
    let valid = unsafe { new_value(new) }.is_some_and(|name| (1..pg_sys::NAMEDATALEN as usize).contains(&name.len()));
    valid || reject(c"The name of a channel must be 1 to 63 bytes long.")
}

#[pg_guard]
unsafe extern "C-unwind" fn check_claim(
    new: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a valid pointer to a string.
    let valid = unsafe { new_value(new) }.is_some_and(|name| (1..=MAX_CLAIM_LENGTH).contains(&name.len()));
    valid || reject(c"The name of a claim must be 1 to 255 bytes long.")
}

#[pg_guard]
unsafe extern "C-unwind" fn check_user_id(
    new: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a valid pointer to a string.
    let valid = unsafe { new_value(new) }.is_some_and(|id| id.is_empty() || parse_uuid(id).is_some());
    valid || reject(c"The identity must be a UUID, or empty for no identity.")
}

/// Returns the value that a check hook has to check, if it is UTF-8.
///
/// # Safety
/// `new` points to a NUL-terminated string that outlives the borrow, or to null.
unsafe fn new_value<'a>(new: *mut *mut c_char) -> Option<&'a str> {
    // SAFETY: as the caller promises.
    unsafe { (!(*new).is_null()).then(|| CStr::from_ptr(*new))?.to_str().ok() }
}

/// Rejects a new value, with the reason as the detail of the error.
fn reject(reason: &'static CStr) -> bool {
    // SAFETY: writes a global of this process; PostgreSQL copies the string and does not free it.
    unsafe { pg_sys::GUC_check_errdetail_string = reason.as_ptr().cast_mut() };
    false
}
