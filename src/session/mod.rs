//! Heartbeats, releases and bindings from end to end: in the roster, or by way of the table for a session that the roster does
//! not know.

mod bind;
mod heartbeat;
mod read_through;
mod release;

pub use bind::bind;
pub use heartbeat::{Answer, heartbeat, heartbeat_idle, heartbeat_many, prefetch_heartbeat, prefetch_slot};
pub use release::release;
