//! The roster's locks.
//!
//! | lock | protects |
//! |---|---|
//! | writers (one, exclusive) | everything but what a beat writes: chains, lists, states, queues, counts, the heap |
//! | id partition | the chains of `by_id` in it, and the state of the sessions in them |
//! | digest partition | the chains of `by_digest` in it, and the digests of the sessions in them |
//! | user partition | the chains of `by_user` in it, and the session lists of the users in them |
//!
//! Whoever changes a chain, list or state holds the writers' lock *and*, exclusively, the partition it lies in. So a
//! writer may read everything, and a reader needs just the one partition, shared. A beat writes only atomics of its
//! own session, under the shared id partition: a state cannot change under it; and, under none, its process's tally.
//!
//! Order: writers before any partition, and a writer holds one partition at a time. A beat by token holds a digest
//! partition and then an id partition, both shared; as no writer waits for a partition while it holds another, no
//! circle can form. Nothing is allocated, raised, logged or sent while a lock is held.

use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::pg_sys;

use super::layout::PARTITIONS;
use crate::compat;

/// The tranche's name, as `pg_stat_activity.wait_event` shows it.
const TRANCHE: &std::ffi::CStr = c"pg_presence";
/// How many locks the roster has.
pub const LOCKS: usize = 1 + 3 * PARTITIONS;

static BASE: AtomicPtr<pg_sys::LWLockPadded> = AtomicPtr::new(std::ptr::null_mut());

/// Which array of partitions.
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

/// A lock held, until it is dropped.
pub struct Held(*mut pg_sys::LWLock);

/// Makes the locks: in the roster's own memory and not among PostgreSQL's, as the roster lies in large pages.
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

/// Remembers where the locks are, and tells this process their name.
///
/// # Safety
/// `base` is the roster's [`LOCKS`] locks, made by [`init`].
pub unsafe fn attach(base: *mut pg_sys::LWLockPadded) {
    // SAFETY: reads a number that never changes; the name is a static.
    unsafe { pg_sys::LWLockRegisterTranche((*base).lock.tranche.into(), TRANCHE.as_ptr()) };
    BASE.store(base, Ordering::Relaxed);
}

/// Has the processor fetch the lock of a bucket that is about to be taken.
#[inline]
pub fn ask_for(index: Index, bucket: usize) {
    let base = BASE.load(Ordering::Relaxed);
    super::ahead::ask_for(base.wrapping_add(index.lock(bucket)));
}

#[inline]
fn take(number: usize, mode: pg_sys::LWLockMode::Type) -> Held {
    debug_assert!(number < LOCKS);
    // SAFETY: there are LOCKS locks, made and attached before the roster is; the order above keeps us from taking one
    // twice.
    unsafe {
        let lock = &raw mut (*BASE.load(Ordering::Relaxed).add(number)).lock;
        compat::lwlock_acquire(lock, mode);
        Held(lock)
    }
}

/// Shared hold on the partition of a bucket.
#[inline]
pub fn shared(index: Index, bucket: usize) -> Held {
    take(index.lock(bucket), pg_sys::LWLockMode::LW_SHARED)
}

/// Exclusive hold on the partition of a bucket. The caller holds the writers' lock.
#[inline]
pub fn exclusive(index: Index, bucket: usize) -> Held {
    take(index.lock(bucket), pg_sys::LWLockMode::LW_EXCLUSIVE)
}

/// The writers' lock.
#[inline]
pub fn writers() -> Held {
    take(0, pg_sys::LWLockMode::LW_EXCLUSIVE)
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: taken by `take`, released once.
        unsafe { compat::lwlock_release(self.0) }
    }
}
