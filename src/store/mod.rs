//! The durable side: SQL on the extension's own tables.
//!
//! [`statement`] prepares and runs a statement, with the rights of [`owner_rights`] and planned as [`planning`] has it;
//! [`trust`] keeps other people's triggers out of it; [`value`] and [`rows`] are what goes in and what comes out. The others are the statements, by what they are for.

pub mod capture_state;
pub mod cleanup;
pub mod declared;
pub mod feed;
pub mod feed_state;
pub mod flush;
pub mod load;
pub mod lock_wait;
pub mod own_write;
pub mod owner_rights;
mod planning;
pub mod rows;
pub mod session;
pub mod statement;
pub mod trust;
pub mod value;
pub mod visibility;
