//! Writes to `user_sessions` what the roster knows better.

use std::collections::HashSet;

use pgrx::pg_sys;
use uuid::Uuid;

use super::own_write;
use super::{
    statement::{Snapshot, Statement},
    value::{self, Value},
};
use crate::{roster::FlushRow, rules::time::Micros};

/// A row as it shall be.
#[derive(Clone, Copy, Debug)]
pub struct SessionUpdate {
    pub id: Uuid,
    pub last_activity: Micros,
    pub is_active: bool,
    pub ended_at: Option<Micros>,
}

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
];

/// Which rows may be written. A session is not made inactive if the table has heard of it later than the roster: that
/// commit is still to be told.
const WANTED: &str = "s.ended_at IS NULL AND (t.is_active OR s.last_activity <= t.last_activity)";

thread_local! {
    // Rows that nobody has locked since they were written last, which are nearly all: locking them first would write
    // half as much again to the log. Should somebody come between, the statement waits until lock_timeout.
    static WRITE: Statement = const { Statement::joined(
        |schema| format!(
            "UPDATE {schema}.user_sessions s
             SET last_activity = greatest(s.last_activity, t.last_activity),
                 is_active = t.is_active, ended_at = t.ended_at
             FROM unnest($1, $2, $3, $4) AS t (id, last_activity, is_active, ended_at)
             WHERE s.id = ANY ($1) AND s.id = t.id AND {WANTED} AND s.xmax = '0'::xid
             RETURNING s.id"
        ),
        UPDATE_TYPES,
    ) };
    // The others: those that are locked now are left for the next time.
    static WRITE_UNLOCKED: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH free AS MATERIALIZED (
                 SELECT s.ctid AS place, t.last_activity, t.is_active, t.ended_at
                 FROM unnest($1, $2, $3, $4) AS t (id, last_activity, is_active, ended_at)
                     JOIN {schema}.user_sessions s ON s.id = t.id
                 WHERE s.id = ANY ($1) AND {WANTED}
                 FOR NO KEY UPDATE OF s SKIP LOCKED
             )
             UPDATE {schema}.user_sessions s
             SET last_activity = greatest(s.last_activity, f.last_activity),
                 is_active = f.is_active, ended_at = f.ended_at
             FROM free f WHERE s.ctid = f.place
             RETURNING s.id"
        ),
        UPDATE_TYPES,
    ) };
    static EXISTING: Statement = const { Statement::on_many(
        |schema| format!("SELECT id FROM {schema}.user_sessions WHERE id = ANY ($1) AND ended_at IS NULL"),
        &[pg_sys::UUIDARRAYOID],
    ) };
}

/// Writes the rows that nobody has locked, and gives the ids of those written. Sessions that have ended, or have been
/// heard of since, are left as they are. Our own triggers take no notice.
pub fn write(rows: &[SessionUpdate]) -> HashSet<Uuid> {
    let mut written = HashSet::with_capacity(rows.len());
    own_write::run(|| {
        WRITE.with(|statement| run(statement, rows, &mut written));
        if written.len() < rows.len() {
            let others = rows.iter().filter(|row| !written.contains(&row.id));
            let others: Vec<SessionUpdate> = others.copied().collect();
            WRITE_UNLOCKED.with(|statement| run(statement, &others, &mut written));
        }
    });
    written
}

fn run(statement: &Statement, rows: &[SessionUpdate], written: &mut HashSet<Uuid>) {
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let values = [
        Value::Uuids(&ids),
        value::list(rows.iter().map(|row| value::time(row.last_activity))),
        value::list(rows.iter().map(|row| row.is_active)),
        value::list(rows.iter().map(|row| row.ended_at.map(value::time))),
    ];
    statement.write(&values, |rows| {
        written.extend(rows.iter().filter_map(|row| row.uuid(1)))
    });
}

/// Which of these sessions the table has, not ended.
pub fn existing(ids: &[Uuid]) -> HashSet<Uuid> {
    EXISTING.with(|statement| {
        statement.read(Snapshot::Latest, &[Value::Uuids(ids)], |rows| {
            rows.iter().filter_map(|row| row.uuid(1)).collect()
        })
    })
}
