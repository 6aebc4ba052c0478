//! Single rows of `user_sessions`, for calls that the roster cannot answer.

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
    static BY_ID: Statement = const { Statement::new(
        |s| format!(
            "SELECT id, user_id, auth_id, session_token, is_active, last_activity, expires_at, \
             ended_at IS NOT NULL, user_key \
             FROM {s}.user_sessions WHERE id = $1"
        ),
        &[pg_sys::UUIDOID],
    ) };
    /// The session with a token that has not ended, else the one that ended last.
    static BY_DIGEST: Statement = const { Statement::new(
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

/// The session's row as it is committed now (or written by this transaction), if it is `owner`'s. Reads it either
/// way, so that a foreign session takes as long as an unknown one.
pub fn find(key: &Key, owner: &Owner) -> Option<RowImage> {
    let found = match key {
        Key::Id(id) => {
            BY_ID.with(|by_id| by_id.read(Snapshot::Latest, &[Value::Uuid(id)], |rows| rows.first().map(read)))
        }
        Key::Digest(digest) => {
            let digest = digest.to_text();
            BY_DIGEST.with(|by_digest| {
                by_digest.read(Snapshot::Latest, &[Value::Text(&digest)], |rows| rows.first().map(read))
            })
        }
    };
    found.filter(|row| owner.may(&row.auth_id))
}

/// A row of the statements above.
fn read(row: Row) -> RowImage {
    let all = || {
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
            keyed: is_keyed(user_id, row.has(9)),
        })
    };
    // The table's constraints rule anything else out.
    all().unwrap_or_else(|| errors::damaged_install())
}

/// Whether the session has ended for good at `now`.
pub fn has_ended(row: &RowImage, now: Micros) -> bool {
    row.ended || now >= row.expires_at
}

/// A heartbeat for a session that the roster has no room for: an UPDATE, which counts at commit. False if the
/// session has ended meanwhile.
pub fn write_beat(id: &Uuid) -> bool {
    WRITE_BEAT.with(|statement| statement.write(&[Value::Uuid(id)], |rows| rows.count() > 0))
}
