//! The two heavyweight locks that workers use. Neither is ever waited for.

use pgrx::pg_sys;

/// An arbitrary number that distinguishes our lock from other user locks.
const WORKER_LOCK: u32 = 0x7072_6573;

/// Takes the lock that keeps a database's worker single, until the process ends. Returns false if there is another
/// worker.
///
/// SQL has no command that takes a lock of this kind (advisory locks are another), so no client can keep the worker
/// out.
pub fn try_lock_worker(database: pg_sys::Oid) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: database.to_u32(),
        locktag_field2: WORKER_LOCK,
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_USERLOCK as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    };
    try_session_lock(&tag, pg_sys::ExclusiveLock)
}

/// The mode in which every session locks its database when it connects.
const CONNECT_MODE: u32 = pg_sys::RowExclusiveLock;

/// Whether somebody has locked the catalog entry of the database, as whoever drops, renames, moves or copies it does
/// before checking who is connected. So does, for a moment, whoever may do none of these and tries.
pub fn is_database_locked(database: pg_sys::Oid) -> bool {
    let tag = database_tag(database);
    let is_free = try_session_lock(&tag, CONNECT_MODE);
    if is_free {
        // SAFETY: releases what was just taken.
        unsafe { pg_sys::LockRelease(&tag, CONNECT_MODE as i32, true) };
    }
    !is_free
}

/// Returns the lock tag of a row of pg_database; for `InvalidOid`, of what commits that notify lock.
fn database_tag(database: pg_sys::Oid) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: 0,
        locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
        locktag_field3: database.to_u32(),
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}

/// A transaction that holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    process: i32,
    transaction: u32,
}

/// Returns the first transaction that holds the lock that all commits that notify take, in any database.
pub fn notification_lock_holder() -> Option<Holder> {
    holders(&database_tag(pg_sys::InvalidOid), pg_sys::AccessExclusiveLock)
        .first()
        .copied()
}

/// Returns the transactions of others that hold a lock in conflict with `mode`.
fn holders(tag: &pg_sys::LOCKTAG, mode: u32) -> Vec<Holder> {
    let mut count = 0;
    // SAFETY: the tag is valid, and the result an array of `count` elements, which is copied and freed. In a critical
    // moment nothing is allocated: this process is in no transaction.
    unsafe {
        let first = pg_sys::GetLockConflicts(tag, mode as i32, &mut count);
        let found = std::slice::from_raw_parts(first, count.max(0) as usize);
        let holders = found
            .iter()
            .map(|transaction| Holder {
                #[cfg(any(feature = "pg17", feature = "pg18"))]
                process: transaction.procNumber,
                #[cfg(not(any(feature = "pg17", feature = "pg18")))]
                process: transaction.backendId,
                transaction: transaction.localTransactionId,
            })
            .collect();
        pg_sys::pfree(first.cast());
        holders
    }
}

/// Watches whether one transaction keeps a database locked.
#[derive(Debug, Default)]
pub struct DatabaseWatch {
    /// Those who have held the lock at every check since it was first refused, and how many checks that were.
    holders: Vec<Holder>,
    refusals: u32,
    /// Whether the last two checks were refused because of different transactions.
    has_moved: bool,
}

/// After so many checks in a row with the same holder, the database is to be left.
const REFUSALS: u32 = 3;

impl DatabaseWatch {
    /// Checks the lock. To be called again and again, a fifth of a second apart. Returns whether one transaction has
    /// held it at three checks in a row: it waits for everybody to leave. Commands that are refused at once, however
    /// many, are transactions each.
    pub fn must_leave(&mut self, database: pg_sys::Oid) -> bool {
        if !is_database_locked(database) {
            *self = DatabaseWatch::default();
            return false;
        }
        let mut now = holders(&database_tag(database), CONNECT_MODE);
        self.has_moved = false;
        if self.refusals > 0 {
            let held: Vec<Holder> = now
                .iter()
                .copied()
                .filter(|holder| self.holders.contains(holder))
                .collect();
            if held.is_empty() {
                self.refusals = 0;
                self.has_moved = true;
            } else {
                now = held;
            }
        }
        self.refusals = if now.is_empty() { 0 } else { self.refusals + 1 };
        self.holders = now;
        self.refusals >= REFUSALS
    }

    /// Whether the last check has found a transaction that may keep the database locked, as far as is known.
    pub fn may_have_to_leave(&self) -> bool {
        self.refusals > 0 && !self.has_moved
    }
}

fn try_session_lock(tag: &pg_sys::LOCKTAG, mode: u32) -> bool {
    // SAFETY: a session lock needs no transaction; without waiting there is no deadlock to detect.
    let result = unsafe { pg_sys::LockAcquire(tag, mode as i32, true, true) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}
