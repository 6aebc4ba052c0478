//! The rules of presence in plain Rust: no PostgreSQL, no shared memory, no clock of its own.

pub mod claims;
mod fast_json;
pub mod intervals;
pub mod payload;
pub mod presence_id;
pub mod status;
pub mod time;
pub mod token;
