//! Requests a worker when the extension is installed.

use pgrx::{PgLogLevel, PgSqlErrorCode, PgXactCallbackEvent, pg_extern, pg_sys, pg_sys::panic::ErrorReport};

use crate::{
    pg::background_workers,
    roster::{self, wake},
};

/// Requests a worker for this database once the transaction has committed, as a worker cannot see the extension before.
/// Warns if none can be started. For the install script.
#[pg_extern]
fn _start_worker() {
    // SAFETY: reads a global variable of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    warn_without_room(database);
    pgrx::register_xact_callback(PgXactCallbackEvent::Commit, move || wake::request_worker(database));
}

/// A worker that serves this database is that of an install which this one follows, and leaves.
fn warn_without_room(database: pg_sys::Oid) {
    let serving: Vec<u32> = roster::tenants()
        .filter(|tenant| tenant.database() != database)
        .map(|tenant| tenant.worker_pid())
        .collect();
    if background_workers::are_used_up(|pid| serving.contains(&(pid as u32))) {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "no background worker is left for this database",
            pgrx::function_name!(),
        )
        .set_detail("Until its worker can start, presence goes on without notifications, user_presence and cleanup.")
        .set_hint("Increase max_worker_processes and restart the server.")
        .report(PgLogLevel::WARNING);
    }
}

::pgrx::extension_sql!(
    "SELECT @extschema@._start_worker();",
    name = "start_worker",
    requires = [_start_worker]
);
