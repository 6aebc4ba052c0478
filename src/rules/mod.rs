//! The rules of presence in plain Rust, without PostgreSQL, shared memory or a clock.

pub mod claims;
pub mod declared;
mod fast_json;
mod full_json;
pub mod hiding;
pub mod intervals;
pub mod payload;
pub mod presence_id;
pub mod status;
pub mod time;
pub mod token;
