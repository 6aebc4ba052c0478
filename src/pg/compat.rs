//! PostgreSQL calls on the path of a heartbeat, and differences between PostgreSQL's major versions.
//!
//! pgrx guards each call into PostgreSQL with a `sigsetjmp`, which costs more than the calls below. As used here they
//! cannot raise an error, or their callers can be jumped over, so they are declared again without the guard.

use std::{
    ffi::CStr,
    sync::atomic::{AtomicI32, Ordering},
};

use pgrx::pg_sys;

use crate::rules::time::Micros;

mod unguarded {
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        pub fn GetCurrentTimestamp() -> pg_sys::TimestampTz;
        pub fn GetUserId() -> pg_sys::Oid;
        pub fn GetDatabaseEncoding() -> i32;
        pub fn LWLockAcquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) -> bool;
        pub fn LWLockRelease(lock: *mut pg_sys::LWLock);
        pub fn RecoveryInProgress() -> bool;
        pub fn SetLatch(latch: *mut pg_sys::Latch);
        pub fn ExecStoreVirtualTuple(slot: *mut pg_sys::TupleTableSlot) -> *mut pg_sys::TupleTableSlot;
        pub fn pfree(memory: *mut std::ffi::c_void);
        pub fn palloc(size: pg_sys::Size) -> *mut std::ffi::c_void;
        pub fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: i32);
        pub fn standard_ProcessUtility(
            statement: *mut pg_sys::PlannedStmt,
            text: *const std::ffi::c_char,
            is_read_only: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            parameters: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            destination: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }
}

/// Returns the time of day, which somebody may set; see [`super::clock`] for the clock that nobody sets.
#[inline]
pub fn now() -> Micros {
    // SAFETY: reads the system clock; cannot raise.
    let now = unsafe { unguarded::GetCurrentTimestamp() };
    now + super::fault_point::clock_offset() + super::fault_point::clock_step()
}

/// Returns how many characters a text in the encoding of the database has, as `char_length()` does.
pub fn count_characters(text: &[u8]) -> usize {
    // SAFETY: reads the bytes of a text of this database, at most 1 GB.
    let count = unsafe { pg_sys::pg_mbstrlen_with_len(text.as_ptr().cast(), text.len() as i32) };
    count as usize
}

/// Returns the encoding of the database, a `pg_enc`.
#[inline]
pub fn database_encoding() -> i32 {
    // SAFETY: reads a global of this process; cannot raise.
    unsafe { unguarded::GetDatabaseEncoding() }
}

/// Acquires a lightweight lock.
///
/// # Safety
/// `lock` is an initialized lock in shared memory that this process does not hold, and this process holds fewer than
/// 200 lightweight locks (LWLockAcquire raises no other error); the roster holds at most three.
#[inline]
pub unsafe fn lwlock_acquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) {
    // SAFETY: as the caller promises.
    unsafe { unguarded::LWLockAcquire(lock, mode) };
}

/// Releases a lightweight lock.
///
/// # Safety
/// This process holds `lock` (LWLockRelease raises no other error).
#[inline]
pub unsafe fn lwlock_release(lock: *mut pg_sys::LWLock) {
    // SAFETY: as the caller promises.
    unsafe { unguarded::LWLockRelease(lock) };
}

/// Whether processes wait for a lightweight lock: a guess, as they come and go. One that has been woken and not got the
/// lock yet does not count.
///
/// # Safety
/// `lock` is an initialized lock in shared memory.
#[inline]
pub unsafe fn lwlock_is_waited_for(lock: *mut pg_sys::LWLock) -> bool {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    const NOBODY: i32 = pg_sys::INVALID_PGPROCNO as i32;
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    const NOBODY: i32 = pg_sys::INVALID_PROC_NUMBER;
    // SAFETY: as the caller promises; other processes write the number as a whole.
    let first = unsafe { AtomicI32::from_ptr(&raw mut (*lock).waiters.head) };
    first.load(Ordering::Relaxed) != NOBODY
}

/// Allocates memory in the current memory context.
///
/// # Safety
/// If there is no memory, PostgreSQL's error jumps over the Rust frames of all callers: nothing in them may need to be
/// dropped.
#[inline]
pub unsafe fn allocate(size: usize) -> *mut std::ffi::c_void {
    // SAFETY: as the caller promises.
    unsafe { unguarded::palloc(size) }
}

/// Frees memory.
///
/// # Safety
/// [`allocate`] returned it, and it is no longer in use.
#[inline]
pub unsafe fn free(memory: *mut std::ffi::c_void) {
    // SAFETY: as the caller promises; raises no error for allocated memory.
    unsafe { unguarded::pfree(memory) }
}

/// Starts a query as PostgreSQL does without a hook.
///
/// # Safety
/// As for an `ExecutorStart` hook; errors as in [`allocate`].
#[inline]
pub unsafe fn standard_executor_start(query: *mut pg_sys::QueryDesc, flags: i32) {
    // SAFETY: as the caller promises.
    unsafe { unguarded::standard_ExecutorStart(query, flags) };
}

/// Runs a utility statement as PostgreSQL does without a hook. Errors as in [`allocate`].
pub const STANDARD_PROCESS_UTILITY: unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannedStmt,
    *const std::ffi::c_char,
    bool,
    pg_sys::ProcessUtilityContext::Type,
    pg_sys::ParamListInfo,
    *mut pg_sys::QueryEnvironment,
    *mut pg_sys::DestReceiver,
    *mut pg_sys::QueryCompletion,
) = unguarded::standard_ProcessUtility;
/// Marks a slot as containing a virtual tuple.
///
/// # Safety
/// The slot is an empty virtual slot, and all of its values are set.
#[inline]
pub unsafe fn store_virtual_tuple(slot: *mut pg_sys::TupleTableSlot) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: as the caller promises; sets two fields and cannot raise.
    unsafe { unguarded::ExecStoreVirtualTuple(slot) }
}

/// Returns whether function calls are observed: by `track_functions`, or by the hooks of a security module.
#[inline]
pub fn function_calls_are_observed() -> bool {
    // SAFETY: reads globals of this process.
    unsafe {
        pg_sys::pgstat_track_functions != 0 || { pg_sys::object_access_hook }.is_some() || { pg_sys::needs_fmgr_hook }
            .is_some()
    }
}

/// Wakes the process that waits on `latch`.
///
/// # Safety
/// `latch` points to a process latch in shared memory. Process latches stay mapped and initialized while the server
/// runs, so the latch of a process that has exited is safe to set.
pub unsafe fn set_latch(latch: *mut pg_sys::Latch) {
    // SAFETY: as the caller promises; SetLatch is async-signal-safe and cannot raise.
    unsafe { unguarded::SetLatch(latch) };
}

/// Returns the latch of this process, for others to set.
pub fn my_latch() -> *mut pg_sys::Latch {
    // SAFETY: MyLatch is set early in the life of each process, and only read here.
    unsafe { pg_sys::MyLatch }
}

/// Returns the number of this process, less than [`max_processes`] and unique among running processes that are
/// connected to a database.
#[inline]
pub fn process_number() -> usize {
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    // SAFETY: MyProc is set for every process that can run SQL.
    unsafe {
        (*pg_sys::MyProc).pgprocno as usize
    }
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: reads a global of this process.
    unsafe {
        pg_sys::MyProcNumber as usize
    }
}

/// Returns a bound above the [`process_number`] of every process that runs SQL.
pub fn max_processes() -> usize {
    // SAFETY: reads a global that is set from the configuration before shared memory is laid out.
    let backends = unsafe { pg_sys::MaxBackends };
    // Leaves room for the spare autovacuum slots of 18, which are numbered after the others.
    backends as usize + 64
}

/// Returns whether the server is in recovery, as a standby is, and so cannot be written to.
#[inline]
pub fn in_recovery() -> bool {
    // SAFETY: reads shared state; cannot raise.
    unsafe { unguarded::RecoveryInProgress() }
}

/// Returns the role whose privileges apply.
#[inline]
pub fn current_role() -> pg_sys::Oid {
    // SAFETY: reads a global of this process; cannot raise while it runs SQL.
    unsafe { unguarded::GetUserId() }
}

/// Returns whether a role may execute a function.
pub fn may_execute(role: pg_sys::Oid, function: pg_sys::Oid) -> bool {
    let privilege = pg_sys::ACL_EXECUTE as pg_sys::AclMode;
    // SAFETY: catalog lookups by OID. A function that has been dropped raises an error, as anywhere else.
    let result = unsafe {
        #[cfg(feature = "pg15")]
        {
            pg_sys::pg_proc_aclcheck(function, role, privilege)
        }
        #[cfg(not(feature = "pg15"))]
        {
            pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, role, privilege)
        }
    };
    result == pg_sys::AclResult::ACLCHECK_OK
}

/// Calls `f` for each table that a started query writes.
///
/// # Safety
/// `state` is the state of a query that the executor has started.
pub unsafe fn for_each_result_relation(state: *mut pg_sys::EState, mut f: impl FnMut(*mut pg_sys::ResultRelInfo)) {
    // SAFETY: as the caller promises; the list is null or one of pointers to ResultRelInfo.
    unsafe {
        if let Some(opened) = (*state).es_opened_result_relations.as_ref() {
            for position in 0..opened.length as usize {
                f((*opened.elements.add(position)).ptr_value.cast());
            }
        }
    }
}

/// Splits a name such as `schema.function` into its parts. Errors with 42602 if its syntax is invalid.
pub fn qualified_name(name: &CStr) -> *mut pg_sys::List {
    #[cfg(feature = "pg15")]
    // SAFETY: copies the name into a list in the current memory context.
    unsafe {
        pg_sys::stringToQualifiedNameList(name.as_ptr())
    }
    #[cfg(not(feature = "pg15"))]
    // SAFETY: as above; errors are raised, as there is no error context.
    unsafe {
        pg_sys::stringToQualifiedNameList(name.as_ptr(), std::ptr::null_mut())
    }
}

/// Returns whether this process is a background worker.
pub fn is_background_worker() -> bool {
    // SAFETY: reads a global of this process.
    unsafe { pg_sys::MyBackendType == pg_sys::BackendType::B_BG_WORKER }
}

/// Returns the system identifier of the cluster, which its physical copies share.
pub fn system_identifier() -> u64 {
    // SAFETY: reads shared memory; cannot raise.
    unsafe { pg_sys::GetSystemIdentifier() }
}

/// Returns the timeline that is written to, which changes with each promotion and each point-in-time recovery. Must not
/// be called during recovery.
pub fn timeline() -> u32 {
    // SAFETY: reads shared memory; recovery has ended.
    unsafe { pg_sys::GetWALInsertionTimeLine() }
}

/// Returns how many rows have been inserted into a table and deleted from it, as far as backends have reported that:
/// they do at the end of a transaction, or some seconds later. Needs no transaction.
pub fn rows_come_and_gone(table: pg_sys::Oid) -> i64 {
    // SAFETY: reads statistics in shared memory into a copy, which is valid until the next call.
    unsafe {
        pg_sys::pgstat_clear_snapshot();
        pg_sys::pgstat_fetch_stat_tabentry(table)
            .as_ref()
            .map_or(0, |entry| entry.tuples_inserted + entry.tuples_deleted)
    }
}

/// The condition that a row is on a page from `$1` to `$2`, exclusive, as a TID range scan: PostgreSQL reads these
/// pages only.
pub const PAGE_RANGE: &str = "ctid >= format('(%s,0)', $1)::tid AND ctid < format('(%s,0)', $2)::tid";

/// Returns the type of a column, numbered from 1, or `None` if it does not exist or has been dropped.
///
/// # Safety
/// `descriptor` is a valid tuple descriptor that does not change during the call.
#[inline]
pub unsafe fn column_type(descriptor: pg_sys::TupleDesc, column: usize) -> Option<pg_sys::Oid> {
    // SAFETY: as the caller promises.
    unsafe { attribute(descriptor, column).map(|attribute| attribute.atttypid) }
}

/// Returns the attribute number of a column with this name, or else its `own`, with which it was created.
///
/// # Safety
/// `descriptor` is a valid tuple descriptor that does not change during the call.
pub unsafe fn column_number(descriptor: pg_sys::TupleDesc, own: usize, name: &CStr) -> usize {
    // SAFETY: as the caller promises.
    let is_named = |&number: &usize| unsafe { is_column_named(descriptor, number, name) };
    if is_named(&own) {
        return own;
    }
    // SAFETY: as the caller promises.
    let count = unsafe { (*descriptor).natts } as usize;
    (1..=count).find(is_named).unwrap_or(own)
}

/// Returns whether a column has this name. It does not if it does not exist or has been dropped.
///
/// # Safety
/// `descriptor` is a valid tuple descriptor that does not change during the call.
unsafe fn is_column_named(descriptor: pg_sys::TupleDesc, column: usize, name: &CStr) -> bool {
    // SAFETY: as the caller promises; a name ends with a zero byte.
    unsafe {
        attribute(descriptor, column).is_some_and(|attribute| CStr::from_ptr(attribute.attname.data.as_ptr()) == name)
    }
}

/// # Safety
/// `descriptor` is a valid tuple descriptor that does not change for `'a`.
#[inline]
unsafe fn attribute<'a>(descriptor: pg_sys::TupleDesc, column: usize) -> Option<&'a pg_sys::FormData_pg_attribute> {
    // SAFETY: as the caller promises; there are `natts` attributes, which in 18 follow as many compact ones.
    unsafe {
        let count = (*descriptor).natts as usize;
        if !(1..=count).contains(&column) {
            return None;
        }
        #[cfg(not(feature = "pg18"))]
        let attributes = (*descriptor).attrs.as_ptr();
        #[cfg(feature = "pg18")]
        let attributes = (*descriptor)
            .compact_attrs
            .as_ptr()
            .add(count)
            .cast::<pg_sys::FormData_pg_attribute>();
        let attribute = &*attributes.add(column - 1);
        (!attribute.attisdropped).then_some(attribute)
    }
}

/// Whether a table does not exist, and is not about to: whoever creates or drops it holds its lock, which excludes even
/// readers, until the commit. To be called in a transaction, which keeps the lock that is tried here.
pub fn is_relation_gone(table: pg_sys::Oid) -> bool {
    // SAFETY: an OID that is no table can be locked, too; neither waits.
    unsafe {
        pg_sys::ConditionalLockRelationOid(table, pg_sys::AccessShareLock as i32) && pg_sys::get_rel_relkind(table) == 0
    }
}
