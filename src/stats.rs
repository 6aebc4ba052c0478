//! The figures behind the view `presence_stats`.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::compat;
use crate::core::time::Micros;
use crate::roster;

const USECS_PER_MSEC: f64 = 1000.0;

/// One row: what the roster counts and what the worker tells of itself, for this database. Errors: 55000 where the
/// library is not preloaded.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity)]
fn presence_stats_raw() -> TableIterator<
    'static,
    (
        name!(live_sessions, i64),
        name!(known_sessions, i64),
        name!(users_online, i64),
        name!(known_users, i64),
        name!(capacity, i64),
        name!(used, i64),
        name!(is_complete, bool),
        name!(in_overflow, bool),
        name!(overflowed, i64),
        name!(evicted, i64),
        name!(slow_calls, i64),
        name!(beats, i64),
        name!(rejected_beats, i64),
        name!(unwritten_users, i64),
        name!(changes, i64),
        name!(notifications, i64),
        name!(flushed_rows, i64),
        name!(deactivated_rows, i64),
        name!(deleted_rows, i64),
        name!(worker_pid, Option<i32>),
        name!(worker_started_at, Option<TimestampWithTimeZone>),
        name!(last_tick_at, Option<TimestampWithTimeZone>),
        name!(last_flush_at, Option<TimestampWithTimeZone>),
        name!(last_cleanup_at, Option<TimestampWithTimeZone>),
        name!(tick_ms, f64),
        name!(flush_ms, f64),
        name!(cleanup_ms, f64),
        name!(oldest_unflushed_ms, Option<i64>),
    ),
> {
    let space = roster::space();
    let (stats, worker) = (space.stats(), space.worker());
    let (beats, rejected_beats) = space.tallied();
    let unflushed = space
        .oldest_unflushed()
        .map(|at| (compat::now() - at).max(0) / 1000);
    TableIterator::once((
        signed(stats.live_sessions),
        signed(stats.known_sessions),
        signed(stats.users_online),
        signed(stats.known_users),
        signed(stats.capacity),
        signed(stats.used),
        stats.complete,
        stats.in_overflow,
        signed(stats.overflowed),
        signed(stats.evicted),
        signed(stats.slow_paths),
        signed(beats),
        signed(rejected_beats),
        signed(stats.dirty_users),
        signed(worker.changes.get()),
        signed(worker.notifications.get()),
        signed(worker.flushed_rows.get()),
        signed(worker.deactivated_rows.get()),
        signed(worker.deleted_rows.get()),
        (stats.worker_pid != 0).then_some(stats.worker_pid as i32),
        shown(worker.started_at.get()),
        shown(worker.last_tick.get()),
        shown(worker.last_flush.get()),
        shown(worker.last_cleanup.get()),
        worker.tick_us.get() as f64 / USECS_PER_MSEC,
        worker.flush_us.get() as f64 / USECS_PER_MSEC,
        worker.cleanup_us.get() as f64 / USECS_PER_MSEC,
        unflushed,
    ))
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A time that has been set: the block of shared memory starts as zeros.
fn known(at: Micros) -> Option<Micros> {
    (at != 0 && at != Micros::MAX && at != Micros::MIN).then_some(at)
}

fn shown(at: Micros) -> Option<TimestampWithTimeZone> {
    known(at).and_then(|at| TimestampWithTimeZone::try_from(at).ok())
}
