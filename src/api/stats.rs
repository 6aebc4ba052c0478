//! The figures of the view `presence_stats`.

use pgrx::pg_extern;

use super::{caller, result::ResultSet};
use crate::{
    roster,
    rules::time::{Micros, SteadyTime, USECS_PER_MSEC},
    store::value::Value,
};

/// Returns one row: the roster's and the worker's figures for this database. Errors: 42501 where the caller is neither a
/// service nor a member of pg_monitor, 55000 where the library is not
/// preloaded.
#[pg_extern(
    requires = ["types"],
    sql = r#"
CREATE FUNCTION @extschema@._stats() RETURNS SETOF @extschema@._stats_row
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 1
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#
)]
pub fn _stats(mut rows: ResultSet) -> ResultSet {
    caller::require_monitor();
    let tenant = roster::tenant();
    let (stats, worker) = (tenant.stats(), tenant.worker());
    let (beats, rejected_beats) = tenant.beat_counts();
    let now = tenant.now();
    let age = |at: Option<SteadyTime>| match at {
        Some(at) => Value::Bigint(now.steady.since(at).max(0) / USECS_PER_MSEC),
        None => Value::Null,
    };
    let error = tenant.worker_error();
    rows.push(&[
        count(stats.live_sessions),
        count(stats.known_sessions),
        count(stats.users_online),
        count(stats.known_users),
        count(stats.capacity),
        count(stats.used),
        Value::Bool(stats.complete),
        Value::Bool(stats.in_overflow),
        count(stats.overflowed),
        count(stats.evicted),
        count(stats.slow_paths),
        count(beats),
        count(rejected_beats),
        count(stats.dirty_users),
        count(worker.changes.get()),
        count(worker.notifications.get()),
        count(worker.flushed_rows.get()),
        count(worker.deactivated_rows.get()),
        count(worker.deleted_rows.get()),
        match stats.worker_pid {
            0 => Value::Null,
            pid => Value::Int(pid as i32),
        },
        time(worker.started_at.get()),
        time(worker.last_tick.some().map_or(0, |at| now.to_wall(at))),
        time(worker.last_flush.get()),
        time(worker.last_cleanup.get()),
        milliseconds(worker.tick_us.get()),
        milliseconds(worker.flush_us.get()),
        milliseconds(worker.cleanup_us.get()),
        age(tenant.oldest_unflushed()),
        age(tenant.oldest_unwritten()),
        count(worker.set_aside.get()),
        error.as_ref().map_or(Value::Null, |(text, _)| Value::Text(text)),
        error.as_ref().map_or(Value::Null, |(_, at)| time(*at)),
    ]);
    rows
}

fn count(count: u64) -> Value<'static> {
    Value::Bigint(i64::try_from(count).unwrap_or(i64::MAX))
}

/// Returns a time, or NULL where it has never been set: shared memory is zero at first.
fn time(at: Micros) -> Value<'static> {
    match at {
        0 | Micros::MIN | Micros::MAX => Value::Null,
        at => Value::Time(at),
    }
}

fn milliseconds(microseconds: u64) -> Value<'static> {
    Value::Double(microseconds as f64 / USECS_PER_MSEC as f64)
}
