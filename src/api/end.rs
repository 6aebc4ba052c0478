//! Logout: ends sessions for good, at commit.

use pgrx::{default, pg_extern, pg_sys};
use uuid::Uuid;

use super::{
    args::{UuidArray, to_uuid},
    caller,
};
use crate::{
    identity,
    pg::{compat, errors, memory, text::AnyText},
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
             SET is_active = false, ended_at = $2, last_activity = greatest(least(last_activity, $2), $3) \
             WHERE id = $1 AND ended_at IS NULL AND expires_at > $2 AND ($4 IS NULL OR auth_id = $4)"
        ),
        &[pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::UUIDOID],
    ) };
    static END_BY_TOKEN: Statement = const { Statement::new(
        |s| format!(
            "UPDATE {s}.user_sessions \
             SET is_active = false, ended_at = $2, last_activity = greatest(least(last_activity, $2), $3) \
             WHERE session_token = $1 AND ended_at IS NULL AND expires_at > $2"
        ),
        &[pg_sys::TEXTOID, pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID],
    ) };
    /// The order is that of the index on users, which the planner would otherwise not prefer to the partial index on
    /// tokens.
    static SESSIONS_OF_USER: Statement = const { Statement::new(
        |s| format!(
            "SELECT id FROM {s}.user_sessions \
             WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2 AND ($3 IS NULL OR auth_id = $3) ORDER BY ended_at"
        ),
        &[pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID, pg_sys::UUIDOID],
    ) };
}

/// Ends a session for good. Returns false where there is no such session, it has ended already, or it is not the
/// caller's. Errors: 25006 on a standby, 55000 where the library is not preloaded.
#[pg_extern(volatile, parallel_unsafe)]
fn end_session(session_id: Option<pgrx::Uuid>) -> bool {
    caller::require_writable();
    match (session_id, caller::owner_filter()) {
        (Some(id), Some(owner)) => end(to_uuid(id), owner),
        _ => false,
    }
}

/// As `end_session`, for the holder of the session's token.
#[pg_extern(volatile, parallel_unsafe)]
fn end_session_by_token(session_token: Option<AnyText>) -> bool {
    caller::require_writable();
    let token = session_token.and_then(AnyText::text);
    let Some(token) = token.filter(|token| token::check(token).is_ok()) else {
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

/// As `end_session`, for many sessions. Returns how many of them it has ended.
#[pg_extern(volatile, parallel_unsafe)]
fn end_sessions(session_ids: Option<UuidArray>) -> i32 {
    caller::require_writable();
    let Some(owner) = caller::owner_filter() else {
        return 0;
    };
    let mut ids = session_ids.map_or(Vec::new(), |ids| memory::copy(ids.ids()));
    ids.sort_unstable();
    end_all(&ids, owner)
}

/// Ends all sessions of a user: a client's own, or those of the user that a service names. Returns how many it has
/// ended. Errors: 42501 where a client names another user or has no identity, 22023 where a service names none, 25006
/// on a standby, 55000 where the library is not preloaded.
#[pg_extern(volatile, parallel_unsafe)]
fn end_user_sessions(user_id: default!(Option<pgrx::Uuid>, "NULL")) -> i32 {
    caller::require_writable();
    let user_id = user_id.map(to_uuid);
    let (user_id, owner) = if identity::is_service() {
        let Some(user_id) = user_id else {
            errors::bad_value(
                "user_id must be specified",
                "A service may end the sessions of any user, so it must name the user.",
                "Pass the user's id, or presence_id(key) where that is not a uuid.",
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
    let mut ids: Vec<Uuid> = SESSIONS_OF_USER.with(|statement| {
        statement.read(Snapshot::Latest, &values, |rows| {
            memory::collect(rows.iter().filter_map(|row| row.uuid(1)))
        })
    });
    ids.sort_unstable();
    end_all(&ids, owner)
}

/// Ends sessions in the order of their ids, so that two calls cannot deadlock.
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

/// Returns the last activity that the roster has, as the table may lag behind it; NULL where the roster has no such
/// session.
fn last_activity(key: Key, now: Micros) -> Value<'static> {
    let tenant = roster::tenant();
    let in_roster = tenant.session(&key, &tenant.now(), settings::active_timeout());
    in_roster.map_or(Value::Null, |session| {
        Value::Time(Micros::min(session.last_activity, now))
    })
}
