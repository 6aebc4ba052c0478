//! The roster: every session that has not ended, in shared memory.
//!
//! [`layout`] says what the block holds, [`lock`] which lock protects what, [`stamp`] how commits are ordered, and
//! [`writer`] how a session's state changes.

mod atomic;
mod beat;
mod counters;
mod deadline;
mod dirty;
mod flush;
mod free_list;
mod huge_pages;
mod index;
mod layout;
mod load;
mod lock;
mod lookup;
mod prefetch;
mod purge;
mod read;
mod session;
mod shmem;
mod stamp;
mod state;
mod stats;
mod sweep;
mod sweep_clock;
mod tenant;
mod user;
pub mod wake;
mod worker;
mod write;
mod writer;

pub use beat::Beat;
pub use dirty::DirtyUser;
pub use flush::{FlushRow, FlushScope};
pub use free_list::Full;
pub use lookup::{Key, Owner};
pub use purge::purge;
pub use read::UserView;
pub use shmem::init;
pub use tenant::{Tenant, known_tenant, tenant, tenants, try_tenant};
pub use write::{Effect, Reservation, RowImage, Write};

use crate::pg::errors;
use layout::Roster;

/// Takes the stamp of a write; see [`stamp`]. To be called while the row's lock is held.
pub fn take_stamp() -> u64 {
    match Roster::attached() {
        Some(roster) => roster.take_stamp(),
        None => errors::not_preloaded(),
    }
}

/// Ends the stamps of this process's transaction, when that has ended. Cannot fail.
pub fn clear_inflight() {
    if let Some(roster) = Roster::attached() {
        roster.clear_inflight();
    }
}
