//! What differs between PostgreSQL's major versions. Where a version lacks something, the test says so, too.

use pg_presence_test::{Cluster, Database, Install, Presence, Shutdown, error_of, server_major, wait_until};
use postgres::error::SqlState;
use uuid::Uuid;

/// A user logs in and out, and both are told.
fn assert_works(database: &Database) {
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    let session = service.start(user);
    listener.wait_for(user, &["active"]);
    assert_eq!(service.beat(session.id), "ok");
    assert!(service.end(session.id));
    listener.wait_for(user, &["active", "inactive"]);
    service.wait_for_written(user, false);
}

#[test]
fn the_module_says_its_name_and_version() {
    let database = Cluster::shared().database();
    let mut client = database.connect();
    let sql = "SELECT m.version = e.extversion FROM pg_get_loaded_modules() m, pg_extension e
               WHERE m.module_name = 'pg_presence' AND e.extname = 'pg_presence'";
    let found = client.query(sql, &[]);
    if server_major() < 18 {
        assert_eq!(error_of(found).code(), &SqlState::UNDEFINED_FUNCTION);
        return;
    }
    let found = found.unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].get::<_, bool>(0));
}

#[test]
fn a_refused_install_shows_no_script() {
    let database = Cluster::shared().database_with(Install::None);
    database.run("CREATE SCHEMA presence");
    let stranger = database.role("stranger");
    database.run(&format!("GRANT CREATE ON SCHEMA presence TO {stranger}"));
    let mut client = database.connect();
    let refused = client.batch_execute("CREATE EXTENSION pg_presence SCHEMA presence");
    let error = error_of(refused);
    assert_eq!(error.code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    let context = error.where_().unwrap_or_default();
    assert!(context.lines().count() <= 4, "{context}");
}

#[test]
fn no_timeout_of_a_database_stops_its_worker() {
    let database = Cluster::shared().database();
    let mut timeouts = vec![
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
    ];
    if server_major() >= 17 {
        timeouts.push("transaction_timeout");
    }
    let role = database.service();
    let mut owner = database.connect();
    for timeout in timeouts {
        let set = format!(
            "ALTER DATABASE {0} SET {timeout} = '1ms'; ALTER ROLE {role} IN DATABASE {0} SET {timeout} = 0",
            database.name
        );
        owner.batch_execute(&set).unwrap();
    }
    let mut service = database.connect_as(&role);
    let worker = "SELECT worker_pid FROM presence.presence_stats";
    let worker: i32 = service.query_one(worker, &[]).unwrap().get(0);
    // The next one starts with these settings.
    Cluster::shared()
        .connect("postgres")
        .execute("SELECT pg_terminate_backend($1)", &[&worker])
        .unwrap();
    for _ in 0..3 {
        let user = Uuid::new_v4();
        let session = service.start(user);
        service.wait_for_written(user, true);
        service.end(session.id);
        service.wait_for_written(user, false);
    }
}

#[test]
fn whoever_may_maintain_the_tables_writes_no_row() {
    let database = Cluster::shared().database();
    let role = database.role("maintainer");
    let grant =
        format!("GRANT USAGE ON SCHEMA presence TO {role}; GRANT MAINTAIN ON ALL TABLES IN SCHEMA presence TO {role}");
    let mut owner = database.connect();
    if server_major() < 17 {
        let error = error_of(owner.batch_execute(&grant));
        assert_eq!(error.code(), &SqlState::SYNTAX_ERROR);
        return;
    }
    owner.batch_execute(&grant).unwrap();
    let mut maintainer = database.connect_as(&role);
    for table in ["user_sessions", "user_presence", "presence_changes", "_feed_state"] {
        for sql in ["VACUUM FULL", "REINDEX TABLE", "ANALYZE"] {
            maintainer.batch_execute(&format!("{sql} presence.{table}")).unwrap();
        }
        for sql in ["DELETE FROM", "TRUNCATE", "SELECT FROM"] {
            let error = error_of(maintainer.batch_execute(&format!("{sql} presence.{table}")));
            assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{sql} {table}");
        }
    }
    assert_works(&database);
}

#[test]
fn a_trigger_on_logins_is_not_the_workers() {
    let database = Cluster::shared().database();
    let create = "CREATE TABLE public.logins (kind text);
         CREATE FUNCTION public.note_login() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN INSERT INTO public.logins SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid(); END $$;
         CREATE EVENT TRIGGER note_login ON login EXECUTE FUNCTION public.note_login();
         ALTER EVENT TRIGGER note_login ENABLE ALWAYS";
    let mut owner = database.connect();
    if server_major() < 17 {
        assert_eq!(error_of(owner.batch_execute(create)).code(), &SqlState::SYNTAX_ERROR);
        return;
    }
    owner.batch_execute(create).unwrap();
    let worker = database.worker();
    owner.execute("SELECT pg_terminate_backend($1)", &[&worker]).unwrap();
    wait_until("another worker", || database.worker() != worker);
    assert_works(&database);
    let kinds = owner.query("SELECT DISTINCT kind FROM public.logins", &[]).unwrap();
    let kinds: Vec<String> = kinds.iter().map(|row| row.get(0)).collect();
    assert_eq!(kinds, ["client backend"]);
    // It cannot be connected to while it is dropped.
    owner.batch_execute("DROP EVENT TRIGGER note_login").unwrap();
}

#[test]
fn it_works_with_every_method_of_io() {
    let cluster = Cluster::private(&[]);
    let has_methods = !cluster
        .connect("postgres")
        .query("SELECT FROM pg_settings WHERE name = 'io_method'", &[])
        .unwrap()
        .is_empty();
    assert_eq!(has_methods, server_major() >= 18);
    let database = cluster.database();
    for method in ["worker", "sync"] {
        if has_methods {
            cluster.configure(&[("io_method", method)]);
        }
        cluster.restart(Shutdown::Fast);
        database.wait_until_served();
        assert_works(&database);
    }
}
