//! The roster's block of shared memory, laid out while the server starts.

use pgrx::{pg_guard, pg_shmem_init, pg_sys};

use super::{
    huge_pages,
    layout::{Plan, Roster},
    lock,
};
use crate::{
    pg::{clock, compat, lineage, random, shmem::Block},
    settings,
};

static BLOCK: Block = Block::new(c"pg_presence", size, attach);

/// Requests the roster's shared memory. To be called from `_PG_init` while the server preloads libraries.
pub fn init() {
    pg_shmem_init!(BLOCK = ());
}

fn plan() -> Plan {
    Plan::new(settings::max_sessions(), compat::max_processes())
}

fn size() -> usize {
    huge_pages::padded(plan().size)
}

/// # Safety
/// As [`Block::new`] describes.
unsafe fn attach(mut base: *mut u8, is_new: bool) {
    let plan = plan();
    // SAFETY: the block has the size of `plan` and room for its alignment. It is new in the postmaster alone, which has no
    // children yet that share it, and uses no roster itself but here.
    unsafe {
        if is_new {
            base = huge_pages::remap(base, plan.size);
            // A fresh mapping is zero already; after a crash the postmaster makes a new one. Only what comes before the
            // arrays is cleared, so that small pages nobody has touched stay unused memory.
            base.write_bytes(0, plan.by_id_at);
        }
        let locks = base.add(plan.locks_at).cast::<pg_sys::LWLockPadded>();
        if is_new {
            lock::init(locks);
        }
        lock::attach(locks);
        let roster = Roster::attach(base, plan);
        if is_new {
            let now = clock::steady();
            let offset = clock::offset().unwrap_or_else(|| compat::now() - now.micros());
            roster.clear(seeds(), now, offset);
            roster.header.lineage.set(lineage::at_start());
        }
    }
}

/// Random hash seeds, so that nobody can craft colliding ids.
fn seeds() -> [u64; 4] {
    let random: [Option<[u8; 8]>; 4] = std::array::from_fn(|_| random::try_bytes());
    // A server without a random source cannot make tokens either; it starts all the same. The hash multiplies: an odd
    // factor keeps all bits.
    random.map(|bytes| bytes.map_or(compat::now() as u64, u64::from_ne_bytes) | 1)
}
