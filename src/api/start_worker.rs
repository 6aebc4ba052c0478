//! The install's request for a worker.

use pgrx::{PgXactCallbackEvent, pg_extern, pg_sys};

use crate::roster::wake;

/// Requests a worker once the transaction has committed: for the install script, as nobody else sees the extension before.
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
