//! DDL on a database, and on the extension in it, while its worker runs: DROP, RENAME, TEMPLATE, dump and restore.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use postgres::Client;
use uuid::Uuid;

use pg_presence_test::{Cluster, Database, Install, Presence, wait_for, wait_until};

fn epoch(client: &mut Client) -> String {
    client
        .query_one("SELECT epoch FROM presence.presence_cursor()", &[])
        .expect("a cursor")
        .get(0)
}

fn worker_of(cluster: &Cluster, database: &str) -> Option<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'pg_presence worker'";
    let row = cluster.connect("postgres").query_opt(sql, &[&database]);
    row.expect("the processes").map(|row| row.get(0))
}

fn oid_of(cluster: &Cluster, database: &str) -> u32 {
    let sql = "SELECT oid FROM pg_database WHERE datname = $1";
    let row = cluster.connect("postgres").query_one(sql, &[&database]);
    row.expect("the database").get(0)
}

/// Returns how often a worker was started for a database, according to the log at debug1.
fn tries(cluster: &Cluster, oid: u32) -> usize {
    let line = format!("starting background worker process \"pg_presence worker for database {oid}\"");
    cluster.log().matches(&line).count()
}

/// Asserts that a change in the database is written by its worker.
fn assert_served(cluster: &Cluster, database: &str) {
    let mut client = cluster.connect(database);
    let user = Uuid::new_v4();
    client.start(user);
    wait_until("the worker writes", || {
        let sql = "SELECT FROM presence.user_presence WHERE user_id = $1 AND is_online";
        client.query_opt(sql, &[&user]).expect("a row").is_some()
    });
}

#[test]
fn a_database_is_dropped_while_its_worker_runs() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    database.worker();
    cluster.change_database(&format!("DROP DATABASE {}", database.name));
    assert_eq!(worker_of(cluster, &database.name), None);
}

#[test]
fn a_database_is_renamed_while_its_worker_runs_and_served_under_its_new_name() {
    let cluster = Cluster::shared();
    let mut database = cluster.database();
    database.worker();
    let user = Uuid::new_v4();
    database.connect().start(user);
    let new = format!("{}_renamed", database.name);
    cluster.change_database(&format!("ALTER DATABASE {} RENAME TO {new}", database.name));
    database.name = new;
    assert!(database.connect().is_online(user));
    database.worker();
    assert_served(cluster, &database.name);
}

#[test]
fn a_database_is_copied_while_its_worker_runs_and_the_copy_is_independent() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut original = database.connect();
    let user = Uuid::new_v4();
    let session = original.start(user);
    assert_served(cluster, &database.name);
    let before = epoch(&mut original);
    drop(original);
    let copy = format!("{}_copy", database.name);
    cluster.change_database(&format!("CREATE DATABASE {copy} TEMPLATE {}", database.name));
    let mut original = database.connect();
    database.worker();
    assert_eq!(epoch(&mut original), before, "the original keeps its epoch");

    let mut copied = cluster.connect(&copy);
    wait_until("the copy is served", || epoch(&mut copied) != before);
    assert!(copied.is_online(user));
    assert!(copied.end(session.id));
    assert!(!copied.is_online(user));
    assert!(original.is_online(user));
    assert_served(cluster, &copy);
    drop(copied);
    cluster.change_database(&format!("DROP DATABASE {copy}"));
}

#[test]
fn a_database_locked_for_long_is_not_tried_meanwhile() {
    let cluster = Cluster::private(&[("log_min_messages", "debug1")]);
    let mut database = cluster.database();
    database.worker();
    let oid = oid_of(&cluster, &database.name);
    let new = format!("{}_renamed", database.name);
    let mut owner = cluster.connect("postgres");
    let rename = format!("ALTER DATABASE {} RENAME TO {new}", database.name);
    owner.batch_execute(&format!("BEGIN; {rename}")).unwrap();
    wait_until("the worker exits", || worker_of(&cluster, &database.name).is_none());
    let before = tries(&cluster, oid);
    // Long enough for the launcher to read the list of databases again.
    let left = Instant::now();
    while left.elapsed() < Duration::from_secs(3) {
        assert_served(&cluster, &cluster.database().name);
    }
    assert_eq!(tries(&cluster, oid), before);
    owner.batch_execute("COMMIT").unwrap();
    database.name = new;
    database.worker();
    assert_served(&cluster, &database.name);
    assert!(!cluster.log().contains("exited with exit code 1"));
}

#[test]
fn a_closed_database_has_no_worker_and_an_opened_one_has() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    database.worker();
    cluster.change_database(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", database.name));
    wait_until("the worker exits", || worker_of(cluster, &database.name).is_none());
    cluster.change_database(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", database.name));
    database.worker();
    assert_served(cluster, &database.name);
}

#[test]
fn after_drop_extension_the_worker_leaves_and_a_new_extension_inherits_nothing() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    service.wait_for_written(user, true);
    let before = epoch(&mut service);
    assert_served(cluster, &database.name);
    database.run("DROP EXTENSION pg_presence");
    wait_until("the worker exits", || worker_of(cluster, &database.name).is_none());
    database.run("CREATE EXTENSION pg_presence SCHEMA presence");
    assert!(!service.is_online(user));
    assert_eq!(service.beat(session.id), "unknown");
    database.worker();
    assert_ne!(epoch(&mut service), before);
    assert_served(cluster, &database.name);
}

#[test]
fn a_dropped_extension_frees_its_memory_for_other_databases() {
    let cluster = Cluster::private(&[("presence.max_sessions", "64")]);
    let (dropped, other) = (cluster.database(), cluster.database());
    let users: Vec<Uuid> = (0..60).map(|_| Uuid::new_v4()).collect();
    let start = "SELECT count(*) FROM presence.start_sessions($1)";
    dropped.connect().query_one(start, &[&users]).unwrap();
    other.wait_until_served();
    dropped.run("DROP EXTENSION pg_presence");
    let mut service = other.connect();
    wait_until("the roster to be empty", || {
        let sql = "SELECT used FROM presence.presence_stats";
        service.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0
    });
    service.query_one(start, &[&users]).unwrap();
    let sql = "SELECT in_overflow OR known_sessions <> 60 FROM presence.presence_stats";
    assert!(!service.query_one(sql, &[]).unwrap().get::<_, bool>(0));
}

#[test]
fn an_extension_dropped_and_created_in_one_transaction_is_served() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    assert_served(cluster, &database.name);
    database.run("BEGIN; DROP EXTENSION pg_presence; CREATE EXTENSION pg_presence SCHEMA presence; COMMIT");
    assert_served(cluster, &database.name);
}

#[test]
fn a_drop_extension_that_is_rolled_back_changes_nothing() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    service.wait_for_written(user, true);
    let before = epoch(&mut service);
    let mut dropping = database.connect();
    dropping.batch_execute("BEGIN; DROP EXTENSION pg_presence").unwrap();
    dropping.batch_execute("ROLLBACK").unwrap();
    assert!(service.is_online(user));
    assert_eq!(service.beat(session.id), "ok");
    assert_eq!(epoch(&mut service), before);
    assert_served(cluster, &database.name);
}

#[test]
fn a_database_without_the_extension_is_tried_once_and_left_alone() {
    let cluster = Cluster::private(&[("log_min_messages", "debug1")]);
    let database = cluster.database_with(Install::None);
    let oid = oid_of(&cluster, &database.name);
    wait_until("the database is tried", || tries(&cluster, oid) > 0);
    // Each of these makes the launcher visit all databases several times.
    for _ in 0..3 {
        cluster.database().worker();
    }
    assert_eq!(tries(&cluster, oid), 1);
    database.run("CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence");
    database.worker();
}

fn restore(cluster: &Cluster, target: &Database, dump: &[u8]) {
    let mut psql = cluster
        .program("psql", &target.name)
        .args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("psql");
    let mut input = psql.stdin.take().expect("a pipe");
    input.write_all(dump).expect("to write");
    drop(input);
    assert!(psql.wait().expect("psql").success());
}

#[test]
fn a_restored_dump_continues_the_numbers_in_a_new_epoch() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..5).map(|_| Uuid::new_v4()).collect();
    for user in &users {
        service.start(*user);
    }
    assert_served(cluster, &database.name);
    let last: i64 = wait_for("every change", || {
        let row = service.query_one("SELECT seq FROM presence.presence_cursor()", &[]);
        Some(row.unwrap().get(0)).filter(|seq| *seq >= 6)
    });
    let dump = cluster.program("pg_dump", &database.name).output().expect("pg_dump");
    assert!(dump.status.success());
    let target = cluster.database_with(Install::None);
    restore(cluster, &target, &dump.stdout);
    let mut restored = target.connect();
    target.worker();
    wait_until("one row of feed state, with at least that number", || {
        let row = restored
            .query("SELECT epoch, seq FROM presence._feed_state", &[])
            .unwrap();
        row.len() == 1 && row[0].get::<_, i64>(1) >= last
    });
    assert_ne!(epoch(&mut restored), epoch(&mut service));
    assert!(users.iter().all(|user| restored.is_online(*user)));
    assert_served(cluster, &target.name);
    let sql = "SELECT min(seq) FROM presence.presence_changes";
    let first: i64 = restored.query_one(sql, &[]).unwrap().get(0);
    assert!(first > last, "{first} was used before");
}
