//! Tables, columns, indexes, triggers and policies that somebody has altered: calls that cannot work say what to do, and the
//! others go on; presence_health() names each difference, with statements that restore it.

use pg_presence_test::{Cluster, Database, Presence, assert_refused, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use uuid::Uuid;

use crate::hours::Server;

/// Checks of definitions, in the order in which their statements are to be run.
const DEFINITIONS: &str =
    "'{tables,columns,not_null,defaults,constraints,indexes,policies,row_security,triggers,owner}'";

const DROP_POLICIES: &str = "DROP POLICY own_or_service_select ON presence.user_sessions;
    DROP POLICY own_or_service_insert ON presence.user_sessions;
    DROP POLICY own_or_service_update ON presence.user_sessions;
    DROP POLICY own_or_service_delete ON presence.user_sessions;";

/// A damage, and the checks that name it. `{role}` is another role.
#[rustfmt::skip]
const DAMAGES: &[(&str, &str)] = &[
    ("ALTER TABLE presence.user_sessions RENAME TO sessions", "tables"),
    ("ALTER TABLE presence.user_presence RENAME TO \"Presence\"", "tables"),
    ("ALTER TABLE presence.user_sessions SET SCHEMA public", "tables"),
    (
        "ALTER TABLE presence.user_presence RENAME TO p; ALTER TABLE presence.presence_changes RENAME TO c;
         ALTER TABLE presence._feed_state RENAME TO f; ALTER TABLE presence.user_sessions RENAME TO s",
        "tables",
    ),
    ("ALTER TABLE presence.user_sessions SET UNLOGGED", "tables"),
    ("ALTER TABLE presence._feed_state REPLICA IDENTITY DEFAULT", "tables"),
    ("CREATE RULE nothing AS ON DELETE TO presence.user_sessions DO INSTEAD NOTHING", "tables"),

    ("ALTER TABLE presence.user_sessions RENAME auth_id TO \"authId\"", "columns"),
    ("ALTER TABLE presence.user_sessions RENAME session_token TO token", "columns"),
    ("ALTER TABLE presence.user_presence RENAME seq TO n", "columns"),
    ("ALTER TABLE presence.user_sessions ALTER session_token TYPE varchar(100)", "columns constraints"),
    ("ALTER TABLE presence.user_sessions ALTER last_activity TYPE timestamp", "columns"),
    ("ALTER TABLE presence.user_presence ALTER status TYPE text", "columns"),
    ("ALTER TABLE presence.user_sessions DROP user_key", "columns"),
    ("ALTER TABLE presence.declared_statuses DROP emoji", "columns constraints"),
    ("ALTER TABLE presence.declared_statuses RENAME status TO word", "columns"),
    ("ALTER TABLE presence.declared_statuses RENAME TO statuses", "tables"),
    ("ALTER TABLE presence.user_sessions DROP session_token", "columns constraints indexes"),

    ("ALTER TABLE presence.user_sessions ALTER user_id DROP NOT NULL", "not_null"),
    ("ALTER TABLE presence.presence_changes ALTER user_id SET NOT NULL", "not_null"),
    ("ALTER TABLE presence.presence_changes ADD tenant int; DELETE FROM presence.presence_changes;
      ALTER TABLE presence.presence_changes ALTER tenant SET NOT NULL", "not_null"),
    ("ALTER TABLE presence.user_sessions ALTER auth_id DROP DEFAULT", "defaults"),
    ("ALTER TABLE presence.user_sessions ALTER expires_at SET DEFAULT now()", "defaults"),
    ("ALTER TABLE presence.user_sessions ALTER ended_at SET DEFAULT now()", "defaults"),

    ("ALTER TABLE presence.user_sessions DROP CONSTRAINT user_sessions_metadata_check", "constraints"),
    ("ALTER TABLE presence.user_presence DROP CONSTRAINT user_presence_pkey", "constraints"),
    ("ALTER TABLE presence.declared_statuses DROP CONSTRAINT declared_statuses_status_check", "constraints"),
    ("ALTER TABLE presence.user_sessions RENAME CONSTRAINT user_sessions_pkey TO \"PK_1\"", "constraints"),
    (
        "ALTER TABLE presence.user_sessions DROP CONSTRAINT user_sessions_pkey;
         CREATE UNIQUE INDEX user_sessions_pkey ON presence.user_sessions (id)",
        "constraints",
    ),
    ("DROP INDEX presence.user_sessions_session_token_key", "indexes"),
    (
        "DROP INDEX presence.user_sessions_session_token_key;
         CREATE INDEX user_sessions_session_token_key ON presence.user_sessions (session_token) WHERE ended_at IS NULL",
        "indexes",
    ),
    ("DROP INDEX presence.user_sessions_user_id_idx, presence.user_presence_user_key_idx", "indexes"),
    ("ALTER INDEX presence.user_sessions_auth_id_idx RENAME TO \"IDX_1\"", "indexes"),

    ("DROP INDEX presence.declared_statuses_expires_at_idx", "indexes"),

    ("DROP POLICY service_insert ON presence.declared_statuses", "policies"),
    ("CREATE POLICY everything ON presence.declared_statuses USING (true)", "policies"),
    ("ALTER TABLE presence.declared_statuses DISABLE ROW LEVEL SECURITY", "row_security"),
    ("DROP POLICY own_or_service_update ON presence.user_sessions", "policies"),
    ("DROP POLICY readers_select ON presence.user_presence", "policies"),
    ("ALTER POLICY own_or_service_select ON presence.user_sessions USING (true)", "policies"),
    ("ALTER POLICY own_or_service_select ON presence.user_sessions TO {role}", "policies"),
    ("CREATE POLICY everything ON presence.user_sessions USING (true)", "policies"),
    ("ALTER TABLE presence.presence_changes DISABLE ROW LEVEL SECURITY", "row_security"),
    ("ALTER TABLE presence.user_presence FORCE ROW LEVEL SECURITY", "row_security"),

    ("ALTER TABLE presence.user_sessions DISABLE TRIGGER presence_capture", "triggers"),
    ("ALTER TABLE presence.user_sessions DISABLE TRIGGER ALL; ALTER TABLE presence.user_sessions ENABLE TRIGGER ALL", "triggers"),
    ("DROP TRIGGER presence_before_write ON presence.user_sessions", "triggers"),
    ("DROP TRIGGER presence_compare ON presence.user_presence", "triggers"),
    ("DROP TRIGGER presence_before_write ON presence.declared_statuses", "triggers"),
    ("ALTER TABLE presence.declared_statuses DISABLE TRIGGER presence_capture", "triggers"),
    ("DROP TRIGGER presence_restore ON presence.user_presence", "triggers"),
    ("ALTER TRIGGER presence_capture ON presence.user_sessions RENAME TO last", "triggers"),
    (
        "CREATE TABLE public.mine (); CREATE TRIGGER mine BEFORE INSERT ON public.mine EXECUTE FUNCTION presence._capture()",
        "triggers",
    ),

    ("ALTER TABLE presence.user_sessions OWNER TO {role}", "owner"),
    ("ALTER TABLE presence.user_presence OWNER TO {role}; ALTER TABLE presence._feed_state OWNER TO {role}", "owner"),
    (
        "REVOKE USAGE ON SCHEMA presence FROM {role}; ALTER TABLE presence.user_sessions OWNER TO {role};
         ALTER TABLE presence.user_presence OWNER TO {role}; ALTER TABLE presence.presence_changes OWNER TO {role};
         ALTER TABLE presence._feed_state OWNER TO {role}; ALTER TABLE presence.declared_statuses OWNER TO {role}",
        "owner",
    ),
];

/// Returns the checks of definitions that fail, and their hints as one script. Where that deletes rows, they say so.
pub fn differences(client: &mut Client, schema: &str) -> (String, String) {
    let sql = format!(
        "SELECT coalesce(string_agg(check_name, ' '), ''), coalesce(string_agg(hint, ' '), ''),
             coalesce(bool_and(detail ~ 'delete') FILTER (WHERE hint ~ '(^|; ?)(TRUNCATE|DELETE|DROP EXTENSION)'), true)
         FROM {schema}.presence_health() WHERE NOT ok AND check_name = ANY ({DEFINITIONS})"
    );
    let row = client.query_one(&sql, &[]).unwrap();
    assert!(row.get::<_, bool>(2), "{}", row.get::<_, String>(1));
    (row.get(0), row.get(1))
}

fn assert_mended(client: &mut Client, schema: &str, damage: &str, checks: &str) {
    let (found, statements) = differences(client, schema);
    assert_eq!(found, checks, "{damage}");
    assert!(statements.ends_with(';'), "{damage}: {statements}");
    if let Err(error) = client.batch_execute(&statements) {
        panic!("{damage}: {statements}: {error:?}");
    }
    assert_eq!(
        differences(client, schema),
        (String::new(), String::new()),
        "{damage}: {statements}"
    );
}

#[test]
fn the_statements_of_health_restore_what_it_names() {
    let database = Cluster::shared().database();
    let role = database.role("other");
    let mut client = database.connect();
    client.start(Uuid::new_v4());
    assert_eq!(differences(&mut client, "presence").0, "");
    for (damage, checks) in DAMAGES {
        let damage = damage.replace("{role}", &role);
        database.run(&damage);
        assert_mended(&mut client, "presence", &damage, checks);
    }
    database.assert_served();
}

#[test]
fn values_that_cannot_be_converted_are_removed() {
    let damage = format!(
        "{DROP_POLICIES} ALTER TABLE presence.user_sessions ALTER auth_id DROP DEFAULT, ALTER auth_id TYPE bigint USING 1"
    );
    for others in [
        "",
        "CREATE TABLE mine (id uuid REFERENCES presence.user_sessions ON DELETE CASCADE)",
    ] {
        let database = Cluster::shared().database();
        let mut client = database.connect();
        let session = client.start(Uuid::new_v4());
        database.run(others);
        if !others.is_empty() {
            client.execute("INSERT INTO mine VALUES ($1)", &[&session.id]).unwrap();
        }
        database.run(&damage);
        assert_mended(&mut client, "presence", &damage, "columns policies");
        // A deletion past the trigger reaches memory when the worker finds out.
        wait_until("the session is gone", || client.beat(session.id) == "unknown");
        database.assert_served();
    }
}

#[test]
fn health_knows_a_schema_that_was_renamed() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    let schema = "\"Who's 100 %here\"";
    let damage = format!(
        "ALTER SCHEMA presence RENAME TO {schema}; ALTER TABLE {schema}.user_sessions RENAME auth_id TO \"authId\";
         ALTER TABLE {schema}.user_sessions RENAME TO s; DROP INDEX {schema}.user_sessions_user_id_idx;
         DROP POLICY own_or_service_select ON {schema}.s; DROP TRIGGER presence_capture ON {schema}.s;
         CREATE TABLE mine (); CREATE TRIGGER mine AFTER INSERT ON mine EXECUTE FUNCTION {schema}._capture()"
    );
    database.run(&damage);
    assert_mended(&mut client, schema, &damage, "tables columns indexes policies triggers");
}

/// Asserts that starting a session fails with 55000 and a hint that names presence_health().
fn assert_start_refused(client: &mut Client, damage: &str) {
    let start = client.query("SELECT * FROM presence.start_session(gen_random_uuid())", &[]);
    let error = assert_refused(start, &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(
        error.message(),
        "extension objects of pg_presence are incomplete",
        "{damage}"
    );
    assert!(
        error.hint().unwrap().contains("presence_health()"),
        "{damage}: {error:?}"
    );
}

#[test]
fn a_call_that_cannot_work_says_so_and_the_others_go_on() {
    for damage in [
        "DROP INDEX presence.user_sessions_session_token_key",
        "ALTER TABLE presence.user_sessions RENAME session_token TO token",
        "ALTER TABLE presence.user_sessions RENAME user_id TO \"userId\"",
        "ALTER TABLE presence.user_sessions RENAME TO sessions",
        "ALTER TABLE presence.user_sessions SET SCHEMA public",
        "ALTER TABLE presence.user_sessions ALTER id DROP DEFAULT, ALTER id TYPE text",
        "ALTER TABLE presence.user_sessions DROP metadata",
        "ALTER TABLE presence.user_sessions OWNER TO {role}",
    ] {
        let database = Cluster::shared().database();
        let role = database.role("other");
        database.run(&format!("REVOKE USAGE ON SCHEMA presence FROM {role}"));
        let damage = &damage.replace("{role}", &role);
        database.wait_until_served();
        let (mut before, user) = (database.connect(), Uuid::new_v4());
        let session = before.start(user);
        database.run(damage);
        let mut after = database.connect();
        for client in [&mut before, &mut after] {
            assert_start_refused(client, damage);
            assert_eq!(client.beat(session.id), "ok", "{damage}");
            assert!(client.is_online(user), "{damage}");
        }
        let (_, statements) = differences(&mut after, "presence");
        after.batch_execute(&statements).unwrap();
        before.start(Uuid::new_v4());
        after.start(Uuid::new_v4());
    }
}

#[test]
fn a_default_of_ended_at_does_not_end_the_sessions_that_calls_start() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    database.run("ALTER TABLE presence.user_sessions ALTER ended_at SET DEFAULT now()");
    let session = client.start(Uuid::new_v4());
    assert_eq!(client.beat(session.id), "ok");
}

#[test]
fn a_rule_that_leaves_nothing_of_a_write_is_noticed_when_it_is_dropped_too() {
    let server = Server::with(&[("presence.active_timeout", "2h"), ("presence.flush_interval", "1s")]);
    let database = server.cluster.database();
    let mut client = database.connect();
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let (ended, silent) = (client.start(one), client.start(two));
    client.end(ended.id);
    let ended = client.start(one);
    database.run("CREATE RULE keep AS ON UPDATE TO presence.user_sessions DO INSTEAD NOTHING");
    server.pass(3);
    let end = "SELECT presence.end_session($1)";
    assert_refused(
        client.query(end, &[&ended.id]),
        &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
    );
    let sql = "SELECT detail FROM presence.presence_health() WHERE check_name = 'unwritable' AND NOT ok";
    wait_until("the worker could not write", || {
        !client.query(sql, &[]).unwrap().is_empty()
    });
    let (checks, statements) = differences(&mut client, "presence");
    assert_eq!(checks, "tables");
    client.batch_execute(&statements).unwrap();
    assert!(client.end(ended.id));
    let sql = "SELECT is_active FROM presence.user_sessions WHERE id = $1";
    wait_until("the worker writes", || {
        !client.query_one(sql, &[&silent.id]).unwrap().get::<_, bool>(0)
    });
}

#[test]
fn a_call_that_waits_while_a_column_is_dropped_says_what_to_do() {
    let database = Cluster::shared().database();
    let (mut owner, mut caller) = (database.connect(), database.connect());
    caller.wait_for_locks();
    for damage in [
        "ALTER TABLE presence.user_sessions RENAME session_token TO token",
        "DROP INDEX presence.user_sessions_session_token_key",
    ] {
        caller.start(Uuid::new_v4());
        caller.start(Uuid::new_v4());
        let mut altering = owner.transaction().unwrap();
        altering.batch_execute(damage).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| assert_start_refused(&mut caller, damage));
            let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted
                       AND relation IN ('presence.user_sessions'::regclass, 'presence.user_sessions_pkey'::regclass)";
            let mut witness = database.connect();
            wait_until("the call waits", || {
                witness.query_one(sql, &[]).unwrap().get::<_, i64>(0) > 0
            });
            altering.commit().unwrap();
            waiting.join().unwrap();
        });
        let (_, statements) = differences(&mut owner, "presence");
        owner.batch_execute(&statements).unwrap();
    }
}

#[test]
fn a_user_whose_row_a_rule_keeps_is_not_reported_as_forgotten() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    database.run("CREATE RULE keep AS ON DELETE TO presence.user_presence DO INSTEAD NOTHING");
    let forget = "SELECT presence.forget_user(gen_random_uuid())";
    let error = assert_refused(client.query(forget, &[]), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert!(error.hint().unwrap().contains("presence_health()"), "{error:?}");
    let (checks, statements) = differences(&mut client, "presence");
    assert_eq!(checks, "tables");
    client.batch_execute(&statements).unwrap();
    client.query_one(forget, &[]).unwrap();
}

#[test]
fn a_column_that_was_dropped_and_added_again_is_read_in_its_new_place() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    database.run(
        "ALTER TABLE presence.user_sessions DROP is_active, DROP user_key, DROP expires_at;
         ALTER TABLE presence.user_sessions ADD extra uuid;",
    );
    assert_mended(&mut client, "presence", "dropped columns", "columns");
    let insert = "INSERT INTO presence.user_sessions (user_key) VALUES ('somebody') RETURNING id, user_id";
    let row = client.query_one(insert, &[]).unwrap();
    let (id, user): (Uuid, Uuid) = (row.get(0), row.get(1));
    assert!(client.is_online(user));
    client
        .execute(
            "UPDATE presence.user_sessions SET is_active = false WHERE id = $1",
            &[&id],
        )
        .unwrap();
    assert!(!client.is_online(user));
    assert_eq!(client.beat(id), "ended");
    database.assert_served();
}

fn changes(client: &mut Client) -> (bool, String, Option<String>) {
    let sql = "SELECT ok, detail, hint FROM presence.presence_health() WHERE check_name = 'changes'";
    let row = client.query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1), row.get(2))
}

fn assert_blocked_by(database: &Database, lock: &str) {
    let mut client = database.connect();
    database.wait_until_served();
    wait_until("nothing waits", || changes(&mut client).0);
    let mut blocker = database.connect();
    let pid = blocker.process_id();
    blocker
        .batch_execute("SET application_name = 'blocker'; BEGIN")
        .unwrap();
    blocker.batch_execute(lock).unwrap();
    client.start(Uuid::new_v4());
    wait_until("health names the blocker", || {
        let (ok, detail, hint) = changes(&mut client);
        !ok && detail.contains(&format!("process {pid} ("))
            && detail.contains("blocker")
            && hint.is_some_and(|hint| hint == format!("SELECT pg_terminate_backend({pid});"))
    });
    let (_, _, hint) = changes(&mut client);
    client.batch_execute(&hint.unwrap()).unwrap();
    wait_until("the change is written", || changes(&mut client).0);
    let waiting = "SELECT oldest_unwritten_ms FROM presence.presence_stats";
    wait_until("nothing waits", || {
        client
            .query_one(waiting, &[])
            .unwrap()
            .get::<_, Option<i64>>(0)
            .is_none()
    });
}

#[test]
fn health_says_how_long_a_change_has_waited_and_for_whom() {
    let database = Cluster::shared().database();
    assert_blocked_by(&database, "LOCK TABLE presence.user_presence IN SHARE MODE");
    assert_blocked_by(&database, "SELECT FROM presence._feed_state FOR UPDATE");
}
