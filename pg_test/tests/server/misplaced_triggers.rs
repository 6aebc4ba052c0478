//! Triggers that call a trigger function of the extension on another table, or at another time, than its own.

use pg_presence_test::{Cluster, Presence, assert_refused};
use postgres::error::SqlState;
use uuid::Uuid;

use crate::damages::differences;

#[test]
fn a_trigger_function_in_the_wrong_place_is_an_error() {
    let database = Cluster::shared().database();
    database.run(
        "CREATE TABLE mine (LIKE presence.user_sessions INCLUDING DEFAULTS);
         CREATE VIEW seen AS SELECT * FROM mine;
         CREATE TABLE parts (LIKE presence.user_sessions INCLUDING DEFAULTS) PARTITION BY HASH (id);
         CREATE TABLE part PARTITION OF parts FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    );
    let mut client = database.connect();
    let insert =
        |table: &str| format!("INSERT INTO {table} (user_id, auth_id) SELECT u, u FROM (SELECT gen_random_uuid() u) s");
    let user = Uuid::new_v4();
    let session = client.start(user);
    for function in ["_before_write", "_capture", "_compare", "_restore"] {
        for (timing, table, level) in [
            ("BEFORE INSERT OR UPDATE OR DELETE", "mine", "ROW"),
            ("AFTER INSERT OR UPDATE OR DELETE", "mine", "ROW"),
            ("BEFORE INSERT OR UPDATE OR DELETE", "mine", "STATEMENT"),
            ("AFTER INSERT OR UPDATE OR DELETE", "mine", "STATEMENT"),
            ("BEFORE TRUNCATE", "mine", "STATEMENT"),
            ("AFTER TRUNCATE", "mine", "STATEMENT"),
            ("INSTEAD OF INSERT OR UPDATE OR DELETE", "seen", "ROW"),
            ("BEFORE INSERT OR UPDATE OR DELETE", "parts", "ROW"),
            ("AFTER INSERT OR UPDATE OR DELETE", "part", "ROW"),
            ("AFTER INSERT OR UPDATE OR DELETE", "parts", "STATEMENT"),
            (
                "BEFORE INSERT OR UPDATE OR DELETE",
                "presence.user_sessions",
                "STATEMENT",
            ),
            (
                "AFTER INSERT OR UPDATE OR DELETE",
                "presence.user_sessions",
                "STATEMENT",
            ),
            ("BEFORE INSERT", "presence.presence_changes", "STATEMENT"),
        ] {
            database.run(&format!(
                "CREATE TRIGGER misplaced {timing} ON {table} FOR EACH {level} EXECUTE FUNCTION presence.{function}()"
            ));
            let statement = match (timing.contains("TRUNCATE"), table) {
                (true, _) => "TRUNCATE mine".to_owned(),
                (_, "presence.presence_changes") => {
                    "INSERT INTO presence.presence_changes SELECT * FROM presence.presence_changes WHERE false"
                        .to_owned()
                }
                _ => insert(table),
            };
            let error = assert_refused(
                client.batch_execute(&statement),
                &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            );
            assert!(
                error.hint().unwrap().contains("presence_health()"),
                "{timing} {table}: {error:?}"
            );
            let (checks, statements) = differences(&mut client, "presence");
            assert_eq!(checks, "triggers", "{function} {timing} {table}");
            client.batch_execute(&statements).unwrap();
            assert_eq!(
                differences(&mut client, "presence").0,
                "",
                "{function} {timing} {table}: {statements}"
            );
        }
    }
    for (function, timing) in [
        ("_before_write", "AFTER"),
        ("_capture", "BEFORE"),
        ("_compare", "AFTER"),
        ("_restore", "AFTER"),
    ] {
        database.run(&format!(
            "CREATE TRIGGER misplaced {timing} INSERT OR UPDATE ON presence.user_sessions
             FOR EACH ROW EXECUTE FUNCTION presence.{function}()"
        ));
        let statement = insert("presence.user_sessions");
        assert_refused(
            client.batch_execute(&statement),
            &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        );
        database.run("DROP TRIGGER misplaced ON presence.user_sessions");
    }
    database.run(
        "CREATE CONSTRAINT TRIGGER misplaced AFTER INSERT ON mine DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION presence._capture()",
    );
    assert_refused(
        client.batch_execute(&insert("mine")),
        &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
    );
    assert_eq!(client.beat(session.id), "ok");
}
