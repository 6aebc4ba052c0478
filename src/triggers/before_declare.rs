//! The trigger that checks and completes rows of `declared_statuses` before they are written.
//!
//! Functions and plain SQL go through it alike. Under `session_replication_role = replica` it does not fire: replicated
//! rows were checked where they were first written.

use pgrx::{pg_sys, prelude::*};

use super::{
    call::{Operation, Timing, TriggerCall, TriggerResult},
    declaration::{DeclaredColumn, DeclaredFields},
    declared_siblings, pending,
    row::TriggerRow,
};
use crate::{
    identity,
    pg::{compat, errors, installed},
    rules::{
        declared::{MAX_EMOJI_BYTES, MAX_SOURCE_BYTES, MAX_TEXT_CHARACTERS, Word},
        hiding::INVISIBLE,
        time::{Micros, USECS_PER_MINUTE},
    },
    settings,
};

/// Returns the row that is written in place of the submitted one. Errors: 22023 where a value is invalid, 42501 where the caller is not a service, 53400 where there
/// are as many rows of the user as there may be, 55000 where the library is not preloaded.
#[pg_extern]
pub fn _before_declare(fcinfo: pg_sys::FunctionCallInfo) -> TriggerResult {
    // SAFETY: PostgreSQL calls a trigger function with a valid call frame, and keeps the tuples until the function
    // returns.
    let call = unsafe { TriggerCall::of(fcinfo) };
    let table = call.table();
    let (old, new) = match call.operation {
        Operation::Insert(new) if call.timing == Timing::Before => (None, new),
        Operation::Update { old, new, .. } if call.timing == Timing::Before => (Some(old), new),
        _ => errors::misplaced_trigger(),
    };
    if !settings::is_preloaded() {
        errors::not_preloaded();
    }
    if table != installed::get().declared {
        errors::misplaced_trigger();
    }
    // Row-level security would refuse the row, but only after this trigger: what is read below is nobody else's to know. The
    // extension's functions write as the owner of the table, which is a service.
    if !identity::is_service() {
        errors::not_permitted();
    }
    let now = compat::now();
    let old = old.as_ref().map(DeclaredFields::of);
    let submitted = DeclaredFields::of(&new);
    let corrected = corrected(old.as_ref(), &submitted, now);
    if let (Some(user_id), Some(source)) = (corrected.user_id, corrected.source)
        && old.is_none_or(|old| old.user_id != Some(user_id))
        && !corrected.is_hiding()
    {
        declared_siblings::check(user_id, source, now);
    }
    replace(&new, &submitted, &corrected)
}

/// Returns what to write. Errors: 22023 where a value is invalid.
fn corrected<'a>(old: Option<&DeclaredFields>, submitted: &DeclaredFields<'a>, now: Micros) -> DeclaredFields<'a> {
    let not_empty = |text: Option<&'a [u8]>| text.filter(|text| !text.is_empty());
    let status = submitted.status.map(|text| match Word::parse(text) {
        _ if submitted.is_hiding() => text,
        Some(word) => word.as_str().as_bytes(),
        None => errors::unknown_status(),
    });
    let mut corrected = DeclaredFields {
        status,
        status_text: not_empty(submitted.status_text),
        emoji: not_empty(submitted.emoji),
        ..submitted.clone()
    };
    check(&corrected);
    // Of somebody who declares the same again, it is only known for longer; what has expired is declared anew. A time that
    // is given counts, as that of a restored row, unless it is in the future.
    corrected.set_at = match (old, submitted.set_at) {
        (Some(old), _) if old.set_at == submitted.set_at => match corrected.says_the_same(old) && old.is_valid(now) {
            true => old.set_at,
            false => None,
        },
        (_, given) => given.filter(|&at| at <= now),
    };
    if corrected.is_hiding() {
        return hiding(old, corrected, now);
    }
    if let (None, Some(user_id), Some(source)) = (corrected.set_at, corrected.user_id, corrected.source) {
        corrected.set_at = Some(declared_siblings::time_of_setting(user_id, source, now));
    }
    corrected
}

/// Returns a row that hides its user, completed with what nobody can tell from then on, or with when it has ended.
fn hiding<'a>(old: Option<&DeclaredFields>, row: DeclaredFields<'a>, now: Micros) -> DeclaredFields<'a> {
    let is_new = old.is_none();
    let is_given = row.last_seen.is_some() && old.is_none_or(|old| old.last_seen != row.last_seen);
    let old = old.filter(|old| old.user_id == row.user_id && old.is_hiding());
    let (was_hidden, is_hidden) = (old.is_some_and(|old| old.hides(now)), row.hides(now));
    // Where users may not hide themselves, it waits until they may, see `presence.allow_invisible`.
    let is_suspended = is_hidden && row.by_user && !settings::allow_invisible();
    // One that is ended otherwise has also expired, so that it does not hide its user again then.
    let is_ended = was_hidden && !is_hidden && settings::allow_invisible();
    let shown_at = row
        .shown_at
        .or((was_hidden && !is_hidden || is_suspended).then_some(now));
    DeclaredFields {
        set_at: row.set_at.or(Some(now)),
        last_seen: match row.user_id {
            Some(user_id) if is_hidden && !was_hidden && !is_given => match pending::hidden_to_others(&user_id) {
                // Deleted before, or ended, by the same transaction: to others it has never been shown.
                Some(before) => before.last_seen,
                // Of a row that is restored, what came after it was hidden.
                None => declared_siblings::last_seen(user_id).filter(|&at| {
                    let set_at = row.set_at.filter(|&set_at| is_new && set_at < now - USECS_PER_MINUTE);
                    set_at.is_none_or(|set_at| at <= set_at)
                }),
            },
            _ => row.last_seen,
        },
        shown_at,
        expires_at: match is_ended {
            true => [row.expires_at, shown_at].into_iter().flatten().min(),
            false => row.expires_at,
        },
        ..row
    }
}

fn check(row: &DeclaredFields) {
    if row
        .source
        .is_some_and(|source| source.is_empty() || source.len() > MAX_SOURCE_BYTES)
    {
        errors::bad_source();
    }
    if row.is_hiding() {
        if row.status != Some(INVISIBLE.as_bytes()) || row.status_text.is_some() || row.emoji.is_some() {
            errors::bad_visibility();
        }
        return;
    }
    if row.status.is_none() && row.status_text.is_none() && row.emoji.is_none() {
        errors::nothing_declared();
    }
    if row
        .status_text
        .is_some_and(|text| compat::count_characters(text) > MAX_TEXT_CHARACTERS)
    {
        errors::long_status_text();
    }
    if row.emoji.is_some_and(|emoji| emoji.len() > MAX_EMOJI_BYTES) {
        errors::long_emoji();
    }
}

/// Returns the row with the values that were corrected.
fn replace(row: &TriggerRow, submitted: &DeclaredFields, corrected: &DeclaredFields) -> TriggerResult {
    let (mut columns, mut values, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
    let mut set = |column: DeclaredColumn, value: Option<pg_sys::Datum>| {
        columns.push(column.number_in(row) as i32);
        nulls.push(value.is_none());
        values.push(value.unwrap_or(pg_sys::Datum::null()));
    };
    let texts = [
        (DeclaredColumn::Status, submitted.status, corrected.status),
        (DeclaredColumn::StatusText, submitted.status_text, corrected.status_text),
        (DeclaredColumn::Emoji, submitted.emoji, corrected.emoji),
    ];
    for (column, submitted, corrected) in texts {
        if submitted != corrected {
            // The datum of a bytea has the same layout as that of a text.
            set(column, corrected.and_then(|text| text.into_datum()));
        }
    }
    if submitted.set_at != corrected.set_at {
        set(DeclaredColumn::SetAt, corrected.set_at.map(pg_sys::Datum::from));
    }
    if submitted.expires_at != corrected.expires_at {
        set(DeclaredColumn::ExpiresAt, corrected.expires_at.map(pg_sys::Datum::from));
    }
    if submitted.last_seen != corrected.last_seen {
        set(DeclaredColumn::LastSeen, corrected.last_seen.map(pg_sys::Datum::from));
    }
    if submitted.shown_at != corrected.shown_at {
        set(DeclaredColumn::ShownAt, corrected.shown_at.map(pg_sys::Datum::from));
    }
    if columns.is_empty() {
        return TriggerResult::unchanged(row);
    }
    // SAFETY: as many columns as values and nulls, and each value is of its column's type, as was checked when the row was
    // read.
    unsafe { TriggerResult::replaced(row, &mut columns, &mut values, &mut nulls) }
}
