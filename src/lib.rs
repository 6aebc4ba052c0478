//! pg_presence: who is online, right now, for any client, with nothing but PostgreSQL.

::pgrx::pg_module_magic!(name, version);

mod api;
#[cfg(feature = "pg_bench")]
mod benches;
mod compat;
mod core;
mod errors;
mod faults;
mod guard;
mod identity;
mod installed;
mod local;
mod random;
mod roster;
mod settings;
mod stats;
mod store;
mod sync;
mod text;
mod worker;

// The install script, in order. An upgrade is a script of its own: sql/pg_presence--FROM--TO.sql, which cargo-pgrx installs
// beside it.
::pgrx::extension_sql_file!("../sql/preflight.sql", name = "preflight", bootstrap);
::pgrx::extension_sql_file!("../sql/types.sql", name = "types", requires = ["preflight"]);
::pgrx::extension_sql_file!("../sql/tables.sql", name = "tables", requires = ["types"]);
::pgrx::extension_sql_file!(
    "../sql/triggers.sql",
    name = "triggers",
    requires = [
        "tables",
        guard::presence_guard,
        guard::restored::presence_restore,
        sync::feed::presence_feed
    ]
);
::pgrx::extension_sql_file!(
    "../sql/policies.sql",
    name = "policies",
    requires = [
        "tables",
        identity::sql::is_service,
        identity::sql::presence_auth_id
    ]
);
::pgrx::extension_sql_file!("../sql/grants.sql", name = "grants", requires = ["tables"]);
::pgrx::extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = ["tables", stats::presence_stats_raw]
);
::pgrx::extension_sql_file!("../sql/health.sql", name = "health", requires = ["views"]);
::pgrx::extension_sql_file!("../sql/closing.sql", name = "closing", finalize);

/// Called by the server when it loads the library; quiet where the library is not preloaded.
#[pgrx::pg_guard]
extern "C-unwind" fn _PG_init() {
    settings::init();
    // SAFETY: a plain global of the process that loads us.
    if unsafe { pgrx::pg_sys::process_shared_preload_libraries_in_progress } {
        roster::init();
        sync::init();
        api::shortcut::init();
        worker::register();
    }
}
