//! Reads whole tables: sessions into the roster, users to compare it with.

use std::collections::HashSet;

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    bulk::{
        Access::{Point, Scan},
        Effect::Reads,
        Row, Statement, time, uuid,
    },
    session::is_keyed,
};
use crate::{
    core::{time::Micros, token::Digest},
    roster::{Key, LoadedRow, Space},
};

/// Rows in memory at a time.
const BATCH: i64 = 10_000;

const SESSION: &[pg_sys::Oid] = &[
    pg_sys::UUIDOID,
    pg_sys::UUIDOID,
    pg_sys::UUIDOID,
    pg_sys::TEXTOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::TEXTOID,
    pg_sys::BOOLOID,
];

/// What makes a row of `user_sessions` live for somebody who sees only the table; `$1` is now, `$2` the newest last
/// activity that has timed out, `$3` true while everybody is given grace.
const LIVE: &str =
    "is_active AND ended_at IS NULL AND expires_at > $1 AND (last_activity > $2 OR $3)";

thread_local! {
    static SESSIONS: Statement = const { Statement::new(
        |schema| format!(
            "SELECT id, user_id, auth_id, session_token, last_activity, expires_at, user_key, is_active
             FROM {schema}.user_sessions WHERE is_active AND ended_at IS NULL AND expires_at > $1"
        ),
        &[pg_sys::TIMESTAMPTZOID],
        SESSION,
        Scan,
        Reads,
    ) };
    // Who has logged out since serving began is not heard of again.
    static SESSIONS_OF: Statement = const { Statement::new(
        |schema| format!(
            "SELECT id, user_id, auth_id, session_token, last_activity, expires_at, user_key, is_active
             FROM {schema}.user_sessions s
             WHERE user_id = ANY ($2) AND ended_at IS NULL AND expires_at > $1
                 AND NOT EXISTS (
                     SELECT FROM {schema}.user_sessions e WHERE e.user_id = s.user_id AND e.ended_at >= $3
                 )"
        ),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::UUIDARRAYOID, pg_sys::TIMESTAMPTZOID],
        SESSION,
        Point,
        Reads,
    ) };
    static ONLINE: Statement = const { Statement::new(
        |schema| format!("SELECT user_id FROM {schema}.user_presence WHERE is_online"),
        &[],
        &[pg_sys::UUIDOID],
        Scan,
        Reads,
    ) };
    static LIVE_ALL: Statement = const { Statement::new(
        |schema| format!("SELECT id, user_id FROM {schema}.user_sessions WHERE {LIVE}"),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::BOOLOID],
        &[pg_sys::UUIDOID, pg_sys::UUIDOID],
        Scan,
        Reads,
    ) };
    static LIVE_OF: Statement = const { Statement::new(
        |schema| format!("SELECT id, user_id FROM {schema}.user_sessions WHERE user_id = ANY ($4) AND {LIVE}"),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::BOOLOID, pg_sys::UUIDARRAYOID],
        &[pg_sys::UUIDOID, pg_sys::UUIDOID],
        Point,
        Reads,
    ) };
}

/// Calls `take` with every session that is active and has not ended at `now`, until it says false.
pub fn sessions(now: Micros, mut take: impl FnMut(&LoadedRow) -> bool) {
    let mut going = true;
    let going_on = std::cell::Cell::new(true);
    SESSIONS.with(|statement| {
        statement.run_in_batches(
            &[time(now).into()],
            BATCH,
            |row| {
                if going && let Some(session) = loaded(row) {
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
pub fn sessions_of(users: &[Uuid], now: Micros, began: Micros, mut take: impl FnMut(&LoadedRow)) {
    let ids: Vec<_> = users.iter().copied().map(uuid).collect();
    SESSIONS_OF.with(|statement| {
        statement.run(&[time(now).into(), ids.into(), time(began).into()], |row| {
            if let Some(session) = loaded(row) {
                take(&session);
            }
        });
    });
}

fn loaded(row: &Row) -> Option<LoadedRow> {
    let user_id = row.uuid(1)?;
    Some(LoadedRow {
        id: row.uuid(0)?,
        user_id,
        auth_id: row.uuid(2)?,
        digest: row.text(3).and_then(|text| Digest::parse(&text))?,
        is_active: row.flag(7),
        last_activity: row.time(4)?,
        expires_at: row.time(5)?,
        ended: false,
        keyed: is_keyed(user_id, row.has(6)),
    })
}

/// The users whom `user_presence` has online.
pub fn online_users() -> HashSet<Uuid> {
    let mut users = HashSet::new();
    ONLINE.with(|statement| {
        statement.run_in_batches(&[], BATCH, |row| users.extend(row.uuid(0)), || true);
    });
    users
}

/// The users, among `only` or among all, who have a live session that is in the table and not in the roster. Where the
/// roster knows a session its word counts, as the table lags behind.
pub fn users_live_in_table(
    space: Space,
    only: Option<&[Uuid]>,
    now: Micros,
    timeout: Micros,
) -> HashSet<Uuid> {
    let mut users = HashSet::new();
    let mut take = |row: &Row| {
        if let (Some(id), Some(user)) = (row.uuid(0), row.uuid(1))
            && !users.contains(&user)
            && space.session(&Key::Id(id), now, timeout).is_none()
        {
            users.insert(user);
        }
    };
    let clock = time(now).into();
    let silent = time(now.saturating_sub(timeout)).into();
    let grace = (now < space.grace_until()).into();
    match only {
        None => LIVE_ALL.with(|statement| {
            statement.run_in_batches(&[clock, silent, grace], BATCH, take, || true);
        }),
        Some(only) => LIVE_OF.with(|statement| {
            let ids: Vec<_> = only.iter().copied().map(uuid).collect();
            statement.run(&[clock, silent, grace, ids.into()], &mut take);
        }),
    }
    users
}
