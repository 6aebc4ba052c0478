//! The settings, each read through an accessor that converts its unit.
//!
//! PostgreSQL stores intervals in seconds, and `notify_interval` in milliseconds; the accessors return microseconds. If
//! one setting limits another, the accessor returns the effective value.

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

/// The contents of notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum NotifyPayload {
    /// The changes.
    #[name = c"changes"]
    Changes,
    /// Only the fact that there are changes.
    #[name = c"wakeup"]
    Wakeup,
    /// No notifications are sent.
    #[name = c"off"]
    Off,
}

/// The format of the claim that identifies the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum ClaimFormat {
    /// A UUID, used as it is.
    #[name = c"uuid"]
    Uuid,
    /// Any string or integer, mapped to a UUID by presence_id().
    #[name = c"text"]
    Text,
}

/// The maximum number of sessions in shared memory.
static MAX_SESSIONS: GucSetting<i32> = GucSetting::<i32>::new(100_000);
/// The time without a heartbeat after which a session times out, in seconds.
static ACTIVE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5 * MINUTE);
/// The time without activity after which an unattended session is idle, in seconds, or 0 for never.
static IDLE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5 * MINUTE);
/// The interval of heartbeats, in seconds.
static HEARTBEAT_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(2 * MINUTE);
/// The maximum lifetime of a session, in seconds.
static SESSION_LIFETIME: GucSetting<i32> = GucSetting::<i32>::new(7 * DAY);
/// The time for which inactive sessions are kept, in seconds.
static RETENTION: GucSetting<i32> = GucSetting::<i32>::new(DAY);
/// The time for which changes are kept, in seconds.
static FEED_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(HOUR);
/// The time for which offline users are kept, in seconds, or 0 to keep them forever.
static USER_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(0);
/// The maximum time by which the table lags behind shared memory, in seconds.
static FLUSH_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(90);
/// The minimum time between two batches of notifications, in milliseconds.
static NOTIFY_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(2);
/// The maximum number of changes that are notified individually.
static NOTIFY_MAX: GucSetting<i32> = GucSetting::<i32>::new(1000);
/// The contents of notifications.
static NOTIFY_PAYLOAD: GucSetting<NotifyPayload> = GucSetting::<NotifyPayload>::new(NotifyPayload::Changes);
/// The channel of notifications.
static CHANNEL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"presence"));
/// Whether a statement that is one call is run without PostgreSQL calling the function.
static FAST_HEARTBEAT: GucSetting<bool> = GucSetting::<bool>::new(true);
/// The maximum number of sessions of a user that have not ended.
static MAX_SESSIONS_PER_USER: GucSetting<i32> = GucSetting::<i32>::new(1000);
/// Whether users can hide themselves.
static ALLOW_INVISIBLE: GucSetting<bool> = GucSetting::<bool>::new(true);
/// The name of the claim that identifies the user.
static CLAIM: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"sub"));
/// The format of that claim.
static CLAIM_FORMAT: GucSetting<ClaimFormat> = GucSetting::<ClaimFormat>::new(ClaimFormat::Uuid);
/// The name of the function that maps an identity to a user, or empty for none.
static USER_ID_FUNCTION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
/// The identity of a caller without claims, or empty for none.
static USER_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Returns `presence.max_sessions`.
pub fn max_sessions() -> usize {
    MAX_SESSIONS.get() as usize
}

/// Returns `presence.active_timeout`.
#[inline]
pub fn active_timeout() -> Micros {
    in_seconds(&ACTIVE_TIMEOUT)
}

/// Returns `presence.idle_timeout`, or `None` where no session ever becomes idle.
#[inline]
pub fn idle_timeout() -> Option<Micros> {
    Some(in_seconds(&IDLE_TIMEOUT)).filter(|timeout| *timeout > 0)
}

/// Returns the heartbeat interval for clients: `presence.heartbeat_interval`, limited by the timeout.
pub fn heartbeat_interval() -> Micros {
    intervals::heartbeat(in_seconds(&HEARTBEAT_INTERVAL), active_timeout())
}

/// Returns `presence.session_lifetime`.
pub fn session_lifetime() -> Micros {
    in_seconds(&SESSION_LIFETIME)
}

/// Returns `presence.retention`.
pub fn retention() -> Micros {
    in_seconds(&RETENTION)
}

/// Returns the time between two cleanups, derived from `presence.retention`.
pub fn cleanup_period() -> Micros {
    intervals::cleanup_period(retention())
}

/// Returns `presence.feed_retention`.
pub fn feed_retention() -> Micros {
    in_seconds(&FEED_RETENTION)
}

/// Returns `presence.user_retention`, or `None` to keep users forever.
pub fn user_retention() -> Option<Micros> {
    Some(in_seconds(&USER_RETENTION)).filter(|retention| *retention > 0)
}

/// Returns the time between two flushes of a session: `presence.flush_interval`, limited by timeout and heartbeat
/// interval.
pub fn flush_interval() -> Micros {
    intervals::flush(in_seconds(&FLUSH_INTERVAL), active_timeout(), heartbeat_interval())
}

/// Returns the length of the grace period after a start, in which sessions from the table count as live.
pub fn recovery_grace() -> Micros {
    intervals::recovery_grace(active_timeout(), heartbeat_interval(), flush_interval())
}

/// Returns `presence.allow_invisible`: whether users who hide themselves are hidden.
pub fn allow_invisible() -> bool {
    ALLOW_INVISIBLE.get()
}

/// Returns `presence.notify_interval`.
pub fn notify_interval() -> Micros {
    Micros::from(NOTIFY_INTERVAL.get()) * USECS_PER_MSEC
}

/// Returns `presence.notify_max`.
pub fn notify_max() -> usize {
    NOTIFY_MAX.get() as usize
}

/// Returns `presence.notify_payload`.
pub fn notify_payload() -> NotifyPayload {
    NOTIFY_PAYLOAD.get()
}

/// Returns `presence.channel`.
pub fn channel() -> CString {
    CHANNEL.get().unwrap_or_default()
}

/// Returns `presence.max_sessions_per_user`.
pub fn max_sessions_per_user() -> usize {
    MAX_SESSIONS_PER_USER.get() as usize
}

/// Returns `presence.claim`.
#[inline]
pub fn claim() -> ClaimName {
    ClaimName::copy(string(&CLAIM))
}

/// Returns `presence.claim_format`.
#[inline]
pub fn claim_format() -> ClaimFormat {
    CLAIM_FORMAT.get()
}

/// Returns `presence.fast_heartbeat`.
#[inline(always)]
pub fn fast_heartbeat() -> bool {
    FAST_HEARTBEAT.get()
}

/// Returns `presence.user_id_function`, if it is set.
#[inline]
pub fn user_id_function() -> Option<CString> {
    let name = string(&USER_ID_FUNCTION);
    (!name.is_empty()).then(|| name.to_owned())
}

/// Returns `presence.user_id`, if it is set.
#[inline]
pub fn user_id() -> Option<Uuid> {
    parse_uuid(string(&USER_ID).to_str().ok()?)
}

#[inline]
fn in_seconds(setting: &GucSetting<i32>) -> Micros {
    Micros::from(setting.get()) * USECS_PER_SEC
}

/// Returns a string setting without copying it. Private, as the string is freed when the setting changes.
#[inline]
fn string(setting: &GucSetting<Option<CString>>) -> &CStr {
    // SAFETY: the variable is null or points to PostgreSQL's NUL-terminated copy of the value. The accessors above run
    // no SQL, which could change the setting, while they hold the borrow.
    unsafe {
        let value = *setting.as_ptr();
        if value.is_null() { c"" } else { CStr::from_ptr(value) }
    }
}

/// The maximum length of a claim's name, in bytes.
const MAX_CLAIM_LENGTH: usize = 255;

/// The name of a claim, on the stack, as every call of a client reads it.
pub struct ClaimName {
    length: u8,
    bytes: [u8; MAX_CLAIM_LENGTH],
}

impl ClaimName {
    #[inline]
    fn copy(name: &CStr) -> ClaimName {
        let name = name.to_bytes();
        let length = name.len().min(MAX_CLAIM_LENGTH);
        let mut bytes = [0; MAX_CLAIM_LENGTH];
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
