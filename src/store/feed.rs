//! The feed: writes changes of status, and forgets old ones.

use std::collections::HashSet;

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    feed_state::FeedState,
    rows::Row,
    statement::Statement,
    value::{self, Value},
};
use crate::{
    roster::DirtyUser,
    rules::{
        payload::Change,
        presence_id,
        status::{Reason, Status},
        time::Micros,
    },
};

/// A user whose status has to be compared with what was written last.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub user: DirtyUser,
    /// Why it changed, if it did; `None`: as the user's sessions in the table tell.
    pub reason: Option<Reason>,
}

impl From<DirtyUser> for Candidate {
    fn from(user: DirtyUser) -> Candidate {
        Candidate {
            user,
            reason: Some(user.reason),
        }
    }
}

/// What came of a batch.
pub enum Written {
    /// What has changed, in order of `seq`; empty if nothing has.
    Changes(Vec<Change>),
    /// `_feed_state` is not what the worker believes; nothing was written.
    StateChanged,
}

thread_local! {
    static WRITE: Statement = const { Statement::joined(
        write_text,
        &[
            pg_sys::UUIDARRAYOID,
            pg_sys::BOOLARRAYOID,
            pg_sys::TIMESTAMPTZARRAYOID,
            pg_sys::TEXTARRAYOID,
            pg_sys::TEXTARRAYOID,
            pg_sys::BOOLARRAYOID,
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
        ],
    ) };
    static FREE: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH locked AS MATERIALIZED (
                 SELECT user_id FROM {schema}.user_presence WHERE user_id = ANY ($1)
                 FOR NO KEY UPDATE SKIP LOCKED
             )
             SELECT p.user_id FROM {schema}.user_presence p
             WHERE p.user_id = ANY ($1) AND NOT EXISTS (SELECT FROM locked l WHERE l.user_id = p.user_id)"
        ),
        &[pg_sys::UUIDARRAYOID],
    ) };
    static PRUNE: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH oldest AS MATERIALIZED (
                 SELECT seq, changed_at FROM {schema}.presence_changes WHERE seq >= $3 ORDER BY seq LIMIT $2
             ), kept AS MATERIALIZED (
                 SELECT coalesce(min(seq) FILTER (WHERE changed_at >= $1), max(seq) + 1) AS seq FROM oldest
             ), gone AS (
                 DELETE FROM {schema}.presence_changes c USING kept WHERE c.seq < kept.seq RETURNING c.seq
             ), noted AS (
                 UPDATE {schema}._feed_state s SET oldest_seq = kept.seq FROM kept WHERE s.oldest_seq < kept.seq
             )
             SELECT (SELECT seq FROM kept), (SELECT count(*) FROM gone)"
        ),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID, pg_sys::INT8OID],
    ) };
}

/// One statement compares, numbers, writes and tells.
///
/// `looked` numbers those whose status differs from `user_presence`, without gaps. A user who was active and inactive
/// again between two candidates has no change, but its last activity is kept: unless its sessions were deleted, as
/// `forget_user` does. That is asked for each user, in a form that PostgreSQL cannot turn into a read of all sessions.
fn write_text(schema: &str) -> String {
    format!(
        "WITH state AS MATERIALIZED (
             SELECT s.seq FROM {schema}._feed_state s
             WHERE s.epoch = $7 AND s.seq = $8 AND (SELECT count(*) FROM {schema}._feed_state) = 1
         ), compared AS MATERIALIZED (
             SELECT state.seq AS before, d.user_id, d.active, d.reason, d.place, d.key, d.keyed,
                 p.user_id IS NOT NULL AS known, p.user_key AS known_key, coalesce(p.status, 'inactive') AS previous,
                 CASE WHEN d.active THEN 'active' ELSE 'inactive' END::{schema}.presence_status AS status,
                 p.last_seen AS last_seen_before,
                 coalesce(
                     d.last_seen,
                     (SELECT max(s.last_activity) FROM {schema}.user_sessions s WHERE s.user_id = d.user_id)
                 ) AS last_seen
             FROM state, unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY
                 AS d (user_id, active, last_seen, reason, key, keyed, place)
                 LEFT JOIN (
                     SELECT * FROM {schema}.user_presence WHERE user_id = ANY ($1)
                 ) p ON p.user_id = d.user_id
         ), looked AS MATERIALIZED (
             SELECT user_id, active, previous, status, place, known, last_seen_before,
                 reason IS NOT DISTINCT FROM 'deleted' AS deleted,
                 greatest(last_seen, last_seen_before) AS last_seen,
                 before + CASE WHEN status <> previous
                     THEN count(*) FILTER (WHERE status <> previous) OVER (ORDER BY place) ELSE 0 END AS seq,
                 status <> previous AS changed,
                 coalesce(known_key, key, CASE WHEN keyed THEN (
                     SELECT s.user_key FROM {schema}.user_sessions s
                     WHERE s.user_id = compared.user_id AND s.user_key IS NOT NULL LIMIT 1
                 ) END) AS user_key,
                 CASE WHEN status = previous THEN NULL ELSE coalesce(
                     reason,
                     CASE WHEN active THEN 'started' ELSE (
                         SELECT CASE WHEN s.ended_at IS NULL THEN 'timed_out' ELSE 'ended' END
                         FROM {schema}.user_sessions s WHERE s.user_id = compared.user_id
                         ORDER BY greatest(s.last_activity, s.ended_at) DESC LIMIT 1
                     ) END,
                     'deleted'
                 ) END AS reason
             FROM compared
         ), fed AS (
             INSERT INTO {schema}.presence_changes
                 (seq, user_id, user_key, status, previous, changed_at, last_seen, reason)
             SELECT seq, user_id, user_key, status, previous, now(), last_seen, reason FROM looked WHERE changed
         ), updated AS (
             UPDATE {schema}.user_presence p
             SET user_key = l.user_key, status = l.status, is_online = l.active, last_seen = l.last_seen,
                 changed_at = CASE WHEN l.changed THEN now() ELSE p.changed_at END,
                 seq = CASE WHEN l.changed THEN l.seq ELSE p.seq END
             FROM looked l
             WHERE p.user_id = ANY ($1) AND p.user_id = l.user_id AND l.known
                 AND (l.changed OR NOT l.active AND l.last_seen > coalesce(l.last_seen_before, '-infinity'))
         ), added AS (
             INSERT INTO {schema}.user_presence AS p
                 (user_id, user_key, status, is_online, last_seen, changed_at, seq)
             SELECT user_id, user_key, status, active, last_seen, now(), seq FROM looked
             WHERE NOT known AND (changed OR last_seen IS NOT NULL AND NOT deleted AND (
                 SELECT true FROM {schema}.user_sessions s WHERE s.user_id = looked.user_id LIMIT 1
             ))
             ON CONFLICT (user_id) DO UPDATE
             SET user_key = excluded.user_key, status = excluded.status, is_online = excluded.is_online,
                 last_seen = excluded.last_seen, changed_at = excluded.changed_at, seq = excluded.seq
         ), counted AS (
             UPDATE {schema}._feed_state s SET seq = newest.seq
             FROM (SELECT max(l.seq) AS seq FROM looked l WHERE l.changed) newest
             WHERE newest.seq IS NOT NULL
         )
         SELECT l.seq, l.user_id, l.user_key, l.active, l.last_seen, now()
         FROM state LEFT JOIN looked l ON l.changed
         ORDER BY l.seq"
    )
}

/// Compares users with what was written of them, and writes what differs: feed, `user_presence` and sequence.
///
/// One statement, in the transaction of the caller; `state` is moved on by the caller once that has committed. A user
/// may be named once.
pub fn write(state: &FeedState, users: &[Candidate]) -> Written {
    let ids = ids_of(users);
    let last_seen = users.iter().map(|candidate| candidate.user.last_seen.map(value::time));
    let reasons = users.iter().map(|candidate| candidate.reason.map(Reason::as_str));
    let keys = users
        .iter()
        .map(|candidate| presence_id::integer_of(candidate.user.user_id).map(|integer| integer.to_string()));
    let values = [
        Value::Uuids(&ids),
        value::list(users.iter().map(|candidate| candidate.user.active)),
        value::list(last_seen),
        value::list(reasons),
        value::list(keys),
        value::list(users.iter().map(|candidate| candidate.user.keyed)),
        Value::Text(&state.epoch),
        Value::Bigint(state.seq),
    ];
    WRITE.with(|statement| {
        statement.write(&values, |rows| {
            // One row at least, if the state matches.
            if rows.count() == 0 {
                return Written::StateChanged;
            }
            Written::Changes(rows.iter().filter_map(|row| change(&row)).collect())
        })
    })
}

/// A row of the statement; none where nothing has changed.
fn change(row: &Row) -> Option<Change> {
    Some(Change {
        seq: row.bigint(1)?,
        user_id: row.uuid(2)?,
        user_key: row.text_if_valid(3),
        status: Status::of(row.bool(4)?),
        at: row.time(6)?,
        last_seen: row.time(5),
    })
}

fn ids_of(users: &[Candidate]) -> Vec<Uuid> {
    users.iter().map(|candidate| candidate.user.user_id).collect()
}

/// Locks the users' rows in `user_presence` as far as nobody else has, and takes out of `users` those that somebody
/// has; gives these.
pub fn set_aside_locked(users: &mut Vec<Candidate>) -> Vec<Candidate> {
    let locked: HashSet<Uuid> = FREE.with(|statement| {
        statement.write(&[Value::Uuids(&ids_of(users))], |rows| {
            rows.iter().filter_map(|row| row.uuid(1)).collect()
        })
    });
    let (aside, free) = users
        .iter()
        .partition(|candidate| locked.contains(&candidate.user.user_id));
    *users = free;
    aside
}

/// Forgets up to `most` of the oldest changes, from number `oldest` on: those told before `cutoff`. Gives the oldest
/// number that is kept now, and how many went.
///
/// Starting at a number keeps the scan off the index entries of what was forgotten before and not vacuumed yet.
pub fn prune(oldest: i64, cutoff: Micros, most: i64) -> (i64, i64) {
    let values = [Value::Time(cutoff), Value::Bigint(most), Value::Bigint(oldest)];
    PRUNE.with(|statement| {
        statement.write(&values, |rows| {
            let row = rows.first();
            let number = |column| row.and_then(|row| row.bigint(column));
            (number(1).unwrap_or(oldest), number(2).unwrap_or(0))
        })
    })
}
