//! The roster: every session that has not ended, in shared memory.
//!
//! [`layout`] says what the block holds, [`lock`] which lock protects what, [`stamp`] how commits are ordered, and
//! [`writer`] how a session's state changes.

mod atomic;
mod beat;
mod binding;
mod blocks;
mod clock;
mod counters;
mod deadline;
mod declared;
mod dirty;
mod flush;
mod free_list;
mod hidden;
mod huge_pages;
mod index;
mod large_commit;
mod layout;
mod load;
mod lock;
mod lookup;
mod prefetch;
mod purge;
mod read;
mod registry;
mod session;
mod shmem;
mod stamp;
mod standstill;
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
pub use binding::end_connection;
pub use clock::{Now, SMALL_STEP};
pub use dirty::DirtyUser;
pub use flush::{FlushRow, FlushScope};
pub use hidden::Visibility;
pub use lookup::{Key, Owner};
pub use purge::purge;
pub use read::UserView;
pub use registry::{tenant, try_tenant};
pub use shmem::init;
pub use standstill::{launcher_runs, launcher_started};
pub use tenant::{Tenant, known_tenant, tenants};
pub use write::{Effect, Reservation, RowImage, Write};

use crate::{pg::errors, rules::time::Micros};
use layout::Roster;

/// Returns the lineage of the server; see [`lineage`](crate::pg::lineage). Errors: 55000 where the library is not preloaded.
pub fn lineage() -> u64 {
    match Roster::attached() {
        Some(roster) => roster.header.lineage.get(),
        None => errors::not_preloaded(),
    }
}

/// Finds out whether the time of day was set, and returns now; see [`clock`]. Errors: 55000 where the library is not
/// preloaded.
pub fn synchronize_clock() -> Now {
    match Roster::attached() {
        Some(roster) => roster.synchronize_clock(),
        None => errors::not_preloaded(),
    }
}

/// Times of day in the tables up to this may be of before the clock was set; see [`clock`].
pub fn ambiguous_until() -> Micros {
    Roster::attached().map_or(Micros::MIN, |roster| roster.header.ambiguous_until.get())
}

/// Takes the stamp of a write; see [`stamp`]. To be called while the row's lock is held. `unreserved`: the
/// write should have a slot, and has none.
pub fn take_stamp(unreserved: bool) -> u64 {
    match Roster::attached() {
        Some(roster) if unreserved => roster.take_unreserved_stamp(),
        Some(roster) => roster.take_stamp(),
        None => errors::not_preloaded(),
    }
}

/// Cancels reservations, a few under one hold of the writers' lock. Cannot fail, and allocates nothing.
pub fn cancel_reservations(reservations: impl Iterator<Item = Reservation>) {
    if let Some(roster) = Roster::attached() {
        roster.cancel_reservations(reservations);
    }
}

/// Ends what this process's transaction published of its stamps, when that has ended. Cannot fail.
pub fn clear_inflight() {
    if let Some(roster) = Roster::attached() {
        roster.clear_inflight();
    }
}
