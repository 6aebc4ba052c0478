//! A service's row: written as submitted, with missing values filled in.

use super::{
    fields::{ColumnSet, SessionFields, WriteContext},
    intent::{Intent, intent_of},
};
use crate::{
    identity,
    pg::{errors, random},
    rules::{presence_id::presence_id_text, time::Micros, token::Digest},
};

/// Fills in a new row. Errors: 22023 where it names no user, or two different ones.
pub fn insert(row: &mut SessionFields, context: WriteContext) {
    row.check_key();
    if row.user_id.is_none() {
        row.user_id = row.user_key.as_deref().map(presence_id_text);
    }
    let Some(user_id) = row.user_id else {
        errors::bad_value(
            "user_id or user_key must be specified",
            "A service acts for any user, so it must name the user of the session.",
            "Set user_id, or user_key where the application's ids are not uuids.",
        );
    };
    row.fill_key();
    row.auth_id.get_or_insert_with(|| identity::auth_id_for(user_id));
    row.id.get_or_insert_with(random::id);
    row.digest_token();
    if row.session_token.is_none() {
        row.set_digest(Digest::from_bytes(random::bytes()));
    }
    row.last_activity = Some(clamp_activity(row.last_activity.unwrap_or(context.now), context));
    row.created_at = Some(replace_infinity(row.created_at.unwrap_or(context.now), context));
    row.expires_at
        .get_or_insert(context.now.saturating_add(context.lifetime));
    row.ended_at = row.ended_at.map(|at| replace_infinity(at, context));
    row.is_active = Some(row.is_active.unwrap_or(true) && row.ended_at.is_none());
}

/// Corrects an updated row. Errors: 22023 where `user_id` and `user_key` name different users.
pub fn update(old: &SessionFields, new: &mut SessionFields, set: ColumnSet, context: WriteContext) {
    if new.user_key != old.user_key || new.user_id != old.user_id {
        correct_user(old, new);
    }
    new.digest_token();
    new.created_at = new.created_at.map(|at| replace_infinity(at, context));
    new.ended_at = new.ended_at.map(|at| replace_infinity(at, context));
    let latest = |at: Option<Micros>| {
        let activity = at.map(|at| clamp_activity(at, context));
        context.later_activity(old.last_activity, activity)
    };
    if new.ended_at.is_none() && set.is_whole_row() {
        // A copy of the row that was read before the end must not undo the end.
        new.ended_at = old.ended_at;
    }
    if new.ended_at.is_some() {
        new.is_active = Some(false);
        new.last_activity = latest(new.last_activity);
        return;
    }
    if old.ended_at.is_some() {
        // A service that sets ended_at to NULL by name revives the session on purpose.
        new.last_activity = latest(new.last_activity);
        return;
    }
    match intent_of(old, new, set, context.now) {
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

/// Keeps `user_id` and `user_key` consistent: where the statement changes one of them, derives the other.
fn correct_user<'a>(old: &SessionFields, new: &mut SessionFields<'a>) {
    if new.user_id == old.user_id {
        new.user_id = new.user_key.as_deref().map(presence_id_text).or(new.user_id);
    } else if new.user_key == old.user_key {
        new.user_key = None;
    }
    new.check_key();
    new.fill_key();
}

/// Returns `last_activity` limited to now, and with minus infinity replaced by 1970.
fn clamp_activity(at: Micros, context: WriteContext) -> Micros {
    replace_infinity(at, context).min(context.now)
}

/// Returns a time with infinity replaced by now, and minus infinity by 1970, so that it can be displayed and calculated
/// with.
fn replace_infinity(at: Micros, context: WriteContext) -> Micros {
    const UNIX_EPOCH: Micros = -946_684_800 * 1_000_000;
    match at {
        Micros::MAX => context.now,
        Micros::MIN => UNIX_EPOCH,
        at => at,
    }
}
