//! The presence of many users at once.

use std::collections::{HashMap, HashSet};

use pgrx::{check_for_interrupts, pg_extern};
use uuid::Uuid;

use super::{
    args::{ArrayArg, UuidArray},
    presence_reader::PresenceReader,
    result::ResultSet,
    shown::ShownUser,
    status_label,
};
use crate::{
    pg::{
        memory::{self, Reserve},
        text::{EncodedText, Text},
    },
    rules::presence_id::{integer_of, presence_id_text},
    store::{declared::Shown, value::Value},
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
    let shown = reader.shown_of(&users);
    push_users(&mut rows, &reader, shown, &keys_by_id);
    rows
}

/// Returns the presence of every user who is online. Errors: 55000 where the library is not preloaded.
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
    let shown = reader.shown_of_online();
    push_users(&mut rows, &reader, shown, &HashMap::new());
    rows
}

/// Returns how many users are online. Errors: 55000 where the library is not preloaded.
#[pg_extern(stable, parallel_safe)]
fn online_count() -> i64 {
    PresenceReader::begin().online_count()
}

/// Adds the rows of users. `given_keys` are those that the caller has named some by.
fn push_users(rows: &mut ResultSet, reader: &PresenceReader, users: Vec<ShownUser>, given_keys: &HashMap<Uuid, Text>) {
    let incomplete = users.iter().filter(|user| user.needs_tables());
    let incomplete = memory::collect(incomplete.map(|user| user.user_id));
    let mut stored = reader.stored(&incomplete).into_iter();
    for mut user in users {
        check_for_interrupts!();
        let stored = user.needs_tables().then(|| stored.next()).flatten();
        let last_seen = match &user.live {
            Some(live) => live.last_activity,
            None => stored.as_ref().and_then(|stored| stored.last_seen),
        };
        let is_live = user.live.is_some();
        let user_key = user
            .live
            .as_mut()
            .and_then(|live| live.user_key.take())
            .or_else(|| stored?.user_key(is_live))
            .or_else(|| integer_of(user.user_id).map(EncodedText::from))
            .or_else(|| given_keys.get(&user.user_id).map(|key| EncodedText::encode(key)));
        let Shown {
            status,
            text,
            emoji,
            expires_at,
        } = &user.shown;
        let live = user.live.as_ref();
        rows.push(&[
            Value::Uuid(&user.user_id),
            user_key.as_ref().into(),
            Value::Oid(status_label::label_oid(*status)),
            Value::Bool(status.is_online()),
            last_seen.map_or(Value::Null, Value::Time),
            Value::Int(live.map_or(0, |live| live.sessions) as i32),
            live.and_then(|live| live.idle_since).map_or(Value::Null, Value::Time),
            text.as_ref().into(),
            emoji.as_ref().into(),
            expires_at.map_or(Value::Null, Value::Time),
        ]);
    }
}
