//! A client's row: only what a client may say is taken.

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

/// Makes a session of the caller's out of what it gave. Errors: 42501 without an identity, or for another user's; 22023
/// for a weak token or an end in the past; 53400 for too many sessions.
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
        // Always digested, even a digest: who has read one must not be able to claim its session.
        Some(token) if token::check(token).is_ok() => Digest::of(token),
        Some(_) => errors::weak_token(),
        None => Digest::from_bytes(random::bytes()),
    };
    let latest_end = context.began.saturating_add(context.lifetime);
    let expires_at = row.expires_at.map_or(latest_end, |at| at.min(latest_end));
    if expires_at <= context.now {
        errors::bad_value(
            "expires_at must be in the future",
            "",
            "Leave expires_at out for presence.session_lifetime.",
        );
    }
    let user_key = identity::user_key().map(Cow::Owned).or(row.user_key.take());
    *row = SessionFields {
        id: Some(random::id()),
        user_id: Some(user_id),
        auth_id: Some(auth_id),
        session_token: Some(Cow::Owned(digest.to_text())),
        is_active: Some(true),
        last_activity: Some(context.began),
        created_at: Some(context.began),
        expires_at: Some(expires_at),
        ended_at: None,
        user_key,
    };
    row.check_key();
    row.fill_key();
    session_limit::check(user_id, context.now);
}

/// Takes a beat or an end from a client. Errors: 42501 where a value that is not a client's to change differs.
///
/// A session that has ended stays as it is.
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
    let meant = intent_of(old, new, set);
    *new = old.clone();
    if old.ended_at.is_some() {
        return;
    }
    let expired = old.expires_at.is_some_and(|at| at <= context.now);
    match meant {
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
