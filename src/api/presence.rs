//! Many users' status at once.

use super::args::Uuids;
use super::label;
use super::reading::{Known, Live, Reading};
use super::rows::Set;
use crate::core::status::Status;
use crate::core::{key, time::Micros};
use crate::store::value::Value;
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
    let to_ask = |id: &Uuid| live.get(id).is_none_or(Live::has_untold_key);
    let asked: Vec<Uuid> = users.iter().copied().filter(to_ask).collect();
    let mut known = reading.known(&asked).into_iter();
    for id in users {
        let live = live.get(&id);
        let known = if live.is_none_or(Live::has_untold_key) {
            known.next()
        } else {
            None
        };
        push(&mut found, id, live, known, || reading.last_activity(id));
    }
    found
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
    let asked: Vec<Uuid> = online
        .iter()
        .filter(|(_, live)| live.has_untold_key())
        .map(|(&id, _)| id)
        .collect();
    // The map does not change, so both loops meet its users in the same order.
    let mut known = reading.known(&asked).into_iter();
    for (&id, live) in &online {
        let known = if live.has_untold_key() {
            known.next()
        } else {
            None
        };
        push(&mut found, id, Some(live), known, || None);
    }
    found
}

/// How many users have a live session.
#[pg_extern(stable, parallel_safe)]
fn online_count() -> i64 {
    Reading::begin().count()
}

impl Live {
    fn has_untold_key(&self) -> bool {
        self.keyed && self.user_key.is_none()
    }
}

fn push(
    found: &mut Set,
    id: Uuid,
    live: Option<&Live>,
    known: Option<Known>,
    last_activity: impl FnOnce() -> Option<Micros>,
) {
    let integer = || key::integer_of(id).map(|integer| integer.to_string());
    let known_key = known.as_ref().and_then(|known| known.user_key.clone());
    let user_key = live
        .and_then(|live| live.user_key.clone())
        .or(known_key)
        .or_else(integer);
    let last_seen = match live {
        Some(live) => live.last_activity,
        None => known.and_then(|known| known.last_seen).max(last_activity()),
    };
    found.push(&[
        Value::Uuid(&id),
        user_key.as_deref().into(),
        Value::Label(label::of(Status::of(live.is_some()))),
        Value::Bool(live.is_some()),
        last_seen.map_or(Value::Null, Value::Time),
        Value::Int(live.map_or(0, |live| live.sessions as i32)),
    ]);
}
