//! Cleaning up: sessions that are over are marked so, old ones are deleted, and so are users not seen for long.
//!
//! Tables are walked in ranges of pages, so that each step is short however large they are.

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

/// Pages of one step: 4 MB, some ten thousand rows.
pub const PAGES: i64 = 512;
/// Rows written by one statement.
const BATCH: usize = 1000;

/// What cleaning has done to `user_sessions`.
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
    static OVER: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT id, last_activity, expires_at, is_active FROM {schema}.user_sessions
             WHERE {} AND ended_at IS NULL
                 AND (expires_at <= $3 OR is_active AND last_activity <= $4)",
            compat::PAGE_RANGE
        ),
        &[pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID],
    ) };
    static OLD: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT id FROM {schema}.user_sessions
             WHERE {} AND NOT is_active AND last_activity < $3",
            compat::PAGE_RANGE
        ),
        &[pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID],
    ) };
    static DELETE: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH free AS MATERIALIZED (
                 SELECT ctid AS place FROM {schema}.user_sessions
                 WHERE id = ANY ($1) AND NOT is_active AND last_activity < $2
                 FOR UPDATE SKIP LOCKED
             )
             DELETE FROM {schema}.user_sessions s USING free f WHERE s.ctid = f.place
             RETURNING s.id"
        ),
        &[pg_sys::UUIDARRAYOID, pg_sys::TIMESTAMPTZOID],
    ) };
    static FORGET_USERS: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH free AS MATERIALIZED (
                 SELECT ctid AS place FROM {schema}.user_presence p
                 WHERE {} AND NOT is_online AND greatest(last_seen, changed_at) < $3
                     AND NOT EXISTS (SELECT FROM {schema}.user_sessions s WHERE s.user_id = p.user_id)
                 FOR UPDATE OF p SKIP LOCKED
             )
             DELETE FROM {schema}.user_presence p USING free f WHERE p.ctid = f.place
             RETURNING p.user_id",
            compat::PAGE_RANGE
        ),
        &[pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID],
    ) };
}

/// How many pages a table has.
pub fn pages(table: pg_sys::Oid) -> i64 {
    PAGE_COUNT.with(|statement| {
        statement.read(Snapshot::Latest, &[Value::Oid(table)], |rows| {
            rows.first().and_then(|row| row.bigint(1)).unwrap_or(0)
        })
    })
}

/// Cleans the sessions on pages `from` up to `to`, in the caller's transaction.
///
/// Timed out ones become `is_active = false`, expired ones end, and those that are not active and silent for longer than
/// `presence.retention` are deleted. The roster's word on who is live counts more than the table's, which lags behind.
pub fn sessions(tenant: Tenant, from: i64, to: i64) -> Cleaned {
    let now = compat::now();
    let timeout = settings::active_timeout();
    // While everybody is given grace after a restart, the silence of a session that nobody has beaten says nothing.
    let grace = now < tenant.grace_until();
    let (from, to) = (Value::Bigint(from), Value::Bigint(to));
    let over: Vec<_> = OVER.with(|statement| {
        let values = [from, to, Value::Time(now), Value::Time(now - timeout)];
        statement.read(Snapshot::Latest, &values, |rows| {
            rows.iter()
                .filter_map(|row| Some((row.uuid(1)?, row.time(2)?, row.time(3)?, row.bool(4)?)))
                .collect()
        })
    });
    let mut cleaned = Cleaned::default();
    let targets: Vec<(SessionUpdate, bool)> = over
        .into_iter()
        .filter_map(|(id, last_activity, expires_at, was_active)| {
            let known = tenant.session(&Key::Id(id), now, timeout);
            let expired = expires_at <= now;
            if known.map_or(grace && !expired, |session| session.live) {
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
    for batch in targets.chunks(BATCH) {
        let rows: Vec<SessionUpdate> = batch.iter().map(|(target, _)| *target).collect();
        let written = flush::write(&rows);
        let deactivated = batch
            .iter()
            .filter(|(target, was)| *was && written.contains(&target.id));
        cleaned.deactivated += deactivated.count() as i64;
    }

    let cutoff = now.saturating_sub(settings::retention());
    let mut old: Vec<_> = OLD.with(|statement| {
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
        cleaned.deleted += delete(batch, cutoff);
    }
    cleaned
}

fn delete(ids: &[Uuid], cutoff: Micros) -> i64 {
    let values = [Value::Uuids(ids), Value::Time(cutoff)];
    DELETE.with(|statement| statement.write(&values, |rows| rows.count() as i64))
}

/// Forgets the users on pages `from` up to `to` of `user_presence` who have been offline for longer than
/// `presence.user_retention` and have no session left. Gives how many.
pub fn users(from: i64, to: i64, retention: Micros) -> i64 {
    let cutoff = compat::now().saturating_sub(retention);
    let values = [Value::Bigint(from), Value::Bigint(to), Value::Time(cutoff)];
    FORGET_USERS.with(|statement| statement.write(&values, |rows| rows.count() as i64))
}

/// Cleans all sessions at once, in the caller's transaction: `cleanup_sessions()`.
pub fn run(tenant: Tenant) -> Cleaned {
    let mut all = Cleaned::default();
    let last = pages(installed::get().sessions);
    for from in (0..last).step_by(PAGES as usize) {
        let cleaned = sessions(tenant, from, from + PAGES);
        all.deactivated += cleaned.deactivated;
        all.deleted += cleaned.deleted;
    }
    all
}
