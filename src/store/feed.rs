//! The change feed: writes changes of status, and prunes old ones.

use std::collections::HashSet;

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    declared::Shown,
    feed_state::FeedState,
    rows::Row,
    statement::Statement,
    value::{self, Value},
};
use crate::{
    pg::{compat, errors},
    roster::DirtyUser,
    rules::{
        hiding::Visible,
        payload::Change,
        presence_id,
        status::{Reason, Status},
        time::Micros,
    },
};

/// What a user's sessions make of it now. What is shown of it is to be written where that differs from what was last written.
#[derive(Clone, Copy, Debug)]
pub struct UserUpdate {
    pub user: DirtyUser,
    /// The reason of a change; `None`: to be derived from the user's sessions in the table.
    pub reason: Option<Reason>,
}

impl From<DirtyUser> for UserUpdate {
    fn from(user: DirtyUser) -> UserUpdate {
        UserUpdate {
            user,
            // A session that was loaded has changed the status, and not the reason.
            reason: Some(user.reason).filter(|reason| reason.leads_to(user.status)),
        }
    }
}

impl UserUpdate {
    /// Takes in what another update of the same user may have and this one may not: the last activity, and that there is a
    /// key.
    pub fn merge(&mut self, other: &UserUpdate) {
        self.user.last_seen = self.user.last_seen.max(other.user.last_seen);
        self.user.keyed |= other.user.keyed;
    }
}

/// What is shown of a user, since when it is idle, and which of its activity is visible.
#[derive(Clone, Debug)]
pub struct ShownUser {
    pub shown: Shown,
    pub idle_since: Option<Micros>,
    pub visible: Visible,
}

impl ShownUser {
    /// Returns the reason of a change, if it is that of an update; of who is hidden, it is none of what its sessions do.
    fn reason(&self, update: Option<Reason>) -> Option<Reason> {
        match update {
            Some(Reason::Deleted | Reason::Recovered) => update,
            _ if self.visible.is_hidden() => Some(Reason::Ended),
            _ => update,
        }
    }
}

/// The outcome of a batch.
pub enum Written {
    /// The changes, in order of `seq`; empty if nothing differed.
    Changes(Vec<Change>),
    /// `_feed_state` is not what the worker expects; nothing was written.
    StateChanged,
}

thread_local! {
    static WRITE_CHANGES: Statement = const { Statement::joined(
        write_changes_sql,
        &[
            pg_sys::UUIDARRAYOID,
            pg_sys::TEXTARRAYOID,
            pg_sys::TIMESTAMPTZARRAYOID,
            pg_sys::TEXTARRAYOID,
            pg_sys::TEXTARRAYOID,
            pg_sys::BOOLARRAYOID,
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
            pg_sys::TIMESTAMPTZOID,
            pg_sys::TIMESTAMPTZARRAYOID,
            pg_sys::TEXTARRAYOID,
            pg_sys::TEXTARRAYOID,
            pg_sys::TIMESTAMPTZARRAYOID,
            pg_sys::TIMESTAMPTZARRAYOID,
        ],
    ) };
    // Of users who had no row in user_presence, those who have one now, but no session. And of users who had one, those
    // who do not have it any more.
    static SESSIONS_GONE: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT FROM {schema}.user_presence p WHERE p.user_id = ANY ($1) AND (
                 SELECT true FROM {schema}.user_sessions s WHERE s.user_id = p.user_id LIMIT 1
             ) IS NULL"
        ),
        &[pg_sys::UUIDARRAYOID],
    ) };
    static ROW_GONE: Statement = const { Statement::on_many(
        |schema| format!(
            "SELECT FROM unnest($1) AS u (user_id) WHERE (
                 SELECT true FROM {schema}.user_presence p WHERE p.user_id = u.user_id
             ) IS NULL"
        ),
        &[pg_sys::UUIDARRAYOID],
    ) };
    static LOCKED_BY_OTHERS: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH available AS MATERIALIZED (
                 SELECT user_id FROM {schema}.user_presence WHERE user_id = ANY ($1)
                 FOR NO KEY UPDATE SKIP LOCKED
             )
             SELECT p.user_id FROM {schema}.user_presence p
             WHERE p.user_id = ANY ($1) AND NOT EXISTS (SELECT FROM available a WHERE a.user_id = p.user_id)"
        ),
        &[pg_sys::UUIDARRAYOID],
    ) };
    static PRUNE: Statement = const { Statement::on_many(
        |schema| format!(
            "WITH oldest AS MATERIALIZED (
                 SELECT seq, changed_at FROM {schema}.presence_changes WHERE seq >= $3 ORDER BY seq LIMIT $2
             ), first_kept AS MATERIALIZED (
                 SELECT coalesce(min(seq) FILTER (WHERE changed_at >= $1), max(seq) + 1) AS seq FROM oldest
             ), deleted AS (
                 DELETE FROM {schema}.presence_changes c USING first_kept k WHERE c.seq < k.seq RETURNING c.seq
             ), advanced AS (
                 UPDATE {schema}._feed_state s SET oldest_seq = k.seq FROM first_kept k WHERE s.oldest_seq < k.seq
             )
             SELECT (SELECT seq FROM first_kept), (SELECT count(*) FROM deleted)"
        ),
        &[pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID, pg_sys::INT8OID],
    ) };
}

/// The statement that compares users with `user_presence`, numbers those of whom something else is shown, and writes them.
///
/// A user who was active and then inactive again since the last comparison has no change, but its last activity is
/// kept. Between two statuses that are online, the statuses and since when the user is idle are the reason, whatever has
/// happened in between. Of a user without a row or a session, nothing is written for what is declared alone.
fn write_changes_sql(schema: &str) -> String {
    format!(
        "-- The feed state, if it is the expected one. Everything below starts from it: no row here, nothing written.
         WITH state AS MATERIALIZED (
             SELECT s.seq FROM {schema}._feed_state s
             WHERE s.epoch = $7 AND s.seq = $8 AND (SELECT count(*) FROM {schema}._feed_state) = 1
         ),
         -- Each user, with what was last written of it. A user without a row is online only if it has a session, as
         -- forget_user() may have committed since the user was taken from the queue. (Scalar subqueries here and below,
         -- because PostgreSQL could turn an EXISTS into a read of all sessions. The ANY limits the scan to the batch, see
         -- Access::Joined.)
         found AS MATERIALIZED (
             SELECT state.seq AS state_seq, u.user_id, u.reason, u.ordinal, u.key, u.has_key,
                 CASE WHEN p.user_id IS NOT NULL OR (
                     SELECT true FROM {schema}.user_sessions s WHERE s.user_id = u.user_id LIMIT 1
                 ) THEN u.status ELSE 'inactive' END::{schema}.presence_status AS status, u.idle_since,
                 u.status_text, u.emoji, u.status_expires_at,
                 p.user_id IS NULL AND (
                     SELECT true FROM {schema}.user_sessions s WHERE s.user_id = u.user_id LIMIT 1
                 ) AS has_sessions_only,
                 p.user_id IS NOT NULL AS known, p.user_key AS known_key, coalesce(p.status, 'inactive') AS previous,
                 p.last_seen AS previous_last_seen, p.idle_since AS previous_idle_since,
                 (p.status_text, p.emoji, p.status_expires_at)
                     IS DISTINCT FROM (u.status_text, u.emoji, u.status_expires_at) AS details_differ,
                 coalesce(
                     u.last_seen,
                     (SELECT max(s.last_activity) FROM {schema}.user_sessions s
                      WHERE s.user_id = u.user_id AND s.last_activity >= coalesce(u.since, '-infinity'))
                 ) AS last_seen
             FROM state, unnest($1, $2, $3, $4, $5, $6, $10, $11, $12, $13, $14) WITH ORDINALITY
                 AS u (user_id, status, last_seen, reason, key, has_key, idle_since, status_text, emoji,
                       status_expires_at, since, ordinal)
                 LEFT JOIN (
                     SELECT * FROM {schema}.user_presence WHERE user_id = ANY ($1)
                 ) p ON p.user_id = u.user_id
         ),
         -- The same, apart from numbered, which refers to these by name, also in a window function.
         compared AS (
             SELECT *, status <> 'inactive' AS online,
                 status <> previous
                 OR details_differ
                    AND (known OR has_sessions_only AND last_seen IS NOT NULL AND reason IS DISTINCT FROM 'deleted') AS changed
             FROM found
         ),
         -- The same users, with the values to write: those that changed get the next sequence numbers, without gaps,
         -- and a reason. All that follows reads it; MATERIALIZED makes the subqueries run once per user.
         numbered AS MATERIALIZED (
             SELECT user_id, online, previous, status, known, previous_last_seen, status_text, emoji, status_expires_at,
                 CASE WHEN online THEN idle_since END AS idle_since,
                 reason IS NOT DISTINCT FROM 'deleted' AS deleted,
                 greatest(last_seen, CASE WHEN previous_last_seen > $9 THEN $9 ELSE previous_last_seen END) AS last_seen,
                 state_seq + CASE WHEN changed
                     THEN count(*) FILTER (WHERE changed) OVER (ORDER BY ordinal) ELSE 0 END AS seq,
                 changed,
                 coalesce(known_key, key, CASE WHEN has_key THEN (
                     SELECT s.user_key FROM {schema}.user_sessions s
                     WHERE s.user_id = compared.user_id AND s.user_key IS NOT NULL LIMIT 1
                 ) END) AS user_key,
                 CASE WHEN NOT changed THEN NULL
                      WHEN status = previous THEN 'declared'
                      WHEN previous = 'active' AND status = 'idle' AND idle_since IS NOT NULL THEN 'idle'
                      WHEN previous = 'idle' AND status = 'active' AND previous_idle_since IS NOT NULL THEN 'returned'
                      WHEN previous <> 'inactive' AND online THEN 'declared'
                      ELSE coalesce(
                     CASE WHEN reason NOT IN ('idle', 'returned', 'declared') THEN reason END,
                     CASE WHEN online THEN 'started' ELSE (
                         SELECT CASE WHEN s.ended_at IS NULL THEN 'timed_out' ELSE 'ended' END
                         FROM {schema}.user_sessions s WHERE s.user_id = compared.user_id
                         ORDER BY greatest(s.last_activity, s.ended_at) DESC LIMIT 1
                     ) END,
                     'deleted'
                 ) END AS reason
             FROM compared
         ),
         -- The feed: a row for each change.
         inserted_changes AS (
             INSERT INTO {schema}.presence_changes
                 (seq, user_id, user_key, status, previous, changed_at, last_seen, reason, details)
             SELECT seq, user_id, user_key, status, previous, now(), last_seen, reason,
                 status_text IS NOT NULL OR emoji IS NOT NULL
             FROM numbered WHERE changed
         ),
         -- Users with a row in user_presence: the change, or else only a newer last_seen of an inactive user, or since when
         -- all sessions are idle.
         updated_users AS (
             UPDATE {schema}.user_presence p
             SET user_key = n.user_key, status = n.status, is_online = n.online, last_seen = n.last_seen,
                 idle_since = n.idle_since, status_text = n.status_text, emoji = n.emoji,
                 status_expires_at = n.status_expires_at,
                 changed_at = CASE WHEN n.changed THEN now() ELSE p.changed_at END,
                 seq = CASE WHEN n.changed THEN n.seq ELSE p.seq END
             FROM numbered n
             WHERE p.user_id = ANY ($1) AND p.user_id = n.user_id AND n.known
                 AND (n.changed OR p.is_online <> n.online OR p.idle_since IS DISTINCT FROM n.idle_since
                      OR NOT n.online AND n.last_seen > coalesce(n.previous_last_seen, '-infinity'))
             RETURNING n.changed
         ),
         -- Users without a row. One that has not changed gets a row for its last_seen, unless its sessions were
         -- deleted, as forget_user() does. The conflict is with a row committed after the snapshot was taken.
         inserted_users AS (
             INSERT INTO {schema}.user_presence AS p
                 (user_id, user_key, status, is_online, last_seen, changed_at, seq, idle_since, status_text, emoji,
                  status_expires_at)
             SELECT user_id, user_key, status, online, last_seen, now(), seq, idle_since, status_text, emoji,
                 status_expires_at
             FROM numbered
             WHERE NOT known AND (changed OR last_seen IS NOT NULL AND NOT deleted AND (
                 SELECT true FROM {schema}.user_sessions s WHERE s.user_id = numbered.user_id LIMIT 1
             ))
             ON CONFLICT (user_id) DO UPDATE
             SET user_key = excluded.user_key, status = excluded.status, is_online = excluded.is_online,
                 last_seen = excluded.last_seen, changed_at = excluded.changed_at, seq = excluded.seq,
                 idle_since = excluded.idle_since, status_text = excluded.status_text, emoji = excluded.emoji,
                 status_expires_at = excluded.status_expires_at
         ),
         -- The feed state, advanced to the newest change.
         advanced_state AS (
             UPDATE {schema}._feed_state s SET seq = newest.seq
             FROM (SELECT max(n.seq) AS seq FROM numbered n WHERE n.changed) newest
             WHERE newest.seq IS NOT NULL
         )
         -- The changes, and users who had no row; at least one row, of NULLs if need be, where the state was the expected
         -- one. In the end, how many changes the rows of user_presence have got that were there.
         SELECT n.seq, n.user_id, n.user_key, n.status::text, n.last_seen, now(), n.changed, n.known,
             (SELECT count(*) FROM updated_users WHERE changed), n.status_text IS NOT NULL OR n.emoji IS NOT NULL
         FROM state LEFT JOIN numbered n ON n.changed OR NOT n.known
         ORDER BY n.seq"
    )
}

/// Compares users with what was last written, and writes those that differ to the feed, `user_presence` and
/// `_feed_state`. `users` is what is shown of each of them.
///
/// Runs in the caller's transaction; the caller advances `state` once that has committed. No user may appear twice.
/// Errors: 40001 where a `forget_user()` has committed meanwhile and what was written says more of its user than is left.
pub fn write(state: &FeedState, updates: &[UserUpdate], users: &[ShownUser]) -> Written {
    assert_eq!(updates.len(), users.len());
    let ids = user_ids(updates);
    let last_seen = updates.iter().zip(users).map(|(update, user)| {
        let is_live = update.user.status.is_online();
        let last_seen = user.visible.last_seen(is_live, update.user.last_seen);
        last_seen.map(value::timestamptz)
    });
    let since = users.iter().map(|user| {
        let since = Some(user.visible.since).filter(|&since| since != Visible::ALL.since);
        since.map(value::timestamptz)
    });
    let shown = || users.iter().map(|user| &user.shown);
    let idle_since = users.iter().map(|user| user.idle_since.map(value::timestamptz));
    let reasons = updates
        .iter()
        .zip(users)
        .map(|(update, user)| user.reason(update.reason).map(Reason::as_str));
    let keys = updates
        .iter()
        .map(|update| presence_id::integer_of(update.user.user_id).map(|integer| integer.to_string()));
    let values = [
        Value::Uuids(&ids),
        value::array(shown().map(|shown| shown.status.as_str())),
        value::array(last_seen),
        value::array(reasons),
        value::array(keys),
        // What a hidden user's sessions have for a key was never shown.
        value::array(
            updates
                .iter()
                .zip(users)
                .map(|(update, user)| update.user.keyed && !user.visible.is_hidden()),
        ),
        Value::Text(&state.epoch),
        Value::Bigint(state.seq),
        Value::Time(compat::now()),
        value::array(idle_since),
        value::encoded_texts(shown().map(|shown| shown.text.as_ref())),
        value::encoded_texts(shown().map(|shown| shown.emoji.as_ref())),
        value::array(shown().map(|shown| shown.expires_at.map(value::timestamptz))),
        value::array(since),
    ];
    let mut changes = Vec::new();
    let (mut without_row, mut with_row, mut updated) = (Vec::new(), Vec::new(), 0);
    let state_is_expected = WRITE_CHANGES.with(|statement| {
        statement.write(&values, |rows| {
            for row in rows.iter() {
                match row.bool(8) {
                    Some(true) => with_row.extend(row.uuid(2)),
                    _ => without_row.extend(row.uuid(2)),
                }
                updated = row.bigint(9).unwrap_or(0);
                changes.extend(change(&row));
            }
            rows.count() > 0
        })
    });
    if !state_is_expected {
        return Written::StateChanged;
    }
    // A forget_user() that has not committed by now waits for this transaction, as it meets the rows written here.
    let finds_any = |statement: &Statement, users: &[Uuid]| {
        !users.is_empty() && statement.write(&[Value::Uuids(users)], |rows| rows.count() > 0)
    };
    let lost_row = updated as usize != with_row.len() && ROW_GONE.with(|gone| finds_any(gone, &with_row));
    if lost_row || SESSIONS_GONE.with(|gone| finds_any(gone, &without_row)) {
        errors::user_forgotten();
    }
    Written::Changes(changes)
}

/// Reads a row of [`write_changes_sql`]; `None` where it is not one of a change.
fn change(row: &Row) -> Option<Change> {
    if row.bool(7) != Some(true) {
        return None;
    }
    Some(Change {
        seq: row.bigint(1)?,
        user_id: row.uuid(2)?,
        user_key: row.text_if_valid(3),
        status: Status::from_label(&row.text_if_valid(4)?)?,
        at: row.time(6)?,
        last_seen: row.time(5),
        details: row.bool(10)?,
    })
}

fn user_ids(updates: &[UserUpdate]) -> Vec<Uuid> {
    updates.iter().map(|update| update.user.user_id).collect()
}

/// Locks the users' rows in `user_presence`, except those that other transactions have locked. Removes the users of
/// these from `updates` and returns them.
pub fn split_off_locked(updates: &mut Vec<UserUpdate>) -> Vec<UserUpdate> {
    let locked: HashSet<Uuid> = LOCKED_BY_OTHERS.with(|statement| {
        statement.write(&[Value::Uuids(&user_ids(updates))], |rows| {
            rows.iter().filter_map(|row| row.uuid(1)).collect()
        })
    });
    let (split_off, available) = updates.iter().partition(|update| locked.contains(&update.user.user_id));
    *updates = available;
    split_off
}

/// Deletes the changes made before `cutoff`, from `oldest_seq` on and at most `limit` of them. Returns the oldest
/// sequence number kept, and how many were deleted.
///
/// `oldest_seq` keeps the scan off the index entries of changes that were deleted earlier and are not vacuumed yet.
pub fn prune(oldest_seq: i64, cutoff: Micros, limit: i64) -> (i64, i64) {
    let values = [Value::Time(cutoff), Value::Bigint(limit), Value::Bigint(oldest_seq)];
    PRUNE.with(|statement| {
        statement.write(&values, |rows| {
            let row = rows.first();
            let number = |column| row.and_then(|row| row.bigint(column));
            (number(1).unwrap_or(oldest_seq), number(2).unwrap_or(0))
        })
    })
}
