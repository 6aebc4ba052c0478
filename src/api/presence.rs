//! Many users' status at once.

use super::args::Uuids;
use super::label;
use super::reading::{Known, Live, Reading};
use super::rows::Set;
use crate::core::status::Status;
use crate::core::{key, time::Micros};
use crate::store::value::Value;
use crate::text::Stored;
use pgrx::pg_extern;
use std::collections::HashSet;
use uuid::Uuid;

/// The status of each of these users, one row per distinct id, in order. NULLs are passed over; strangers are inactive.
#[pg_extern(
    requires = ["types"],
    sql = r#"
CREATE FUNCTION @extschema@.presence_of(user_ids pg_catalog.uuid[]) RETURNS SETOF @extschema@.presence_user
LANGUAGE c STABLE PARALLEL SAFE ROWS 100
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#
)]
fn presence_of(user_ids: Option<Uuids>, mut found: Set) -> Set {
    let mut met = HashSet::new();
    let mut users = user_ids.map_or(Vec::new(), |ids| ids.ids().to_vec());
    users.retain(|&id| met.insert(id));

    let reading = Reading::begin();
    let live = reading.live_of(&users);
    let asked = users
        .iter()
        .zip(&live)
        .filter(|(_, live)| is_to_ask(live.as_ref()));
    let asked: Vec<Uuid> = asked.map(|(&id, _)| id).collect();
    let mut known = reading.known(&asked).into_iter();
    for (id, live) in users.into_iter().zip(live) {
        let known = is_to_ask(live.as_ref()).then(|| known.next()).flatten();
        push(&mut found, id, live, known, || reading.last_activity(id));
    }
    found
}

/// Whether the tables know something about a user that memory does not.
fn is_to_ask(live: Option<&Live>) -> bool {
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
fn online_users(mut found: Set) -> Set {
    let reading = Reading::begin();
    let online = reading.everybody();
    let asked = online.iter().filter(|(_, live)| is_to_ask(Some(live)));
    let asked: Vec<Uuid> = asked.map(|&(id, _)| id).collect();
    let mut known = reading.known(&asked).into_iter();
    for (id, live) in online {
        let known = is_to_ask(Some(&live)).then(|| known.next()).flatten();
        push(&mut found, id, Some(live), known, || None);
    }
    found
}

/// How many users have a live session.
#[pg_extern(stable, parallel_safe)]
fn online_count() -> i64 {
    Reading::begin().count()
}

fn push(
    found: &mut Set,
    id: Uuid,
    live: Option<Live>,
    known: Option<Known>,
    last_activity: impl FnOnce() -> Option<Micros>,
) {
    let is_online = live.is_some();
    let live = live.unwrap_or_default();
    let (known_key, last_known) = known.map_or((None, None), |k| (k.user_key, k.last_seen));
    let integer = || key::integer_of(id).map(Stored::from);
    let user_key = live.user_key.or(known_key).or_else(integer);
    let last_seen = if is_online {
        live.last_activity
    } else {
        last_known.max(last_activity())
    };
    found.push(&[
        Value::Uuid(&id),
        user_key.as_ref().into(),
        Value::Oid(label::of(Status::of(is_online))),
        Value::Bool(is_online),
        last_seen.map_or(Value::Null, Value::Time),
        Value::Int(live.sessions as i32),
    ]);
}
