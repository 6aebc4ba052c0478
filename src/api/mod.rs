//! The SQL functions, one file per noun.

mod args;
mod bind;
mod caller;
mod changes;
mod cleanup;
mod declared;
mod end;
mod epoch;
pub mod fast_path;
mod grants;
mod heartbeat;
pub mod identity;
mod new_session;
mod presence;
mod presence_id;
mod presence_reader;
mod release;
mod result;
mod start;
mod start_many;
mod start_worker;
pub mod stats;
mod status;
mod status_label;
mod token;
mod user;
