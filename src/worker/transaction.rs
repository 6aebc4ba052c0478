//! The worker's transactions: each locks our tables without waiting, and aborts rather than get in anybody's way.

use std::{panic::AssertUnwindSafe, time::Duration};

use pgrx::{
    PgSqlErrorCode, PgTryBuilder,
    pg_sys::{self, panic::CaughtError},
};

use crate::{
    pg::installed::{self, Installed},
    roster::Tenant,
};

/// Retry delay after a lock conflict.
pub const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Why a transaction was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aborted {
    /// Another transaction holds a lock on one of our tables or rows.
    LockConflict,
    /// The extension was dropped, or created again.
    Dropped,
    /// PostgreSQL's notification queue is full.
    QueueFull,
}

/// Whether a commit has to be on disk before its changes may be published.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Flushed to this server's disk.
    Flushed,
    /// A crash may lose it: it only copies what the roster knows, and is made up for after the restart.
    Lazy,
}

/// Runs `f` in a transaction of its own with our four tables locked, and commits. `served` is the install that the
/// worker serves, if it serves one yet: an install that has taken its place is not touched.
///
/// Lock conflicts abort the transaction and are returned; any other error ends the worker, and the launcher starts a
/// new one, which reloads.
pub fn run_transaction<R>(
    served: Option<Tenant>,
    durability: Durability,
    f: impl FnOnce(Installed) -> R,
) -> Result<R, Aborted> {
    run_catching(lock_conflict, || {
        let Some(install) = installed::try_get() else {
            return Err(Aborted::Dropped);
        };
        if !lock_tables(&install) {
            return Err(Aborted::LockConflict);
        }
        // Taking the locks has processed invalidations: of a DROP EXTENSION, or of a CREATE EXTENSION after it.
        if installed::try_get() != Some(install) || served.is_some_and(|tenant| tenant.relation() != install.sessions) {
            return Err(Aborted::Dropped);
        }
        if durability == Durability::Lazy {
            commit_asynchronously();
        }
        // SAFETY: in a transaction; popped below, or by the abort.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        let result = f(install);
        // SAFETY: pops what was pushed above; `f` leaves the stack as it found it.
        unsafe { pg_sys::PopActiveSnapshot() };
        Ok(result)
    })
}

/// Runs `f`, which only notifies, in a transaction of its own.
pub fn run_notify<R>(f: impl FnOnce() -> R) -> Result<R, Aborted> {
    run_catching(queue_full, || Ok(f()))
}

/// Runs `f` in a transaction of its own, without locking our tables.
pub fn run_unlocked<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: the worker is in no transaction here.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
    }
    let result = f();
    // SAFETY: commits the transaction started above.
    unsafe { pg_sys::CommitTransactionCommand() };
    result
}

/// Runs `f` in a transaction. An error for which `expected` returns a value aborts the transaction, and the value is
/// returned; any other error is raised again.
fn run_catching<R>(
    expected: fn(PgSqlErrorCode) -> Option<Aborted>,
    f: impl FnOnce() -> Result<R, Aborted>,
) -> Result<R, Aborted> {
    PgTryBuilder::new(AssertUnwindSafe(|| run_unlocked(f)))
        .catch_others(|error| {
            let Some(aborted) = code_of(&error).and_then(expected) else {
                error.rethrow()
            };
            // SAFETY: the error is off PostgreSQL's error stack, and the transaction that raised it is still open.
            unsafe { pg_sys::AbortCurrentTransaction() };
            Err(aborted)
        })
        .execute()
}

fn code_of(error: &CaughtError) -> Option<PgSqlErrorCode> {
    match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => Some(report.sql_error_code()),
        CaughtError::RustPanic { .. } => None,
    }
}

fn lock_conflict(code: PgSqlErrorCode) -> Option<Aborted> {
    matches!(
        code,
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
            | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
            | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
    )
    .then_some(Aborted::LockConflict)
}

/// Recognizes what the commit of a transaction that notifies raises when the queue is full.
fn queue_full(code: PgSqlErrorCode) -> Option<Aborted> {
    (code == PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED).then_some(Aborted::QueueFull)
}

fn lock_tables(install: &Installed) -> bool {
    [install.sessions, install.presence, install.changes, install.state]
        .into_iter()
        .all(|table| {
            // SAFETY: in a transaction; the OID of a table that was dropped can be locked, too.
            unsafe { pg_sys::ConditionalLockRelationOid(table, pg_sys::RowExclusiveLock as i32) }
        })
}

fn commit_asynchronously() {
    // SAFETY: name and value are C strings; the setting lasts until the transaction ends.
    unsafe {
        pg_sys::set_config_option(
            c"synchronous_commit".as_ptr(),
            c"off".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}
