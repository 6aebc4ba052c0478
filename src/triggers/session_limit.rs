//! The limit on the sessions of one user, for clients.

use pgrx::pg_sys;
use uuid::Uuid;

use crate::{
    pg::{errors, installed, random},
    roster,
    rules::time::Micros,
    settings,
    store::{
        statement::{Snapshot, Statement},
        value::Value,
    },
};

thread_local! {
    static COUNT: Statement = const { Statement::new(
        |s| format!(
            "SELECT count(*) FROM (SELECT FROM {s}.user_sessions \
             WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2 ORDER BY ended_at LIMIT $3) counted"
        ),
        &[pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID],
    ) };
    /// Deletes those of a user's ended sessions before which `$2` others come, the one that ended last first.
    static DELETE_ENDED: Statement = const { Statement::new(
        |s| format!(
            "WITH oldest AS MATERIALIZED (\
                 SELECT id FROM {s}.user_sessions WHERE user_id = $1 AND ended_at IS NOT NULL \
                 ORDER BY ended_at DESC OFFSET $2 \
             ), available AS MATERIALIZED (\
                 SELECT s.ctid AS row_ctid FROM {s}.user_sessions s JOIN oldest USING (id) \
                 WHERE s.ended_at IS NOT NULL FOR UPDATE OF s SKIP LOCKED \
             ) \
             DELETE FROM {s}.user_sessions s USING available a WHERE s.ctid = a.row_ctid"
        ),
        &[pg_sys::UUIDOID, pg_sys::INT8OID],
    ) };
}

/// The limit up to which each start counts the sessions that have ended; above it, one in `limit / COUNTED_AT_ONCE` does.
const COUNTED_AT_ONCE: i64 = 64;

/// Checks that the user may have one more session. Takes the lock of [`lock_number`], and so waits for other transactions
/// in which clients start sessions of the same user. Errors: 53400 where the user has as many sessions that have not
/// ended as `presence.max_sessions_per_user` allows.
///
/// Sessions that have ended do not count, but not more of them than that are kept.
pub fn check(user_id: Uuid, now: Micros) {
    lock_number(installed::get().sessions, roster::tenant().user_hash(&user_id));
    // No snapshot shows what the running command has written, so the rows of one INSERT would not be counted. From the
    // next command number on they are visible; PL/pgSQL advances it between statements in the same way.
    // SAFETY: allowed wherever a statement may write, which is where a session starts.
    unsafe { pg_sys::CommandCounterIncrement() };
    let limit = settings::max_sessions_per_user() as i64;
    let values = [Value::Uuid(&user_id), Value::Time(now), Value::Bigint(limit)];
    let sessions = COUNT.with(|count| {
        count.read(Snapshot::Latest, &values, |rows| {
            rows.first().and_then(|row| row.bigint(1)).unwrap_or(0)
        })
    });
    if sessions >= limit {
        errors::too_many_sessions();
    }
    if limit <= COUNTED_AT_ONCE || i64::from(u32::from_ne_bytes(random::bytes())) % (limit / COUNTED_AT_ONCE) == 0 {
        // To count them takes time in proportion to the limit, so it is not done at every start, and makes room for
        // those that end until the next time.
        let kept = limit - (limit / 4).max(1);
        let values = [Value::Uuid(&user_id), Value::Bigint(kept)];
        DELETE_ENDED.with(|delete| delete.write(&values, |_| ()));
    }
}

/// Takes a lock that belongs to one of our tables, by a number of a user's, until the end of the transaction. Without it, two
/// transactions could each add the last row allowed, as neither counts what the other has not committed.
///
/// No SQL command can take this lock, so nobody can keep others from signing in, which an advisory lock would allow.
/// Its number in `pg_locks` does not reveal the user.
pub fn lock_number(table: pg_sys::Oid, number: u32) {
    // SAFETY: an ordinary lock, released at the end of the transaction. Its class is our table, of which PostgreSQL
    // locks no objects.
    unsafe {
        pg_sys::LockDatabaseObject(
            table,
            pg_sys::Oid::from(number),
            0,
            pg_sys::ExclusiveLock as pg_sys::LOCKMODE,
        );
    }
}
