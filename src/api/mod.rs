//! The SQL functions, one file per noun.

mod args;
mod caller;
mod changes;
mod cleanup;
mod end;
mod heartbeat;
mod label;
mod presence;
mod reading;
mod release;
mod rows;
pub mod shortcut;
mod start;
mod status;
mod token;
mod user;
