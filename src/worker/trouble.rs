//! Errors that the worker has met: one line in the log a minute for each kind of work, and the last one in shared memory.

use std::{cell::Cell, time::Duration, time::Instant};

use pgrx::{PgLogLevel, pg_sys::panic::ErrorReport};

use super::transaction::{Aborted, Failure};
use crate::{
    pg::{compat, text},
    roster::Tenant,
};

const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What the worker was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    State,
    Load,
    Compare,
    Changes,
    Flush,
    CleanSessions,
    CleanUsers,
    CleanDeclared,
    Declared,
    AllowInvisible,
    Prune,
}

impl Work {
    const COUNT: usize = Work::Prune as usize + 1;

    fn message(self) -> &'static str {
        match self {
            Work::State => "could not read or write _feed_state",
            Work::Load => "could not load sessions from user_sessions",
            Work::Compare => "could not compare users with user_presence",
            Work::Changes => "could not write changes to user_presence and presence_changes",
            Work::Flush => "could not write activity to user_sessions",
            Work::CleanSessions => "could not clean up user_sessions",
            Work::CleanUsers => "could not delete old users from user_presence",
            Work::CleanDeclared => "could not delete old rows from declared_statuses",
            Work::Declared => "could not read declared_statuses",
            Work::AllowInvisible => "could not apply presence.allow_invisible to declared_statuses",
            Work::Prune => "could not delete old changes from presence_changes",
        }
    }
}

thread_local! {
    static LOGGED_AT: [Cell<Option<Instant>>; Work::COUNT] = const { [const { Cell::new(None) }; Work::COUNT] };
}

/// Reports an error: in `presence_stats`, and in the log.
pub fn report(tenant: Tenant, work: Work, failure: &Failure) {
    let mut error = format!("{}: {}: {}", work.message(), failure.sqlstate(), failure.message);
    // Readable in whatever encoding the database has.
    if !text::is_utf8() {
        error = error.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
    }
    tenant.set_worker_error(&error, compat::now());
    log(work, failure);
}

/// Reports an error met while a batch of `rows` was written. A lock conflict is one only where it remains with a row.
pub fn report_part(tenant: Tenant, work: Work, failure: &Failure, rows: usize) {
    if rows == 1 || !failure.is_lock_conflict() {
        report(tenant, work, failure);
    }
}

/// Logs an error, unless the same work was logged within the last minute.
pub fn log(work: Work, failure: &Failure) {
    let may_log = LOGGED_AT.with(|logged_at| {
        let logged_at = &logged_at[work as usize];
        let is_due = logged_at.get().is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if is_due {
            logged_at.set(Some(Instant::now()));
        }
        is_due
    });
    if may_log {
        ErrorReport::new(failure.code, work.message(), pgrx::function_name!())
            .set_detail(failure.message.clone())
            .set_hint(
                "It is tried again. presence_health() shows how much is waiting. After an update of the library, run \
                 ALTER EXTENSION pg_presence UPDATE.",
            )
            .report(PgLogLevel::WARNING);
    }
}

/// Reports why a transaction was aborted, where it was an error.
pub fn report_aborted(tenant: Tenant, work: Work, aborted: &Aborted) {
    if let Aborted::Failed(failure) = aborted
        && !failure.is_lock_conflict()
    {
        report(tenant, work, failure);
    }
}
