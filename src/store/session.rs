//! Reads and writes single rows of `user_sessions`, for calls that the roster cannot answer.

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    rows::Row,
    statement::{Snapshot, Statement},
    value::Value,
};
use crate::{
    pg::errors,
    roster::{Key, Owner, RowImage},
    rules::{presence_id::is_keyed, time::Micros, token::Digest},
};

thread_local! {
    static SESSION_BY_ID: Statement = const { Statement::new(
        |s| format!(
            "SELECT id, user_id, auth_id, session_token, is_active, last_activity, expires_at, \
             ended_at IS NOT NULL, user_key \
             FROM {s}.user_sessions WHERE id = $1"
        ),
        &[pg_sys::UUIDOID],
    ) };
    // The session with this token that has not ended, else the one that ended last.
    static SESSION_BY_DIGEST: Statement = const { Statement::new(
        |s| format!(
            "SELECT id, user_id, auth_id, session_token, is_active, last_activity, expires_at, \
             ended_at IS NOT NULL, user_key \
             FROM {s}.user_sessions WHERE session_token = $1 ORDER BY ended_at DESC LIMIT 1"
        ),
        &[pg_sys::TEXTOID],
    ) };
    static WRITE_BEAT: Statement = const { Statement::new(
        |s| format!(
            "UPDATE {s}.user_sessions SET last_activity = clock_timestamp(), is_active = true \
             WHERE id = $1 AND ended_at IS NULL AND expires_at > clock_timestamp()"
        ),
        &[pg_sys::UUIDOID],
    ) };
}

/// Returns the session's row as it is committed now (or written by this transaction), if it is `owner`'s. The row is
/// read either way, so that a session of somebody else takes as long as an unknown one.
pub fn find(key: &Key, owner: &Owner) -> Option<RowImage> {
    let found = match key {
        Key::Id(id) => SESSION_BY_ID
            .with(|statement| statement.read(Snapshot::Latest, &[Value::Uuid(id)], |rows| rows.first().map(row_image))),
        Key::Digest(digest) => {
            let digest = digest.to_text();
            SESSION_BY_DIGEST.with(|statement| {
                statement.read(Snapshot::Latest, &[Value::Text(&digest)], |rows| {
                    rows.first().map(row_image)
                })
            })
        }
    };
    found.filter(|row| owner.may(&row.auth_id))
}

/// Reads a row of the statements above.
fn row_image(row: Row) -> RowImage {
    let parse = || {
        let user_id = row.uuid(2)?;
        Some(RowImage {
            id: row.uuid(1)?,
            user_id,
            auth_id: row.uuid(3)?,
            digest: Digest::parse(&row.text(4)?)?,
            is_active: row.bool(5)?,
            last_activity: row.time(6)?,
            expires_at: row.time(7)?,
            ended: row.bool(8)?,
            keyed: is_keyed(user_id, row.is_not_null(9)),
            idle_since: None,
        })
    };
    // The table's constraints rule anything else out.
    parse().unwrap_or_else(|| errors::damaged_install())
}

/// Whether the session has ended for good at `now`.
pub fn has_ended(row: &RowImage, now: Micros) -> bool {
    row.ended || now >= row.expires_at
}

/// Writes a heartbeat of a session that the roster has no room for: an UPDATE, which counts at commit. Returns false if
/// the session has ended meanwhile.
pub fn write_beat(id: &Uuid) -> bool {
    WRITE_BEAT.with(|statement| statement.write(&[Value::Uuid(id)], |rows| rows.count() > 0))
}
