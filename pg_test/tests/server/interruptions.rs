//! What the worker is made to wait for, or is interrupted in: it goes on writing, or is back soon.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pg_presence_test::{Cluster, Database, Presence, Shutdown, StopOnDrop, signal, wait_for, wait_until};
use uuid::Uuid;

use crate::unwritable::add_trigger;

/// Starts sessions again and again, and asserts that they are written and the worker stays.
fn assert_serves(database: &Database, time: Duration) {
    let mut service = database.connect();
    let worker = database.worker();
    let start = Instant::now();
    while start.elapsed() < time {
        let user = Uuid::new_v4();
        let session = service.start(user);
        service.wait_for_written(user, true);
        service.end(session.id);
        service.wait_for_written(user, false);
    }
    assert_eq!(database.worker(), worker);
}

/// Lets commits no longer wait for a standby when it is dropped.
struct Release<'a>(&'a Cluster);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.set("synchronous_standby_names", "");
    }
}

#[test]
fn a_commit_that_notifies_and_waits_for_a_standby_keeps_nobody_from_being_written() {
    let cluster = Cluster::private(&[("synchronous_commit", "local")]);
    let database = cluster.database();
    let mut listener = database.listen();
    database.assert_served();
    cluster.set("synchronous_standby_names", "nobody");
    let told = std::thread::scope(|scope| {
        // On a panic too, as the scope waits for the commit.
        let release = Release(&cluster);
        let blocker = scope.spawn(|| {
            let mut client = database.connect();
            client
                .batch_execute(
                    "CREATE TABLE t (); SET synchronous_commit = on; BEGIN; INSERT INTO t DEFAULT VALUES; NOTIFY x",
                )
                .unwrap();
            client.batch_execute("COMMIT").unwrap();
        });
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let mut client = database.connect();
        wait_until("the commit waits", || {
            client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 1
        });
        assert_serves(&database, Duration::from_secs(4));
        let user = Uuid::new_v4();
        client.start(user);
        client.wait_for_written(user, true);
        drop(release);
        blocker.join().unwrap();
        user
    });
    listener.wait_for(told, &["active"]);
}

#[test]
fn a_queue_of_commits_that_notify_delays_messages_and_no_more() {
    let cluster = Cluster::private(&[("commit_delay", "20000"), ("commit_siblings", "0"), ("fsync", "on")]);
    let database = cluster.database();
    let mut listener = database.listen();
    database.assert_served();
    database.run("CREATE TABLE t (n int)");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = StopOnDrop(&over);
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = database.connect();
                while !over.load(Ordering::Relaxed) {
                    client
                        .batch_execute("BEGIN; INSERT INTO t VALUES (1); NOTIFY x; COMMIT")
                        .unwrap();
                }
            });
        }
        assert_serves(&database, Duration::from_secs(6));
        let user = Uuid::new_v4();
        database.connect().start(user);
        // A message waits for the end of the queue at most.
        drop(stop);
        listener.wait_for(user, &["active"]);
    });
}

#[test]
fn attempts_to_rename_the_database_do_not_keep_the_worker_away() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let role = database.client();
    database.assert_served();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = StopOnDrop(&over);
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = database.connect_as(&role);
                let sql = format!("ALTER DATABASE {} RENAME TO other", database.name);
                while !over.load(Ordering::Relaxed) {
                    client.batch_execute(&sql).unwrap_err();
                }
            });
        }
        assert_serves(&database, Duration::from_secs(5));
        let worker = database.worker();
        signal("TERM", worker);
        database.new_worker(worker);
        drop(stop);
    });
}

#[test]
fn a_worker_inside_somebodys_trigger_can_be_terminated_and_the_server_stopped() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    database.assert_served();
    add_trigger(&mut service, "user_presence", "true", "PERFORM pg_sleep(3600)");
    for stops in [false, true] {
        let worker = database.worker();
        service.start(Uuid::new_v4());
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
        wait_until("the worker sleeps", || {
            service.query_one(sql, &[&worker]).unwrap().get::<_, i64>(0) == 1
        });
        if stops {
            cluster.stop(Shutdown::Fast);
        } else {
            signal("TERM", worker);
            database.new_worker(worker);
        }
    }
}

#[test]
fn a_canceled_statement_of_the_worker_is_tried_again() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let worker = database.worker();
    for _ in 0..50 {
        signal("INT", worker);
        std::thread::sleep(Duration::from_millis(7));
    }
    database.assert_served();
    assert_eq!(database.worker(), worker);
}

#[test]
fn launcher_and_workers_terminated_together_are_back_soon() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let worker = database.worker();
    database.assert_served();
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type LIKE 'pg\\_presence%'";
    let mut client = cluster.connect("postgres");
    client.execute(sql, &[]).unwrap();
    database.new_worker(worker);
    database.assert_served();
}

#[test]
fn a_young_worker_that_is_terminated_is_no_failure() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut worker = database.worker();
    for _ in 0..8 {
        database.assert_served();
        signal("TERM", worker);
        worker = database.new_worker(worker);
    }
}

#[test]
fn an_idle_worker_runs_two_transactions_a_minute_at_most() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    database.assert_served();
    let sql = format!(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{}'",
        database.name
    );
    let mut client = cluster.connect("postgres");
    let mut transactions = || -> i64 { client.query_one(&sql, &[]).unwrap().get(0) };
    wait_for("ten quiet seconds", || {
        let before = transactions();
        std::thread::sleep(Duration::from_secs(10));
        (transactions() - before <= 1).then_some(())
    });
}
