//! pg_presence: who is online, right now, for any client, with nothing but PostgreSQL.
//!
//! The modules from the ground up; each uses only those above it in this list. `docs/architecture.md` describes them.

// The macro's own values for both are the version (pgrx 0.18.1).
::pgrx::pg_module_magic!(name = c"pg_presence", version = VERSION);

const VERSION: &std::ffi::CStr =
    match std::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version without null characters"),
    };

mod rules;

mod pg;

mod settings;

mod roster;

mod store;

mod identity;

mod triggers;

mod session;

mod api;

mod launcher;

mod worker;

#[cfg(feature = "pg_bench")]
mod benches;

// The install script, in order. An upgrade is a script of its own: sql/pg_presence--FROM--TO.sql, which cargo-pgrx
// installs beside it.
::pgrx::extension_sql_file!("../sql/preflight.sql", name = "preflight", bootstrap);
::pgrx::extension_sql_file!("../sql/types.sql", name = "types", requires = ["preflight"]);
::pgrx::extension_sql_file!(
    "../sql/tables.sql",
    name = "tables",
    requires = [
        "types",
        api::identity::is_service,
        api::identity::presence_user_id,
        api::identity::presence_auth_id
    ]
);
::pgrx::extension_sql_file!(
    "../sql/triggers.sql",
    name = "triggers",
    requires = [
        "tables",
        triggers::before_declare::_before_declare,
        triggers::before_truncate::_before_truncate,
        triggers::before_write::_before_write,
        triggers::restore::_restore,
        triggers::capture::_capture,
        triggers::capture_declared::_capture_declared,
        triggers::compare::_compare
    ]
);
::pgrx::extension_sql_file!(
    "../sql/policies.sql",
    name = "policies",
    requires = [
        "tables",
        api::identity::is_service,
        api::identity::presence_user_id,
        api::identity::presence_auth_id
    ]
);
::pgrx::extension_sql_file!("../sql/grants.sql", name = "grants", requires = ["tables"]);
::pgrx::extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = ["tables", api::stats::_stats]
);
::pgrx::extension_sql_file!(
    "../sql/health/definitions.sql",
    name = "health_definitions",
    requires = ["types"]
);
::pgrx::extension_sql_file!("../sql/health/tables.sql", name = "health_tables", requires = ["types"]);
::pgrx::extension_sql_file!(
    "../sql/health/indexes.sql",
    name = "health_indexes",
    requires = ["types"]
);
::pgrx::extension_sql_file!(
    "../sql/health/policies.sql",
    name = "health_policies",
    requires = ["types"]
);
::pgrx::extension_sql_file!(
    "../sql/health/triggers.sql",
    name = "health_triggers",
    requires = ["types"]
);
::pgrx::extension_sql_file!(
    "../sql/health/settings.sql",
    name = "health_settings",
    requires = ["types"]
);
::pgrx::extension_sql_file!(
    "../sql/health/privileges.sql",
    name = "health_privileges",
    requires = ["types"]
);
::pgrx::extension_sql_file!("../sql/health/worker.sql", name = "health_worker", requires = ["types"]);
::pgrx::extension_sql_file!(
    "../sql/health.sql",
    name = "health",
    requires = [
        "views",
        "health_definitions",
        "health_tables",
        "health_indexes",
        "health_policies",
        "health_privileges",
        "health_triggers",
        "health_settings",
        "health_worker"
    ]
);
::pgrx::extension_sql_file!("../sql/metrics.sql", name = "metrics", requires = ["health"]);
// The comments name every function, so they must come after all of them. "closing" comes last, as pgrx allows one `finalize`.
::pgrx::extension_sql_file!(
    "../sql/comments.sql",
    name = "comments",
    requires = [
        "types",
        "tables",
        "triggers",
        "policies",
        "grants",
        "views",
        "health",
        "metrics",
        api::bind::bind_sessions,
        api::changes::changes_since,
        api::changes::presence_cursor,
        api::cleanup::cleanup_sessions,
        api::declared::clear_status,
        api::declared::set_status,
        api::epoch::renew_epoch,
        api::end::end_session,
        api::end::end_session_by_token,
        api::end::end_sessions,
        api::end::end_user_sessions,
        api::grants::grant_client,
        api::grants::grant_holder,
        api::grants::grant_reader,
        api::grants::grant_service,
        api::heartbeat::heartbeat,
        api::heartbeat::heartbeat_by_token,
        api::heartbeat::heartbeat_idle,
        api::heartbeat::heartbeat_idle_by_token,
        api::heartbeat::heartbeat_many,
        api::identity::is_service,
        api::identity::presence_auth_id,
        api::identity::presence_user_id,
        api::invisible::own_presence,
        api::invisible::set_invisible,
        api::presence::online_count,
        api::presence::online_users,
        api::presence::presence_of,
        api::presence_id::presence_id_of_integer,
        api::presence_id::presence_id_of_text,
        api::release::release_session,
        api::release::release_session_by_token,
        api::release::release_sessions,
        api::start::start_session,
        api::start_many::start_sessions,
        api::start_worker::_start_worker,
        api::stats::_stats,
        api::status::is_online,
        api::status::last_seen,
        api::status::user_status,
        api::token::rotate_session_token,
        api::token::token_digest,
        api::user::forget_user
    ]
);
::pgrx::extension_sql_file!("../sql/closing.sql", name = "closing", finalize);

/// Called by the server when it loads the library; does nothing where the library is not preloaded.
#[pgrx::pg_guard]
extern "C-unwind" fn _PG_init() {
    pg::errors::disable_backtraces();
    settings::init();
    // SAFETY: reads a global variable of this process.
    if unsafe { pgrx::pg_sys::process_shared_preload_libraries_in_progress } {
        roster::init();
        triggers::init();
        api::fast_path::init();
        launcher::init();
    }
}
