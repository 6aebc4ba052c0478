//! The worker: nothing is lost when it dies, stands still, finds somebody in its way, or cannot be started.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postgres::Client;
use uuid::Uuid;

use pg_presence_test::{
    Cluster, Database, Install, Mirror, Presence, Shutdown, signal, wait_for, wait_until,
};

fn written(client: &mut Client, user: Uuid) -> Option<bool> {
    client
        .query_opt(
            "SELECT is_online FROM presence.user_presence WHERE user_id = $1",
            &[&user],
        )
        .expect("a row")
        .map(|row| row.get(0))
}

fn wait_for_written(client: &mut Client, user: Uuid, online: bool) {
    wait_until(&format!("{user} written as {online}"), || {
        written(client, user) == Some(online)
    });
}

/// A user starts a session, and the worker writes it.
fn serves(database: &Database) {
    let mut client = database.connect();
    let user = Uuid::new_v4();
    client.start(user);
    wait_for_written(&mut client, user, true);
}

/// A worker other than the one with this process id.
fn new_worker(database: &Database, old: i32) -> i32 {
    wait_for("a new worker", || {
        Some(database.worker()).filter(|pid| *pid != old)
    })
}

fn launcher(cluster: &Cluster) -> Option<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_presence launcher'";
    let row = cluster.connect("postgres").query_opt(sql, &[]);
    row.expect("the processes").map(|row| row.get(0))
}

/// What a mirror has is what the table has, once nothing changes any more.
fn agrees(mirror: &mut Mirror, client: &mut Client) {
    wait_until("the mirror has what the table has", || {
        mirror.receive();
        let rows = client
            .query(
                "SELECT user_id, status::text FROM presence.user_presence ORDER BY 1",
                &[],
            )
            .expect("the table");
        let table: Vec<(Uuid, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        mirror.statuses() == table
    });
}

fn has_no_gaps(client: &mut Client) {
    let sql =
        "SELECT count(*), coalesce(max(seq) - min(seq) + 1, 0) FROM presence.presence_changes";
    let row = client.query_one(sql, &[]).expect("the feed");
    assert_eq!(
        row.get::<_, i64>(0),
        row.get::<_, i64>(1),
        "a gap or a repeat"
    );
}

#[test]
fn no_change_is_lost_when_workers_are_terminated_again_and_again() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut mirror = Mirror::new(database.listen(), database.connect());
    let users: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
    let mut worker = database.worker();
    for _ in 0..4 {
        let sessions: Vec<_> = users.iter().map(|user| service.start(*user).id).collect();
        signal("TERM", worker);
        for session in &sessions[..10] {
            service.end(*session);
        }
        worker = new_worker(&database, worker);
        mirror.receive();
    }
    for (n, user) in users.iter().enumerate() {
        let online = service.is_online(*user);
        assert!(online || n < 10, "a session that was not ended");
        wait_for_written(&mut service, *user, online);
    }
    agrees(&mut mirror, &mut service);
    has_no_gaps(&mut service);
}

#[test]
fn no_change_is_lost_when_the_worker_is_killed_and_with_it_every_connection() {
    let cluster = Cluster::own(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    let (stays, ends) = (Uuid::new_v4(), Uuid::new_v4());
    service.start(stays);
    let session = service.start(ends);
    wait_for_written(&mut service, ends, true);
    let row = service.query_one("SELECT epoch, seq FROM presence.presence_cursor()", &[]);
    let row = row.unwrap();
    let (epoch, seq): (String, i64) = (row.get(0), row.get(1));
    let worker = database.worker();
    signal("STOP", worker);
    service.end(session.id);
    signal("KILL", worker);
    // Until it has cut every connection, the server still takes new ones, to cut them too.
    wait_until("every connection is cut", || {
        service.simple_query("SELECT 1").is_err()
    });
    let mut service = wait_for("the server is back", || {
        cluster
            .config(&database.name, "postgres")
            .connect(postgres::NoTls)
            .ok()
    });
    wait_for_written(&mut service, ends, false);
    assert!(service.is_online(stays));
    assert_eq!(written(&mut service, stays), Some(true));
    let row = service.query_one("SELECT epoch, seq FROM presence.presence_cursor()", &[]);
    let row = row.unwrap();
    assert_eq!(row.get::<_, String>(0), epoch, "nothing told was lost");
    assert!(row.get::<_, i64>(1) > seq);
    has_no_gaps(&mut service);
}

#[test]
fn a_worker_that_stood_still_tells_all_it_has_missed() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    let session = service.start(user);
    listener.wait_for(user, &["active"]);
    let worker = database.worker();
    signal("STOP", worker);
    service.end(session.id);
    let other = Uuid::new_v4();
    service.start(other);
    signal("CONT", worker);
    listener.wait_for(user, &["active", "inactive"]);
    listener.wait_for(other, &["active"]);
}

#[test]
fn a_terminated_launcher_comes_back_and_finds_the_workers_it_had() {
    let cluster = Cluster::own(&[]);
    let database = cluster.database();
    let worker = database.worker();
    serves(&database);
    let first = wait_for("a launcher", || launcher(&cluster));
    signal("TERM", first);
    wait_for("another launcher", || {
        launcher(&cluster).filter(|pid| *pid != first)
    });
    let other = cluster.database();
    serves(&other);
    assert_eq!(database.worker(), worker);
    signal("TERM", worker);
    new_worker(&database, worker);
    serves(&database);
}

#[test]
fn without_a_free_slot_statuses_are_right_and_the_worker_comes_with_the_slot() {
    // One slot for the launcher, one for a worker, one for the server's own launcher of subscriptions.
    let cluster = Cluster::own(&[("max_worker_processes", "3")]);
    let first = cluster.database();
    first.worker();
    serves(&first);
    let second = cluster.database();
    let mut service = second.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    wait_until("the log says so", || {
        cluster.log().contains("no worker slot")
    });
    assert!(service.is_online(user));
    assert_eq!(service.beat(session.id), "ok");
    assert_eq!(written(&mut service, user), None);
    let drop = format!("DROP DATABASE {}", first.name);
    cluster.connect("postgres").batch_execute(&drop).unwrap();
    wait_for_written(&mut service, user, true);
    assert_eq!(cluster.log().matches("no worker slot").count(), 1);
}

#[test]
fn a_locked_session_delays_only_itself() {
    let database = Cluster::brisk().database();
    let mut service = database.connect();
    let (locked, other) = (service.start(Uuid::new_v4()), service.start(Uuid::new_v4()));
    let mut client = database.connect();
    let mut transaction = client.transaction().unwrap();
    let lock = "SELECT FROM presence.user_sessions WHERE id = $1 FOR UPDATE";
    transaction.query_one(lock, &[&locked.id]).unwrap();
    let sql = "SELECT is_active FROM presence.user_sessions WHERE id = $1";
    let is_active =
        |client: &mut Client, id: Uuid| -> bool { client.query_one(sql, &[&id]).unwrap().get(0) };
    wait_until("the other one is marked", || {
        !is_active(&mut service, other.id)
    });
    assert!(is_active(&mut service, locked.id));
    let user = Uuid::new_v4();
    service.start(user);
    wait_for_written(&mut service, user, true);
    transaction.rollback().unwrap();
    wait_until("the locked one follows", || {
        !is_active(&mut service, locked.id)
    });
}

#[test]
fn a_locked_user_delays_only_itself() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (locked, other) = (Uuid::new_v4(), Uuid::new_v4());
    let first = service.start(locked);
    let second = service.start(other);
    wait_for_written(&mut service, locked, true);
    wait_for_written(&mut service, other, true);
    let mut client = database.connect();
    let mut transaction = client.transaction().unwrap();
    let lock = "SELECT FROM presence.user_presence WHERE user_id = $1 FOR UPDATE";
    transaction.query_one(lock, &[&locked]).unwrap();
    service.end(first.id);
    service.end(second.id);
    wait_for_written(&mut service, other, false);
    assert_eq!(written(&mut service, locked), Some(true));
    let third = Uuid::new_v4();
    service.start(third);
    wait_for_written(&mut service, third, true);
    transaction.rollback().unwrap();
    wait_for_written(&mut service, locked, false);
    has_no_gaps(&mut service);
}

#[test]
fn a_locked_table_delays_the_worker_and_does_not_break_it() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let worker = database.worker();
    let mut client = database.connect();
    for table in [
        "user_sessions",
        "user_presence",
        "presence_changes",
        "presence_state",
    ] {
        let user = Uuid::new_v4();
        let session = service.start(user);
        wait_for_written(&mut service, user, true);
        let mut transaction = client.transaction().unwrap();
        let lock = format!("LOCK TABLE presence.{table} IN SHARE MODE");
        transaction.batch_execute(&lock).unwrap();
        assert!(service.is_online(user));
        assert_eq!(service.beat(session.id), "ok");
        transaction.rollback().unwrap();
        service.end(session.id);
        wait_for_written(&mut service, user, false);
    }
    assert_eq!(database.worker(), worker);
}

#[test]
fn settings_of_the_database_do_not_reach_the_worker() {
    let cluster = Cluster::own(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    let first = database.worker();
    for setting in [
        "search_path = ''",
        "default_transaction_read_only = on",
        "default_transaction_isolation = serializable",
        "statement_timeout = 1",
        "lock_timeout = 1",
        "idle_in_transaction_session_timeout = 1",
        "session_replication_role = replica",
        "row_security = off",
        "enable_indexscan = off",
    ] {
        let sql = format!("ALTER DATABASE {} SET {setting}", database.name);
        cluster.connect("postgres").batch_execute(&sql).unwrap();
    }
    signal("TERM", first);
    // Not through the database, whose settings would stop the question.
    let worker = || -> Option<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_presence worker'";
        let row = cluster.connect("postgres").query_opt(sql, &[]);
        row.expect("the processes").map(|row| row.get(0))
    };
    let second = wait_for("a new worker", || worker().filter(|pid| *pid != first));
    let user = Uuid::new_v4();
    let session = service.start(user);
    wait_for_written(&mut service, user, true);
    service.end(session.id);
    wait_for_written(&mut service, user, false);
    assert_eq!(worker(), Some(second));
}

#[test]
fn the_worker_is_no_stranger_to_autovacuum() {
    let database = Cluster::shared().database();
    serves(&database);
    let mut client = database.connect();
    wait_until("its writes are counted", || {
        let sql = "SELECT pg_stat_get_tuples_inserted('presence.presence_changes'::regclass)";
        client.query_one(sql, &[]).unwrap().get::<_, i64>(0) > 0
    });
}

#[test]
fn a_shutdown_writes_the_last_activity_of_every_session() {
    let cluster = Cluster::own(&[("presence.flush_interval", "1h")]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    wait_for_written(&mut service, user, true);
    let sql = "SELECT extract(epoch FROM last_activity)::float8 FROM presence.user_sessions WHERE id = $1";
    let at_first: f64 = service.query_one(sql, &[&session.id]).unwrap().get(0);
    // A tenth of a second is what the flush tells apart.
    let sql_seen = "SELECT extract(epoch FROM presence.last_seen($1))::float8";
    let seen: f64 = wait_for("a later beat", || {
        assert_eq!(service.beat(session.id), "ok");
        let seen: f64 = service.query_one(sql_seen, &[&user]).unwrap().get(0);
        Some(seen).filter(|seen| *seen > at_first + 0.3)
    });
    drop(service);
    cluster.restart(Shutdown::Fast);
    let mut service = database.connect();
    let written: f64 = service.query_one(sql, &[&session.id]).unwrap().get(0);
    assert!(written >= seen, "{written} < {seen}");
    assert!(service.is_online(user));
    assert_eq!(service.beat(session.id), "ok");
}

#[test]
fn who_is_not_heard_from_after_a_restart_is_recovered_to_inactive() {
    let cluster = Cluster::own(&[
        ("presence.active_timeout", "5s"),
        ("presence.heartbeat_interval", "1s"),
        ("presence.flush_interval", "1s"),
    ]);
    let database = cluster.database();
    let mut service = database.connect();
    let (silent, ended) = (Uuid::new_v4(), Uuid::new_v4());
    service.start(silent);
    let session = service.start(ended);
    wait_for_written(&mut service, silent, true);
    wait_for_written(&mut service, ended, true);
    let worker = database.worker();
    signal("STOP", worker);
    service.end(session.id);
    drop(service);
    cluster.stop(Shutdown::Kill);
    signal("KILL", worker);
    cluster.start();
    let mut service = database.connect();
    assert!(service.is_online(silent), "everybody is given grace");
    assert!(!service.is_online(ended));
    wait_for_written(&mut service, ended, false);
    wait_for_written(&mut service, silent, false);
    let sql = "SELECT reason FROM presence.presence_changes WHERE user_id = $1 ORDER BY seq";
    for user in [silent, ended] {
        let rows = service.query(sql, &[&user]).unwrap();
        let reasons: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(reasons, ["started", "recovered"]);
    }
    has_no_gaps(&mut service);
}

#[test]
fn a_full_roster_loses_no_change() {
    let cluster = Cluster::own(&[("presence.max_sessions", "64")]);
    let database = cluster.database_with(Install::Presence);
    let mut service = database.connect();
    let mut mirror = Mirror::new(database.listen(), database.connect());
    let users: Vec<Uuid> = (0..200).map(|_| Uuid::new_v4()).collect();
    let sessions: Vec<Uuid> = users.iter().map(|user| service.start(*user).id).collect();
    for user in &users {
        assert!(service.is_online(*user));
        wait_for_written(&mut service, *user, true);
    }
    for session in &sessions[..150] {
        assert!(service.end(*session));
    }
    for (n, user) in users.iter().enumerate() {
        assert_eq!(service.is_online(*user), n >= 150);
        wait_for_written(&mut service, *user, n >= 150);
    }
    agrees(&mut mirror, &mut service);
    has_no_gaps(&mut service);
    let log = cluster.log();
    assert!(!log.contains("exited with exit code 1"), "{log}");
}

#[test]
fn a_key_too_long_for_a_message_stops_nobody() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut mirror = Mirror::new(database.listen(), database.connect());
    let worker = database.worker();
    // Not compressible, so that it stays as long in any index.
    let sql = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 600) n";
    let key: String = service.query_one(sql, &[]).unwrap().get(0);
    // As a replication brings it, which nothing corrects.
    let sql = "INSERT INTO presence.user_sessions (user_id, auth_id, session_token, expires_at, user_key)
               VALUES (presence.presence_id($1::text), presence.presence_id($1::text), presence.token_digest($1),
                       now() + '1 d', $1)";
    let mut transaction = service.transaction().unwrap();
    transaction
        .batch_execute("SET LOCAL session_replication_role = replica")
        .unwrap();
    transaction.execute(sql, &[&key]).unwrap();
    transaction.commit().unwrap();
    let sql = "SELECT is_online FROM presence.user_presence WHERE user_key = $1";
    wait_until("written", || {
        service
            .query_opt(sql, &[&key])
            .unwrap()
            .is_some_and(|row| row.get(0))
    });
    serves(&database);
    agrees(&mut mirror, &mut service);
    assert_eq!(database.worker(), worker);
}

/// Sets a flag when it goes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_stream_of_changes_does_not_keep_the_table_from_being_flushed() {
    let cluster = Cluster::own(&[
        ("presence.notify_interval", "0"),
        ("presence.flush_interval", "1s"),
        ("presence.retention", "1s"),
        ("presence.feed_retention", "1s"),
    ]);
    let database = cluster.database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4());
    let old = "INSERT INTO presence.user_sessions (user_id, auth_id, is_active, last_activity, created_at)
               SELECT u, u, false, now() - '1 d'::interval, now() - '2 d'::interval FROM (SELECT gen_random_uuid() u) s";
    service.execute(old, &[]).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when a wait is in vain.
        let stop = Stop(&over);
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = database.connect();
                while !over.load(Ordering::Relaxed) {
                    let session = client.start(Uuid::new_v4());
                    client.end(session.id);
                    // Changes without end, but no more of them than a slow machine can take.
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let mut flushed = |sql: &str| -> bool { service.query_one(sql, &[]).unwrap().get(0) };
        wait_until("the first changes are forgotten", || {
            flushed("SELECT oldest_seq > 1 FROM presence.presence_state")
        });
        wait_until("the old session is deleted", || {
            flushed(
                "SELECT count(*) = 0 FROM presence.user_sessions WHERE last_activity < now() - '1 h'::interval",
            )
        });
        let mut service = database.connect();
        wait_until("a beat is flushed", || {
            assert_eq!(service.beat(session.id), "ok");
            let sql = "SELECT last_activity > created_at + '1 s'::interval FROM presence.user_sessions WHERE id = $1";
            service.query_one(sql, &[&session.id]).unwrap().get(0)
        });
        drop(stop);
    });
    has_no_gaps(&mut database.connect());
}
