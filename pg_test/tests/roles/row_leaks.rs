//! Ways around row level security: leaky functions, plans, statistics, conflicts, triggers.

use std::sync::{Arc, Mutex};

use pg_presence_test::{Cluster, Database, Presence, Session, error_text};
use postgres::{Client, NoTls};
use uuid::Uuid;

/// A client whose notices are collected, and another user's session with a secret in its metadata.
struct Fixture<'d> {
    client: Client,
    notices: Arc<Mutex<String>>,
    own: Session,
    foreign: Session,
    database: &'d Database<'static>,
}

const SECRET: &str = "a secret of somebody else";

impl<'d> Fixture<'d> {
    fn new(database: &'d Database<'static>) -> Fixture<'d> {
        let role = database.client();
        database.run(&format!("CREATE SCHEMA own AUTHORIZATION {role}"));
        let notices = Arc::new(Mutex::new(String::new()));
        let received = Arc::clone(&notices);
        let mut config = database.cluster.config(&database.name, &role);
        let mut client = config
            .notice_callback(move |notice| received.lock().expect("no panic").push_str(&error_text(&notice)))
            .connect(NoTls)
            .expect("to connect");
        client.act_for(Uuid::new_v4());
        let own = client.start_own();
        let mut service = database.connect();
        let foreign = service.start(Uuid::new_v4());
        let secret = format!("metadata = '{{\"a\": \"{SECRET}\"}}'");
        service.update_session(&secret, foreign.id);
        service.batch_execute("ANALYZE presence.user_sessions").unwrap();
        Fixture {
            client,
            notices,
            own,
            foreign,
            database,
        }
    }

    /// Asserts that a text reveals nothing of the foreign session.
    fn assert_reveals_nothing(&self, text: &str) {
        assert!(!text.contains(&self.foreign.id.to_string()), "{text}");
        assert!(!text.contains(SECRET), "{text}");
        assert!(!text.contains("sha256:"), "{text}");
    }
}

#[test]
fn a_leaky_function_sees_no_row_of_others() {
    let database = Cluster::shared().database();
    let mut fixture = Fixture::new(&database);
    fixture
        .client
        .batch_execute(
            "CREATE FUNCTION own.leak(anyelement) RETURNS bool LANGUAGE plpgsql COST 0.0000001
                 AS $$ BEGIN RAISE NOTICE 'seen %', $1; RETURN true; END $$;
             CREATE OPERATOR own.~~~ (RIGHTARG = anyelement, FUNCTION = own.leak);
             CREATE VIEW own.through AS SELECT * FROM presence.user_sessions;
             SELECT FROM presence.user_sessions WHERE own.leak(id) AND own.leak(metadata);
             SELECT FROM presence.user_sessions s WHERE own.leak(s);
             SELECT FROM presence.user_sessions WHERE OPERATOR(own.~~~) id;
             SELECT FROM own.through WHERE own.leak(id);
             SELECT own.leak(max(id::text)) FROM presence.user_sessions;
             SELECT FROM presence.user_sessions TABLESAMPLE SYSTEM (100) WHERE own.leak(id);
             SELECT FROM presence.user_sessions ORDER BY own.leak(id);
             UPDATE presence.user_sessions SET metadata = '{}' WHERE own.leak(id) RETURNING own.leak(id)",
        )
        .unwrap();
    let received = fixture.notices.lock().unwrap().clone();
    assert!(received.contains(&fixture.own.id.to_string()), "the function does leak");
    assert!(!received.contains(&fixture.foreign.id.to_string()), "{received}");
    assert!(!received.contains(SECRET), "{received}");
}

#[test]
fn a_policy_is_evaluated_before_any_function_of_an_attacker() {
    let database = Cluster::shared().database();
    let mut fixture = Fixture::new(&database);
    let foreign = fixture.foreign.id;
    // A division by zero would reveal that the row exists, if the filter were evaluated before the policy.
    for condition in [
        format!("1 / (CASE WHEN id = '{foreign}' THEN 0 ELSE 1 END) = 1"),
        format!("(CASE WHEN id = '{foreign}' THEN session_token ELSE '1' END)::int = 1"),
    ] {
        let sql = format!("SELECT FROM presence.user_sessions WHERE {condition}");
        fixture.client.batch_execute(&sql).unwrap();
    }
}

#[test]
fn plans_and_statistics_reveal_nothing_of_others() {
    let database = Cluster::shared().database();
    let mut fixture = Fixture::new(&database);
    let sql = "EXPLAIN (ANALYZE, VERBOSE, BUFFERS) SELECT * FROM presence.user_sessions WHERE metadata <> '{}'";
    let plan: Vec<String> = fixture
        .client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    fixture.assert_reveals_nothing(&plan.join("\n"));
    for sql in [
        "SELECT FROM pg_stats WHERE schemaname = 'presence' AND tablename = 'user_sessions'",
        "SELECT FROM pg_stats_ext WHERE schemaname = 'presence'",
    ] {
        assert!(fixture.client.query(sql, &[]).unwrap().is_empty(), "{sql}");
    }
    let mut service = fixture.database.connect();
    let sql = "SELECT FROM pg_stats WHERE schemaname = 'presence' AND tablename = 'user_sessions'";
    assert!(!service.query(sql, &[]).unwrap().is_empty(), "there are statistics");
}

#[test]
fn a_conflict_reveals_nothing_and_takes_over_nothing() {
    let database = Cluster::shared().database();
    let mut fixture = Fixture::new(&database);
    let mut service = fixture.database.connect();
    let sql = "SELECT session_token FROM presence.user_sessions WHERE id = $1";
    let digest: String = service.query_one(sql, &[&fixture.foreign.id]).unwrap().get(0);
    let unknown = "a token that nobody has ever had";
    for conflict in [
        "",
        "ON CONFLICT DO NOTHING",
        "ON CONFLICT (id) DO UPDATE SET metadata = '{\"mine\": 1}'",
        "ON CONFLICT (session_token) WHERE ended_at IS NULL DO UPDATE SET metadata = '{\"mine\": 1}'",
    ] {
        for id in [fixture.foreign.id, Uuid::new_v4()] {
            for token in [&digest, &fixture.foreign.token, unknown] {
                let sql = format!(
                    "INSERT INTO presence.user_sessions (id, session_token) VALUES ($1, $2) {conflict} RETURNING id"
                );
                let mut transaction = fixture.client.transaction().unwrap();
                match transaction.query(&sql, &[&id, &token]) {
                    Ok(rows) => {
                        for row in rows {
                            assert_ne!(row.get::<_, Uuid>(0), id, "{conflict}");
                        }
                    }
                    Err(error) => {
                        // Whoever has somebody's token may learn that it is in use, and nothing about by whom.
                        assert_eq!(token, &fixture.foreign.token, "{conflict}: {error:?}");
                        let text = error_text(error.as_db_error().unwrap());
                        assert!(!text.contains("sha256:"), "{text}");
                        assert!(!text.contains(&fixture.foreign.token), "{text}");
                        assert!(!text.contains(&fixture.foreign.id.to_string()), "{text}");
                    }
                }
            }
        }
    }
    let sql = "SELECT metadata::text FROM presence.user_sessions WHERE id = $1";
    let metadata: String = service.query_one(sql, &[&fixture.foreign.id]).unwrap().get(0);
    assert!(metadata.contains(SECRET));
}

#[test]
fn trigger_functions_do_nothing_on_other_tables() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    service.start(user);
    for function in ["_before_truncate", "_before_write", "_capture", "_compare", "_restore"] {
        // Not as a function, and not on another table, even by roles that may execute them.
        assert!(
            service.batch_execute(&format!("SELECT presence.{function}()")).is_err(),
            "{function}"
        );
        for (columns, timing) in [
            ("LIKE presence.user_sessions", "BEFORE INSERT"),
            ("LIKE presence.user_sessions", "AFTER INSERT"),
            ("LIKE presence.user_presence", "BEFORE INSERT"),
            ("a int, b text", "BEFORE INSERT"),
            ("a int, b text", "AFTER DELETE"),
        ] {
            for each in ["ROW", "STATEMENT"] {
                let sql = format!(
                    "BEGIN; CREATE TEMP TABLE theirs ({columns});
                     CREATE TRIGGER t {timing} ON theirs FOR EACH {each} EXECUTE FUNCTION presence.{function}();
                     INSERT INTO theirs DEFAULT VALUES; DELETE FROM theirs"
                );
                if let Err(error) = service.batch_execute(&sql) {
                    let error = error.as_db_error().expect("the connection survives");
                    assert_ne!(error.code().code(), "XX000", "{function} {sql}: {error:?}");
                }
                service.batch_execute("ROLLBACK").unwrap();
            }
        }
    }
    assert_eq!(service.online_users(), [user]);
}
