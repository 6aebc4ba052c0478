//! The launcher: every database gets its worker, as soon as there is a slot for it.

use std::sync::{Arc, Mutex};

use pg_presence_test::{Cluster, Database, Install, Presence, signal, wait_for, wait_until};
use postgres::NoTls;
use uuid::Uuid;

fn launcher(cluster: &Cluster) -> Option<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_presence launcher'";
    let row = cluster.connect("postgres").query_opt(sql, &[]);
    row.expect("the processes").map(|row| row.get(0))
}

#[test]
fn a_terminated_launcher_is_replaced_and_finds_its_workers() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let worker = database.worker();
    database.assert_served();
    let first = wait_for("a launcher", || launcher(&cluster));
    signal("TERM", first);
    wait_for("another launcher", || launcher(&cluster).filter(|pid| *pid != first));
    let other = cluster.database();
    other.assert_served();
    assert_eq!(database.worker(), worker);
    signal("TERM", worker);
    database.new_worker(worker);
    database.assert_served();
}

#[test]
fn without_a_free_slot_statuses_are_right_and_the_worker_starts_with_the_next_free_one() {
    // One slot for the launcher, one for a worker, one for the server's logical replication launcher.
    let cluster = Cluster::private(&[("max_worker_processes", "3")]);
    let first = cluster.database();
    first.worker();
    first.assert_served();
    let second = cluster.database();
    let mut service = second.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    let out_of_slots = format!("out of background worker slots for database \"{}\"", second.name);
    wait_until("the log reports it", || cluster.log().contains(&out_of_slots));
    assert!(service.is_online(user));
    assert_eq!(service.beat(session.id), "ok");
    assert_eq!(service.written(user), None);
    cluster.change_database(&format!("DROP DATABASE {}", first.name));
    service.wait_for_written(user, true);
    assert_eq!(cluster.log().matches(&out_of_slots).count(), 1);
}

/// Runs SQL, and returns the messages and hints of its warnings.
fn warnings_of(database: &Database, sql: &str) -> Vec<(String, String)> {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let received = Arc::clone(&warnings);
    let mut client = database
        .cluster
        .config(&database.name, "postgres")
        .notice_callback(move |notice| {
            let hint = notice.hint().unwrap_or_default().to_owned();
            received.lock().unwrap().push((notice.message().to_owned(), hint));
        })
        .connect(NoTls)
        .unwrap();
    client.batch_execute("SET client_min_messages = warning").unwrap();
    client.batch_execute(sql).unwrap();
    drop(client);
    std::mem::take(&mut *warnings.lock().unwrap())
}

#[test]
fn create_extension_warns_where_no_worker_can_start_and_only_there() {
    let cluster = Cluster::private(&[("max_worker_processes", "3")]);
    let [first, second] = [(); 2].map(|()| cluster.database_with(Install::None));
    let install = "CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence";
    assert_eq!(warnings_of(&first, install), []);
    first.assert_served();
    let warnings = warnings_of(&second, install);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let (message, hint) = &warnings[0];
    assert_eq!(message, "no background worker is left for this database");
    assert!(hint.contains("max_worker_processes"), "{hint}");
    // The worker that is there makes room for the next one.
    let again = "BEGIN; DROP EXTENSION pg_presence; CREATE EXTENSION pg_presence SCHEMA presence; COMMIT";
    assert_eq!(warnings_of(&first, again), []);
}
