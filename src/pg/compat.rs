//! The PostgreSQL calls that every heartbeat makes, and what differs between its major versions.
//!
//! pgrx guards each call into PostgreSQL with a `sigsetjmp`, which costs more than the calls below. They cannot
//! raise an error as we use them, so they are declared here once more, without the guard.

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
    }
}

/// The server's clock, now.
#[inline]
pub fn now() -> Micros {
    // SAFETY: reads the system clock; cannot raise.
    let now = unsafe { unguarded::GetCurrentTimestamp() };
    now + crate::pg::fault_point::clock_offset()
}

/// The encoding of the database, as `pg_enc` numbers them.
#[inline]
pub fn database_encoding() -> i32 {
    // SAFETY: reads a variable of this process; cannot raise.
    unsafe { unguarded::GetDatabaseEncoding() }
}

/// Takes a lightweight lock.
///
/// # Safety
/// `lock` is an initialised lock in shared memory that this process does not hold, and fewer than 200 lightweight
/// locks are held (the only error LWLockAcquire can raise); the roster holds three at most.
#[inline]
pub unsafe fn lwlock_acquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) {
    // SAFETY: as the caller promises.
    unsafe { unguarded::LWLockAcquire(lock, mode) };
}

/// Releases a lightweight lock.
///
/// # Safety
/// This process holds `lock` (the only error LWLockRelease can raise is about one that is not held).
#[inline]
pub unsafe fn lwlock_release(lock: *mut pg_sys::LWLock) {
    // SAFETY: as the caller promises.
    unsafe { unguarded::LWLockRelease(lock) };
}

/// Memory of the current context.
///
/// # Safety
/// Where there is none, PostgreSQL's error jumps over the caller and its callers up to PostgreSQL: nothing in their
/// frames may have to be dropped.
#[inline]
pub unsafe fn allocate(size: usize) -> *mut std::ffi::c_void {
    // SAFETY: as the caller promises.
    unsafe { unguarded::palloc(size) }
}

/// Gives memory back.
///
/// # Safety
/// [`allocate`] gave it, and nobody uses it any more.
#[inline]
pub unsafe fn free(memory: *mut std::ffi::c_void) {
    // SAFETY: as the caller promises; raises nothing but about what was not allocated.
    unsafe { unguarded::pfree(memory) }
}

/// Starts a query as PostgreSQL does where nobody has a hook.
///
/// # Safety
/// As for the hook that it stands for; errors as in [`allocate`].
#[inline]
pub unsafe fn standard_executor_start(query: *mut pg_sys::QueryDesc, flags: i32) {
    // SAFETY: as the caller promises.
    unsafe { unguarded::standard_ExecutorStart(query, flags) };
}

/// Says that the values of a slot are a row.
///
/// # Safety
/// The slot is empty and virtual, and all its values are written.
#[inline]
pub unsafe fn store_virtual_tuple(slot: *mut pg_sys::TupleTableSlot) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: as the caller promises; it sets two fields and raises nothing.
    unsafe { unguarded::ExecStoreVirtualTuple(slot) }
}

/// Whether somebody wants to know of each call of a function: `track_functions`, or a module for access control.
#[inline]
pub fn function_calls_are_observed() -> bool {
    // SAFETY: plain globals of this process.
    unsafe {
        pg_sys::pgstat_track_functions != 0 || { pg_sys::object_access_hook }.is_some() || { pg_sys::needs_fmgr_hook }
            .is_some()
    }
}

/// Wakes the process that waits on `latch`.
///
/// # Safety
/// `latch` points at a process latch in shared memory. Those stay mapped, and initialised, for as long as the
/// server runs, so a latch whose process has gone is safe to set.
pub unsafe fn set_latch(latch: *mut pg_sys::Latch) {
    // SAFETY: as the caller promises; SetLatch is async-signal safe and raises nothing.
    unsafe { unguarded::SetLatch(latch) };
}

/// This process's own latch, for others to set.
pub fn my_latch() -> *mut pg_sys::Latch {
    // SAFETY: MyLatch is set early in each process's life and is only read here.
    unsafe { pg_sys::MyLatch }
}

/// A number below [`max_processes`] that no other living process with a database connection has.
#[inline]
pub fn process_number() -> usize {
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    // SAFETY: MyProc is set for every process that can run SQL.
    unsafe {
        (*pg_sys::MyProc).pgprocno as usize
    }
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: a plain global of this process.
    unsafe {
        pg_sys::MyProcNumber as usize
    }
}

/// More than any [`process_number`] of a process that runs SQL.
pub fn max_processes() -> usize {
    // SAFETY: plain globals, set from the configuration before shared memory is laid out.
    #[cfg(not(any(feature = "pg13", feature = "pg14")))]
    let backends = unsafe { pg_sys::MaxBackends };
    // Before 15 MaxBackends is not known yet when memory is asked for; autovacuum's share of it has no binding. WAL
    // senders come last, and run no SQL.
    #[cfg(any(feature = "pg13", feature = "pg14"))]
    let backends = unsafe { pg_sys::MaxConnections + pg_sys::max_worker_processes } + 1024;
    // Room for spare autovacuum slots, which 18 numbers behind the ordinary ones.
    backends as usize + 64
}

/// Whether this server is a standby (or still recovering), where nothing can be written.
#[inline]
pub fn in_recovery() -> bool {
    // SAFETY: reads shared state; cannot raise.
    unsafe { unguarded::RecoveryInProgress() }
}

/// The role whose rights now apply.
#[inline]
pub fn current_role() -> pg_sys::Oid {
    // SAFETY: returns a variable of this process; cannot raise while it runs SQL.
    unsafe { unguarded::GetUserId() }
}

/// Whether a role may execute a function.
pub fn may_execute(role: pg_sys::Oid, function: pg_sys::Oid) -> bool {
    let right = pg_sys::ACL_EXECUTE as pg_sys::AclMode;
    // SAFETY: catalog look-ups by OID. A function dropped in the meantime raises an error, as anywhere else.
    let answer = unsafe {
        #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
        {
            pg_sys::pg_proc_aclcheck(function, role, right)
        }
        #[cfg(not(any(feature = "pg13", feature = "pg14", feature = "pg15")))]
        {
            pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, role, right)
        }
    };
    answer == pg_sys::AclResult::ACLCHECK_OK
}

/// The parts of a name such as `schema.function`. Errors: 42602 where it is none.
pub fn qualified_name(name: &std::ffi::CStr) -> *mut pg_sys::List {
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
    // SAFETY: copies the name into a list in the current memory context.
    unsafe {
        pg_sys::stringToQualifiedNameList(name.as_ptr())
    }
    #[cfg(not(any(feature = "pg13", feature = "pg14", feature = "pg15")))]
    // SAFETY: as above; without a place for errors they are raised.
    unsafe {
        pg_sys::stringToQualifiedNameList(name.as_ptr(), std::ptr::null_mut())
    }
}

/// Whether this process is a background worker, such as ours.
pub fn is_background_worker() -> bool {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::MyBackendType == pg_sys::BackendType::B_BG_WORKER }
}

/// The number that the cluster got when it was made, and that its copies share.
pub fn system_identifier() -> u64 {
    // SAFETY: reads shared memory; cannot raise.
    unsafe { pg_sys::GetSystemIdentifier() }
}

/// The timeline that is written to: another one after each promotion and each recovery to a point in time. Only
/// outside recovery.
pub fn timeline() -> u32 {
    #[cfg(any(feature = "pg13", feature = "pg14"))]
    // SAFETY: a plain global; RecoveryInProgress sets it once recovery is over.
    unsafe {
        pg_sys::RecoveryInProgress();
        pg_sys::ThisTimeLineID
    }
    #[cfg(not(any(feature = "pg13", feature = "pg14")))]
    // SAFETY: reads shared memory; not in recovery, as the caller promises.
    unsafe {
        pg_sys::GetWALInsertionTimeLine()
    }
}

/// The condition that a row lies on the pages from `$1` up to, and without, `$2`, in a form that makes PostgreSQL read
/// only these pages.
#[cfg(not(feature = "pg13"))]
pub const PAGE_RANGE: &str = "ctid >= format('(%s,0)', $1)::tid AND ctid < format('(%s,0)', $2)::tid";
/// Before 14 there are no scans of a range of pages, but of a list of places: every one that a page can have.
#[cfg(feature = "pg13")]
pub const PAGE_RANGE: &str = "ctid = ANY (ARRAY(SELECT format('(%s,%s)', page, place)::tid \
     FROM generate_series($1, $2 - 1) page, generate_series(1, 291) place))";

/// The type of a column, by its number from 1; `None` where there is no such column, or it was dropped.
///
/// # Safety
/// `descriptor` is a row descriptor, which stays as it is during the call.
#[inline]
pub unsafe fn column_type(descriptor: pg_sys::TupleDesc, column: usize) -> Option<pg_sys::Oid> {
    // SAFETY: as the caller promises; there are `natts` attributes, from 18 on behind as many compact ones.
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
        (!attribute.attisdropped).then_some(attribute.atttypid)
    }
}
