//! What the roster's block of shared memory holds, and where.
//!
//! One block, sized at server start from `presence.max_sessions`:
//!
//! ```text
//! Header │ locks │ Tenant × MAX_TENANTS │ in-flight stamps │ counters │ 3 × buckets │ seen │ active_at │ bindings │
//! blocks │ Slot × N │ User × M
//! ```
//!
//! `seen` is apart from the slots so that the sweep reads four bytes a session, sequentially; `active_at`, as only unattended
//! sessions have it, and `bindings`, as only those of gateways have one. [`super::blocks`] says which slots and users are in
//! use, and by which tenants.

use std::{cell::UnsafeCell, sync::atomic::AtomicPtr};

use pgrx::pg_sys::{LWLockPadded, Latch};

use super::{
    atomic::{SharedFlags, SharedSteadyTime, SharedTime, SharedU8, SharedU16, SharedU32, SharedU64, SharedWords},
    blocks::{BlockLists, Blocks, BlocksPlan},
    lock::LOCKS,
    state::{SessionFlag, SharedState, UserFlag},
};
use crate::{
    pg::process_local::ProcessLocal,
    rules::time::{Micros, SteadyTime, USECS_PER_SEC},
};

/// "No such slot, user or tenant": the end of a chain.
pub const NONE: u32 = u32::MAX;
/// Buckets for each entry of an index: with two, three in four entries are the first of their chain. One that is not
/// costs another cache miss.
const BUCKETS: usize = 2;
/// So many entries of users without a session a small roster has, for each of its sessions a sixteenth; a large one has more, a
/// thirty-second.
const SPARE_USERS: usize = 2048;
/// Installs of the extension that one server keeps apart until it restarts.
pub const MAX_TENANTS: usize = 1024;

/// One session. A heartbeat by id touches only the first cache line; the second is for tokens and lists.
#[repr(C, align(64))]
pub struct Slot {
    pub id: SharedWords<2>,
    pub auth_id: SharedWords<2>,
    pub last_activity: SharedSteadyTime,
    /// When a released session times out unless it beats; none if it is not released.
    pub release_at: SharedSteadyTime,
    /// By the time of day.
    pub expires_at: SharedTime,
    pub tenant: SharedU16,
    pub state: SharedState,
    pub flags: SharedFlags<SessionFlag>,
    pub id_next: SharedU32,

    pub digest: SharedWords<4>,
    /// The stamp of the newest write applied; see [`super::stamp`].
    pub stamp: SharedU64,
    pub user: SharedU32,
    pub digest_next: SharedU32,
    pub user_next: SharedU32,
    pub user_prev: SharedU32,
    /// Transactions and loads that keep the slot.
    pub pins: SharedU32,
    /// The `last_activity` that the table has, in sweep units.
    pub flushed: SharedU32,
}

/// One user who has a session in the roster, or a change that is not written yet: one cache line.
#[repr(C, align(64))]
pub struct User {
    pub id: SharedWords<2>,
    /// The last activity of sessions that have left the roster.
    pub last_seen: SharedSteadyTime,
    /// Until when it is hidden, by the time of day; `Micros::MIN` where it is not. See [`super::hidden`].
    pub hidden_until: SharedTime,
    pub hash_next: SharedU32,
    pub first: SharedU32,
    pub dirty_next: SharedU32,
    pub sessions: SharedU32,
    /// Sessions in state Live, whose deadline may have passed since.
    pub live: SharedU32,
    /// Those of them that are counted as idle.
    pub idle: SharedU32,
    pub pins: SharedU32,
    pub tenant: SharedU16,
    pub flags: SharedFlags<UserFlag>,
    pub reason: SharedU8,
}

/// How many heartbeats one process has counted; see [`super::counters`].
#[repr(C, align(64))]
pub struct BackendCounters {
    pub beats: SharedU64,
    pub rejected: SharedU64,
    /// The tenant that they belong to.
    pub tenant: SharedU32,
}

/// One install of the extension in one database.
#[repr(C, align(64))]
pub struct TenantEntry {
    /// This line is read by every beat, and hardly ever written.
    pub database: SharedU32,
    pub relation: SharedU32,
    pub state: SharedU32,
    pub complete: SharedU16,
    /// 1: `declared_statuses` is empty; see [`super::declared`].
    pub nothing_declared: SharedU16,
    /// The stamp of the last TRUNCATE: older sessions are gone.
    pub floor: SharedU64,
    /// The floor up to which the counts are adjusted.
    pub reaped: SharedU64,
    pub grace_until: SharedSteadyTime,
    pub overflow: SharedU16,
    /// 1: `declared_statuses` hides nobody, and has hidden nobody until a row expired.
    pub nothing_hidden: SharedU16,
    pub compare: SharedU32,
    /// The last standstill of the server, and its end; see [`super::standstill`].
    pub stood_from: SharedSteadyTime,
    pub stood_until: SharedSteadyTime,

    pub dirty: DirtyQueue,
    pub counts: Counts,
    pub worker: WorkerEntry,
}

/// The queue of users whose status may have changed.
#[repr(C, align(64))]
pub struct DirtyQueue {
    pub head: SharedU32,
    pub tail: SharedU32,
    pub length: SharedU32,
    /// How many of them had no session when they were queued.
    pub absent: SharedU32,
    /// Commits that are being applied in parts, how many there have been, and since when there has been one; see
    /// [`super::large_commit`].
    pub large_commits: SharedU32,
    pub large_commits_begun: SharedU32,
    pub large_commits_since: SharedSteadyTime,
    /// Since when a change has waited: not later than the oldest that is queued, or taken but not written; none if none has.
    pub since: SharedSteadyTime,
}

/// Counts that are kept as sessions come and go.
#[repr(C, align(64))]
pub struct Counts {
    pub sessions: SharedU64,
    pub live: SharedU64,
    pub users: SharedU64,
    pub users_live: SharedU64,
    pub ended: SharedU64,
    pub slow_paths: SharedU64,
    pub overflowed: SharedU64,
    pub evicted: SharedU64,
    /// Heartbeats of processes that count for another tenant now.
    pub beats: SharedU64,
    pub rejected: SharedU64,
    /// Calls of `forget_user()`, committed or not.
    pub forgotten: SharedU64,
    /// How often who is hidden has become unknown, and as of which of these times it is known; and after which of them those are
    /// not hidden any more that the roster has as hidden, perhaps; see [`super::hidden`].
    pub visibility_lost: SharedU64,
    pub visibility_known: SharedU64,
    pub visibility_void: SharedU64,
}

/// What the worker of a tenant publishes about itself.
#[repr(C, align(64))]
pub struct WorkerEntry {
    pub latch: AtomicPtr<Latch>,
    pub pid: SharedU32,
    /// 1 while the worker waits, so that only the first to queue something sets its latch.
    pub asleep: SharedU32,
    pub last_tick: SharedSteadyTime,
    /// As `last_tick`, in uptime.
    pub alive_at: SharedSteadyTime,
    /// When launcher or worker had last run before the standstill that was noted last.
    pub noted_for: SharedSteadyTime,
    pub started_at: SharedTime,
    pub last_flush: SharedTime,
    pub last_cleanup: SharedTime,
    pub tick_us: SharedU64,
    pub flush_us: SharedU64,
    pub cleanup_us: SharedU64,
    pub changes: SharedU64,
    pub notifications: SharedU64,
    pub flushed_rows: SharedU64,
    pub deactivated_rows: SharedU64,
    pub deleted_rows: SharedU64,
    pub seq: SharedU64,
    /// Rows and users that wait because they could not be written.
    pub set_aside: SharedU64,
    /// Changes with the triggers that see what is written to the tables, and with columns; 0: not read yet.
    pub capture_version: SharedU64,
    pub error: WorkerError,
}

/// The bound of a process that writes without a slot, or loads; see [`super::stamp`].
#[repr(C)]
pub struct InFlight {
    /// 0: none.
    pub stamp: SharedU64,
    pub database: SharedU32,
}

/// The last error of a worker. The worker alone writes it; `version` is odd meanwhile, so that readers read again.
#[repr(C, align(64))]
pub struct WorkerError {
    pub version: SharedU64,
    pub at: SharedTime,
    pub length: SharedU32,
    pub text: SharedWords<ERROR_WORDS>,
}

/// Words of the text of an error.
pub const ERROR_WORDS: usize = 40;

/// The start of the block.
#[repr(C, align(64))]
pub struct Header {
    pub slots: SharedU32,
    pub users: SharedU32,
    pub processes: SharedU32,
    pub seeds: SharedWords<4>,
    /// Time 0 of the sweep's clock.
    pub origin: SharedSteadyTime,
    /// See [`super::clock`].
    pub clock_offset: SharedTime,
    /// See [`crate::pg::lineage`].
    pub lineage: SharedU64,
    /// Until when times of day in the tables may be from before the clock was set.
    pub ambiguous_until: SharedTime,
    /// By how much the clock was set so far, forward and back, in microseconds.
    pub clock_moved: SharedU64,
    pub launcher: LauncherEntry,
    pub free_lists: FreeLists,
    /// The next stamp; alone on its line, as every writer touches it.
    pub stamps: CachePadded,
}

/// What the launcher publishes, and what it is asked for; see [`super::wake`]. No lock: each word is atomic by itself.
#[repr(C, align(64))]
pub struct LauncherEntry {
    pub latch: AtomicPtr<Latch>,
    /// When it last did what was due, in uptime.
    pub alive_at: SharedSteadyTime,
    /// 1: more databases were asked for than `requested` has room for.
    pub any_requested: SharedU32,
    /// Databases to start a worker in; 0 is a free place.
    pub requested: [SharedU32; 64],
}

/// How many slots and users are in use, and where there is room. Protected by the writers' lock.
#[repr(C, align(64))]
pub struct FreeLists {
    pub slots: BlockLists,
    pub users: BlockLists,
    /// Where the search for a slot to evict continues.
    pub evict_hand: SharedU32,
    /// Where the search for a user entry that only the worker needs continues.
    pub user_hand: SharedU32,
    pub tenants_ever: SharedU32,
}

/// A word on a cache line of its own.
#[repr(C, align(64))]
pub struct CachePadded(pub SharedU64);

/// Offsets of the arrays behind the header, for a roster of the given size.
#[derive(Clone, Copy)]
pub struct Plan {
    pub slots: usize,
    pub users: usize,
    pub processes: usize,
    pub locks_at: usize,
    pub tenants_at: usize,
    pub inflight_at: usize,
    pub counters_at: usize,
    pub by_id_at: usize,
    pub by_digest_at: usize,
    pub by_user_at: usize,
    pub seen_at: usize,
    pub active_at: usize,
    pub bindings_at: usize,
    pub slot_blocks: BlocksPlan,
    pub user_blocks: BlocksPlan,
    pub slots_at: usize,
    pub users_at: usize,
    pub size: usize,
}

impl Plan {
    /// The plan for `slots` sessions and `processes` processes. There are a few more users than sessions: one whose last
    /// session is gone stays until the change is written.
    pub fn new(slots: usize, processes: usize) -> Plan {
        let users = slots + (slots / 32).max((slots / 16).min(SPARE_USERS)) + 64;
        let mut at = size_of::<Header>();
        let mut place = |bytes: usize| {
            let start = at.next_multiple_of(64);
            at = start + bytes;
            start
        };
        let locks_at = place(LOCKS * size_of::<LWLockPadded>());
        let tenants_at = place(MAX_TENANTS * size_of::<TenantEntry>());
        let inflight_at = place(processes * size_of::<InFlight>());
        let counters_at = place(processes * size_of::<BackendCounters>());
        let by_id_at = place(BUCKETS * slots * 4);
        let by_digest_at = place(BUCKETS * slots * 4);
        let by_user_at = place(BUCKETS * users * 4);
        let seen_at = place(slots * 4);
        let active_at = place(slots * size_of::<SharedSteadyTime>());
        let bindings_at = place(slots * size_of::<SharedU64>());
        let slot_blocks = BlocksPlan::new(slots, MAX_TENANTS, &mut place);
        let user_blocks = BlocksPlan::new(users, MAX_TENANTS, &mut place);
        let slots_at = place(slots * size_of::<Slot>());
        let users_at = place(users * size_of::<User>());
        Plan {
            slots,
            users,
            processes,
            locks_at,
            tenants_at,
            inflight_at,
            counters_at,
            by_id_at,
            by_digest_at,
            by_user_at,
            seen_at,
            active_at,
            bindings_at,
            slot_blocks,
            user_blocks,
            slots_at,
            users_at,
            size: at,
        }
    }
}

/// The arrays of the block, as plain slices of atomics. A beat by id needs only the first cache line.
#[repr(C, align(64))]
pub struct Roster {
    pub header: &'static Header,
    pub tenants: &'static [TenantEntry],
    pub by_id: &'static [SharedU32],
    pub slots: &'static [Slot],
    pub by_digest: &'static [SharedU32],
    pub by_user: &'static [SharedU32],
    pub users: &'static [User],
    pub seen: &'static [SharedU32],
    /// When somebody was last at an unattended session.
    pub active_at: &'static [SharedSteadyTime],
    /// See [`super::binding`].
    pub bindings: &'static [SharedU64],
    pub slot_blocks: Blocks,
    pub user_blocks: Blocks,
    pub inflight: &'static [InFlight],
    pub backend_counters: &'static [BackendCounters],
}

static ROSTER: ProcessLocal<UnsafeCell<Option<Roster>>> = ProcessLocal::new(UnsafeCell::new(None));

impl Roster {
    /// The roster; `None` where the library was not preloaded.
    #[inline]
    pub fn attached() -> Option<&'static Roster> {
        // SAFETY: written by `attach` alone, while nobody has a reference.
        unsafe { (*ROSTER.get()).as_ref() }
    }

    /// Makes the block at `base` this process's roster (and, by fork, that of all its children).
    ///
    /// # Safety
    /// `base` is 64-byte aligned shared memory of `plan.size` bytes that stays mapped for the life of the process,
    /// and holds zeroes or what an earlier call on the same plan left. No roster of an earlier call is in use.
    pub unsafe fn attach(base: *mut u8, plan: Plan) -> &'static Roster {
        // SAFETY: the plan keeps every array inside the block, aligned and apart; all fields are atomics, for
        // which any bit pattern is valid, so shared references to them may be handed out freely.
        let roster = unsafe {
            fn array<T>(base: *mut u8, at: usize, n: usize) -> &'static [T] {
                // SAFETY: as above.
                unsafe { std::slice::from_raw_parts(base.add(at).cast::<T>(), n) }
            }
            let header = &*base.cast::<Header>();
            Roster {
                header,
                slot_blocks: Blocks::attach(base, &plan.slot_blocks, &header.free_lists.slots),
                user_blocks: Blocks::attach(base, &plan.user_blocks, &header.free_lists.users),
                tenants: array(base, plan.tenants_at, MAX_TENANTS),
                inflight: array(base, plan.inflight_at, plan.processes),
                backend_counters: array(base, plan.counters_at, plan.processes),
                by_id: array(base, plan.by_id_at, BUCKETS * plan.slots),
                by_digest: array(base, plan.by_digest_at, BUCKETS * plan.slots),
                by_user: array(base, plan.by_user_at, BUCKETS * plan.users),
                seen: array(base, plan.seen_at, plan.slots),
                active_at: array(base, plan.active_at, plan.slots),
                bindings: array(base, plan.bindings_at, plan.slots),
                slots: array(base, plan.slots_at, plan.slots),
                users: array(base, plan.users_at, plan.users),
            }
        };
        // SAFETY: as the caller promises.
        unsafe { (*ROSTER.get()).insert(roster) }
    }

    /// Initializes a block of zeroes: empty chains, no users. `now` is the steady clock's time, which the time of day is
    /// ahead of by `offset`.
    pub fn clear(&self, seeds: [u64; 4], now: SteadyTime, offset: Micros) {
        for chain in [self.by_id, self.by_digest, self.by_user] {
            chain.iter().for_each(|bucket| bucket.set(NONE));
        }
        for tenant in self.tenants {
            tenant.dirty.head.set(NONE);
            tenant.dirty.tail.set(NONE);
        }
        let header = self.header;
        header.slots.set(self.slots.len() as u32);
        header.users.set(self.users.len() as u32);
        self.slot_blocks.clear();
        self.user_blocks.clear();
        header.seeds.set(seeds);
        // Deadlines are kept relative to the timeout, so times of up to two days ago must be expressible.
        header.origin.set(now.minus(2 * 24 * 60 * 60 * USECS_PER_SEC));
        header.clock_offset.set(offset);
        header.ambiguous_until.set(Micros::MIN);
        // Stamp 0 means that nothing is in flight.
        header.stamps.0.set(1);
    }
}
