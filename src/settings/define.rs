//! How the settings are made known to PostgreSQL: names, descriptions, bounds, and what is refused.

use std::{
    ffi::{c_char, c_void},
    sync::atomic::{AtomicBool, Ordering},
};

use pgrx::{GucContext, GucFlags, GucRegistry, pg_guard, pg_sys};

use super::*;

/// Whether the settings are defined, which they are only where the library was loaded while the server started.
static DEFINED: AtomicBool = AtomicBool::new(false);

/// Defines the settings while the server starts. Where the library is loaded later it does nothing: no function works
/// then, and a setting that takes a restart would end the connection.
pub fn init() {
    // SAFETY: read by the only thread of the process, of a variable that the server sets before it loads libraries.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        define_timing();
        define_capacity();
        define_notifications();
        define_identity();
        reserve_prefix();
        DEFINED.store(true, Ordering::Relaxed);
    }
}

/// Whether the library was loaded while the server started. Asking for a setting's value would not tell: one that is
/// merely in the configuration file has a value too.
#[inline]
pub fn is_preloaded() -> bool {
    DEFINED.load(Ordering::Relaxed)
}

fn define_timing() {
    seconds(
        c"presence.active_timeout",
        c"Silence after which a session is no longer active.",
        c"A session that has not been heard from for this long times out. It is active again with its next heartbeat.",
        &ACTIVE_TIMEOUT,
        1..=DAY,
    );
    seconds(
        c"presence.heartbeat_interval",
        c"How often clients are asked to send a heartbeat.",
        c"Clients are told this, or two fifths of presence.active_timeout if that is less.",
        &HEARTBEAT_INTERVAL,
        1..=DAY,
    );
    seconds(
        c"presence.session_lifetime",
        c"Time from the start of a session to its absolute end.",
        c"Applies to sessions that start from now on. No heartbeat extends it.",
        &SESSION_LIFETIME,
        1..=TEN_YEARS,
    );
    seconds(
        c"presence.retention",
        c"How long sessions that are not active are kept.",
        c"A session that is not active and has been silent for this long is deleted. Cleanup runs every tenth of it, between every second and every ten minutes.",
        &RETENTION,
        1..=TEN_YEARS,
    );
    seconds(
        c"presence.feed_retention",
        c"How long changes are kept in presence_changes.",
        c"A listener that was away for longer starts over from user_presence.",
        &FEED_RETENTION,
        1..=TEN_YEARS,
    );
    seconds(
        c"presence.user_retention",
        c"How long users who are offline are kept in user_presence.",
        c"Zero keeps them for ever, and with them when they were last seen.",
        &USER_RETENTION,
        0..=TEN_YEARS,
    );
    seconds(
        c"presence.flush_interval",
        c"How far last_activity in user_sessions may lag behind the heartbeats.",
        c"At most half of what the heartbeat interval leaves of presence.active_timeout, so that a query on the table is right too.",
        &FLUSH_INTERVAL,
        1..=HOUR,
    );
}

fn define_capacity() {
    GucRegistry::define_int_guc(
        c"presence.max_sessions",
        c"Sessions of all databases that shared memory has room for.",
        c"Counts sessions that have not ended and are not yet cleaned up. Beyond it presence is still right, but slower. Takes a restart to change.",
        &MAX_SESSIONS,
        64,
        50_000_000,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"presence.max_sessions_per_user",
        c"Sessions a client may have that have not ended.",
        c"Does not limit services.",
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
        c"Least time between two batches of notifications.",
        c"A change after a quiet time is notified at once, those that follow are gathered for this long.",
        &NOTIFY_INTERVAL,
        0,
        MINUTE * 1000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"presence.notify_max",
        c"Most changes at once that are notified one by one.",
        c"More of them are notified as one message without changes, and listeners call changes_since().",
        &NOTIFY_MAX,
        1,
        100_000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"presence.notify_payload",
        c"What a notification says.",
        c"changes: who became active or inactive; wakeup: only that there are changes, for listeners who may not know who; off: nothing is notified.",
        &NOTIFY_PAYLOAD,
        GucContext::Sighup,
        GucFlags::default(),
    );
    text(
        c"presence.channel",
        c"Channel of the notifications.",
        c"What listeners LISTEN to, 1 to 63 bytes.",
        &CHANNEL,
        GucContext::Sighup,
        Some(check_channel),
    );
}

fn define_identity() {
    text(
        c"presence.claim",
        c"Claim of request.jwt.claims that identifies a user.",
        c"The name of a claim at the top level, 1 to 255 bytes.",
        &CLAIM,
        GucContext::Suset,
        Some(check_claim),
    );
    GucRegistry::define_enum_guc(
        c"presence.claim_format",
        c"What the claim that identifies a user holds.",
        c"uuid: a uuid, anything else is no identity; text: any text or integer, from which presence_id() makes the uuid.",
        &CLAIM_FORMAT,
        GucContext::Suset,
        GucFlags::default(),
    );
    text(
        c"presence.user_id_function",
        c"Function that finds the user of an identity.",
        c"The name, with its schema, of a function from uuid to uuid; empty where the identity is the user's id.",
        &USER_ID_FUNCTION,
        GucContext::Suset,
        None,
    );
    text(
        c"presence.user_id",
        c"Identity to act for where there is no request.jwt.claims.",
        c"A uuid, set for each session or transaction by who authenticated the user; empty for none.",
        &USER_ID,
        GucContext::Userset,
        Some(check_user_id),
    );
}

fn seconds(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<i32>,
    bounds: std::ops::RangeInclusive<i32>,
) {
    let (least, most) = (*bounds.start(), *bounds.end());
    GucRegistry::define_int_guc(
        name,
        short,
        long,
        setting,
        least,
        most,
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
    // SAFETY: the check hooks below are guarded, and there are no other hooks.
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

/// Keeps the prefix for us, so that a misspelt setting is reported.
fn reserve_prefix() {
    // SAFETY: a static string; called once all settings are defined, while libraries are loaded.
    unsafe {
        #[cfg(any(feature = "pg13", feature = "pg14"))]
        pg_sys::EmitWarningsOnPlaceholders(c"presence".as_ptr());
        #[cfg(not(any(feature = "pg13", feature = "pg14")))]
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
    let good = unsafe { new_value(new) }.is_some_and(|name| (1..pg_sys::NAMEDATALEN as usize).contains(&name.len()));
    good || refuse(c"A channel has a name of 1 to 63 bytes.")
}

#[pg_guard]
unsafe extern "C-unwind" fn check_claim(
    new: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a valid pointer to a string.
    let good = unsafe { new_value(new) }.is_some_and(|name| (1..=CLAIM_LENGTH).contains(&name.len()));
    good || refuse(c"A claim has a name of 1 to 255 bytes.")
}

#[pg_guard]
unsafe extern "C-unwind" fn check_user_id(
    new: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a valid pointer to a string.
    let good = unsafe { new_value(new) }.is_some_and(|id| id.is_empty() || parse_uuid(id).is_some());
    good || refuse(c"presence.user_id is a uuid, or empty for no identity.")
}

/// The value a check hook is asked about, if it is UTF-8.
///
/// # Safety
/// `new` points to a NUL-terminated string that outlives the borrow, or to null.
unsafe fn new_value<'a>(new: *mut *mut c_char) -> Option<&'a str> {
    // SAFETY: as the caller promises.
    unsafe { (!(*new).is_null()).then(|| CStr::from_ptr(*new))?.to_str().ok() }
}

/// Refuses a new value, with the reason as the error's detail.
fn refuse(reason: &'static CStr) -> bool {
    // SAFETY: written by the only thread of the process; PostgreSQL copies the string and does not free it.
    unsafe { pg_sys::GUC_check_errdetail_string = reason.as_ptr().cast_mut() };
    false
}
