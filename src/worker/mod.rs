//! The background processes: one launcher per server, one worker per database that has the extension.
//!
//! The launcher sees only shared catalogs, so it cannot know which database has the extension: it starts a worker in
//! each, which looks and leaves where there is none. What it knows of a database is one of these states:
//!
//! ```text
//!              start                     serves
//!   untried ──────────▶ started ────────────────────▶ serving
//!     ▲  ▲                │ │ │ no extension              │
//!     │  │ slot free      │ │ └──────────▶ refused        │ left or died
//!     │  └──── no slot ◀──┘ │ left or died    │           │
//!     │                     ▼                 │ poked     │
//!     └─────────────────  resting ◀───────────┴───────────┘
//! ```
//!
//! A refusal is remembered until somebody pokes: CREATE EXTENSION at its commit, and any call that finds no worker.
//! Resting ends after a while that doubles with each failure, so that nothing is started in a tight loop.
//!
//! The two talk through [`board`]: the launcher gives each worker a desk there, the worker reports at it. The board
//! outlives both, so that a new launcher finds the workers of the one before.

mod attempt;
mod board;
mod changes;
mod cleaner;
mod database;
mod flusher;
mod launcher;
mod load;
mod lock;
mod post;
mod process;
mod speaker;
mod tick;

use pgrx::bgworkers::BackgroundWorkerBuilder;
use pgrx::{pg_extern, pg_sys};
use std::time::Duration;

/// The library that the server loads for a background process.
const LIBRARY: &str = "pg_presence";

/// Asks for shared memory and registers the launcher. To be called from `_PG_init` while the server preloads
/// libraries; does nothing under pg_upgrade, which must find no other process in its databases.
pub fn register() {
    board::init();
    // SAFETY: a plain global of this process.
    if unsafe { pg_sys::IsBinaryUpgrade } {
        return;
    }
    BackgroundWorkerBuilder::new("pg_presence launcher")
        .set_library(LIBRARY)
        .set_function("pg_presence_launcher")
        .enable_spi_access()
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}

/// Tells the launcher that a database may need a worker. Cannot fail, allocates nothing and takes no lock, so that a
/// commit callback may call it; costs a few nanoseconds where the launcher has been told already.
pub fn poke_launcher(database: pg_sys::Oid) {
    if let Some(board) = board::Board::attached() {
        board.poke(database);
    }
}

/// Asks for a worker once the transaction has committed: for the install script, as nobody else sees the extension
/// before.
#[pg_extern]
fn presence_start_worker() {
    // SAFETY: a plain global of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, move || {
        poke_launcher(database)
    });
}

::pgrx::extension_sql!(
    "SELECT @extschema@.presence_start_worker();",
    name = "start_worker",
    requires = [presence_start_worker]
);
