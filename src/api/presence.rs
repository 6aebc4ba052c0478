//! Many users' status at once.

use std::collections::{HashMap, HashSet};

use pgrx::pg_extern;
use uuid::Uuid;

use super::{
    args::{ArrayArg, Uuids},
    presence_reader::{LiveSessions, PresenceReader, StoredPresence},
    result::ResultSet,
    status_label,
};
use crate::{
    pg::text::{Stored, Text},
    rules::{
        presence_id::{integer_of, presence_id_text},
        status::Status,
        time::Micros,
    },
    store::value::Value,
};

/// The presence of each of these users, by id and by key, one row per distinct user, in order: first the ids, then the keys.
/// NULLs are passed over; strangers are inactive.
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
fn presence_of(user_ids: Option<Uuids>, user_keys: Option<ArrayArg<Text>>, mut found: ResultSet) -> ResultSet {
    let mut users = user_ids.map_or(Vec::new(), |ids| ids.ids().to_vec());
    let mut given_keys = HashMap::new();
    if let Some(keys) = user_keys {
        for key in (0..keys.len()).filter_map(|n| keys.get(n)) {
            let id = presence_id_text(&key);
            given_keys.entry(id).or_insert(key);
            users.push(id);
        }
    }
    let mut met = HashSet::with_capacity(users.len());
    users.retain(|&id| met.insert(id));

    let reader = PresenceReader::begin();
    let live = reader.live_of(&users);
    let unknown = users.iter().zip(&live).filter(|(_, live)| is_in_tables(live.as_ref()));
    let unknown: Vec<Uuid> = unknown.map(|(&id, _)| id).collect();
    let mut stored = reader.stored(&unknown).into_iter();
    for (id, live) in users.into_iter().zip(live) {
        let stored = is_in_tables(live.as_ref()).then(|| stored.next()).flatten();
        let given_key = given_keys.get(&id).map(|key| Stored::encode(key));
        push(&mut found, id, given_key, live, stored, || reader.last_activity(id));
    }
    found
}

/// Whether the tables know something about a user that memory does not.
fn is_in_tables(live: Option<&LiveSessions>) -> bool {
    live.is_none_or(|live| live.keyed && live.user_key.is_none())
}

/// The status of everybody who has a live session.
#[pg_extern(
    requires = ["types"],
    sql = r#"
CREATE FUNCTION @extschema@.online_users() RETURNS SETOF @extschema@.presence_user
LANGUAGE c STABLE PARALLEL SAFE ROWS 10000
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#
)]
fn online_users(mut found: ResultSet) -> ResultSet {
    let reader = PresenceReader::begin();
    let online = reader.everybody();
    let unknown = online.iter().filter(|(_, live)| is_in_tables(Some(live)));
    let unknown: Vec<Uuid> = unknown.map(|&(id, _)| id).collect();
    let mut stored = reader.stored(&unknown).into_iter();
    for (id, live) in online {
        let stored = is_in_tables(Some(&live)).then(|| stored.next()).flatten();
        push(&mut found, id, None, Some(live), stored, || None);
    }
    found
}

/// How many users have a live session.
#[pg_extern(stable, parallel_safe)]
fn online_count() -> i64 {
    PresenceReader::begin().count()
}

fn push(
    found: &mut ResultSet,
    id: Uuid,
    given_key: Option<Stored>,
    live: Option<LiveSessions>,
    stored: Option<StoredPresence>,
    last_activity: impl FnOnce() -> Option<Micros>,
) {
    let is_online = live.is_some();
    let live = live.unwrap_or_default();
    let (stored_key, stored_last_seen) = stored.map_or((None, None), |stored| (stored.user_key, stored.last_seen));
    let user_key = live
        .user_key
        .or(stored_key)
        .or_else(|| integer_of(id).map(Stored::from))
        .or(given_key);
    let last_seen = if is_online {
        live.last_activity
    } else {
        stored_last_seen.max(last_activity())
    };
    found.push(&[
        Value::Uuid(&id),
        user_key.as_ref().into(),
        Value::Oid(status_label::of(Status::of(is_online))),
        Value::Bool(is_online),
        last_seen.map_or(Value::Null, Value::Time),
        Value::Int(live.sessions as i32),
    ]);
}
