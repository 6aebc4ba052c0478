//! A service's row: taken as it is given, with what is missing filled in.

use super::{
    fields::{ColumnSet, SessionFields, WriteContext},
    intent::{Intent, intent_of},
};
use crate::{
    identity,
    pg::{errors, random},
    rules::{presence_id::presence_id_text, time::Micros, token::Digest},
};

/// Fills in a new row. Errors: 22023 where no user is named, or two are.
pub fn insert(row: &mut SessionFields, context: WriteContext) {
    row.check_key();
    if row.user_id.is_none() {
        row.user_id = row.user_key.as_deref().map(presence_id_text);
    }
    let Some(user_id) = row.user_id else {
        errors::bad_value(
            "a session needs a user",
            "A service acts for any user, so it has to say for whom.",
            "Give user_id, or user_key where the application's ids are no uuids.",
        );
    };
    row.fill_key();
    row.auth_id.get_or_insert_with(|| identity::auth_id_for(user_id));
    row.id.get_or_insert_with(random::id);
    row.digest_token();
    if row.session_token.is_none() {
        row.set_digest(Digest::from_bytes(random::bytes()));
    }
    row.last_activity = Some(past(row.last_activity.unwrap_or(context.now), context));
    row.created_at = Some(finite(row.created_at.unwrap_or(context.now), context));
    row.expires_at
        .get_or_insert(context.now.saturating_add(context.lifetime));
    row.ended_at = row.ended_at.map(|at| finite(at, context));
    row.is_active = Some(row.is_active.unwrap_or(true) && row.ended_at.is_none());
}

/// Corrects a row that is changed. Errors: 22023 where `user_id` and `user_key` name different users.
pub fn update(old: &SessionFields, new: &mut SessionFields, set: ColumnSet, context: WriteContext) {
    if new.user_key != old.user_key || new.user_id != old.user_id {
        correct_user(old, new);
    }
    new.digest_token();
    new.created_at = new.created_at.map(|at| finite(at, context));
    new.ended_at = new.ended_at.map(|at| finite(at, context));
    let latest = |given: Option<Micros>| {
        let given = given.map(|at| past(at, context));
        old.last_activity.max(given)
    };
    if new.ended_at.is_none() && set.is_whole_row() {
        // A copy read before the end must not undo it.
        new.ended_at = old.ended_at;
    }
    if new.ended_at.is_some() {
        new.is_active = Some(false);
        new.last_activity = latest(new.last_activity);
        return;
    }
    if old.ended_at.is_some() {
        // A service that takes the end back by name does so on purpose.
        new.last_activity = latest(new.last_activity);
        return;
    }
    match intent_of(old, new, set) {
        Intent::None => {
            new.is_active = old.is_active;
            new.last_activity = old.last_activity;
        }
        Intent::Beat(at) => {
            new.is_active = Some(true);
            new.last_activity = latest(Some(at.unwrap_or(context.now)));
        }
        Intent::End => {
            new.is_active = Some(false);
            new.ended_at = Some(context.now);
            new.last_activity = latest(new.last_activity);
        }
    }
}

/// Keeps user and key in step: the one that is changed brings the other with it.
fn correct_user<'a>(old: &SessionFields, new: &mut SessionFields<'a>) {
    if new.user_id == old.user_id {
        new.user_id = new.user_key.as_deref().map(presence_id_text).or(new.user_id);
    } else if new.user_key == old.user_key {
        new.user_key = None;
    }
    new.check_key();
    new.fill_key();
}

/// A time of activity: nobody was active in the future, nor before there were computers.
fn past(at: Micros, context: WriteContext) -> Micros {
    finite(at, context).min(context.now)
}

/// A time that can be shown and reckoned with: now for infinity, the year 1970 for minus infinity.
fn finite(at: Micros, context: WriteContext) -> Micros {
    const UNIX_EPOCH: Micros = -946_684_800 * 1_000_000;
    match at {
        Micros::MAX => context.now,
        Micros::MIN => UNIX_EPOCH,
        at => at,
    }
}
