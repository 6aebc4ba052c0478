//! The presence of many users at once.

use std::collections::{HashMap, HashSet};

use pgrx::{check_for_interrupts, pg_extern};
use uuid::Uuid;

use super::{
    args::{ArrayArg, UuidArray},
    presence_reader::{LiveSessions, PresenceReader, StoredPresence},
    result::ResultSet,
    status_label,
};
use crate::{
    pg::{
        memory::{self, Reserve},
        text::{EncodedText, Text},
    },
    rules::{
        declared::{Shown, shown},
        presence_id::{integer_of, presence_id_text},
        status::Status,
    },
    store::{declared::Declared, value::Value},
};

/// Returns the presence of each of these users, one row per distinct user, in order: first the ids, then the keys.
/// Skips NULLs; unknown users are inactive. Errors: 55000 where the library is not preloaded.
#[pg_extern(
    requires = ["types"],
    sql = r#"
CREATE FUNCTION @extschema@.presence_of(
    user_ids pg_catalog.uuid[] DEFAULT NULL,
    user_keys pg_catalog.text[] DEFAULT NULL
) RETURNS SETOF @extschema@.presence_user
LANGUAGE c STABLE PARALLEL SAFE ROWS 100
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#
)]
fn presence_of(user_ids: Option<UuidArray>, user_keys: Option<ArrayArg<Text>>, mut rows: ResultSet) -> ResultSet {
    let mut users = user_ids.map_or(Vec::new(), |ids| memory::copy(ids.ids()));
    let mut keys_by_id = HashMap::new();
    if let Some(keys) = user_keys {
        for key in (0..keys.len()).filter_map(|n| keys.get(n)) {
            check_for_interrupts!();
            let id = presence_id_text(&key);
            keys_by_id.make_room(1);
            keys_by_id.entry(id).or_insert(key);
            memory::push(&mut users, id);
        }
    }
    let mut seen = HashSet::new();
    seen.make_room(users.len());
    users.retain(|&id| seen.insert(id));
    drop(seen);

    let reader = PresenceReader::begin();
    let live = reader.live_of(&users);
    let incomplete = users.iter().zip(&live).filter(|(_, live)| needs_tables(live.as_ref()));
    let incomplete = memory::collect(incomplete.map(|(&id, _)| id));
    let mut stored = reader.stored(&incomplete).into_iter();
    let mut declared = reader.declared_of(&users);
    for (id, live) in users.into_iter().zip(live) {
        check_for_interrupts!();
        let stored = needs_tables(live.as_ref()).then(|| stored.next()).flatten();
        let given_key = keys_by_id.get(&id).map(|key| EncodedText::encode(key));
        let declared = declared.remove(&id).unwrap_or_default();
        push_user(&mut rows, id, given_key, live, stored, declared);
    }
    rows
}

/// Returns whether a user's row needs the tables: for all of it while the user is offline, else for a key that the
/// roster does not have.
fn needs_tables(live: Option<&LiveSessions>) -> bool {
    live.is_none_or(|live| live.keyed && live.user_key.is_none())
}

/// Returns the presence of every user who has a live session. Errors: 55000 where the library is not preloaded.
#[pg_extern(
    requires = ["types"],
    sql = r#"
CREATE FUNCTION @extschema@.online_users() RETURNS SETOF @extschema@.presence_user
LANGUAGE c STABLE PARALLEL SAFE ROWS 10000
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#
)]
fn online_users(mut rows: ResultSet) -> ResultSet {
    let reader = PresenceReader::begin();
    let online = reader.live_of_all();
    let incomplete = online.iter().filter(|(_, live)| needs_tables(Some(live)));
    let incomplete = memory::collect(incomplete.map(|&(id, _)| id));
    let mut stored = reader.stored(&incomplete).into_iter();
    let mut declared = match reader.may_have_declared() {
        true => reader.declared_of(&memory::collect(online.iter().map(|&(id, _)| id))),
        false => HashMap::new(),
    };
    for (id, live) in online {
        check_for_interrupts!();
        let stored = needs_tables(Some(&live)).then(|| stored.next()).flatten();
        let declared = declared.remove(&id).unwrap_or_default();
        push_user(&mut rows, id, None, Some(live), stored, declared);
    }
    rows
}

/// Returns how many users have a live session. Errors: 55000 where the library is not preloaded.
#[pg_extern(stable, parallel_safe)]
fn online_count() -> i64 {
    PresenceReader::begin().online_count()
}

/// Adds the row of a user.
fn push_user(
    rows: &mut ResultSet,
    id: Uuid,
    given_key: Option<EncodedText>,
    live: Option<LiveSessions>,
    stored: Option<StoredPresence>,
    declared: Declared,
) {
    let by_sessions = live.as_ref().map_or(Status::Inactive, LiveSessions::status);
    let Shown {
        status,
        text,
        emoji,
        expires_at,
    } = shown(by_sessions, declared);
    let live = live.unwrap_or_default();
    let (stored_key, stored_last_seen) = stored.map_or((None, None), |stored| (stored.user_key, stored.last_seen));
    let user_key = live
        .user_key
        .or(stored_key)
        .or_else(|| integer_of(id).map(EncodedText::from))
        .or(given_key);
    let last_seen = if status.is_online() {
        live.last_activity
    } else {
        stored_last_seen
    };
    rows.push(&[
        Value::Uuid(&id),
        user_key.as_ref().into(),
        Value::Oid(status_label::label_oid(status)),
        Value::Bool(status.is_online()),
        last_seen.map_or(Value::Null, Value::Time),
        Value::Int(live.sessions as i32),
        live.idle_since.map_or(Value::Null, Value::Time),
        text.as_ref().into(),
        emoji.as_ref().into(),
        expires_at.map_or(Value::Null, Value::Time),
    ]);
}
