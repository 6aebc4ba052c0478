//! Ways around row level security: functions that talk, plans that tell, and errors that give away.

use std::sync::{Arc, Mutex};

use pg_presence_test::{Cluster, Database, Presence, Session, text_of};
use postgres::{Client, NoTls};
use uuid::Uuid;

/// A client whose notices are kept, and another user's session with a secret in its metadata.
struct Scene<'d> {
    client: Client,
    notices: Arc<Mutex<String>>,
    own: Session,
    foreign: Session,
    database: &'d Database<'static>,
}

const SECRET: &str = "a secret of somebody else";

impl<'d> Scene<'d> {
    fn new(database: &'d Database<'static>) -> Scene<'d> {
        let role = database.client();
        database.run(&format!("CREATE SCHEMA own AUTHORIZATION {role}"));
        let notices = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&notices);
        let mut config = database.cluster.config(&database.name, &role);
        let mut client = config
            .notice_callback(move |notice| {
                heard.lock().expect("no panic").push_str(&text_of(&notice))
            })
            .connect(NoTls)
            .expect("to connect");
        client.act_for(Uuid::new_v4());
        let own = client.start_own();
        let mut service = database.connect();
        let foreign = service.start(Uuid::new_v4());
        let secret = format!("metadata = '{{\"a\": \"{SECRET}\"}}'");
        service.update_session(&secret, foreign.id);
        service
            .batch_execute("ANALYZE presence.user_sessions")
            .unwrap();
        Scene {
            client,
            notices,
            own,
            foreign,
            database,
        }
    }

    /// Asserts that a text says nothing of the foreign session.
    fn tells_nothing(&self, text: &str) {
        assert!(!text.contains(&self.foreign.id.to_string()), "{text}");
        assert!(!text.contains(SECRET), "{text}");
        assert!(!text.contains("sha256:"), "{text}");
    }
}

#[test]
fn a_function_that_talks_sees_no_row_of_others() {
    let database = Cluster::shared().database();
    let mut scene = Scene::new(&database);
    scene
        .client
        .batch_execute(
            "CREATE FUNCTION own.talk(anyelement) RETURNS bool LANGUAGE plpgsql COST 0.0000001
                 AS $$ BEGIN RAISE NOTICE 'seen %', $1; RETURN true; END $$;
             CREATE OPERATOR own.~~~ (RIGHTARG = anyelement, FUNCTION = own.talk);
             CREATE VIEW own.through AS SELECT * FROM presence.user_sessions;
             SELECT FROM presence.user_sessions WHERE own.talk(id) AND own.talk(metadata);
             SELECT FROM presence.user_sessions s WHERE own.talk(s);
             SELECT FROM presence.user_sessions WHERE OPERATOR(own.~~~) id;
             SELECT FROM own.through WHERE own.talk(id);
             SELECT own.talk(max(id::text)) FROM presence.user_sessions;
             SELECT FROM presence.user_sessions TABLESAMPLE SYSTEM (100) WHERE own.talk(id);
             SELECT FROM presence.user_sessions ORDER BY own.talk(id);
             UPDATE presence.user_sessions SET metadata = '{}' WHERE own.talk(id) RETURNING own.talk(id)",
        )
        .unwrap();
    let heard = scene.notices.lock().unwrap().clone();
    assert!(heard.contains(&scene.own.id.to_string()), "it does talk");
    assert!(!heard.contains(&scene.foreign.id.to_string()), "{heard}");
    assert!(!heard.contains(SECRET), "{heard}");
}

#[test]
fn a_policys_own_functions_are_safe_to_run_before_any_of_an_attackers() {
    let database = Cluster::shared().database();
    let mut scene = Scene::new(&database);
    let foreign = scene.foreign.id;
    // A division by zero would tell that the row is there, if the filter were asked before the policy.
    for condition in [
        format!("1 / (CASE WHEN id = '{foreign}' THEN 0 ELSE 1 END) = 1"),
        format!("(CASE WHEN id = '{foreign}' THEN session_token ELSE '1' END)::int = 1"),
    ] {
        let sql = format!("SELECT FROM presence.user_sessions WHERE {condition}");
        scene.client.batch_execute(&sql).unwrap();
    }
}

#[test]
fn plans_and_statistics_name_nothing_of_others() {
    let database = Cluster::shared().database();
    let mut scene = Scene::new(&database);
    let sql = "EXPLAIN (ANALYZE, VERBOSE, BUFFERS) SELECT * FROM presence.user_sessions WHERE metadata <> '{}'";
    let plan: Vec<String> = scene
        .client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    scene.tells_nothing(&plan.join("\n"));
    for sql in [
        "SELECT FROM pg_stats WHERE schemaname = 'presence' AND tablename = 'user_sessions'",
        "SELECT FROM pg_stats_ext WHERE schemaname = 'presence'",
    ] {
        assert!(scene.client.query(sql, &[]).unwrap().is_empty(), "{sql}");
    }
    let mut service = scene.database.connect();
    let sql = "SELECT FROM pg_stats WHERE schemaname = 'presence' AND tablename = 'user_sessions'";
    assert!(
        !service.query(sql, &[]).unwrap().is_empty(),
        "there are statistics"
    );
}

#[test]
fn a_conflict_tells_nothing_and_takes_nothing() {
    let database = Cluster::shared().database();
    let mut scene = Scene::new(&database);
    let mut service = scene.database.connect();
    let sql = "SELECT session_token FROM presence.user_sessions WHERE id = $1";
    let digest: String = service.query_one(sql, &[&scene.foreign.id]).unwrap().get(0);
    let unknown = "a token that nobody has ever had";
    for conflict in [
        "",
        "ON CONFLICT DO NOTHING",
        "ON CONFLICT (id) DO UPDATE SET metadata = '{\"mine\": 1}'",
        "ON CONFLICT (session_token) WHERE ended_at IS NULL DO UPDATE SET metadata = '{\"mine\": 1}'",
    ] {
        for id in [scene.foreign.id, Uuid::new_v4()] {
            for token in [&digest, &scene.foreign.token, unknown] {
                let sql = format!(
                    "INSERT INTO presence.user_sessions (id, session_token) VALUES ($1, $2) {conflict} RETURNING id"
                );
                let mut transaction = scene.client.transaction().unwrap();
                match transaction.query(&sql, &[&id, &token]) {
                    Ok(rows) => {
                        for row in rows {
                            assert_ne!(row.get::<_, Uuid>(0), id, "{conflict}");
                        }
                    }
                    Err(error) => {
                        // Who has the very token of somebody may learn that it is taken, and nothing about by whom.
                        assert_eq!(token, &scene.foreign.token, "{conflict}: {error:?}");
                        let text = text_of(error.as_db_error().unwrap());
                        assert!(!text.contains("sha256:"), "{text}");
                        assert!(!text.contains(&scene.foreign.token), "{text}");
                        assert!(!text.contains(&scene.foreign.id.to_string()), "{text}");
                    }
                }
            }
        }
    }
    let sql = "SELECT metadata::text FROM presence.user_sessions WHERE id = $1";
    let metadata: String = service.query_one(sql, &[&scene.foreign.id]).unwrap().get(0);
    assert!(metadata.contains(SECRET));
}

#[test]
fn trigger_functions_do_nothing_where_they_are_not_ours() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    service.start(user);
    for function in ["presence_guard", "presence_feed", "presence_restore"] {
        // Not as a function, and not on somebody else's table, even by who may run them.
        assert!(
            service
                .batch_execute(&format!("SELECT presence.{function}()"))
                .is_err(),
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
                    let error = error.as_db_error().expect("the connection lives");
                    assert_ne!(error.code().code(), "XX000", "{function} {sql}: {error:?}");
                }
                service.batch_execute("ROLLBACK").unwrap();
            }
        }
    }
    assert_eq!(service.online_users(), [user]);
}
