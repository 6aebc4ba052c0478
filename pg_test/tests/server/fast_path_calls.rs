//! Statements that are a single call other than a heartbeat by id take the fast path, too, and answer the same.

use pg_presence_test::{Cluster, Presence, assert_denied, wait_until};
use postgres::{Client, types::ToSql};
use uuid::Uuid;

use crate::fast_path::Watched;

/// Returns the result of a statement as text.
fn result(client: &mut Client, sql: &str, argument: &(dyn ToSql + Sync)) -> Option<String> {
    let statement = client.prepare(sql).unwrap();
    let row = client.query_one(&statement, &[argument]).unwrap();
    match statement.columns()[0].type_().name() {
        "bool" => row.get::<_, Option<bool>>(0).map(|value| value.to_string()),
        "timestamptz" => row
            .get::<_, Option<std::time::SystemTime>>(0)
            .map(|value| format!("{value:?}")),
        "text" => row.get(0),
        _ => row.get::<_, Option<Label>>(0).map(|label| label.0),
    }
}

/// A label of an enum.
struct Label(String);

impl<'a> postgres::types::FromSql<'a> for Label {
    fn from_sql(_: &postgres::types::Type, raw: &'a [u8]) -> Result<Label, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Label(String::from_utf8(raw.to_vec())?))
    }

    fn accepts(_: &postgres::types::Type) -> bool {
        true
    }
}

#[test]
fn a_single_call_takes_the_fast_path_and_answers_the_same() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (online, offline, stranger) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let session = service.start(online);
    let ended = service.start(offline);
    service.wait_for_written(offline, true);
    service.end(ended.id);
    service.wait_for_written(offline, false);
    let users: [&(dyn ToSql + Sync); 4] = [&online, &offline, &stranger, &None::<Uuid>];
    let long = "x".repeat(1000);
    let sessions: [&(dyn ToSql + Sync); 4] = [&session.id, &ended.id, &stranger, &None::<Uuid>];
    let tokens: [&(dyn ToSql + Sync); 5] = [&session.token, &ended.token, &"short", &long, &None::<String>];
    let mut slow = database.connect();
    slow.batch_execute("SET presence.fast_heartbeat = off").unwrap();
    let mut watched = Watched::new(&database);
    for (function, arguments) in [
        ("is_online", &users[..]),
        ("user_status", &users[..]),
        ("last_seen", &users[..]),
        ("heartbeat_by_token", &tokens[..]),
        ("heartbeat_idle", &sessions[..]),
        ("heartbeat_idle_by_token", &tokens[..]),
    ] {
        let sql = format!("SELECT presence.{function}($1)");
        for argument in arguments {
            let expected = result(&mut slow, &sql, *argument);
            wait_until("a call by the fast path", || {
                assert_eq!(
                    result(&mut watched.client, &sql, *argument),
                    expected,
                    "{function}({argument:?})"
                );
                watched.took_fast_path()
            });
        }
    }
    watched
        .client
        .batch_execute("SET presence.fast_heartbeat = off")
        .unwrap();
    for _ in 0..3 {
        let sql = "SELECT presence.is_online($1)";
        assert_eq!(result(&mut watched.client, sql, &online).as_deref(), Some("true"));
        assert!(!watched.took_fast_path());
    }
}

#[test]
fn a_constant_argument_takes_the_fast_path() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let token = service.start(user).token;
    let mut watched = Watched::new(&database);
    for (sql, expected) in [
        (format!("SELECT presence.is_online('{user}') AS seen"), "t"),
        (format!("SELECT presence.user_status('{user}') AS seen"), "active"),
        (format!("SELECT presence.heartbeat_by_token('{token}') AS seen"), "ok"),
    ] {
        wait_until("a call by the fast path", || {
            let rows = watched.client.simple_query(&sql).unwrap();
            let seen = rows.iter().find_map(|message| match message {
                postgres::SimpleQueryMessage::Row(row) => row.get("seen"),
                _ => None,
            });
            assert_eq!(seen, Some(expected), "{sql}");
            watched.took_fast_path()
        });
    }
}

#[test]
fn an_error_on_the_fast_path_is_the_same_each_time_and_leaves_the_connection_usable() {
    let database = Cluster::shared().database();
    let other = Uuid::new_v4();
    database.connect().start(other);
    let own = Uuid::new_v4();
    let role = database.client();
    let mut client = database.connect_as(&role);
    client
        .batch_execute(&format!("SET presence.user_id = '{own}'"))
        .unwrap();
    let statement = client.prepare("SELECT presence.is_online($1)").unwrap();
    for _ in 0..10 {
        assert_denied(client.query_one(&statement, &[&other]));
        assert!(!client.query_one(&statement, &[&own]).unwrap().get::<_, bool>(0));
    }
    let mut transaction = client.transaction().unwrap();
    for _ in 0..3 {
        let mut savepoint = transaction.transaction().unwrap();
        assert_denied(savepoint.query_one(&statement, &[&other]));
        savepoint.rollback().unwrap();
    }
    assert!(!transaction.query_one(&statement, &[&own]).unwrap().get::<_, bool>(0));
}

#[test]
fn users_who_have_no_room_in_memory_are_read_from_the_table_on_the_fast_path() {
    let cluster = Cluster::private(&[("presence.max_sessions", "64")]);
    let database = cluster.database();
    let users: Vec<Uuid> = (0..200).map(|_| Uuid::new_v4()).collect();
    let mut service = database.connect();
    service
        .execute("SELECT presence.start_sessions($1)", &[&users])
        .unwrap();
    let statement = service.prepare("SELECT presence.is_online($1)").unwrap();
    for user in &users {
        assert!(service.query_one(&statement, &[user]).unwrap().get::<_, bool>(0));
    }
    let seen = service.prepare("SELECT presence.last_seen($1)").unwrap();
    for user in &users {
        let row = service.query_one(&seen, &[user]).unwrap();
        assert!(row.get::<_, Option<std::time::SystemTime>>(0).is_some());
    }
}
