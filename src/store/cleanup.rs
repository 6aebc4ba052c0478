//! Cleanup: marks sessions that are over, deletes old ones, and deletes users not seen for long.
//!
//! Tables are processed in ranges of pages, so that each step is short however large they are.

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    flush::{self, SessionUpdate},
    statement::{Snapshot, Statement},
    value::Value,
};
use crate::{
    pg::{compat, installed},
    roster::{Key, Tenant},
    rules::time::Micros,
    settings,
};

/// Pages per step: 4 MB, some ten thousand rows.
pub const PAGES_PER_STEP: i64 = 512;
/// Rows written by one statement.
const BATCH: usize = 1000;

/// The numbers of rows of `user_sessions` that a cleanup has changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cleaned {
    pub deactivated: i64,
    pub deleted: i64,
}

thread_local! {
    static PAGE_COUNT: Statement = const { Statement::on_many(
        |_| "SELECT pg_relation_size($1::oid) / current_setting('block_size')::bigint".to_owned(),
        &[pg_sys::OIDOID],
    ) };
    static OVERDUE_SESSIONS: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT id, last_activity, expires_at, is_active FROM {schema}.user_sessions
             WHERE {} AND ended_at IS NULL
                 AND (expires_at <= $3 OR is_active AND last_activity <= $4)",
            compat::PAGE_RANGE
        ),
        &[pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID],
    ) };
    static OLD_SESSIONS: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT id FROM {schema}.user_sessions
             WHERE {} AND NOT is_active AND last_activity < $3",
            compat::PAGE_RANGE
        ),
        &[pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID],
    ) };
    static DELETE_SESSIONS: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH available AS MATERIALIZED (
                 SELECT ctid AS row_ctid FROM {schema}.user_sessions
                 WHERE id = ANY ($1) AND NOT is_active AND last_activity < $2
                 FOR UPDATE SKIP LOCKED
             )
             DELETE FROM {schema}.user_sessions s USING available a WHERE s.ctid = a.row_ctid
             RETURNING s.id"
        ),
        &[pg_sys::UUIDARRAYOID, pg_sys::TIMESTAMPTZOID],
    ) };
    static DELETE_USERS: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH available AS MATERIALIZED (
                 SELECT ctid AS row_ctid FROM {schema}.user_presence p
                 WHERE {} AND NOT is_online AND greatest(last_seen, changed_at) < $3
                     AND NOT EXISTS (SELECT FROM {schema}.user_sessions s WHERE s.user_id = p.user_id)
                 FOR UPDATE OF p SKIP LOCKED
             )
             DELETE FROM {schema}.user_presence p USING available a WHERE p.ctid = a.row_ctid
             RETURNING p.user_id",
            compat::PAGE_RANGE
        ),
        &[pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID],
    ) };
}

/// Returns the number of pages of a table.
pub fn page_count(table: pg_sys::Oid) -> i64 {
    PAGE_COUNT.with(|statement| {
        statement.read(Snapshot::Latest, &[Value::Oid(table)], |rows| {
            rows.first().and_then(|row| row.bigint(1)).unwrap_or(0)
        })
    })
}

/// Cleans up the sessions on pages `from..to` of `user_sessions`, in the caller's transaction.
///
/// Sessions that have timed out become `is_active = false`, expired ones end, and those that are not active and have
/// been silent for longer than `presence.retention` are deleted. Where the roster knows a session, it decides whether
/// the session is live, as the table lags behind.
pub fn clean_sessions(tenant: Tenant, from: i64, to: i64) -> Cleaned {
    let now = compat::now();
    let timeout = settings::active_timeout();
    // In the grace period after a restart, the silence of a session that the roster does not know proves nothing.
    let in_grace = now < tenant.grace_until();
    let (from, to) = (Value::Bigint(from), Value::Bigint(to));
    let overdue: Vec<_> = OVERDUE_SESSIONS.with(|statement| {
        let values = [from, to, Value::Time(now), Value::Time(now - timeout)];
        statement.read(Snapshot::Latest, &values, |rows| {
            rows.iter()
                .filter_map(|row| Some((row.uuid(1)?, row.time(2)?, row.time(3)?, row.bool(4)?)))
                .collect()
        })
    });
    let mut cleaned = Cleaned::default();
    let updates: Vec<(SessionUpdate, bool)> = overdue
        .into_iter()
        .filter_map(|(id, last_activity, expires_at, was_active)| {
            let known = tenant.session(&Key::Id(id), now, timeout);
            let expired = expires_at <= now;
            if known.map_or(in_grace && !expired, |session| session.live) {
                return None;
            }
            let last_activity = known.map_or(last_activity, |session| session.last_activity.max(last_activity));
            let ended_at = expired.then_some(expires_at);
            Some((
                SessionUpdate {
                    id,
                    last_activity,
                    is_active: false,
                    ended_at,
                },
                was_active,
            ))
        })
        .collect();
    for batch in updates.chunks(BATCH) {
        let rows: Vec<SessionUpdate> = batch.iter().map(|(update, _)| *update).collect();
        let written = flush::write(&rows);
        let deactivated = batch
            .iter()
            .filter(|(update, was_active)| *was_active && written.contains(&update.id));
        cleaned.deactivated += deactivated.count() as i64;
    }

    let cutoff = now.saturating_sub(settings::retention());
    let mut old: Vec<_> = OLD_SESSIONS.with(|statement| {
        statement.read(Snapshot::Latest, &[from, to, Value::Time(cutoff)], |rows| {
            rows.iter().filter_map(|row| row.uuid(1)).collect()
        })
    });
    old.retain(|id| {
        !tenant
            .session(&Key::Id(*id), now, timeout)
            .is_some_and(|session| session.live)
    });
    for batch in old.chunks(BATCH) {
        cleaned.deleted += delete_sessions(batch, cutoff);
    }
    cleaned
}

fn delete_sessions(ids: &[Uuid], cutoff: Micros) -> i64 {
    let values = [Value::Uuids(ids), Value::Time(cutoff)];
    DELETE_SESSIONS.with(|statement| statement.write(&values, |rows| rows.count() as i64))
}

/// Deletes from pages `from..to` of `user_presence` the users who have been offline for longer than `retention` and
/// have no session left. Returns how many.
pub fn delete_users(from: i64, to: i64, retention: Micros) -> i64 {
    let cutoff = compat::now().saturating_sub(retention);
    let values = [Value::Bigint(from), Value::Bigint(to), Value::Time(cutoff)];
    DELETE_USERS.with(|statement| statement.write(&values, |rows| rows.count() as i64))
}

/// Cleans up all sessions in the caller's transaction, for `cleanup_sessions()`.
pub fn clean_all_sessions(tenant: Tenant) -> Cleaned {
    let mut total = Cleaned::default();
    let end = page_count(installed::get().sessions);
    for from in (0..end).step_by(PAGES_PER_STEP as usize) {
        let cleaned = clean_sessions(tenant, from, from + PAGES_PER_STEP);
        total.deactivated += cleaned.deactivated;
        total.deleted += cleaned.deleted;
    }
    total
}
