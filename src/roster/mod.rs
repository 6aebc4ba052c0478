//! The roster: every session not ended, in shared memory.
//!
//! Locks: see [`lock`]. Stamps: see [`stamp`]. Layout: see [`layout`].

mod ahead;
mod beat;
mod cell;
mod flush;
mod layout;
mod load;
mod lock;
mod pages;
mod session;
mod space;
mod stamp;
mod state;
mod stats;
mod sweep;
mod tally;
mod units;
mod user;
mod views;
mod write;

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::{pg_guard, pg_shmem_init, pg_sys};
use uuid::Uuid;

pub use beat::Beat;
pub use flush::{FlushRow, Which};

pub use load::{LoadedRow, Pinned};
pub use space::{Space, known_space, purge, space, spaces, try_space};
pub use user::Dirty;
pub use views::UserView;
pub use write::{Image, Reserved, What, Write};

use crate::{compat, core::token::Digest, settings};
use layout::{Plan, Roster};

/// Whose sessions a call may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A service's call, or a token's: any session.
    Any,
    /// A client: its own.
    Auth(Uuid),
    /// Nobody known: none.
    Nobody,
}

impl Owner {
    /// Whether a session of `auth_id` may be touched.
    #[inline]
    pub fn may(&self, auth_id: &Uuid) -> bool {
        match self {
            Owner::Any => true,
            Owner::Auth(own) => own == auth_id,
            Owner::Nobody => false,
        }
    }
}

/// What a session is looked up by.
#[derive(Clone, Copy)]
pub enum Key {
    Id(Uuid),
    Digest(Digest),
}

/// The roster has no room for another session.
#[derive(Clone, Copy, Debug)]
pub struct Full;

static PRELOADED: AtomicBool = AtomicBool::new(false);

/// Whether the library was loaded with the server.
pub fn preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// Takes the stamp of a write; see [`stamp`]. To be called while the row's lock is held.
pub fn take_stamp() -> u64 {
    attached().take_stamp()
}

/// Ends the stamps of this process's transaction, at its end. Cannot fail.
pub fn stamps_told() {
    if let Some(roster) = Roster::attached() {
        roster.stamps_told();
    }
}

fn attached() -> &'static Roster {
    match Roster::attached() {
        Some(roster) => roster,
        None => crate::errors::not_preloaded(),
    }
}

struct Memory;

/// Nothing: the block is laid out by hand, not from a value.
unsafe impl pgrx::PGRXSharedMemory for Nothing {}
struct Nothing;

impl pgrx::PgSharedMemoryInitialization for Memory {
    type Value = Nothing;

    unsafe fn on_shmem_request(&'static self) {
        // SAFETY: called from the request hook, as the function asks.
        unsafe { pg_sys::RequestAddinShmemSpace(pages::with_room(plan().size)) };
    }

    unsafe fn on_shmem_startup(&'static self, _: Nothing) {
        // AddinShmemInitLock has no binding; it is this one in every version since 9.5.
        const ADDIN_SHMEM_INIT: usize = 21;
        // SAFETY: called from the startup hook, with the block requested above. ShmemInitStruct gives memory aligned to a
        // cache line that stays mapped for ever; a fresh block is zeroed by us. It is found fresh by the postmaster alone,
        // which has no children that share it yet, and itself uses no roster but here.
        unsafe {
            let guard = &raw mut (*pg_sys::MainLWLockArray.add(ADDIN_SHMEM_INIT)).lock;
            pg_sys::LWLockAcquire(guard, pg_sys::LWLockMode::LW_EXCLUSIVE);
            let plan = plan();
            let mut found = false;
            let room = pages::with_room(plan.size);
            let mut base =
                pg_sys::ShmemInitStruct(c"pg_presence".as_ptr(), room, &mut found).cast::<u8>();
            if !found {
                base = pages::place(base, plan.size);
                // A fresh mapping is zero already; after a crash the postmaster makes a new one. Only what comes before the
                // arrays is cleared by hand, so that small pages nobody has touched stay unused memory.
                base.write_bytes(0, plan.by_id_at);
            }
            let locks = base.add(plan.locks_at).cast::<pg_sys::LWLockPadded>();
            if !found {
                lock::init(locks);
            }
            lock::attach(locks);
            let roster = Roster::attach(base, plan);
            if !found {
                roster.clear(seeds(), compat::now());
            }
            pg_sys::LWLockRelease(guard);
        }
    }
}

fn plan() -> Plan {
    Plan::new(settings::max_sessions(), compat::max_processes())
}

/// Secret numbers that the indexes hash with, so that nobody can choose ids that fall together.
fn seeds() -> [u64; 4] {
    let mut seeds = [0u64; 4];
    // SAFETY: writes 32 bytes into an array of 32 bytes.
    let strong =
        unsafe { pg_sys::pg_strong_random(seeds.as_mut_ptr().cast(), size_of_val(&seeds)) };
    if !strong {
        // A server without a random source cannot make tokens either; start all the same.
        seeds = [
            0x9E37_79B9_7F4A_7C15,
            0xC2B2_AE3D_27D4_EB4F,
            compat::now() as u64,
            1,
        ];
    }
    // The hash multiplies: an odd factor keeps all bits.
    seeds.map(|seed| seed | 1)
}

static MEMORY: Memory = Memory;

/// Asks for the roster's shared memory. To be called from `_PG_init` while the server preloads libraries.
pub fn init() {
    PRELOADED.store(true, Ordering::Relaxed);
    pg_shmem_init!(MEMORY = Nothing);
}
