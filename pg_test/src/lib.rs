//! Servers, databases and clients for the tests in `tests`.
//!
//! The tests talk to real servers over real connections, because what they are
//! about (row level security, commits, notifications, crashes) does not exist
//! inside one transaction of one superuser. Every test has a database of its own,
//! runs beside the others, and waits for conditions, never for a time.
//!
//! One test: `cargo test -p pg_presence_test -- sessions::a_beat_counts_at_once`.

mod cluster;
pub mod crew;
mod database;
mod dice;
mod listener;
mod mirror;
mod pooler;
mod presence;
mod refusal;
mod server;
mod suite;
mod wait;

pub use cluster::{Cluster, Shutdown};
pub use database::{Database, Install};
pub use dice::Dice;
pub use listener::{Change, Listener, Message};
pub use mirror::Mirror;
pub use pooler::Pooler;
pub use presence::{Presence, Session};
pub use refusal::{DENIED, denied, refusal, refused, text_of};
pub use server::{children_of, signal, signal_if_there};
pub use suite::{Stop, figure, seed, soak};
pub use wait::{patience, wait_for, wait_until};
