//! A heartbeat and a release, whole: the roster first; where it does not know the session, the table.

mod heartbeat;
mod read_through;
mod release;

pub use heartbeat::{Answer, heartbeat, heartbeat_many, prefetch_heartbeat, prefetch_slot};
pub use release::release;
