//! A client's row: only values that a client may set are used.

use std::borrow::Cow;

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    fields::{ColumnSet, SessionFields, WriteContext},
    intent::{Intent, intent_of, is_same_time},
    session_limit,
};
use crate::{
    identity,
    pg::{errors, random},
    roster::{Key, Owner},
    rules::{
        presence_id::presence_id_text,
        time::Micros,
        token::{self, Digest},
    },
    store::{
        session,
        statement::{Snapshot, Statement},
        value::Value,
    },
};

thread_local! {
    static FIND: Statement = const { Statement::new(
        |s| format!(
            "SELECT auth_id, session_token, created_at, expires_at, ended_at FROM {s}.user_sessions WHERE id = $1"
        ),
        &[pg_sys::UUIDOID],
    ) };
}

/// A session of the caller's that a new row names by its id, as an upsert does that is to merge with it.
struct OwnSession {
    token: String,
    created_at: Option<Micros>,
    expires_at: Option<Micros>,
    ended_at: Option<Micros>,
}

impl OwnSession {
    /// Returns the session with this id if it is the caller's. The row is read either way, so that a session of
    /// somebody else takes as long as an unknown one.
    fn find(id: Uuid, auth_id: Uuid) -> Option<OwnSession> {
        FIND.with(|find| {
            find.read(Snapshot::Latest, &[Value::Uuid(&id)], |rows| {
                let row = rows.first()?;
                (row.uuid(1)? == auth_id).then_some(OwnSession {
                    token: row.text(2)?,
                    created_at: row.time(3),
                    expires_at: row.time(4),
                    ended_at: row.time(5),
                })
            })
        })
    }

    /// Returns the digest of the session's token if this is that token, or its digest.
    fn digest_of_own(&self, token: &str) -> Option<Digest> {
        Digest::parse(&self.token).filter(|own| *own == Digest::of(token) || Digest::parse(token) == Some(*own))
    }
}

/// Returns `stored` where it is the same as `submitted`.
fn unchanged(submitted: Option<Micros>, stored: Option<Micros>) -> Option<Micros> {
    stored.filter(|_| submitted.is_some() && is_same_time(submitted, stored))
}

/// Makes the new row a session of the caller. A row that has the id of a session of the caller's keeps it, so that an
/// upsert merges with that session; values that are the session's stay as they are, so that saving them changes nothing. Errors: 42501 where the caller has no identity or the row is another
/// user's, 22023 where the token is weak or `expires_at` has passed, 53400 where the user has too many sessions.
pub fn insert(row: &mut SessionFields, context: WriteContext) {
    let (Some(auth_id), Some(user_id)) = (identity::auth_id(), identity::user_id()) else {
        errors::no_identity();
    };
    let key_id = row.user_key.as_deref().map(presence_id_text);
    if row.auth_id.is_some_and(|id| id != auth_id)
        || row.user_id.is_some_and(|id| id != user_id)
        || key_id.is_some_and(|id| id != user_id)
    {
        errors::not_permitted();
    }
    let own = row.id.and_then(|id| OwnSession::find(id, auth_id));
    let own_digest = own.as_ref().zip(row.session_token.as_deref());
    let own_digest = own_digest.and_then(|(own, token)| own.digest_of_own(token));
    let digest = match (own_digest, row.session_token.as_deref()) {
        (Some(digest), _) => digest,
        // Even a digest is digested: whoever has read one must not be able to take over its session.
        (None, Some(token)) if token::check(token).is_ok() => {
            let digest = Digest::of(token);
            check_token(digest, auth_id, user_id, context);
            digest
        }
        (None, Some(_)) => errors::weak_token(),
        (None, None) => Digest::from_bytes(random::bytes()),
    };
    let max_expires_at = context.transaction_start.saturating_add(context.lifetime);
    let same_expiry = own.as_ref().and_then(|own| unchanged(row.expires_at, own.expires_at));
    let expires_at = row.expires_at.map_or(max_expires_at, |at| at.min(max_expires_at));
    let expires_at = same_expiry.unwrap_or(expires_at);
    if same_expiry.is_none() && expires_at <= context.now {
        errors::bad_value(
            "expires_at must be in the future",
            "",
            "Omit expires_at to use presence.session_lifetime.",
        );
    }
    let user_key = identity::user_key().map(Cow::Owned).or(row.user_key.take());
    *row = SessionFields {
        id: row.id.filter(|_| own.is_some()).or_else(|| Some(random::id())),
        user_id: Some(user_id),
        auth_id: Some(auth_id),
        session_token: Some(Cow::Owned(digest.to_text())),
        is_active: row.is_active.filter(|_| own.is_some()).or(Some(true)),
        last_activity: Some(context.transaction_start),
        created_at: own
            .as_ref()
            .and_then(|own| unchanged(row.created_at, own.created_at))
            .or(Some(context.transaction_start)),
        expires_at: Some(expires_at),
        ended_at: own.as_ref().and_then(|own| unchanged(row.ended_at, own.ended_at)),
        user_key,
    };
    row.check_key();
    row.fill_key();
    if own.is_none() {
        session_limit::check(user_id, context.now);
    }
}

/// Refuses the token of another user's session, and of one that has ended, as `start_session()` does: who still holds it
/// would be told that the session goes on, and could end it. The insert itself refuses the token of the client's own
/// session. Errors: 42501.
fn check_token(digest: Digest, auth_id: Uuid, user_id: Uuid, context: WriteContext) {
    if let Some(found) = session::find(&Key::Digest(digest), &Owner::Any)
        && (found.auth_id != auth_id || found.user_id != user_id || session::has_ended(&found, context.now))
    {
        errors::not_permitted();
    }
}

/// Reduces a client's update to a beat or an end. A session that has ended stays unchanged. Errors: 42501 where the
/// update changes a value that a client may not set.
pub fn update<'a>(old: &SessionFields<'a>, new: &mut SessionFields<'a>, set: ColumnSet, context: WriteContext) {
    let differs = old.id != new.id
        || old.user_id != new.user_id
        || old.auth_id != new.auth_id
        || (old.session_token != new.session_token && old.digest() != new.digest())
        || old.user_key != new.user_key
        || !is_same_time(old.created_at, new.created_at)
        || !is_same_time(old.expires_at, new.expires_at)
        || !is_same_time(old.ended_at, new.ended_at);
    if differs {
        errors::protected_value();
    }
    let intent = intent_of(old, new, set, context.now);
    *new = old.clone();
    if old.ended_at.is_some() {
        return;
    }
    let expired = old.expires_at.is_some_and(|at| at <= context.now);
    match intent {
        Intent::Beat(_) if !expired => {
            new.is_active = Some(true);
            new.last_activity = context.later_activity(old.last_activity, Some(context.now));
        }
        Intent::End => {
            new.is_active = Some(false);
            new.ended_at = Some(context.now);
            new.last_activity = context.later_activity(old.last_activity, None);
        }
        Intent::Beat(_) | Intent::None => {}
    }
}
