//! The errors that callers can get. Each has a fixed message and a detail or hint, and repeats no input.

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys::panic::ErrorReport};

/// 55000: the library was not preloaded.
pub fn not_preloaded() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "pg_presence must be loaded via shared_preload_libraries",
        "Its shared memory can be allocated only while the server starts.",
        "Add pg_presence to shared_preload_libraries in postgresql.conf and restart the server.",
    )
}

/// 55000: the extension does not exist in the database.
pub fn not_installed() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "pg_presence is not installed in this database",
        "",
        "Run CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence;",
    )
}

/// 55000: an object of the extension is missing or differs from what the install script created.
pub fn damaged_install() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "extension objects of pg_presence are incomplete",
        "A table or function of the extension was dropped or altered, or the library is newer than the objects.",
        "SELECT * FROM presence_health() WHERE NOT ok returns what differs, with the statements that restore it. After an \
         update of the library, run ALTER EXTENSION pg_presence UPDATE.",
    )
}

/// 55000: a trigger function of the extension is attached to another table, or fires for another event.
pub fn misplaced_trigger() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "trigger function of pg_presence was called for another table or event",
        "Its triggers are on the tables of the extension, and fire only as the extension has created them.",
        "SELECT * FROM presence_health() WHERE NOT ok returns such triggers, with the statements that drop them.",
    )
}

/// 55000: `presence.user_id_function` cannot be called.
pub fn bad_user_id_function(message: &'static str) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message,
        "It must be the schema-qualified name of a function that takes a uuid and returns a uuid.",
        "A superuser can set it, for example with ALTER DATABASE ... SET presence.user_id_function = 'public.user_of'.",
    )
}

/// 55000: shared memory has no room for another database.
pub fn no_room_for_database() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "too many databases use pg_presence",
        "",
        "Run DROP EXTENSION pg_presence in databases that do not need it.",
    )
}

/// XX000: the operating system cannot generate random bytes.
pub fn no_random_values() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        "could not generate random values",
        "The random number generator of the operating system failed.",
        "",
    )
}

/// 53200: no memory to record the changes of a transaction.
pub fn out_of_memory() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
        "out of memory",
        "Changes to user_sessions and declared_statuses are kept in memory until the transaction commits.",
        "Change fewer rows in one transaction.",
    )
}

/// 53200: no memory for what a call needs for its arguments or its result.
pub fn no_memory() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
        "out of memory",
        "The call needs memory for each element of its arguments and each row of its result.",
        "Pass fewer elements in one call.",
    )
}

/// 53200: the memory of the roster cannot be mapped, so the server cannot start.
pub fn no_memory_for_roster() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
        "could not map shared memory for presence.max_sessions",
        "",
        "Reduce presence.max_sessions, or set huge_pages to off.",
    )
}

/// 42501: the call needs an identity, and the caller has none.
pub fn no_identity() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "caller has no identity",
        "Neither request.jwt.claims nor presence.user_id identifies a user.",
        "Sign in first. To act for all of its users, an application needs SELECT grant_service('its role').",
    )
}

/// 42501: the user, session or token is not the caller's. Reveals neither which of them, nor whether it exists.
pub fn not_permitted() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "not permitted for this user",
        "A client can act only for its own identity, and only on sessions that have not ended.",
        "Start a new session with a new token. To act for other users, a role needs SELECT grant_service('its role').",
    )
}

/// 42501: a client's UPDATE changes a column that clients may not change.
pub fn protected_value() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "permission denied to change this column of a session",
        "A client can change only is_active, last_activity and metadata of its own sessions.",
        "Change only these columns, or start a new session.",
    )
}

/// 42501: a client requests the status of another user.
pub fn reader_only() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "permission denied to read the status of other users",
        "A client can read its own status, a reader that of every user.",
        "The owner of the extension can make a role a reader with SELECT grant_reader('its role').",
    )
}

/// 42501: TRUNCATE of one of our tables by a role that has the privilege only.
pub fn truncate_refused() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "permission denied to truncate a table of pg_presence",
        "",
        "Only the owner and services can truncate it. To end all sessions of a user, call end_user_sessions().",
    )
}

/// 42501: a trigger on one of our tables that is not the owner's.
pub fn untrusted_trigger() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "permission denied to create a trigger on a table of pg_presence",
        "A trigger runs with the rights of the tables' owner, so only the owner or a superuser can create it, and all \
         functions that it calls must belong to them.",
        "Create the trigger and its functions as the owner of the tables, or put it on a table of your own that a trigger \
         of the owner writes.",
    )
}

/// 42501: a foreign key to one of our tables, from a table that is not the owner's.
pub fn untrusted_foreign_key() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "permission denied to create a foreign key to a table of pg_presence",
        "What a foreign key does runs with the rights of the tables' owner, so the referencing table must belong to the \
         owner or a superuser.",
        "Omit the foreign key; rows of sessions that no longer exist can be deleted from time to time.",
    )
}

/// 42501: the caller is not a service, and the call is for services only.
pub fn service_only() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "must be a service to call this function",
        "",
        "The owner of the extension can make a role a service with SELECT grant_service('its role').",
    )
}

/// 42501: the caller is neither the owner of the extension nor of the database.
pub fn owner_only() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "must be owner of the extension or of the database to call this function",
        "",
        "Call it as the owner of the database.",
    )
}

/// 22023: an invalid value. An empty detail or hint is omitted; at least one of them is needed.
pub fn bad_value(message: &'static str, detail: &'static str, hint: &'static str) -> ! {
    raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, detail, hint)
}

/// 22023: a token chosen by a client is too short to be a secret, or too long.
pub fn weak_token() -> ! {
    bad_value(
        "session token must be 22 to 512 bytes long",
        "A token is a secret: anyone who knows it can keep the session active or end it.",
        "Omit session_token to get a generated token of 256 random bits.",
    )
}

/// 22023: metadata is not an object, or too large.
pub fn bad_metadata() -> ! {
    bad_value(
        "metadata must be a JSON object of at most 8 kB",
        "",
        "Store what describes the session, such as device and version, and other data in a table of your own.",
    )
}

/// 53400: a user has as many sessions as presence.max_sessions_per_user allows.
pub fn too_many_sessions() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        "too many sessions for this user",
        "The user has as many sessions that have not ended as presence.max_sessions_per_user allows.",
        "End sessions that are no longer needed, or increase presence.max_sessions_per_user.",
    )
}

/// 53400: there are as many declared statuses of a user as there may be.
pub fn too_many_declarations() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        "too many declared statuses for this user",
        "There may be 16 that have not expired, each of another source.",
        "Use the same source for the same purpose, and take back what no longer applies with clear_status().",
    )
}

/// 22023: a status is no word that can be declared.
pub fn unknown_status() -> ! {
    bad_value(
        "status must be 'busy', 'away' or 'available'",
        "'dnd' is accepted for 'busy'. Whether a user is active or idle is decided by heartbeats.",
        "Pass NULL to declare a text or emoji alone.",
    )
}

/// 22023: neither status, text nor emoji.
pub fn nothing_declared() -> ! {
    bad_value(
        "status, status_text or emoji must be specified",
        "",
        "To take back what a source has declared, call clear_status().",
    )
}

/// 22023: the text of a declared status is too long.
pub fn long_status_text() -> ! {
    bad_value(
        "status_text must be at most 140 characters long",
        "",
        "Shorten the text.",
    )
}

/// 22023: the emoji of a declared status is too long.
pub fn long_emoji() -> ! {
    bad_value(
        "emoji must be at most 64 bytes long",
        "",
        "Pass one emoji, or its name in the application.",
    )
}

/// 22023: the source of a declared status has no name, too long a name, or one that is reserved.
pub fn bad_source() -> ! {
    bad_value(
        "source must be 1 to 63 bytes long, and not 'visibility'",
        "The source 'visibility' hides its user, and declares nothing else.",
        "Omit source for the user's own word, or pass a name such as 'calendar'.",
    )
}

/// 22023: a row of the source 'visibility' that says anything else than that its user is invisible.
pub fn bad_visibility() -> ! {
    bad_value(
        "a row of the source 'visibility' must have the status 'invisible', and neither a text nor an emoji",
        "The source 'visibility' hides its user, and declares nothing else.",
        "To hide a user, or show one again, call set_invisible().",
    )
}

/// 42501: users may not hide themselves.
pub fn invisible_not_allowed() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "users are not allowed to hide themselves",
        "presence.allow_invisible is off.",
        "A service can hide users, and show them again.",
    )
}

/// 42501: a client shows a user again whom a service has hidden.
pub fn hidden_by_service() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "permission denied to show the user again",
        "A service has hidden the user.",
        "Only a service can take that back.",
    )
}

/// 42501: a client declares something as another source.
pub fn foreign_source() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "permission denied for this source",
        "A client can declare its own status as the sources 'manual' and 'text', a service as any.",
        "Omit source.",
    )
}

/// 40001: other transactions kept changing the same session.
pub fn try_again() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        "could not serialize access due to concurrent changes of the session",
        "",
        "The call might succeed if retried.",
    )
}

/// 40001: a user whose change the worker has written was forgotten meanwhile.
pub fn user_forgotten() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        "could not serialize access due to a concurrent forget_user()",
        "",
        "The worker tries again.",
    )
}

/// 55P03: other processes have kept a row or a table locked for too long.
pub fn lock_not_available(pids: &[i32]) -> ! {
    let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
    let detail = match pids.as_slice() {
        [] => "Another transaction holds a lock on the row or table.".to_owned(),
        [pid] => format!("Process {pid} holds a lock on the row or table."),
        _ => format!("Processes {} hold locks on the table or its rows.", pids.join(", ")),
    };
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
        "could not obtain lock on a session or user in time",
        pgrx::function_name!(),
    )
    .set_detail(detail)
    .set_hint("Try again once that transaction has ended; pg_stat_activity shows it, pg_terminate_backend() ends it.")
    .report(PgLogLevel::ERROR);
    unreachable!("an error report returned")
}

/// 25006: a heartbeat or another write on a standby.
pub fn on_standby() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
        "cannot change sessions on a standby",
        "A standby can report who is online; sessions start, beat and end on the primary.",
        "Send this call to the primary.",
    )
}

/// 0A000: PREPARE TRANSACTION after a change to user_sessions or declared_statuses.
pub fn prepare_refused() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "cannot PREPARE a transaction that has changed user_sessions or declared_statuses",
        "Changes of presence take effect when this connection commits, as those of LISTEN and NOTIFY do.",
        "Start and end sessions, and declare statuses, in a separate transaction.",
    )
}

/// 72000: the feed no longer has the changes after the caller's position, or has another epoch.
pub fn feed_too_old() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_SNAPSHOT_TOO_OLD,
        "could not resume the feed from this position",
        "The epoch has changed, or the changes after this position are no longer kept.",
        "Call presence_cursor(), read user_presence again, and continue from that cursor.",
    )
}

/// Keeps backtraces out of error details, where clients would see them: what RUST_BACKTRACE in the server's environment
/// turns on. Call once, from `_PG_init`.
///
/// The library's own copy of Rust's standard library reads the variable once, with the first backtrace. The variables
/// are restored, as they may be meant for others.
pub fn disable_backtraces() {
    const VARIABLES: [&str; 2] = ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"];
    let values = VARIABLES.map(std::env::var_os);
    // SAFETY: a PostgreSQL process has a single thread.
    VARIABLES.iter().for_each(|name| unsafe { std::env::remove_var(name) });
    let _ = std::backtrace::Backtrace::capture();
    for (name, value) in VARIABLES.iter().zip(values) {
        if let Some(value) = value {
            // SAFETY: as above.
            unsafe { std::env::set_var(name, value) };
        }
    }
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
