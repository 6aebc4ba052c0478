//! A client's row: only values that a client may set are used.

use std::borrow::Cow;

use super::{
    fields::{ColumnSet, SessionFields, WriteContext},
    intent::{Intent, intent_of, is_same_time},
    session_limit,
};
use crate::{
    identity,
    pg::{errors, random},
    rules::{
        presence_id::presence_id_text,
        token::{self, Digest},
    },
};

/// Makes the new row a session of the caller. Errors: 42501 where the caller has no identity or the row is another
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
    let digest = match row.session_token.as_deref() {
        // Even a digest is digested: whoever has read one must not be able to take over its session.
        Some(token) if token::check(token).is_ok() => Digest::of(token),
        Some(_) => errors::weak_token(),
        None => Digest::from_bytes(random::bytes()),
    };
    let max_expires_at = context.transaction_start.saturating_add(context.lifetime);
    let expires_at = row.expires_at.map_or(max_expires_at, |at| at.min(max_expires_at));
    if expires_at <= context.now {
        errors::bad_value(
            "expires_at must be in the future",
            "",
            "Omit expires_at to use presence.session_lifetime.",
        );
    }
    let user_key = identity::user_key().map(Cow::Owned).or(row.user_key.take());
    *row = SessionFields {
        id: Some(random::id()),
        user_id: Some(user_id),
        auth_id: Some(auth_id),
        session_token: Some(Cow::Owned(digest.to_text())),
        is_active: Some(true),
        last_activity: Some(context.transaction_start),
        created_at: Some(context.transaction_start),
        expires_at: Some(expires_at),
        ended_at: None,
        user_key,
    };
    row.check_key();
    row.fill_key();
    session_limit::check(user_id, context.now);
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
    let intent = intent_of(old, new, set);
    *new = old.clone();
    if old.ended_at.is_some() {
        return;
    }
    let expired = old.expires_at.is_some_and(|at| at <= context.now);
    match intent {
        Intent::Beat(_) if !expired => {
            new.is_active = Some(true);
            new.last_activity = old.last_activity.max(Some(context.now));
        }
        Intent::End => {
            new.is_active = Some(false);
            new.ended_at = Some(context.now);
        }
        Intent::Beat(_) | Intent::None => {}
    }
}
