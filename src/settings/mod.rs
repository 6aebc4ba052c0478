//! Every setting, with its unit and bounds, read through an accessor that owns the unit.
//!
//! Intervals are kept by PostgreSQL in seconds, but for `notify_interval` in milliseconds; the accessors give
//! microseconds. Where one setting limits another the accessor gives the effective value.

mod define;

use std::ffi::{CStr, CString};

use pgrx::{GucSetting, PostgresGucEnum};
use uuid::Uuid;

use crate::rules::{
    claims::parse_uuid,
    intervals,
    time::{Micros, USECS_PER_MSEC, USECS_PER_SEC},
};

pub use define::{init, is_preloaded};

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
static NOTIFY_PAYLOAD: GucSetting<NotifyPayload> = GucSetting::<NotifyPayload>::new(NotifyPayload::Changes);
/// Where notifications go.
static CHANNEL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"presence"));
/// Most sessions, not ended, of one user.
static MAX_SESSIONS_PER_USER: GucSetting<i32> = GucSetting::<i32>::new(1000);
/// Name of the claim that identifies a user.
static CLAIM: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"sub"));
/// What that claim holds.
static CLAIM_FORMAT: GucSetting<ClaimFormat> = GucSetting::<ClaimFormat>::new(ClaimFormat::Uuid);
/// Name of a function from the identity to the user's id; empty for none.
static USER_ID_FUNCTION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
/// The identity where there are no claims; empty for none.
static USER_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

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
    intervals::flush(in_seconds(&FLUSH_INTERVAL), active_timeout(), heartbeat_interval())
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
        if value.is_null() { c"" } else { CStr::from_ptr(value) }
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
