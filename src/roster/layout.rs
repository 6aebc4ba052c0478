//! What the roster's block of shared memory holds, and where.
//!
//! One block, sized at server start from `presence.max_sessions`:
//!
//! ```text
//! Header │ locks │ Space × SPACES │ in-flight stamps │ tallies │ 3 × buckets │ seen │ Slot × N │ User × M
//! ```
//!
//! `seen` stands apart from the slots so that the sweep reads four bytes a session, one after the other.

use std::{cell::UnsafeCell, sync::atomic::AtomicPtr};

use super::{
    cell::{Bytes, Time, W8, W16, W32, W64},
    lock::LOCKS,
};
use crate::local::Local;
use pgrx::pg_sys::LWLockPadded;

/// "No such slot, user or space": the end of a chain.
pub const NONE: u32 = u32::MAX;
/// Locks for each of the three indexes.
pub const PARTITIONS: usize = 128;
/// Buckets for each entry of an index: with two, three in four entries are the first of their chain. One that is not
/// costs another wait for memory.
pub const BUCKETS: usize = 2;
/// Databases (more exactly: installs of the extension) that one server keeps apart until it restarts.
pub const SPACES: usize = 1024;

/// One session. The first cache line is all a heartbeat by id touches, the second is for tokens and lists.
#[repr(C, align(64))]
pub struct Slot {
    pub id: Bytes<2>,
    pub auth_id: Bytes<2>,
    pub last_activity: Time,
    /// When a released session times out unless it beats; 0: not released.
    pub release_at: Time,
    pub expires_at: Time,
    pub space: W16,
    pub state: W8,
    pub flags: W8,
    pub id_next: W32,

    pub digest: Bytes<4>,
    /// The stamp of the newest write applied; see [`super::stamp`].
    pub stamp: W64,
    pub user: W32,
    pub digest_next: W32,
    pub user_next: W32,
    pub user_prev: W32,
    /// Transactions and loads that hold on to the slot.
    pub pins: W32,
    /// The `last_activity` that the table has, in sweep units.
    pub flushed: W32,
}

/// One user with at least one session in the roster, or with a change that is still to be written.
#[repr(C)]
pub struct User {
    pub id: Bytes<2>,
    /// The last activity of sessions that have left the roster.
    pub last_seen: Time,
    pub hash_next: W32,
    pub first: W32,
    pub dirty_next: W32,
    pub sessions: W32,
    /// Sessions in state LIVE, as of the last look at each.
    pub live: W32,
    pub pins: W32,
    pub space: W16,
    pub flags: W8,
    pub reason: W8,
}

/// What the heartbeats of one process have counted; see [`super::tally`].
#[repr(C, align(64))]
pub struct Tally {
    pub beats: W64,
    pub rejected: W64,
    /// The space that they were counted in.
    pub space: W32,
}

/// One install of the extension in one database.
#[repr(C, align(64))]
pub struct SpaceEntry {
    /// Read by every beat, written almost never.
    pub database: W32,
    pub relation: W32,
    pub state: W32,
    pub complete: W32,
    /// The stamp of the last TRUNCATE: what is older is gone.
    pub floor: W64,
    /// The floor whose sessions have left the counts.
    pub reaped: W64,
    pub grace_until: Time,
    pub overflow: W32,
    pub reconcile: W32,

    pub dirty: Dirty,
    pub counts: Counts,
    pub worker: WorkerEntry,
}

/// The queue of users whose status may have changed.
#[repr(C, align(64))]
pub struct Dirty {
    pub head: W32,
    pub tail: W32,
    pub length: W32,
}

/// Numbers kept as sessions come and go.
#[repr(C, align(64))]
pub struct Counts {
    pub sessions: W64,
    pub live: W64,
    pub users: W64,
    pub users_live: W64,
    pub ended: W64,
    pub slow_paths: W64,
    pub overflowed: W64,
    pub evicted: W64,
    /// Heartbeats of processes that count for another space by now.
    pub beats: W64,
    pub rejected: W64,
}

/// What the worker of a database tells about itself.
#[repr(C, align(64))]
pub struct WorkerEntry {
    pub latch: AtomicPtr<pgrx::pg_sys::Latch>,
    pub pid: W32,
    /// 1 while the worker waits, so that only the first who has news sets its latch.
    pub asleep: W32,
    pub last_tick: Time,
    pub started_at: Time,
    pub last_flush: Time,
    pub last_cleanup: Time,
    pub tick_us: W64,
    pub flush_us: W64,
    pub cleanup_us: W64,
    pub changes: W64,
    pub notifications: W64,
    pub flushed_rows: W64,
    pub deactivated_rows: W64,
    pub deleted_rows: W64,
    pub seq: W64,
}

/// What comes first in the block.
#[repr(C, align(64))]
pub struct Header {
    pub slots: W32,
    pub users: W32,
    pub processes: W32,
    pub seeds: Bytes<4>,
    /// Time 0 of the sweep's units.
    pub origin: Time,
    pub heap: Heap,
    /// Hands out stamps; alone on its line, as every writer touches it.
    pub stamps: Lonely,
}

/// Which slots and users are in use. Protected by the writers' lock.
#[repr(C, align(64))]
pub struct Heap {
    pub free_slot: W32,
    pub free_user: W32,
    /// Slots and users that were ever in use: what a scan has to look at.
    pub slots_ever: W32,
    pub users_ever: W32,
    pub slots_used: W32,
    pub users_used: W32,
    /// Where the search for a slot to evict goes on.
    pub evict_hand: W32,
    pub spaces_ever: W32,
}

/// A word with a cache line of its own.
#[repr(C, align(64))]
pub struct Lonely(pub W64);

/// Offsets of the arrays behind the header, for a roster of the given size.
#[derive(Clone, Copy)]
pub struct Plan {
    pub slots: usize,
    pub users: usize,
    pub processes: usize,
    pub locks_at: usize,
    pub spaces_at: usize,
    pub inflight_at: usize,
    pub tallies_at: usize,
    pub by_id_at: usize,
    pub by_digest_at: usize,
    pub by_user_at: usize,
    pub seen_at: usize,
    pub slots_at: usize,
    pub users_at: usize,
    pub size: usize,
}

impl Plan {
    /// For `slots` sessions and `processes` processes. Users are a few more than sessions: one whose last session
    /// has gone stays until the change is written.
    pub fn new(slots: usize, processes: usize) -> Plan {
        let users = slots + slots / 16 + 64;
        let mut at = size_of::<Header>();
        let mut place = |bytes: usize| {
            let start = at.next_multiple_of(64);
            at = start + bytes;
            start
        };
        let locks_at = place(LOCKS * size_of::<LWLockPadded>());
        let spaces_at = place(SPACES * size_of::<SpaceEntry>());
        let inflight_at = place(processes * 8);
        let tallies_at = place(processes * size_of::<Tally>());
        let by_id_at = place(BUCKETS * slots * 4);
        let by_digest_at = place(BUCKETS * slots * 4);
        let by_user_at = place(BUCKETS * users * 4);
        let seen_at = place(slots * 4);
        let slots_at = place(slots * size_of::<Slot>());
        let users_at = place(users * size_of::<User>());
        Plan {
            slots,
            users,
            processes,
            locks_at,
            spaces_at,
            inflight_at,
            tallies_at,
            by_id_at,
            by_digest_at,
            by_user_at,
            seen_at,
            slots_at,
            users_at,
            size: at,
        }
    }
}

/// The arrays of the block, handed out as plain slices of atomics. What a beat by id needs is the first cache line.
#[repr(C, align(64))]
pub struct Roster {
    pub header: &'static Header,
    pub spaces: &'static [SpaceEntry],
    pub by_id: &'static [W32],
    pub slots: &'static [Slot],
    pub by_digest: &'static [W32],
    pub by_user: &'static [W32],
    pub users: &'static [User],
    pub seen: &'static [W32],
    pub inflight: &'static [W64],
    pub tallies: &'static [Tally],
}

static ROSTER: Local<UnsafeCell<Option<Roster>>> = Local::new(UnsafeCell::new(None));

impl Roster {
    /// The roster, or nothing where the library was not preloaded.
    #[inline]
    pub fn attached() -> Option<&'static Roster> {
        // SAFETY: written by `attach` alone, which nobody's reference outlives.
        unsafe { (*ROSTER.get()).as_ref() }
    }

    /// Makes the block at `base` this process's roster (and, by fork, that of all its children).
    ///
    /// # Safety
    /// `base` is 64-byte aligned shared memory of `plan.size` bytes that stays mapped for the life of the process,
    /// and holds zeroes or what an earlier call on the same plan left. Nobody still uses an earlier call's roster.
    pub unsafe fn attach(base: *mut u8, plan: Plan) -> &'static Roster {
        // SAFETY: the plan keeps every array inside the block, aligned and apart; all fields are atomics, for
        // which any bit pattern is valid, so shared references to them may be handed out freely.
        let roster = unsafe {
            fn array<T>(base: *mut u8, at: usize, n: usize) -> &'static [T] {
                // SAFETY: as above.
                unsafe { std::slice::from_raw_parts(base.add(at).cast::<T>(), n) }
            }
            Roster {
                header: &*base.cast::<Header>(),
                spaces: array(base, plan.spaces_at, SPACES),
                inflight: array(base, plan.inflight_at, plan.processes),
                tallies: array(base, plan.tallies_at, plan.processes),
                by_id: array(base, plan.by_id_at, BUCKETS * plan.slots),
                by_digest: array(base, plan.by_digest_at, BUCKETS * plan.slots),
                by_user: array(base, plan.by_user_at, BUCKETS * plan.users),
                seen: array(base, plan.seen_at, plan.slots),
                slots: array(base, plan.slots_at, plan.slots),
                users: array(base, plan.users_at, plan.users),
            }
        };
        // SAFETY: as the caller promises.
        unsafe { (*ROSTER.get()).insert(roster) }
    }

    /// Fills a block of zeroes: empty chains, no users, `now` as the clock's reading.
    pub fn clear(&self, seeds: [u64; 4], now: i64) {
        for chain in [self.by_id, self.by_digest, self.by_user] {
            chain.iter().for_each(|bucket| bucket.set(NONE));
        }
        for space in self.spaces {
            space.dirty.head.set(NONE);
            space.dirty.tail.set(NONE);
        }
        let header = self.header;
        header.slots.set(self.slots.len() as u32);
        header.users.set(self.users.len() as u32);
        header.heap.free_slot.set(NONE);
        header.heap.free_user.set(NONE);
        header.seeds.set(seeds);
        // Deadlines are kept relative to the timeout, so times of up to two days ago must be expressible.
        header.origin.set(now - 2 * 86_400_000_000);
        // Stamp 0 means "loaded from the table".
        header.stamps.0.set(1);
    }
}
