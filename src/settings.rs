//! Every setting, with its unit and bounds, read through an accessor that owns the unit.
//!
//! Intervals are kept by PostgreSQL in seconds, but for `notify_interval` in milliseconds; the accessors give
//! microseconds. Where one setting limits another the accessor gives the effective value.

use crate::core::claims::parse_uuid;
use crate::core::intervals;
use crate::core::time::{Micros, USECS_PER_MSEC, USECS_PER_SEC};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum, pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_char, c_void};
use uuid::Uuid;

const MINUTE: i32 = 60;
const HOUR: i32 = 60 * MINUTE;
const DAY: i32 = 24 * HOUR;
const TEN_YEARS: i32 = 3652 * DAY;

/// What a notification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum NotifyPayload {
    /// The changes themselves.
    #[name = c"changes"]
    Changes,
    /// Only that there are changes.
    #[name = c"wakeup"]
    Wakeup,
    /// Nothing is notified.
    #[name = c"off"]
    Off,
}

/// What the claim that identifies a user holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum ClaimFormat {
    /// A uuid, taken as it is.
    #[name = c"uuid"]
    Uuid,
    /// Any text or integer, made a uuid by presence_id().
    #[name = c"text"]
    Text,
}

/// Sessions that shared memory has room for.
static MAX_SESSIONS: GucSetting<i32> = GucSetting::<i32>::new(100_000);
/// Silence after which a session is not live any more, in seconds.
static ACTIVE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5 * MINUTE);
/// How often clients are asked to beat, in seconds.
static HEARTBEAT_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(2 * MINUTE);
/// Time from a session's start to its absolute end, in seconds.
static SESSION_LIFETIME: GucSetting<i32> = GucSetting::<i32>::new(7 * DAY);
/// Silence after which a session that is not active is deleted, in seconds.
static RETENTION: GucSetting<i32> = GucSetting::<i32>::new(DAY);
/// How long changes are kept, in seconds.
static FEED_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(HOUR);
/// How long users who are offline are kept, in seconds; 0 for ever.
static USER_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(0);
/// How far the table may lag behind shared memory, in seconds.
static FLUSH_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(90);
/// Least time between two batches of notifications, in milliseconds.
static NOTIFY_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(10);
/// Most changes that are told one by one.
static NOTIFY_MAX: GucSetting<i32> = GucSetting::<i32>::new(1000);
/// What a notification says.
static NOTIFY_PAYLOAD: GucSetting<NotifyPayload> =
    GucSetting::<NotifyPayload>::new(NotifyPayload::Changes);
/// Where notifications go.
static CHANNEL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"presence"));
/// Most sessions, not ended, of one user.
static MAX_SESSIONS_PER_USER: GucSetting<i32> = GucSetting::<i32>::new(1000);
/// Name of the claim that identifies a user.
static CLAIM: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"sub"));
/// What that claim holds.
static CLAIM_FORMAT: GucSetting<ClaimFormat> = GucSetting::<ClaimFormat>::new(ClaimFormat::Uuid);
/// Name of a function from the identity to the user's id; empty for none.
static USER_ID_FUNCTION: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c""));
/// The identity where there are no claims; empty for none.
static USER_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Defines the settings while the server starts. Where the library is loaded later it does nothing: no function works
/// then, and a setting of `Postmaster` context would end the connection.
pub fn init() {
    // SAFETY: read by the only thread of the process, of a variable that the server sets before it loads libraries.
    if !unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        return;
    }
    define_timing();
    define_capacity();
    define_notifications();
    define_identity();
    reserve_prefix();
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
    let good = unsafe { new_value(new) }
        .is_some_and(|name| (1..pg_sys::NAMEDATALEN as usize).contains(&name.len()));
    good || refuse(c"A channel has a name of 1 to 63 bytes.")
}

#[pg_guard]
unsafe extern "C-unwind" fn check_claim(
    new: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a valid pointer to a string.
    let good =
        unsafe { new_value(new) }.is_some_and(|name| (1..=CLAIM_LENGTH).contains(&name.len()));
    good || refuse(c"A claim has a name of 1 to 255 bytes.")
}

#[pg_guard]
unsafe extern "C-unwind" fn check_user_id(
    new: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL passes a valid pointer to a string.
    let good =
        unsafe { new_value(new) }.is_some_and(|id| id.is_empty() || parse_uuid(id).is_some());
    good || refuse(c"presence.user_id is a uuid, or empty for no identity.")
}

/// The value a check hook is asked about, if it is UTF-8.
///
/// # Safety
/// `new` points to a NUL-terminated string that outlives the borrow, or to null.
unsafe fn new_value<'a>(new: *mut *mut c_char) -> Option<&'a str> {
    // SAFETY: as the caller promises.
    unsafe {
        (!(*new).is_null())
            .then(|| CStr::from_ptr(*new))?
            .to_str()
            .ok()
    }
}

/// Refuses a new value, with the reason as the error's detail.
fn refuse(reason: &'static CStr) -> bool {
    // SAFETY: written by the only thread of the process; PostgreSQL copies the string and does not free it.
    unsafe { pg_sys::GUC_check_errdetail_string = reason.as_ptr().cast_mut() };
    false
}

/// `presence.max_sessions`.
pub fn max_sessions() -> usize {
    MAX_SESSIONS.get() as usize
}

/// `presence.active_timeout`.
#[inline]
pub fn active_timeout() -> Micros {
    in_seconds(&ACTIVE_TIMEOUT)
}

/// The heartbeat interval told to clients: `presence.heartbeat_interval`, as far as the timeout allows.
pub fn heartbeat_interval() -> Micros {
    intervals::heartbeat(in_seconds(&HEARTBEAT_INTERVAL), active_timeout())
}

/// `presence.session_lifetime`.
pub fn session_lifetime() -> Micros {
    in_seconds(&SESSION_LIFETIME)
}

/// `presence.retention`.
pub fn retention() -> Micros {
    in_seconds(&RETENTION)
}

/// Time between two cleanups, from `presence.retention`.
pub fn cleanup_period() -> Micros {
    intervals::cleanup_period(retention())
}

/// `presence.feed_retention`.
pub fn feed_retention() -> Micros {
    in_seconds(&FEED_RETENTION)
}

/// `presence.user_retention`; none is for ever.
pub fn user_retention() -> Option<Micros> {
    Some(in_seconds(&USER_RETENTION)).filter(|retention| *retention > 0)
}

/// Time between two flushes of the same session: `presence.flush_interval`, as far as timeout and heartbeat allow.
pub fn flush_interval() -> Micros {
    intervals::flush(
        in_seconds(&FLUSH_INTERVAL),
        active_timeout(),
        heartbeat_interval(),
    )
}

/// How long after a start sessions of the table are believed, whatever their age.
pub fn recovery_grace() -> Micros {
    intervals::recovery_grace(active_timeout(), heartbeat_interval(), flush_interval())
}

/// `presence.notify_interval`.
pub fn notify_interval() -> Micros {
    Micros::from(NOTIFY_INTERVAL.get()) * USECS_PER_MSEC
}

/// `presence.notify_max`.
pub fn notify_max() -> usize {
    NOTIFY_MAX.get() as usize
}

/// `presence.notify_payload`.
pub fn notify_payload() -> NotifyPayload {
    NOTIFY_PAYLOAD.get()
}

/// `presence.channel`.
pub fn channel() -> CString {
    CHANNEL.get().unwrap_or_default()
}

/// `presence.max_sessions_per_user`.
pub fn max_sessions_per_user() -> usize {
    MAX_SESSIONS_PER_USER.get() as usize
}

/// `presence.claim`.
#[inline]
pub fn claim() -> ClaimName {
    ClaimName::copy(value(&CLAIM))
}

/// `presence.claim_format`.
#[inline]
pub fn claim_format() -> ClaimFormat {
    CLAIM_FORMAT.get()
}

/// `presence.user_id_function`, if one is set.
#[inline]
pub fn user_id_function() -> Option<CString> {
    let name = value(&USER_ID_FUNCTION);
    (!name.is_empty()).then(|| name.to_owned())
}

/// `presence.user_id`, if it is set.
#[inline]
pub fn user_id() -> Option<Uuid> {
    parse_uuid(value(&USER_ID).to_str().ok()?)
}

#[inline]
fn in_seconds(setting: &GucSetting<i32>) -> Micros {
    Micros::from(setting.get()) * USECS_PER_SEC
}

/// A string setting without a copy. Only for this file: the string is freed when the setting changes.
#[inline]
fn value(setting: &GucSetting<Option<CString>>) -> &CStr {
    // SAFETY: the variable is null or points to PostgreSQL's NUL-terminated copy of the value. Nothing between here and
    // the last use of the borrow, in the accessors above, can run SQL and so change the setting.
    unsafe {
        let value = *setting.as_ptr();
        if value.is_null() {
            c""
        } else {
            CStr::from_ptr(value)
        }
    }
}

const CLAIM_LENGTH: usize = 255;

/// The name of a claim, kept on the stack: it is read on every call of a client.
pub struct ClaimName {
    length: u8,
    bytes: [u8; CLAIM_LENGTH],
}

impl ClaimName {
    #[inline]
    fn copy(name: &CStr) -> ClaimName {
        let name = name.to_bytes();
        let length = name.len().min(CLAIM_LENGTH);
        let mut bytes = [0; CLAIM_LENGTH];
        bytes[..length].copy_from_slice(&name[..length]);
        ClaimName {
            length: length as u8,
            bytes,
        }
    }
}

impl std::ops::Deref for ClaimName {
    type Target = str;

    fn deref(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}
