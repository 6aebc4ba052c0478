//! The triggers on the extension's tables, and what commit and rollback do with the writes they have captured.
//!
//! [`before_write`] corrects a row before it is written, [`capture`] records what was written, [`pending`] keeps the
//! records until the transaction ends, and [`commit`] applies them to the roster or discards them. [`restore`] and
//! [`compare`] are for `user_presence` alone, [`before_declare`] and [`capture_declared`] for `declared_statuses`. [`ddl`] refuses triggers and foreign keys of others.

pub mod before_declare;
pub mod before_truncate;
pub mod before_write;
mod call;
pub mod capture;
pub mod capture_declared;
mod client;
mod commit;
pub mod compare;
mod correction;
mod ddl;
mod declaration;
pub mod declared_siblings;
mod fields;
pub mod held;
mod intent;
pub mod metadata;
pub mod pending;
pub mod restore;
mod row;
mod service;
pub mod session_limit;
mod write_index;

/// Registers the callbacks that apply or discard pending writes, and the hook for DDL. Call once, from `_PG_init`.
pub fn init() {
    commit::register();
    ddl::init();
}
