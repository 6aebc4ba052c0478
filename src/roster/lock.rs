//! The roster's locks.
//!
//! | lock | protects |
//! |---|---|
//! | writers (one, exclusive) | everything but what a beat writes: chains, lists, states, queues, counts, free lists |
//! | id partition | the chains of `by_id` in it, and the state of the sessions in them |
//! | digest partition | the chains of `by_digest` in it, and the digests of the sessions in them |
//! | user partition | the chains of `by_user` in it, and the session lists of the users in them |
//!
//! Whoever changes a chain, list or state holds the writers' lock *and*, exclusively, the partition that contains it. So
//! a writer may read everything, and a reader needs just the one partition, shared. A beat writes only atomics of its own
//! session, under the shared id partition, so that the state cannot change meanwhile; and, under no lock, its process's
//! counters.
//!
//! Order: writers before any partition. A search by token takes a digest partition and then an id partition, both shared,
//! as a beat or under the writers' lock; nobody takes one exclusively while holding another, so there is no deadlock. Nothing is allocated, raised, logged or sent while a lock is held.

use std::{
    ffi::CStr,
    sync::atomic::{AtomicPtr, Ordering},
};

use pgrx::pg_sys;

use super::atomic::prefetch;
use crate::pg::{compat, lock_guard};

/// The tranche's name, as `pg_stat_activity.wait_event` shows it.
const TRANCHE: &CStr = c"pg_presence";
/// Locks for each of the three indexes.
const PARTITIONS: usize = 128;
/// How many locks the roster has.
pub const LOCKS: usize = 1 + 3 * PARTITIONS;

static BASE: AtomicPtr<pg_sys::LWLockPadded> = AtomicPtr::new(std::ptr::null_mut());

/// Which index, by the number of its first lock.
#[derive(Clone, Copy)]
pub enum Index {
    Id = 1,
    Digest = 1 + PARTITIONS as isize,
    User = 1 + 2 * PARTITIONS as isize,
}

impl Index {
    /// The number of the lock for a bucket.
    #[inline]
    fn lock(self, bucket: usize) -> usize {
        self as usize + bucket % PARTITIONS
    }
}

/// A lock, held until it is dropped.
pub struct Held(*mut pg_sys::LWLock);

/// Initializes the locks. They are in the roster's own memory rather than among PostgreSQL's, so that they are on huge
/// pages as well.
///
/// # Safety
/// `base` is shared memory for [`LOCKS`] locks, which nobody uses yet.
pub unsafe fn init(base: *mut pg_sys::LWLockPadded) {
    // SAFETY: as the caller promises.
    unsafe {
        let tranche = pg_sys::LWLockNewTrancheId();
        for number in 0..LOCKS {
            pg_sys::LWLockInitialize(&raw mut (*base.add(number)).lock, tranche);
        }
    }
}

/// Remembers where the locks are, and registers their name with this process.
///
/// # Safety
/// `base` is the roster's [`LOCKS`] locks, made by [`init`].
pub unsafe fn attach(base: *mut pg_sys::LWLockPadded) {
    // SAFETY: reads a number that never changes; the name is a static.
    unsafe { pg_sys::LWLockRegisterTranche((*base).lock.tranche.into(), TRANCHE.as_ptr()) };
    BASE.store(base, Ordering::Relaxed);
}

/// Prefetches the lock of a bucket.
#[inline]
pub fn prefetch_partition(index: Index, bucket: usize) {
    let base = BASE.load(Ordering::Relaxed);
    prefetch(base.wrapping_add(index.lock(bucket)));
}

#[inline]
fn take(number: usize, mode: pg_sys::LWLockMode::Type) -> Held {
    debug_assert!(number < LOCKS);
    // SAFETY: there are LOCKS locks, made and attached before the roster is; the order above keeps us from taking one
    // twice.
    unsafe {
        let lock = &raw mut (*BASE.load(Ordering::Relaxed).add(number)).lock;
        compat::lwlock_acquire(lock, mode);
        lock_guard::taken();
        Held(lock)
    }
}

/// Locks the partition of a bucket, shared.
#[inline]
pub fn shared(index: Index, bucket: usize) -> Held {
    take(index.lock(bucket), pg_sys::LWLockMode::LW_SHARED)
}

/// Locks the partition of a bucket, exclusively. The caller holds the writers' lock.
#[inline]
pub fn exclusive(index: Index, bucket: usize) -> Held {
    take(index.lock(bucket), pg_sys::LWLockMode::LW_EXCLUSIVE)
}

/// Takes the writers' lock.
#[inline]
pub fn writers() -> Held {
    take(0, pg_sys::LWLockMode::LW_EXCLUSIVE)
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        lock_guard::released();
        // SAFETY: taken by `take`, released once.
        unsafe { compat::lwlock_release(self.0) }
    }
}
