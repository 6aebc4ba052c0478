//! Writes to `user_sessions` what the roster has and the table lacks.

use std::collections::HashSet;

use pgrx::pg_sys;
use uuid::Uuid;

pub use super::own_write::SessionUpdate;
use super::{
    own_write,
    statement::Statement,
    value::{self, Value},
};
use crate::{
    pg::compat,
    roster::{self, FlushRow},
    rules::time::Micros,
};

impl From<&FlushRow> for SessionUpdate {
    fn from(row: &FlushRow) -> SessionUpdate {
        SessionUpdate {
            id: row.id,
            last_activity: row.last_activity,
            is_active: row.is_active,
            ended_at: row.ended_at,
        }
    }
}

const UPDATE_TYPES: &[pg_sys::Oid] = &[
    pg_sys::UUIDARRAYOID,
    pg_sys::TIMESTAMPTZARRAYOID,
    pg_sys::BOOLARRAYOID,
    pg_sys::TIMESTAMPTZARRAYOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::TIMESTAMPTZOID,
];

/// The condition for updating row `s` with the values `u`. A session is not made inactive if the table has newer
/// activity than the roster: the commit that wrote it is still to be applied there. That says nothing where the activity is
/// in the future, or may be of before the clock was set (`$6`).
const MAY_UPDATE: &str = "s.ended_at IS NULL AND (
    u.is_active OR s.last_activity <= u.last_activity OR s.last_activity > $5 OR s.last_activity <= $6)";

thread_local! {
    // Updates the rows that were not locked since they were last written, which are nearly all: locking rows first
    // would write half as much WAL again. Where a lock is taken in between, the statement waits for it until
    // lock_timeout.
    static UPDATE_NEVER_LOCKED: Statement = const { Statement::joined(
        |schema| format!(
            "UPDATE {schema}.user_sessions s
             SET last_activity = CASE WHEN s.last_activity > $5 THEN u.last_activity
                                      ELSE greatest(s.last_activity, u.last_activity) END,
                 is_active = u.is_active, ended_at = u.ended_at
             FROM unnest($1, $2, $3, $4) AS u (id, last_activity, is_active, ended_at)
             WHERE s.id = ANY ($1) AND s.id = u.id AND {MAY_UPDATE} AND s.xmax = '0'::xid
             RETURNING s.id"
        ),
        UPDATE_TYPES,
    ) };
    // Updates the others, except those that are locked now.
    static UPDATE_AVAILABLE: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH available AS MATERIALIZED (
                 SELECT s.ctid AS row_ctid, u.last_activity, u.is_active, u.ended_at
                 FROM unnest($1, $2, $3, $4) AS u (id, last_activity, is_active, ended_at)
                     JOIN {schema}.user_sessions s ON s.id = u.id
                 WHERE s.id = ANY ($1) AND {MAY_UPDATE}
                 FOR NO KEY UPDATE OF s SKIP LOCKED
             )
             UPDATE {schema}.user_sessions s
             SET last_activity = CASE WHEN s.last_activity > $5 THEN a.last_activity
                                      ELSE greatest(s.last_activity, a.last_activity) END,
                 is_active = a.is_active, ended_at = a.ended_at
             FROM available a WHERE s.ctid = a.row_ctid
             RETURNING s.id"
        ),
        UPDATE_TYPES,
    ) };
}

/// Writes the rows that nobody has locked, and returns the ids of those written. Sessions that have ended, or that the
/// table has newer activity of, are left alone. Our own triggers ignore these writes.
pub fn write(rows: &[SessionUpdate]) -> HashSet<Uuid> {
    let mut written = HashSet::with_capacity(rows.len());
    let now = compat::now();
    own_write::run(rows, now, || {
        UPDATE_NEVER_LOCKED.with(|statement| update(statement, rows, now, &mut written));
        if written.len() < rows.len() {
            let others = rows.iter().filter(|row| !written.contains(&row.id));
            let others: Vec<SessionUpdate> = others.copied().collect();
            UPDATE_AVAILABLE.with(|statement| update(statement, &others, now, &mut written));
        }
    });
    written
}

fn update(statement: &Statement, rows: &[SessionUpdate], now: Micros, written: &mut HashSet<Uuid>) {
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let values = [
        Value::Uuids(&ids),
        value::array(rows.iter().map(|row| value::timestamptz(row.last_activity))),
        value::array(rows.iter().map(|row| row.is_active)),
        value::array(rows.iter().map(|row| row.ended_at.map(value::timestamptz))),
        Value::Time(now),
        Value::Time(roster::ambiguous_until()),
    ];
    statement.write(&values, |rows| {
        written.extend(rows.iter().filter_map(|row| row.uuid(1)))
    });
}
