//! Every error a caller can meet: fixed texts that say what to do, and never what the caller sent.

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys::panic::ErrorReport};

/// 55000: the library was not loaded at server start.
pub fn not_preloaded() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "pg_presence must be loaded when the server starts",
        "It keeps who is online in shared memory, which is only given out at server start.",
        "Add pg_presence to shared_preload_libraries in postgresql.conf and restart the server.",
    )
}

/// 55000: the database has no such extension.
pub fn not_installed() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "pg_presence is not installed in this database",
        "",
        "Run CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence;",
    )
}

/// 55000: an object of the extension is missing or not what the install script made.
pub fn damaged_install() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "the objects of pg_presence in this database are not complete",
        "The library is newer than they are, or a table or function of the extension was dropped or changed.",
        "After an upgrade, run ALTER EXTENSION pg_presence UPDATE. If that does not help, DROP EXTENSION pg_presence \
         and CREATE EXTENSION pg_presence again.",
    )
}

/// 55000: `presence.user_id_function` cannot be called.
pub fn bad_user_id_function(message: &'static str) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message,
        "It must name, with its schema, a function that takes a uuid and returns one.",
        "A superuser can set it, such as: ALTER DATABASE ... SET presence.user_id_function = 'public.user_of';",
    )
}

/// 55000: shared memory has no room for another database.
pub fn no_room_for_database() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "too many databases of this server use pg_presence",
        "",
        "Run DROP EXTENSION pg_presence where it is not needed.",
    )
}

/// 53200: no memory to note what a transaction has written.
pub fn out_of_memory() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
        "out of memory while noting changes to user_sessions",
        "What a transaction writes is kept in memory until its commit.",
        "Write fewer rows in one transaction.",
    )
}

/// 53200: the server cannot start.
pub fn no_memory_for_roster() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
        "could not map memory for presence.max_sessions",
        "",
        "Lower presence.max_sessions, or set huge_pages = off.",
    )
}

/// 42501: the caller has no identity, and the call needs one.
pub fn no_identity() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "no identity to act for",
        "Neither the claims of the request nor presence.user_id name a valid user.",
        "Sign in first. An application that acts for all its users needs SELECT grant_service('its role').",
    )
}

/// 42501: somebody else's user, session or token. Which of them, and whether it exists, is not said.
pub fn not_permitted() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "not permitted for this user",
        "A client acts for its own identity only, and for sessions that have not ended.",
        "Start a new session with a new token. Acting for others needs SELECT grant_service('its role').",
    )
}

/// 42501: a client's UPDATE changes a column that is not a client's to change.
pub fn protected_value() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "a client may not change this column of a session",
        "Of its own sessions a client may change is_active, last_activity and metadata.",
        "Change only those. A new session is an INSERT, or start_session().",
    )
}

/// 42501: a client asks about somebody else.
pub fn reader_only() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "not permitted to see the status of others",
        "A client sees its own status, a reader everybody's.",
        "The owner of the extension can make a role a reader with SELECT grant_reader('its role').",
    )
}

/// 42501: the call is for services only.
pub fn service_only() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "only a service may do this",
        "",
        "The owner of the extension can make a role a service with SELECT grant_service('its role').",
    )
}

/// 22023: a value that makes no sense. An empty detail or hint is left out; give at least one.
pub fn bad_value(message: &'static str, detail: &'static str, hint: &'static str) -> ! {
    raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, detail, hint)
}

/// 22023: a client's own token that is too short to be a secret, or too long.
pub fn weak_token() -> ! {
    bad_value(
        "session token must be 22 to 512 bytes long",
        "A token is a secret: who knows it can beat and end the session.",
        "Leave session_token out to be given one of 256 random bits.",
    )
}

/// 22023: metadata that is no object, or too large.
pub fn bad_metadata() -> ! {
    bad_value(
        "metadata must be a JSON object of at most 8 kB",
        "",
        "Keep what describes the session, such as device and version; keep the rest in a table of your own.",
    )
}

/// 53400: one user has as many sessions as presence.max_sessions_per_user allows.
pub fn too_many_sessions() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        "too many sessions of this user",
        "The user has as many sessions that are not ended as presence.max_sessions_per_user allows.",
        "End sessions that are not needed, or raise presence.max_sessions_per_user.",
    )
}

/// 40001: others kept changing the same session.
pub fn try_again() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        "the session is being changed by others",
        "",
        "Try again.",
    )
}

/// 25006: a write or a heartbeat on a standby.
pub fn on_standby() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
        "sessions cannot be changed on a standby",
        "A standby answers who is online; sessions start, beat and end on the primary.",
        "Send this call to the primary.",
    )
}

/// 0A000: PREPARE TRANSACTION after a change to user_sessions.
pub fn prepare_refused() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "cannot PREPARE a transaction that has changed user_sessions",
        "Presence takes effect when this connection commits, as NOTIFY does.",
        "Start and end sessions in a transaction of their own.",
    )
}

/// 72000: the feed does not reach back to where the caller is, or is another one.
pub fn feed_too_old() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_SNAPSHOT_TOO_OLD,
        "the feed cannot be resumed from there",
        "The epoch is another one, or the changes that follow are no longer kept.",
        "Call presence_cursor(), read user_presence again, and go on from that cursor.",
    )
}

fn raise(code: PgSqlErrorCode, message: &'static str, detail: &'static str, hint: &'static str) -> ! {
    let mut report = ErrorReport::new(code, message, pgrx::function_name!());
    if !detail.is_empty() {
        report = report.set_detail(detail);
    }
    if !hint.is_empty() {
        report = report.set_hint(hint);
    }
    report.report(PgLogLevel::ERROR);
    unreachable!("an error report returned")
}
