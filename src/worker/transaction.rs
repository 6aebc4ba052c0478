//! The worker's transactions: each locks our tables without waiting, and aborts rather than get in anybody's way.

use std::{cell::Cell, panic::AssertUnwindSafe, time::Duration};

use pgrx::{
    PgSqlErrorCode, PgTryBuilder,
    pg_sys::{self, panic::CaughtError},
};

use super::signals;
use crate::{
    pg::{
        installed::{self, Installed},
        timeout,
    },
    roster::Tenant,
};

/// Retry delay after a lock conflict.
pub const RETRY_AFTER: Duration = Duration::from_millis(200);
/// `lock_timeout`: how long a statement waits for a lock.
pub const LOCK_WAIT: Duration = Duration::from_millis(100);
/// How long a commit waits at most, for the lock that all commits that notify take: triggers of others may notify in
/// our transactions.
const MAX_COMMIT_WAIT: Duration = Duration::from_secs(2);
/// How long a transaction that writes may take, and what each row adds to that. Whoever's code takes longer is
/// interrupted, as everything else waits meanwhile.
const WRITE_LIMIT: Duration = Duration::from_secs(1);
const WRITE_LIMIT_PER_ROW: Duration = Duration::from_millis(1);

/// Why a transaction was aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aborted {
    /// Another transaction holds a lock on one of our tables, or the lock for commits that notify.
    LockConflict,
    /// The extension was dropped, or created again.
    Dropped,
    /// The worker has to stop.
    Terminated,
    /// It raised an error.
    Failed(Failure),
}

/// An error that a transaction raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: PgSqlErrorCode,
    pub message: String,
}

impl Failure {
    /// Whether a concurrent transaction has committed first.
    pub fn is_serialization_failure(&self) -> bool {
        self.code == PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
    }

    /// Whether another transaction is in the way, which will end.
    pub fn is_lock_conflict(&self) -> bool {
        matches!(
            self.code,
            PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
                | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
                | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
        )
    }

    /// Whether it took too long.
    pub fn is_timeout(&self) -> bool {
        self.code == PgSqlErrorCode::ERRCODE_QUERY_CANCELED
    }

    /// The five characters of its SQLSTATE.
    pub fn sqlstate(&self) -> String {
        let code = self.code as i32;
        (0..5)
            .map(|place| char::from((((code >> (6 * place)) & 0x3f) as u8) + b'0'))
            .collect()
    }
}

/// Whether a commit has to be on disk before its changes may be published.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Flushed to this server's disk.
    Flushed,
    /// A crash may lose it: it only copies what the roster knows, and is made up for after the restart.
    Lazy,
}

thread_local! {
    /// How long a commit waits for the lock that all commits that notify take.
    static COMMIT_WAIT: Cell<Duration> = const { Cell::new(LOCK_WAIT) };
}

/// Returns how long a transaction that writes `rows` rows may take.
pub fn write_limit(rows: usize) -> Duration {
    WRITE_LIMIT + WRITE_LIMIT_PER_ROW * u32::try_from(rows).unwrap_or(u32::MAX).min(100_000)
}

/// Runs `f` in a transaction of its own with our four tables locked, and commits. `served` is the install that the
/// worker serves, if it serves one yet: an install that has taken its place is not touched. `limit` is how long it may
/// take.
///
/// An error aborts the transaction and is returned. Whatever the SQLSTATE: a trigger of somebody else's may raise any,
/// and whoever's fault it is, the abort has undone what the transaction did, the worker's own variables are changed
/// only after a commit, and to start again would only meet the same row again. A Rust panic in the worker, though, is a
/// bug that leaves them in an unknown state: it ends the worker, and the launcher starts a new one, which reloads.
pub fn run_transaction<R>(
    served: Option<Tenant>,
    durability: Durability,
    limit: Option<Duration>,
    f: impl FnOnce(Installed) -> R,
) -> Result<R, Aborted> {
    let commit_wait = COMMIT_WAIT.get();
    let is_committing = Cell::new(false);
    let result = run_catching(limit, || {
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
            set_local(c"synchronous_commit", c"off");
        }
        // SAFETY: in a transaction; popped below, or by the abort.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        let result = f(install);
        // SAFETY: pops what was pushed above; `f` leaves the stack as it found it.
        unsafe { pg_sys::PopActiveSnapshot() };
        if commit_wait > LOCK_WAIT {
            set_lock_timeout(commit_wait);
        }
        is_committing.set(true);
        Ok(result)
    });
    match result {
        Err(Aborted::Failed(failure)) if is_committing.get() && failure.is_lock_conflict() => {
            COMMIT_WAIT.set((commit_wait * 2).min(MAX_COMMIT_WAIT));
            Err(Aborted::LockConflict)
        }
        result => {
            if result.is_ok() && commit_wait > LOCK_WAIT {
                COMMIT_WAIT.set((commit_wait / 2).max(LOCK_WAIT));
            }
            result
        }
    }
}

/// Runs `f`, which only notifies, in a transaction of its own. Its commit waits for that of everybody else who notifies,
/// in any database; after `wait` it gives up.
pub fn run_notify<R>(wait: Duration, f: impl FnOnce() -> R) -> Result<R, Aborted> {
    run_catching(None, || {
        // What it tells of is on disk, and a crash takes the listeners with it. Others wait for this commit.
        set_local(c"synchronous_commit", c"off");
        set_lock_timeout(wait);
        Ok(f())
    })
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

/// Runs `f` in a transaction. An error aborts it, and is returned.
fn run_catching<R>(limit: Option<Duration>, f: impl FnOnce() -> Result<R, Aborted>) -> Result<R, Aborted> {
    if !signals::enter_transaction() {
        return Err(Aborted::Terminated);
    }
    if let Some(limit) = limit {
        timeout::limit(limit);
    }
    let result = PgTryBuilder::new(AssertUnwindSafe(|| run_unlocked(f)))
        .catch_others(|error| {
            let failure = match &error {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => Failure {
                    code: report.sql_error_code(),
                    message: report.message().to_owned(),
                },
                CaughtError::RustPanic { .. } => error.rethrow(),
            };
            // SAFETY: the error is off PostgreSQL's error stack, and the transaction that raised it is still open.
            unsafe { pg_sys::AbortCurrentTransaction() };
            Err(Aborted::Failed(failure))
        })
        .execute();
    timeout::unlimit();
    signals::leave_transaction();
    match result {
        Err(Aborted::Failed(failure)) if failure.is_timeout() && !signals::may_continue() => Err(Aborted::Terminated),
        result => result,
    }
}

fn lock_tables(install: &Installed) -> bool {
    [install.sessions, install.presence, install.changes, install.state]
        .into_iter()
        .all(|table| {
            // SAFETY: in a transaction; the OID of a table that was dropped can be locked, too.
            unsafe { pg_sys::ConditionalLockRelationOid(table, pg_sys::RowExclusiveLock as i32) }
        })
}

fn set_lock_timeout(wait: Duration) {
    let text = std::ffi::CString::new(wait.as_millis().to_string()).unwrap_or_default();
    set_local(c"lock_timeout", &text);
}

/// Sets a setting until the transaction ends.
fn set_local(name: &std::ffi::CStr, value: &std::ffi::CStr) {
    // SAFETY: name and value are C strings, which are copied.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}
