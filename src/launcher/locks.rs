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

/// Whether somebody is about to drop, rename, move or copy the database. All of these lock its catalog entry before
/// they check who is connected.
pub fn is_database_locked(database: pg_sys::Oid) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: 0,
        locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
        locktag_field3: database.to_u32(),
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // The mode in which every session locks it when it connects.
    let mode = pg_sys::RowExclusiveLock;
    let is_free = try_session_lock(&tag, mode);
    if is_free {
        // SAFETY: releases what was just taken.
        unsafe { pg_sys::LockRelease(&tag, mode as i32, true) };
    }
    !is_free
}

fn try_session_lock(tag: &pg_sys::LOCKTAG, mode: u32) -> bool {
    // SAFETY: a session lock needs no transaction; without waiting there is no deadlock to detect.
    let result = unsafe { pg_sys::LockAcquire(tag, mode as i32, true, true) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}
