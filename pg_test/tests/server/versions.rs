//! What differs between PostgreSQL's major versions. Where a version lacks something, the test says so, too.

use std::{fs, path::Path};

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
    database.wait_until_served();
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
    for table in [
        "user_sessions",
        "user_presence",
        "presence_changes",
        "_feed_state",
        "declared_statuses",
    ] {
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

#[test]
fn what_a_subscriber_applies_in_parallel_counts_there() {
    let (here, there) = (Cluster::private(&[]), Cluster::private(&[]));
    let (publisher, subscriber) = (here.database(), there.database());
    publisher.run("CREATE PUBLICATION p FOR TABLE presence.user_sessions");
    let mut reader = subscriber.connect();
    let created = reader.batch_execute(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={} user=postgres dbname={}' PUBLICATION p WITH (streaming = parallel)",
        here.socket_directory().display(),
        publisher.name
    ));
    if server_major() < 16 {
        assert_eq!(error_of(created).code(), &SqlState::SYNTAX_ERROR);
        return;
    }
    created.unwrap();
    // Each change is streamed before its transaction commits.
    here.set("debug_logical_replication_streaming", "immediate");
    let mut service = publisher.connect();
    let start =
        "INSERT INTO presence.user_sessions (user_id) SELECT gen_random_uuid() FROM generate_series(1, $1::int)";
    let streamed = "SELECT count(*) FROM pg_stat_subscription WHERE leader_pid IS NOT NULL";
    let mut users = 0;
    wait_until("a parallel worker applies", || {
        let mut transaction = service.transaction().unwrap();
        users += transaction.execute(start, &[&100]).unwrap() as i64;
        let mut aborted = transaction.transaction().unwrap();
        aborted.execute(start, &[&100]).unwrap();
        aborted.rollback().unwrap();
        transaction.commit().unwrap();
        wait_until("all are online there", || reader.online_count() == users);
        reader.query_one(streamed, &[]).unwrap().get::<_, i64>(0) > 0
    });
    service
        .batch_execute("UPDATE presence.user_sessions SET ended_at = now(), is_active = false")
        .unwrap();
    wait_until("nobody is online there", || reader.online_count() == 0);
    let written = "SELECT count(*) FROM presence.user_presence WHERE NOT is_online";
    wait_until("all are written there", || {
        reader.query_one(written, &[]).unwrap().get::<_, i64>(0) == users
    });
    reader.assert_no_gaps();
}

/// Copies the files of a directory whose names begin with `pg_presence`.
fn copy_extension(from: &str, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if file.file_name().to_string_lossy().starts_with("pg_presence") {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

#[test]
fn it_can_be_installed_outside_the_servers_directories() {
    let cluster = Cluster::private(&[]);
    let mut postgres = cluster.connect("postgres");
    let setting = "SELECT FROM pg_settings WHERE name = 'extension_control_path'";
    let has_path = !postgres.query(setting, &[]).unwrap().is_empty();
    assert_eq!(has_path, server_major() >= 18);
    if !has_path {
        return;
    }
    let mut directory = |name| -> String {
        let sql = "SELECT setting FROM pg_config() WHERE name = $1";
        postgres.query_one(sql, &[&name]).unwrap().get(0)
    };
    let elsewhere = cluster.data().join("elsewhere");
    let (share, lib) = (elsewhere.join("share"), elsewhere.join("lib"));
    copy_extension(
        &format!("{}/extension", directory("SHAREDIR")),
        &share.join("extension"),
    );
    copy_extension(&directory("PKGLIBDIR"), &lib);
    let control = share.join("extension/pg_presence.control");
    let text = fs::read_to_string(&control).unwrap();
    let others = text.lines().filter(|line| !line.starts_with("comment"));
    let text = format!(
        "{}\ncomment = 'from elsewhere'\n",
        others.collect::<Vec<_>>().join("\n")
    );
    fs::write(&control, text).unwrap();
    cluster.configure(&[
        ("extension_control_path", &format!("{}:$system", share.display())),
        ("dynamic_library_path", &format!("{}:$libdir", lib.display())),
    ]);
    cluster.restart(Shutdown::Fast);
    let database = cluster.database();
    let sql = "SELECT obj_description(oid, 'pg_extension')
               FROM pg_extension WHERE extname = 'pg_presence'";
    let row = database.connect().query_one(sql, &[]).unwrap();
    assert_eq!(row.get::<_, String>(0), "from elsewhere");
    assert_works(&database);
    let maps = fs::read_to_string(format!("/proc/{}/maps", database.worker())).unwrap();
    let library = lib.join("pg_presence.so");
    let libraries: Vec<&str> = maps.lines().filter(|line| line.ends_with("/pg_presence.so")).collect();
    assert!(!libraries.is_empty());
    for line in libraries {
        assert!(line.ends_with(&library.display().to_string()), "{line}");
    }
}
