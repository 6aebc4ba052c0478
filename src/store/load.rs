//! Reads whole tables: sessions to load into the roster, and users to compare it with.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
};

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    declared::Shown,
    rows::Row,
    statement::{Snapshot, Statement},
    value::Value,
};
use crate::{
    pg::memory::{self, Reserve},
    roster::{Key, Now, RowImage, Tenant},
    rules::{presence_id::is_keyed, status::Status, time::Micros, token::Digest},
};

/// Rows in memory at a time.
const BATCH: i64 = 10_000;

/// Whether a row of `user_sessions` is live by the table alone. `$1` is now, `$2` the newest last activity that has
/// timed out.
const LIVE: &str = "is_active AND ended_at IS NULL AND expires_at > $1 AND last_activity > $2";

/// What [`row_image`] reads.
const COLUMNS: &str = "id, user_id, auth_id, session_token, last_activity, expires_at, user_key, is_active,
     ended_at IS NOT NULL";

thread_local! {
    static ACTIVE_SESSIONS: Statement = const { Statement::on_all(
        |schema| format!(
            "SELECT {COLUMNS}
             FROM {schema}.user_sessions WHERE is_active AND ended_at IS NULL AND expires_at > $1"
        ),
        &[pg_sys::TIMESTAMPTZOID],
    ) };
    static SESSIONS_OF_USERS: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT {COLUMNS}
             FROM {schema}.user_sessions s
             WHERE user_id = ANY ($2) AND ended_at IS NULL AND expires_at > $1
                 AND NOT EXISTS (
                     SELECT FROM {schema}.user_sessions e WHERE e.user_id = s.user_id AND e.ended_at >= $3
                 )"
        ),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::UUIDARRAYOID, pg_sys::TIMESTAMPTZOID],
    ) };
    static SESSIONS: Statement = const { Statement::on_many(
        |schema| format!("SELECT {COLUMNS} FROM {schema}.user_sessions WHERE id = ANY ($1)"),
        &[pg_sys::UUIDARRAYOID],
    ) };
    static ONLINE_USERS: Statement = const { Statement::on_all(
        |schema| format!(
            "SELECT user_id FROM {schema}.user_presence WHERE is_online OR status <> 'inactive'"
        ),
        &[],
    ) };
    static SHOWN_USERS: Statement = const { Statement::on_all(
        |schema| format!(
            "SELECT user_id, CASE WHEN is_online = (status <> 'inactive')
                     AND (idle_since IS NULL OR status IN ('idle', 'busy')) THEN status::text END,
                 idle_since IS NOT NULL, status_text, emoji, status_expires_at
             FROM {schema}.user_presence
             WHERE is_online OR status <> 'inactive'
                 OR status_text IS NOT NULL OR emoji IS NOT NULL OR status_expires_at IS NOT NULL"
        ),
        &[],
    ) };
    static IDLE_USERS: Statement = const { Statement::on_all(
        |schema| format!(
            "SELECT user_id, idle_since FROM {schema}.user_presence WHERE is_online AND idle_since IS NOT NULL"
        ),
        &[],
    ) };
    static IDLE_USERS_OF: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT user_id, idle_since FROM {schema}.user_presence
             WHERE user_id = ANY ($1) AND is_online AND idle_since IS NOT NULL"
        ),
        &[pg_sys::UUIDARRAYOID],
    ) };
    static LIVE_SESSIONS: Statement = const { Statement::on_all(
        |schema| format!("SELECT id, user_id FROM {schema}.user_sessions WHERE {LIVE}"),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID],
    ) };
    static LIVE_SESSIONS_OF_USERS: Statement = const { Statement::on_many(
        |schema| format!("SELECT id, user_id FROM {schema}.user_sessions WHERE user_id = ANY ($3) AND {LIVE}"),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::UUIDARRAYOID],
    ) };
}

/// Calls `f` with every session that is active and has not ended at `now`, until `f` returns false.
pub fn active_sessions(now: Micros, mut f: impl FnMut(&RowImage) -> bool) {
    let goes_on = Cell::new(true);
    ACTIVE_SESSIONS.with(|statement| {
        statement.read_in_batches(
            &[Value::Time(now)],
            BATCH,
            |row| {
                if goes_on.get()
                    && let Some(session) = row_image(&row)
                {
                    goes_on.set(f(&session));
                }
            },
            || goes_on.get(),
        );
    });
}

/// Calls `f` with the sessions of `users` that have not ended at `now`, active or timed out. Leaves out users who have
/// ended a session since `since`: they have logged out.
pub fn sessions_of_users(users: &[Uuid], now: Micros, since: Micros, mut f: impl FnMut(&RowImage)) {
    let values = [Value::Time(now), Value::Uuids(users), Value::Time(since)];
    SESSIONS_OF_USERS.with(|statement| {
        statement.read(Snapshot::Latest, &values, |rows| {
            rows.iter()
                .filter_map(|row| row_image(&row))
                .for_each(|session| f(&session));
        });
    });
}

/// Returns those of the sessions that are in the table, ended or not.
pub fn sessions(ids: &[Uuid]) -> HashMap<Uuid, RowImage> {
    SESSIONS.with(|statement| {
        statement.read(Snapshot::Latest, &[Value::Uuids(ids)], |rows| {
            let images = rows.iter().filter_map(|row| row_image(&row));
            images.map(|session| (session.id, session)).collect()
        })
    })
}

fn row_image(row: &Row) -> Option<RowImage> {
    let user_id = row.uuid(2)?;
    Some(RowImage {
        id: row.uuid(1)?,
        user_id,
        auth_id: row.uuid(3)?,
        digest: row.text_if_valid(4).and_then(|text| Digest::parse(&text))?,
        is_active: row.bool(8)?,
        last_activity: row.time(5)?,
        expires_at: row.time(6)?,
        ended: row.bool(9)?,
        keyed: is_keyed(user_id, row.is_not_null(7)),
        idle_since: None,
    })
}

/// Returns the users who are online in `user_presence`.
pub fn online_users() -> Vec<Uuid> {
    let mut users = Vec::new();
    ONLINE_USERS.with(|statement| {
        let add = |row: Row| row.uuid(1).into_iter().for_each(|user| memory::push(&mut users, user));
        statement.read_in_batches(&[], BATCH, add, || true);
    });
    users
}

/// What was last written of a user.
#[derive(Debug, PartialEq, Eq)]
pub struct WrittenUser {
    pub shown: Shown,
    /// Whether all of its sessions are idle.
    pub is_idle: bool,
}

/// Returns what was last written of the users who are online, or of whom more is shown than that they are not; `None` where
/// the columns contradict each other.
pub fn shown_users() -> HashMap<Uuid, Option<WrittenUser>> {
    let mut users = HashMap::new();
    SHOWN_USERS.with(|statement| {
        let add = |row: Row| {
            if let Some(user_id) = row.uuid(1) {
                users.make_room(1);
                users.insert(user_id, written_user(&row));
            }
        };
        statement.read_in_batches(&[], BATCH, add, || true);
    });
    users
}

fn written_user(row: &Row) -> Option<WrittenUser> {
    Some(WrittenUser {
        shown: Shown {
            status: Status::from_label(&row.text_if_valid(2)?)?,
            text: row.encoded_text(4),
            emoji: row.encoded_text(5),
            expires_at: row.time(6),
        },
        is_idle: row.bool(3)?,
    })
}

/// Returns the users, among `only` or among all, who are idle in `user_presence`, and since when.
pub fn idle_users(only: Option<&[Uuid]>) -> HashMap<Uuid, Micros> {
    let mut users = HashMap::new();
    let mut add = |row: Row| {
        users.make_room(1);
        users.extend(row.uuid(1).zip(row.time(2)));
    };
    match only {
        None => IDLE_USERS.with(|statement| statement.read_in_batches(&[], BATCH, add, || true)),
        Some(only) => IDLE_USERS_OF.with(|statement| {
            statement.read(Snapshot::Latest, &[Value::Uuids(only)], |rows| {
                rows.iter().for_each(&mut add)
            });
        }),
    }
    users
}

/// Returns the users, among `only` or among all, who have a live session in the table that the roster does not know, and
/// since when they are idle by the tables; `None`: they are active. Sessions that the roster knows are left to it, as the
/// table lags behind.
pub fn users_live_only_in_table(
    tenant: Tenant,
    only: Option<&[Uuid]>,
    now: &Now,
    timeout: Micros,
) -> HashMap<Uuid, Option<Micros>> {
    let mut users = HashSet::new();
    let mut add = |row: Row| {
        if let (Some(id), Some(user)) = (row.uuid(1), row.uuid(2))
            && !users.contains(&user)
            && tenant.session(&Key::Id(id), now, timeout).is_none()
        {
            users.make_room(1);
            users.insert(user);
        }
    };
    let current = Value::Time(now.wall());
    let timed_out = Value::Time(tenant.timed_out_at(now, timeout));
    match only {
        None => LIVE_SESSIONS.with(|statement| {
            statement.read_in_batches(&[current, timed_out], BATCH, add, || true);
        }),
        Some(only) => LIVE_SESSIONS_OF_USERS.with(|statement| {
            let values = [current, timed_out, Value::Uuids(only)];
            statement.read(Snapshot::Latest, &values, |rows| rows.iter().for_each(&mut add));
        }),
    }
    let idle = match users.is_empty() || !tenant.keeps_idle() {
        true => HashMap::new(),
        false => idle_users(only),
    };
    users.into_iter().map(|user| (user, idle.get(&user).copied())).collect()
}
