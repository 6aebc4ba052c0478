//! Reads whole tables: sessions into the roster, users to compare it with.

use std::collections::HashSet;

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    rows::Row,
    statement::{Snapshot, Statement},
    value::Value,
};
use crate::{
    roster::{Key, RowImage, Tenant},
    rules::presence_id::is_keyed,
    rules::{time::Micros, token::Digest},
};

/// Rows in memory at a time.
const BATCH: i64 = 10_000;

/// What makes a row of `user_sessions` live for somebody who snapshot only the table; `$1` is now, `$2` the newest last
/// activity that has timed out, `$3` true while everybody is given grace.
const LIVE: &str = "is_active AND ended_at IS NULL AND expires_at > $1 AND (last_activity > $2 OR $3)";

thread_local! {
    static SESSIONS: Statement = const { Statement::on_all(
        |schema| format!(
            "SELECT id, user_id, auth_id, session_token, last_activity, expires_at, user_key, is_active
             FROM {schema}.user_sessions WHERE is_active AND ended_at IS NULL AND expires_at > $1"
        ),
        &[pg_sys::TIMESTAMPTZOID],
    ) };
    // Who has logged out since serving began is not heard of again.
    static SESSIONS_OF: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT id, user_id, auth_id, session_token, last_activity, expires_at, user_key, is_active
             FROM {schema}.user_sessions s
             WHERE user_id = ANY ($2) AND ended_at IS NULL AND expires_at > $1
                 AND NOT EXISTS (
                     SELECT FROM {schema}.user_sessions e WHERE e.user_id = s.user_id AND e.ended_at >= $3
                 )"
        ),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::UUIDARRAYOID, pg_sys::TIMESTAMPTZOID],
    ) };
    static ONLINE: Statement = const { Statement::on_all(
        |schema| format!("SELECT user_id FROM {schema}.user_presence WHERE is_online"),
        &[],
    ) };
    static LIVE_ALL: Statement = const { Statement::on_all(
        |schema| format!("SELECT id, user_id FROM {schema}.user_sessions WHERE {LIVE}"),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::BOOLOID],
    ) };
    static LIVE_OF: Statement = const { Statement::on_many(
        |schema| format!("SELECT id, user_id FROM {schema}.user_sessions WHERE user_id = ANY ($4) AND {LIVE}"),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::BOOLOID, pg_sys::UUIDARRAYOID],
    ) };
}

/// Calls `take` with every session that is active and has not ended at `now`, until it says false.
pub fn sessions(now: Micros, mut take: impl FnMut(&RowImage) -> bool) {
    let mut going = true;
    let going_on = std::cell::Cell::new(true);
    SESSIONS.with(|statement| {
        statement.read_in_batches(
            &[Value::Time(now)],
            BATCH,
            |row| {
                if going && let Some(session) = loaded(&row) {
                    going = take(&session);
                    going_on.set(going);
                }
            },
            || going_on.get(),
        );
    });
}

/// Calls `take` with every session, active or timed out, that has not ended at `now`, of those among some users who
/// have not ended one since `began`.
pub fn sessions_of(users: &[Uuid], now: Micros, began: Micros, mut take: impl FnMut(&RowImage)) {
    let values = [Value::Time(now), Value::Uuids(users), Value::Time(began)];
    SESSIONS_OF.with(|statement| {
        statement.read(Snapshot::Latest, &values, |rows| {
            rows.iter()
                .filter_map(|row| loaded(&row))
                .for_each(|session| take(&session));
        });
    });
}

fn loaded(row: &Row) -> Option<RowImage> {
    let user_id = row.uuid(2)?;
    Some(RowImage {
        id: row.uuid(1)?,
        user_id,
        auth_id: row.uuid(3)?,
        digest: row.text_if_valid(4).and_then(|text| Digest::parse(&text))?,
        is_active: row.bool(8)?,
        last_activity: row.time(5)?,
        expires_at: row.time(6)?,
        ended: false,
        keyed: is_keyed(user_id, row.has(7)),
    })
}

/// The users whom `user_presence` has online.
pub fn online_users() -> HashSet<Uuid> {
    let mut users = HashSet::new();
    ONLINE.with(|statement| {
        statement.read_in_batches(&[], BATCH, |row| users.extend(row.uuid(1)), || true);
    });
    users
}

/// The users, among `only` or among all, who have a live session that is in the table and not in the roster. Where the
/// roster knows a session its word counts, as the table lags behind.
pub fn users_live_in_table(tenant: Tenant, only: Option<&[Uuid]>, now: Micros, timeout: Micros) -> HashSet<Uuid> {
    let mut users = HashSet::new();
    let mut take = |row: Row| {
        if let (Some(id), Some(user)) = (row.uuid(1), row.uuid(2))
            && !users.contains(&user)
            && tenant.session(&Key::Id(id), now, timeout).is_none()
        {
            users.insert(user);
        }
    };
    let clock = Value::Time(now);
    let silent = Value::Time(now.saturating_sub(timeout));
    let grace = Value::Bool(now < tenant.grace_until());
    match only {
        None => LIVE_ALL.with(|statement| {
            statement.read_in_batches(&[clock, silent, grace], BATCH, take, || true);
        }),
        Some(only) => LIVE_OF.with(|statement| {
            let values = [clock, silent, grace, Value::Uuids(only)];
            statement.read(Snapshot::Latest, &values, |rows| rows.iter().for_each(&mut take));
        }),
    }
    users
}
