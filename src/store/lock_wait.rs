//! How long a call waits for others' locks, and who they are.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};

use super::planning::SettingsScope;
use crate::pg::{
    compat, errors,
    installed::{self, Installed},
};

/// How long a call waits where `lock_timeout` is not set.
const DEFAULT: Duration = Duration::from_secs(10);

/// Runs `f`, which writes to our tables. Errors with 55P03, naming the processes in the way, where it waits for a lock
/// for longer than `lock_timeout`, or 10 s where none is set.
pub fn bounded<R>(f: impl FnOnce() -> R) -> R {
    // The worker has limits of its own, and an apply worker waits for whom it has to.
    if compat::is_background_worker() {
        return f();
    }
    // SAFETY: reads a global of this process.
    let timeout = u64::try_from(unsafe { pg_sys::LockTimeout }).unwrap_or(0);
    let (limit, scope) = match timeout {
        0 => (DEFAULT, Some(SettingsScope::set(&[(c"lock_timeout", c"10s")]))),
        timeout => (Duration::from_millis(timeout), None),
    };
    let install = installed::get();
    let start = Instant::now();
    let result = PgTryBuilder::new(std::panic::AssertUnwindSafe(f))
        .catch_when(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, |error| {
            // Otherwise it is an error of somebody's trigger.
            if start.elapsed() < limit {
                error.rethrow();
            }
            errors::lock_not_available(&blockers(&install))
        })
        .execute();
    drop(scope);
    result
}

/// Returns the processes that hold locks of those in conflict with a write to our tables, or else such that they may
/// have locked rows, without those that wait themselves. Reads only shared memory, as a failed statement may.
fn blockers(install: &Installed) -> Vec<i32> {
    let tables = install.tables().map(pg_sys::Oid::to_u32);
    // SAFETY: reads a global of this process.
    let (own, database) = unsafe { (pg_sys::MyProcPid, pg_sys::MyDatabaseId.to_u32()) };
    let (mut of_table, mut of_rows, mut waiting) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    // SAFETY: a copy of the lock table in this memory context, of `nelements` elements.
    let locks = unsafe {
        let data = &*pg_sys::GetLockStatusData();
        match data.nelements {
            0 => &[],
            count => std::slice::from_raw_parts(data.locks, count as usize),
        }
    };
    for lock in locks.iter().filter(|lock| lock.pid != own) {
        if lock.waitLockMode != 0 {
            waiting.insert(lock.pid);
        }
        let tag = &lock.locktag;
        let is_ours = u32::from(tag.locktag_type) == pg_sys::LockTagType::LOCKTAG_RELATION
            && tag.locktag_field1 == database
            && tables.contains(&tag.locktag_field2);
        let holds =
            |modes: std::ops::RangeInclusive<u32>| modes.into_iter().any(|mode| lock.holdMask & (1 << mode) != 0);
        if is_ours && holds(pg_sys::ShareLock..=pg_sys::AccessExclusiveLock) {
            of_table.insert(lock.pid);
        } else if is_ours && holds(pg_sys::RowShareLock..=pg_sys::RowExclusiveLock) {
            of_rows.insert(lock.pid);
        }
    }
    let found = if of_table.is_empty() { of_rows } else { of_table };
    found.difference(&waiting).copied().collect()
}
