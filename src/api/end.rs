//! Logout: sessions that end for good, at commit.

use pgrx::{default, pg_extern, pg_sys};
use uuid::Uuid;

use super::{args::Uuids, caller};
use crate::{
    identity,
    pg::{compat, errors, text::Text},
    roster::{self, Key},
    rules::{
        time::Micros,
        token::{self, Digest},
    },
    settings,
    store::{
        statement::{Snapshot, Statement},
        value::Value,
    },
};

thread_local! {
    static END: Statement = const { Statement::new(
        |s| format!(
            "UPDATE {s}.user_sessions \
             SET is_active = false, ended_at = $2, last_activity = greatest(last_activity, $3) \
             WHERE id = $1 AND ended_at IS NULL AND expires_at > $2 AND ($4 IS NULL OR auth_id = $4)"
        ),
        &[pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::UUIDOID],
    ) };
    static END_BY_TOKEN: Statement = const { Statement::new(
        |s| format!(
            "UPDATE {s}.user_sessions \
             SET is_active = false, ended_at = $2, last_activity = greatest(last_activity, $3) \
             WHERE session_token = $1 AND ended_at IS NULL AND expires_at > $2"
        ),
        &[pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID],
    ) };
    static OF_USER: Statement = const { Statement::new(
        |s| format!(
            "SELECT id FROM {s}.user_sessions \
             WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2 AND ($3 IS NULL OR auth_id = $3) ORDER BY id"
        ),
        &[pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::UUIDOID],
    ) };
}

/// Ends a session for good. True if it ended one: not if there is no such session, if it has ended or if it is not the
/// caller's. Errors with 25006 on a standby.
#[pg_extern(volatile, parallel_unsafe)]
fn end_session(session_id: Option<pgrx::Uuid>) -> bool {
    caller::require_writable();
    match (session_id, caller::owner_filter()) {
        (Some(id), Some(owner)) => end(Uuid::from_bytes(*id), owner),
        _ => false,
    }
}

/// As `end_session`, for whoever holds the session's token.
#[pg_extern(volatile, parallel_unsafe)]
fn end_session_by_token(session_token: Option<Text>) -> bool {
    caller::require_writable();
    let Some(token) = session_token.as_deref().filter(|token| token::check(token).is_ok()) else {
        return false;
    };
    let digest = Digest::of(token);
    let now = compat::now();
    let values = [
        Value::Text(&digest.to_text()),
        Value::Time(now),
        last_activity(Key::Digest(digest), now),
    ];
    END_BY_TOKEN.with(|end| end.write(&values, |rows| rows.count() > 0))
}

/// As `end_session`, for many sessions. Returns how many it ended.
#[pg_extern(volatile, parallel_unsafe)]
fn end_sessions(session_ids: Option<Uuids>) -> i32 {
    caller::require_writable();
    let Some(owner) = caller::owner_filter() else {
        return 0;
    };
    let mut ids = session_ids.map_or(Vec::new(), |ids| ids.ids().to_vec());
    ids.sort_unstable();
    end_all(&ids, owner)
}

/// Ends all sessions of a user: a client's own, or those of the user a service names. Returns how many. Errors with 42501
/// on somebody else's user, with 22023 where a service names none.
#[pg_extern(volatile, parallel_unsafe)]
fn end_user_sessions(user_id: default!(Option<pgrx::Uuid>, "NULL")) -> i32 {
    caller::require_writable();
    let user_id = user_id.map(|id| Uuid::from_bytes(*id));
    let (user_id, owner) = if identity::is_service() {
        let Some(user_id) = user_id else {
            errors::bad_value(
                "user_id is needed",
                "A service may end the sessions of any user, so it has to say whose.",
                "Pass the user's id, or presence_id(key) where it is no uuid.",
            );
        };
        (user_id, None)
    } else {
        let (Some(auth_id), Some(own)) = (identity::auth_id(), identity::user_id()) else {
            errors::no_identity();
        };
        if user_id.is_some_and(|id| id != own) {
            errors::not_permitted();
        }
        (own, Some(auth_id))
    };
    let values = [Value::Uuid(&user_id), Value::Time(compat::now()), owner.as_ref().into()];
    let ids: Vec<Uuid> = OF_USER.with(|of_user| {
        of_user.read(Snapshot::Latest, &values, |rows| {
            rows.iter().filter_map(|row| row.uuid(1)).collect()
        })
    });
    end_all(&ids, owner)
}

/// Ends sessions in order, so that two such calls cannot wait for each other.
fn end_all(ids: &[Uuid], owner: Option<Uuid>) -> i32 {
    ids.iter().filter(|&&id| end(id, owner)).count() as i32
}

fn end(id: Uuid, owner: Option<Uuid>) -> bool {
    let now = compat::now();
    let values = [
        Value::Uuid(&id),
        Value::Time(now),
        last_activity(Key::Id(id), now),
        owner.as_ref().into(),
    ];
    END.with(|end| end.write(&values, |rows| rows.count() > 0))
}

/// The last beat, which the table may not have yet.
fn last_activity(key: Key, now: Micros) -> Value<'static> {
    let known = roster::tenant().session(&key, now, settings::active_timeout());
    known.map_or(Value::Null, |session| {
        Value::Time(Micros::min(session.last_activity, now))
    })
}
