//! The rules of presence in plain Rust: no PostgreSQL, no shared memory, no clock of its own.

pub mod claims;
pub mod feed;
pub mod intervals;
pub mod key;
mod plain;
pub mod status;
pub mod time;
pub mod token;
