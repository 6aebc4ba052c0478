//! Servers, databases and clients for the tests in `tests`; see `README.md` for where a test goes and how one is run.
//!
//! The tests talk to real servers over real connections, because what they are about (row level security, commits,
//! notifications, crashes) does not exist inside one transaction of one superuser. Every test has a database of its own,
//! runs beside the others, and waits for conditions, never for a fixed time.
//!
//! From the ground up, each module uses only those before it: `wait`, `run_options`, `rng`, `process`, `programs`,
//! `cluster`, `errors`, `presence`, `listener`, `database`, `failure`, `paused_process`, `feed_copy`, `pooler`, `workload`.

mod cluster;
mod database;
mod errors;
mod failure;
mod feed_copy;
mod listener;
mod paused_process;
mod pooler;
mod presence;
mod process;
mod programs;
mod rng;
mod run_options;
mod wait;
pub mod workload;

pub use cluster::{Cluster, Shutdown};
pub use database::{Database, Install};
pub use errors::{DENIED, assert_denied, assert_refused, error_of, error_text};
pub use feed_copy::FeedCopy;
pub use listener::{Change, Listener, Message};
pub use paused_process::PausedProcess;
pub use pooler::Pooler;
pub use presence::{Presence, Session};
pub use process::{signal, try_signal};
pub use programs::{force_parallel, has_module, installed, server_major, tools};
pub use rng::Rng;
pub use run_options::{StopOnDrop, report, seed, seed_or, soak, times};
pub use wait::{Stalls, patience, wait_for, wait_until, wait_until_equal};
