//! Cleanup: marks sessions that are over, deletes old ones, users not seen for long, and what was declared of them.
//!
//! Tables are processed in ranges of pages, so that each step is short however large they are.

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    flush::{self, SessionUpdate},
    own_write,
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
                 AND (expires_at <= $3 OR is_active AND last_activity <= $4 OR last_activity > $3)",
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
    static OLD_USERS: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT user_id FROM {schema}.user_presence p WHERE {} AND {}",
            compat::PAGE_RANGE,
            is_old_user(schema, "$3")
        ),
        &[pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID],
    ) };
    // The same where somebody may be hidden: $4 is now, $5 since when sessions are kept.
    static OLD_USERS_OR_HIDDEN: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT user_id FROM {schema}.user_presence p WHERE {} AND {}",
            compat::PAGE_RANGE,
            is_old_user_or_hidden(schema, "$3", "$4", "$5")
        ),
        &[
            pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID,
        ],
    ) };
    // What a hiding keeps of the user goes, too.
    static DELETE_USERS_OR_HIDDEN: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH available AS MATERIALIZED (
                 SELECT ctid AS row_ctid FROM {schema}.user_presence p
                 WHERE user_id = ANY ($1) AND {}
                 FOR UPDATE OF p SKIP LOCKED
             ), deleted AS (
                 DELETE FROM {schema}.user_presence p USING available a WHERE p.ctid = a.row_ctid
                 RETURNING p.user_id
             )
             UPDATE {schema}.declared_statuses d SET last_seen = NULL FROM deleted x
             WHERE d.user_id = x.user_id AND d.source = 'visibility' AND d.last_seen IS NOT NULL",
            is_old_user_or_hidden(schema, "$2", "$3", "$4")
        ),
        &[
            pg_sys::UUIDARRAYOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID,
        ],
    ) };
    static EXPIRED_DECLARED: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT DISTINCT user_id FROM {schema}.declared_statuses d WHERE {} AND {EXPIRED_AT} <= $3 AND {}",
            compat::PAGE_RANGE,
            is_not_needed(schema)
        ),
        &[pg_sys::INT8OID, pg_sys::INT8OID, pg_sys::TIMESTAMPTZOID],
    ) };
    static DELETE_DECLARED: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH available AS MATERIALIZED (
                 SELECT ctid AS row_ctid FROM {schema}.declared_statuses d
                 WHERE user_id = ANY ($1) AND {EXPIRED_AT} <= $2 AND {}
                 FOR UPDATE OF d SKIP LOCKED
             )
             DELETE FROM {schema}.declared_statuses d USING available a WHERE d.ctid = a.row_ctid",
            is_not_needed(schema)
        ),
        &[pg_sys::UUIDARRAYOID, pg_sys::TIMESTAMPTZOID],
    ) };
    static DELETE_USERS: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH available AS MATERIALIZED (
                 SELECT ctid AS row_ctid FROM {schema}.user_presence p
                 WHERE user_id = ANY ($1) AND {}
                 FOR UPDATE OF p SKIP LOCKED
             )
             DELETE FROM {schema}.user_presence p USING available a WHERE p.ctid = a.row_ctid
             RETURNING p.user_id",
            is_old_user(schema, "$2")
        ),
        &[pg_sys::UUIDARRAYOID, pg_sys::TIMESTAMPTZOID],
    ) };
}

/// The condition that user `p` has been offline since before `cutoff` and has no session left.
fn is_old_user(schema: &str, cutoff: &str) -> String {
    format!(
        "NOT p.is_online AND greatest(p.last_seen, p.changed_at) < {cutoff}
         AND NOT EXISTS (SELECT FROM {schema}.user_sessions s WHERE s.user_id = p.user_id)"
    )
}

/// The same of a user who may be hidden: then sessions that would be deleted by now, had they ended, do not count.
fn is_old_user_or_hidden(schema: &str, cutoff: &str, now: &str, session_cutoff: &str) -> String {
    format!(
        "NOT p.is_online AND greatest(p.last_seen, p.changed_at) < {cutoff}
         AND (NOT EXISTS (SELECT FROM {schema}.user_sessions s WHERE s.user_id = p.user_id)
              OR p.last_seen < {session_cutoff} AND EXISTS (
                  SELECT FROM {schema}.declared_statuses v
                  WHERE v.user_id = p.user_id AND v.source = 'visibility' AND v.shown_at IS NULL
                      AND (v.expires_at IS NULL OR v.expires_at > {now})))"
    )
}

/// When row `d` of `declared_statuses` has ended; null where it has not, or only waits for `presence.allow_invisible`.
const EXPIRED_AT: &str =
    "CASE WHEN by_user AND shown_at IS NOT NULL THEN expires_at ELSE least(expires_at, shown_at) END";

/// The condition that row `d` of `declared_statuses`, which has expired, is not needed any more: none has hidden what a session
/// still has of its user's activity.
fn is_not_needed(schema: &str) -> String {
    format!(
        "(d.source <> 'visibility' OR NOT EXISTS (
             SELECT FROM {schema}.user_sessions s WHERE s.user_id = d.user_id
                 AND s.last_activity < coalesce(d.shown_at, d.expires_at)))"
    )
}

/// Returns the number of pages of a table.
pub fn page_count(table: pg_sys::Oid) -> i64 {
    PAGE_COUNT.with(|statement| {
        statement.read(Snapshot::Latest, &[Value::Oid(table)], |rows| {
            rows.first().and_then(|row| row.bigint(1)).unwrap_or(0)
        })
    })
}

/// What one row needs.
#[derive(Clone, Copy, Debug)]
pub enum Cleaning {
    /// A session that is over.
    Update { update: SessionUpdate, was_active: bool },
    /// An old session.
    DeleteSession(Uuid),
    /// An old user.
    DeleteUser(Uuid),
    /// What was declared of a user and has expired long ago.
    DeleteDeclared(Uuid),
}

impl Cleaning {
    /// Returns the id of the row, or the user's.
    pub fn id(&self) -> Uuid {
        match self {
            Cleaning::Update { update, .. } => update.id,
            Cleaning::DeleteSession(id) | Cleaning::DeleteUser(id) | Cleaning::DeleteDeclared(id) => *id,
        }
    }
}

/// Finds the sessions to clean up on pages `from..to` of `user_sessions`.
///
/// Sessions that have timed out become `is_active = false`, expired ones end, and those that are not active and have
/// been silent for longer than `presence.retention` are deleted. Where the roster knows a session, it decides whether
/// the session is live, as the table lags behind. An activity in the future becomes now.
pub fn find_sessions(tenant: Tenant, from: i64, to: i64) -> Vec<Cleaning> {
    let clock = tenant.synchronize_clock();
    let (now, timeout) = (clock.wall(), settings::active_timeout());
    tenant.note_standstill();
    // In a grace, the silence of a session that the roster does not know proves nothing.
    let timed_out_at = tenant.timed_out_at(&clock, timeout);
    let (from, to) = (Value::Bigint(from), Value::Bigint(to));
    let overdue: Vec<_> = OVERDUE_SESSIONS.with(|statement| {
        let values = [from, to, Value::Time(now), Value::Time(now.saturating_sub(timeout))];
        statement.read(Snapshot::Latest, &values, |rows| {
            rows.iter()
                .filter_map(|row| Some((row.uuid(1)?, row.time(2)?, row.time(3)?, row.bool(4)?)))
                .collect()
        })
    });
    let updates = overdue
        .into_iter()
        .filter_map(|(id, last_activity, expires_at, was_active)| {
            let known = tenant.session(&Key::Id(id), &clock, timeout);
            let expired = expires_at <= now;
            // Before the clock was set back. Now counts instead, as of an activity that has just been.
            let is_future = clock.is_future(last_activity);
            let is_over = expired || is_future || last_activity <= timed_out_at;
            if known.map_or(!is_over, |session| session.live) {
                return None;
            }
            let last_activity = last_activity.min(now);
            let last_activity = known.map_or(last_activity, |session| session.last_activity.max(last_activity));
            let update = SessionUpdate {
                id,
                last_activity,
                is_active: was_active && !expired && is_future && known.is_none(),
                ended_at: expired.then_some(expires_at),
            };
            Some(Cleaning::Update { update, was_active })
        });
    let mut found: Vec<Cleaning> = updates.collect();
    let old: Vec<Uuid> = OLD_SESSIONS.with(|statement| {
        let values = [from, to, Value::Time(session_cutoff(now))];
        statement.read(Snapshot::Latest, &values, |rows| {
            rows.iter().filter_map(|row| row.uuid(1)).collect()
        })
    });
    // By the clock that nobody sets, it may be younger.
    let is_old = |id: &Uuid| {
        let session = tenant.session(&Key::Id(*id), &clock, timeout);
        session.is_none_or(|session| !session.live && (session.ended || session.last_activity < session_cutoff(now)))
    };
    found.extend(old.into_iter().filter(is_old).map(Cleaning::DeleteSession));
    found
}

/// Finds on pages `from..to` of `user_presence` the users who have been offline for longer than `retention` and have no
/// session left.
///
/// `hidden`: somebody may be hidden, and what is declared is locked.
pub fn find_users(from: i64, to: i64, retention: Micros, hidden: bool) -> Vec<Cleaning> {
    let now = compat::now();
    let values = [
        Value::Bigint(from),
        Value::Bigint(to),
        Value::Time(now.saturating_sub(retention)),
        Value::Time(now),
        Value::Time(session_cutoff(now)),
    ];
    let (statement, values) = match hidden {
        true => (&OLD_USERS_OR_HIDDEN, &values[..]),
        false => (&OLD_USERS, &values[..3]),
    };
    statement.with(|statement| {
        statement.read(Snapshot::Latest, values, |rows| {
            rows.iter()
                .filter_map(|row| row.uuid(1))
                .map(Cleaning::DeleteUser)
                .collect()
        })
    })
}

/// Finds on pages `from..to` of `declared_statuses` the users of whom something has expired longer ago than
/// `presence.retention`.
pub fn find_declared(from: i64, to: i64) -> Vec<Cleaning> {
    let values = [
        Value::Bigint(from),
        Value::Bigint(to),
        Value::Time(session_cutoff(compat::now())),
    ];
    EXPIRED_DECLARED.with(|statement| {
        statement.read(Snapshot::Latest, &values, |rows| {
            rows.iter()
                .filter_map(|row| row.uuid(1))
                .map(Cleaning::DeleteDeclared)
                .collect()
        })
    })
}

/// Deletes what was declared of these users and has expired longer ago than that, but for rows that are locked.
pub fn clean_declared(found: &[Cleaning]) {
    let users: Vec<Uuid> = found.iter().map(Cleaning::id).collect();
    let values = [Value::Uuids(&users), Value::Time(session_cutoff(compat::now()))];
    own_write::run_on_presence(|| DELETE_DECLARED.with(|statement| statement.write(&values, |_| ())));
}

fn session_cutoff(now: Micros) -> Micros {
    now.saturating_sub(settings::retention())
}

/// Cleans up rows that were found, in the caller's transaction, except those that are locked or no longer need it.
/// Without any row, it only executes the statements. `hidden` as for [`find_users`].
pub fn clean(found: &[Cleaning], hidden: bool) -> Cleaned {
    let now = compat::now();
    let mut cleaned = Cleaned::default();
    for batch in batches(found) {
        let rows: Vec<SessionUpdate> = batch
            .iter()
            .filter_map(|cleaning| match cleaning {
                Cleaning::Update { update, .. } => Some(*update),
                _ => None,
            })
            .collect();
        if !rows.is_empty() || found.is_empty() {
            let written = flush::write(&rows);
            let deactivated = batch.iter().filter(|cleaning| match cleaning {
                Cleaning::Update { update, was_active } => {
                    *was_active && !update.is_active && written.contains(&update.id)
                }
                _ => false,
            });
            cleaned.deactivated += deactivated.count() as i64;
        }
        let ids = |wanted: fn(&Cleaning) -> Option<Uuid>| batch.iter().filter_map(wanted).collect::<Vec<Uuid>>();
        let sessions = ids(|cleaning| match cleaning {
            Cleaning::DeleteSession(id) => Some(*id),
            _ => None,
        });
        if !sessions.is_empty() || found.is_empty() {
            let values = [Value::Uuids(&sessions), Value::Time(session_cutoff(now))];
            cleaned.deleted += DELETE_SESSIONS.with(|statement| statement.write(&values, |rows| rows.count() as i64));
        }
        let users = ids(|cleaning| match cleaning {
            Cleaning::DeleteUser(id) => Some(*id),
            _ => None,
        });
        if let Some(retention) = settings::user_retention()
            && !users.is_empty()
        {
            let values = [
                Value::Uuids(&users),
                Value::Time(now.saturating_sub(retention)),
                Value::Time(now),
                Value::Time(session_cutoff(now)),
            ];
            let (statement, values) = match hidden {
                true => (&DELETE_USERS_OR_HIDDEN, &values[..]),
                false => (&DELETE_USERS, &values[..2]),
            };
            own_write::run_on_presence(|| statement.with(|statement| statement.write(values, |_| ())));
        }
    }
    cleaned
}

fn batches(found: &[Cleaning]) -> impl Iterator<Item = &[Cleaning]> {
    let none = found.is_empty().then_some(found);
    found.chunks(BATCH).chain(none)
}

/// Cleans up all sessions in the caller's transaction, for `cleanup_sessions()`.
pub fn clean_all_sessions(tenant: Tenant) -> Cleaned {
    let mut total = Cleaned::default();
    let end = page_count(installed::get().sessions);
    for from in (0..end).step_by(PAGES_PER_STEP as usize) {
        let cleaned = clean(&find_sessions(tenant, from, from + PAGES_PER_STEP), false);
        total.deactivated += cleaned.deactivated;
        total.deleted += cleaned.deleted;
    }
    total
}
