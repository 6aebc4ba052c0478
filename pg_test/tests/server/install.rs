//! CREATE EXTENSION, and what it leaves behind.

use pg_presence_test::{Cluster, Install, Presence, Shutdown, assert_refused, error_of, wait_until};
use postgres::error::SqlState;
use uuid::Uuid;

/// How somebody verifies a plain user_sessions table created by hand.
const TABLE_EXISTS: &str = "SELECT table_name, table_type
FROM information_schema.tables
WHERE table_schema = 'public'
  AND table_name = 'user_sessions'";
const TABLE_STRUCTURE: &str = "SELECT column_name, data_type, is_nullable
FROM information_schema.columns
WHERE table_name = 'user_sessions'
ORDER BY ordinal_position";

#[test]
fn in_public_the_table_has_the_columns_of_a_plain_sessions_table() {
    let database = Cluster::shared().database_with(Install::Public);
    let mut client = database.connect();

    let tables = client.query(TABLE_EXISTS, &[]).unwrap();
    assert_eq!(tables.len(), 1);
    assert_eq!(tables[0].get::<_, &str>("table_type"), "BASE TABLE");

    let columns = client.query(TABLE_STRUCTURE, &[]).unwrap();
    let columns: Vec<(&str, &str)> = columns
        .iter()
        .map(|row| (row.get("column_name"), row.get("data_type")))
        .collect();
    let plain = [
        ("id", "uuid"),
        ("user_id", "uuid"),
        ("auth_id", "uuid"),
        ("session_token", "text"),
        ("is_active", "boolean"),
        ("last_activity", "timestamp with time zone"),
        ("created_at", "timestamp with time zone"),
        ("expires_at", "timestamp with time zone"),
    ];
    assert_eq!(columns[..plain.len()], plain);
}

#[test]
fn in_public_no_schema_name_is_needed() {
    let database = Cluster::shared().database_with(Install::Public);
    let mut client = database.connect();
    let user = Uuid::new_v4();
    client.execute("SELECT start_session(user_id => $1)", &[&user]).unwrap();
    let online = "SELECT is_online($1)";
    assert!(client.query_one(online, &[&user]).unwrap().get::<_, bool>(0));
}

#[test]
fn everything_is_created_in_the_requested_schema() {
    let database = Cluster::shared().database();
    let elsewhere = "SELECT pg_describe_object(classid, objid, objsubid), identity FROM pg_depend d,
            LATERAL pg_identify_object(classid, objid, objsubid) i
        WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND i.schema <> 'presence'
          AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_presence')";
    let rows = database.connect().query(elsewhere, &[]).unwrap();
    let found: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn databases_of_one_server_are_independent() {
    let (one, other) = (Cluster::shared().database(), Cluster::shared().database());
    let (mut in_one, mut in_other) = (one.connect(), other.connect());
    let user = Uuid::new_v4();

    let session = in_one.start(user);
    assert!(in_one.is_online(user));
    assert!(!in_other.is_online(user));
    assert_eq!(in_other.beat(session.id), "unknown");

    let second = in_other.start(user);
    assert!(in_one.end(session.id));
    assert!(!in_one.is_online(user));
    assert!(in_other.is_online(user));
    assert_eq!(in_other.beat(second.id), "ok");
}

#[test]
fn without_preload_create_extension_fails_with_a_hint_and_the_connection_survives() {
    let cluster = Cluster::private(&[("shared_preload_libraries", "")]);
    let database = cluster.database_with(Install::None);
    let mut client = database.connect();
    let error = assert_refused(
        client.batch_execute("CREATE EXTENSION pg_presence"),
        &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
    );
    assert!(error.hint().unwrap().contains("shared_preload_libraries"));
    client.batch_execute("SELECT 1").unwrap();
}

#[test]
fn without_preload_every_function_fails_with_a_hint_and_the_connection_survives() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let session = database.connect().start(Uuid::new_v4());
    cluster.stop(Shutdown::Fast);
    cluster.configure(&[("shared_preload_libraries", "")]);
    cluster.start();

    let mut client = database.connect();
    let id = Uuid::new_v4();
    for call in [
        format!("start_session(user_id => '{id}')"),
        format!("start_sessions(ARRAY['{id}'::uuid])"),
        format!("heartbeat('{}')", session.id),
        format!("heartbeat_by_token('{}')", session.token),
        format!("heartbeat_idle('{}')", session.id),
        format!("heartbeat_idle_by_token('{}')", session.token),
        format!("heartbeat_many(ARRAY['{id}'::uuid])"),
        format!("end_session('{}')", session.id),
        format!("end_session_by_token('{}')", session.token),
        format!("end_sessions(ARRAY['{id}'::uuid])"),
        format!("release_session('{}')", session.id),
        format!("release_session_by_token('{}')", session.token),
        format!("release_sessions(ARRAY['{id}'::uuid])"),
        format!("bind_sessions(ARRAY['{id}'::uuid])"),
        format!("end_user_sessions('{id}')"),
        format!("rotate_session_token('{}')", session.id),
        format!("user_status('{id}')"),
        format!("set_status('busy', user_id => '{id}')"),
        format!("clear_status(user_id => '{id}')"),
        format!("set_invisible(true, user_id => '{id}')"),
        format!("own_presence('{id}')"),
        format!("is_online('{id}')"),
        format!("last_seen('{id}')"),
        format!("presence_of(ARRAY['{id}'::uuid])"),
        "online_users()".to_owned(),
        "online_count()".to_owned(),
        "presence_cursor()".to_owned(),
        "changes_since(0)".to_owned(),
        format!("forget_user('{id}')"),
        "cleanup_sessions()".to_owned(),
        "renew_epoch()".to_owned(),
        "presence_metrics()".to_owned(),
    ] {
        let result = client.batch_execute(&format!("SELECT presence.{call}"));
        let error = result.expect_err(&call);
        let error = error
            .as_db_error()
            .unwrap_or_else(|| panic!("{call} breaks the connection: {error:?}"));
        assert_eq!(
            error.code(),
            &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "{call}: {error:?}"
        );
        assert!(
            error.hint().unwrap_or_default().contains("shared_preload_libraries"),
            "{call}: {error:?}"
        );
    }
}

#[test]
fn a_schema_where_others_may_create_is_refused() {
    let database = Cluster::shared().database_with(Install::None);
    let intruder = database_role(&database, "intruder");
    let mut client = database.connect();
    for grantee in ["PUBLIC", &intruder] {
        client
            .batch_execute(&format!("GRANT CREATE ON SCHEMA public TO {grantee}"))
            .unwrap();
        let error = assert_refused(
            client.batch_execute("CREATE EXTENSION pg_presence"),
            &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        );
        let hint = error.hint().unwrap();
        let own = hint.find("CREATE SCHEMA presence").expect("the schema of its own");
        let revoke = hint.find("REVOKE CREATE").expect("the other way");
        assert!(own < revoke, "{hint}");
        client
            .batch_execute(&format!("REVOKE CREATE ON SCHEMA public FROM {grantee}"))
            .unwrap();
    }
    client.batch_execute("CREATE EXTENSION pg_presence").unwrap();
}

/// Creates a role for a database that has no schema `presence` yet.
fn database_role(database: &pg_presence_test::Database, what: &str) -> String {
    let role = format!("{what}_{}", database.name);
    database.run(&format!("CREATE ROLE {role} LOGIN"));
    role
}

#[test]
fn a_schema_owned_by_the_owner_of_the_database_is_accepted() {
    let database = Cluster::shared().database_with(Install::None);
    let owner = database_role(&database, "owner");
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "ALTER DATABASE {} OWNER TO {owner}; CREATE SCHEMA theirs AUTHORIZATION {owner}",
            database.name
        ))
        .unwrap();
    client
        .batch_execute("CREATE EXTENSION pg_presence SCHEMA theirs")
        .unwrap();
}

#[test]
fn default_privileges_give_nobody_more_than_documented() {
    let database = Cluster::shared().database_with(Install::None);
    let everybody = database_role(&database, "anybody");
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {everybody};
             ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {everybody};
             ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO {everybody};
             CREATE SCHEMA presence;
             CREATE EXTENSION pg_presence SCHEMA presence"
        ))
        .unwrap();
    let sql = "SELECT relname::text FROM pg_class, aclexplode(relacl) a
               WHERE relnamespace = 'presence'::regnamespace AND a.grantee = $1::text::regrole
               UNION ALL
               SELECT proname FROM pg_proc, aclexplode(proacl) a
               WHERE pronamespace = 'presence'::regnamespace AND a.grantee = $1::text::regrole
               UNION ALL
               SELECT attname FROM pg_attribute, aclexplode(attacl) a
               WHERE attrelid::regclass::text LIKE 'presence.%' AND a.grantee = $1::text::regrole";
    let rows = client.query(sql, &[&everybody]).unwrap();
    let found: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_dropped_extension_leaves_nothing_to_the_next() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    let user = Uuid::new_v4();
    let session = client.start(user);
    client
        .batch_execute("DROP EXTENSION pg_presence; CREATE EXTENSION pg_presence SCHEMA presence")
        .unwrap();
    assert!(!client.is_online(user));
    assert_eq!(client.beat(session.id), "unknown");
    assert!(client.online_users().is_empty());
    let again = client.start(user);
    assert_eq!(client.beat(again.id), "ok");
    let mut other = database.connect();
    wait_until("the new worker writes the change", || {
        let sql = "SELECT count(*) FROM presence.presence_changes";
        other.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 1
    });
}

#[test]
fn a_drop_that_is_rolled_back_changes_nothing() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    let user = Uuid::new_v4();
    let session = client.start(user);
    client
        .batch_execute(
            "BEGIN;
             DROP EXTENSION pg_presence;
             CREATE EXTENSION pg_presence SCHEMA presence;
             ROLLBACK",
        )
        .unwrap();
    assert!(client.is_online(user));
    assert_eq!(client.beat(session.id), "ok");
    assert!(database.connect().is_online(user));
}

#[test]
fn after_the_drop_a_prepared_call_fails_and_the_connection_survives() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    let user = Uuid::new_v4();
    let statement = client.prepare("SELECT presence.is_online($1)").unwrap();
    client.query_one(&statement, &[&user]).unwrap();
    database.run("DROP EXTENSION pg_presence");
    error_of(client.query_one(&statement, &[&user]));
    client.batch_execute("SELECT 1").unwrap();
}

#[test]
fn a_renamed_schema_keeps_its_worker() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let (before, after) = (Uuid::new_v4(), Uuid::new_v4());
    let session = service.start(before);
    listener.wait_for(before, &["active"]);
    let workers = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_presence worker' AND datname = $1";
    let worker =
        |client: &mut postgres::Client| -> i32 { client.query_one(workers, &[&database.name]).unwrap().get(0) };
    let pid = worker(&mut service);

    database.run("ALTER SCHEMA presence RENAME TO renamed");
    let beat = "SELECT renamed.heartbeat($1), renamed.end_session($1), renamed.last_seen($2) IS NOT NULL";
    let row = service.query_one(beat, &[&session.id, &before]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "ok");
    assert!(row.get::<_, bool>(1) && row.get::<_, bool>(2));
    listener.wait_for(before, &["active", "inactive"]);
    service
        .query_one("SELECT renamed.start_session($1)", &[&after])
        .unwrap();
    listener.wait_for(after, &["active"]);
    assert_eq!(worker(&mut service), pid, "the same worker");
}

#[test]
fn every_function_is_safe_under_any_search_path() {
    let database = Cluster::shared().database();
    let sql = "SELECT p.oid::regprocedure::text FROM pg_proc p
               JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
               JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
               JOIN pg_language l ON l.oid = p.prolang
               WHERE e.extname = 'pg_presence'
                 AND (p.prosecdef OR (l.lanname <> 'c') <>
                      ('search_path=pg_catalog, pg_temp' = ANY (coalesce(p.proconfig, '{}'))))";
    let rows = database.connect().query(sql, &[]).unwrap();
    let unsafe_ones: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert!(unsafe_ones.is_empty(), "{unsafe_ones:?}");
}

/// A table of sessions that an application has made itself.
const OWN_TABLE: &str = "CREATE TABLE public.user_sessions (id uuid PRIMARY KEY, session_token text UNIQUE)";

#[test]
fn an_applications_own_user_sessions_is_not_replaced_and_the_hint_names_the_guide() {
    let database = Cluster::shared().database_with(Install::None);
    let mut client = database.connect();
    client.batch_execute(OWN_TABLE).unwrap();
    let error = assert_refused(
        client.batch_execute("CREATE EXTENSION pg_presence"),
        &SqlState::DUPLICATE_TABLE,
    );
    let hint = error.hint().unwrap();
    assert!(hint.contains("docs/migration.md"), "{hint}");
    // The first statements of the hint make room.
    let way = hint.strip_prefix("To replace the table: ").unwrap();
    let way = &way[..way.find(" and then").unwrap()];
    client.batch_execute(way).unwrap();
    client.batch_execute("CREATE EXTENSION pg_presence").unwrap();
}

#[test]
fn beside_an_applications_own_user_sessions_the_install_warns_and_names_the_guide() {
    let cluster = Cluster::shared();
    let database = cluster.database_with(Install::None);
    database.run(OWN_TABLE);
    let psql = cluster
        .program("psql", &database.name)
        .args(["-X", "-c", "CREATE SCHEMA presence"])
        .args(["-c", "CREATE EXTENSION pg_presence SCHEMA presence"])
        .output()
        .unwrap();
    assert!(psql.status.success());
    let shown = String::from_utf8(psql.stderr).unwrap();
    assert!(shown.contains("WARNING:  relation public.user_sessions"), "{shown}");
    assert!(shown.contains("docs/migration.md"), "{shown}");
}
