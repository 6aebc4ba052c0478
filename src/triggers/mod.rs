//! Rows of our tables on their way in: what the triggers do with them, and what their commit does to the roster.
//!
//! [`before_write`] corrects a row before it is written, [`capture`] records what was written, [`pending`] keeps that
//! until the transaction ends, and [`commit`] applies it to the roster or cancels it.

pub mod before_write;
mod call;
pub mod capture;
mod client;
mod commit;
mod correction;
mod fields;
mod intent;
pub mod metadata;
pub mod pending;
pub mod restore;
mod row;
mod service;
pub mod session_limit;

/// Registers the callbacks that apply pending writes. To be called once, from `_PG_init`.
pub fn init() {
    commit::register();
}
