//! Single rows of `user_sessions`, for calls that the roster cannot answer.

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    rows::Row,
    statement::{Sees, Statement},
    value::Value,
};
use crate::{
    core::{key, time::Micros, token::Digest},
    errors,
    roster::{Key, LoadedRow, Owner},
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
    static BEAT: Statement = const { Statement::new(
        |s| format!(
            "UPDATE {s}.user_sessions SET last_activity = clock_timestamp(), is_active = true \
             WHERE id = $1 AND ended_at IS NULL AND expires_at > clock_timestamp()"
        ),
        &[pg_sys::UUIDOID],
    ) };
}

/// The session's row as it is committed now (or written by this transaction), if it is `owner`'s. Reads it either
/// way, so that a foreign session takes as long as an unknown one.
pub fn find(key: &Key, owner: &Owner) -> Option<LoadedRow> {
    let found = match key {
        Key::Id(id) => BY_ID.with(|by_id| {
            by_id.read(Sees::Latest, &[Value::Uuid(id)], |rows| {
                rows.first().map(read)
            })
        }),
        Key::Digest(digest) => {
            let digest = digest.to_text();
            BY_DIGEST.with(|by_digest| {
                by_digest.read(Sees::Latest, &[Value::Text(&digest)], |rows| {
                    rows.first().map(read)
                })
            })
        }
    };
    found.filter(|row| owner.may(&row.auth_id))
}

/// A row of the statements above.
fn read(row: Row) -> LoadedRow {
    let all = || {
        let user_id = row.uuid(2)?;
        Some(LoadedRow {
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
pub fn has_ended(row: &LoadedRow, now: Micros) -> bool {
    row.ended || now >= row.expires_at
}

/// Whether a user has a key that its id does not tell.
pub fn is_keyed(user_id: Uuid, has_key: bool) -> bool {
    has_key && key::integer_of(user_id).is_none()
}

/// A heartbeat for a session that the roster has no room for: an UPDATE, which counts at commit. False if the
/// session has ended meanwhile.
pub fn beat(id: &Uuid) -> bool {
    BEAT.with(|beat| beat.write(&[Value::Uuid(id)], |rows| rows.count() > 0))
}
