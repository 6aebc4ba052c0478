//! The worker's transactions: each locks our tables without waiting, and gives up rather than be in anybody's way.

use std::panic::AssertUnwindSafe;

use pgrx::{
    PgSqlErrorCode, PgTryBuilder,
    pg_sys::{self, panic::CaughtError},
};

use crate::{
    pg::installed::{self, Installed},
    roster::Tenant,
};

/// Why a transaction was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aborted {
    /// Somebody holds a lock on a table or row in its way. Try again later.
    LockConflict,
    /// The extension is not there any more, or it is another one.
    Dropped,
    /// PostgreSQL's queue of notifications has no room.
    QueueFull,
}

/// Whether a commit has to be on disk before what it says may be told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On this server's disk.
    Flushed,
    /// A crash may lose it: what is written is only a copy of what the roster knows, and is made good after it.
    Lazy,
}

/// Runs `f` in a transaction of its own with our four tables locked, and commits. `served`: the install that the worker
/// serves, once it serves one; another one that has taken its place is not touched.
///
/// Errors that come of somebody else's locks abort the transaction and are given as [`Aborted`]; any other error ends
/// the process, and the launcher starts a new one, which takes stock.
pub fn run_transaction<R>(
    served: Option<Tenant>,
    durability: Durability,
    f: impl FnOnce(Installed) -> R,
) -> Result<R, Aborted> {
    guarded(waits_for_others, || {
        let Some(install) = installed::try_get() else {
            return Err(Aborted::Dropped);
        };
        if !lock_tables(&install) {
            return Err(Aborted::LockConflict);
        }
        // Locking reads what others have committed meanwhile: a DROP EXTENSION, or another CREATE after it.
        if installed::try_get() != Some(install) || served.is_some_and(|tenant| tenant.relation() != install.sessions) {
            return Err(Aborted::Dropped);
        }
        if durability == Durability::Lazy {
            commit_lazily();
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
pub fn notify<R>(f: impl FnOnce() -> R) -> Result<R, Aborted> {
    guarded(finds_queue_full, || Ok(f()))
}

/// Runs `f`, which touches no table of ours, in a transaction of its own.
pub fn run_plain<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: the worker is in no transaction between two of these.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
    }
    let result = f();
    // SAFETY: ends what was begun above.
    unsafe { pg_sys::CommitTransactionCommand() };
    result
}

/// `expected` says what an error means that the worker goes on after.
fn guarded<R>(
    expected: fn(PgSqlErrorCode) -> Option<Aborted>,
    f: impl FnOnce() -> Result<R, Aborted>,
) -> Result<R, Aborted> {
    PgTryBuilder::new(AssertUnwindSafe(|| run_plain(f)))
        .catch_others(|error| {
            let Some(aborted) = code_of(&error).and_then(expected) else {
                error.rethrow()
            };
            // SAFETY: the error has been taken off PostgreSQL's stack; the transaction is left in which it was raised.
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

fn waits_for_others(code: PgSqlErrorCode) -> Option<Aborted> {
    matches!(
        code,
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
            | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
            | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
    )
    .then_some(Aborted::LockConflict)
}

/// What the commit of a transaction that notifies raises.
fn finds_queue_full(code: PgSqlErrorCode) -> Option<Aborted> {
    (code == PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED).then_some(Aborted::QueueFull)
}

fn lock_tables(install: &Installed) -> bool {
    [install.sessions, install.presence, install.changes, install.state]
        .into_iter()
        .all(|table| {
            // SAFETY: in a transaction; an OID that is no table any more can be locked too.
            unsafe { pg_sys::ConditionalLockRelationOid(table, pg_sys::RowExclusiveLock as i32) }
        })
}

fn commit_lazily() {
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
