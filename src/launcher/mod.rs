//! The launcher: one process per server, which keeps a worker running in each database that has the extension.
//!
//! It sees only shared catalogs, so it cannot know which database has the extension: it starts a worker in each, which
//! exits where there is none. Each database is in one of these states ([`database`]):
//!
//! ```text
//!              start                       serves
//!   untried ──────────▶ starting ────────────────────▶ serving
//!     ▲  ▲                │ │ │ not installed            │
//!     │  │ slot freed     │ │ └────────────▶ refused     │ exited
//!     │  └── no slot ◀────┘ │ exited           │         │
//!     │                     ▼                  │ request │
//!     └────────────────  backoff ◀─────────────┴─────────┘
//! ```
//!
//! A refusal is remembered until a worker is requested: by CREATE EXTENSION at its commit, and by any call that finds
//! none ([`crate::roster::wake`]). The back-off doubles with each failure, so that nothing is started in a tight loop.
//!
//! Launcher and workers communicate through [`slots`]: the launcher assigns a slot to each worker, and the worker sets
//! its status there. The slots outlive both, so that a new launcher finds the workers of the one before.

mod database;
mod handle;
pub mod locks;
mod process;
pub mod slots;

use std::time::Duration;

use pgrx::{bgworkers::BackgroundWorkerBuilder, pg_sys};

/// The library that the server loads for a background process.
const LIBRARY: &str = "pg_presence";

/// Requests shared memory and registers the launcher. To be called from `_PG_init` while the server preloads libraries;
/// registers nothing under pg_upgrade, which must find no other process in its databases.
pub fn init() {
    slots::init();
    // SAFETY: reads a global variable of this process.
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
