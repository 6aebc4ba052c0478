//! Requests a worker when the extension is installed.

use pgrx::{PgXactCallbackEvent, pg_extern, pg_sys};

use crate::roster::wake;

/// Requests a worker for this database once the transaction has committed, as a worker cannot see the extension before.
/// For the install script.
#[pg_extern]
fn _start_worker() {
    // SAFETY: reads a global variable of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    pgrx::register_xact_callback(PgXactCallbackEvent::Commit, move || wake::request_worker(database));
}

::pgrx::extension_sql!(
    "SELECT @extschema@._start_worker();",
    name = "start_worker",
    requires = [_start_worker]
);
