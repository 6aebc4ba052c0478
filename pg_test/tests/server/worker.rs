//! The worker: nothing is lost when it is killed or stopped, and no setting of the database affects it.

use pg_presence_test::{Cluster, FeedCopy, Presence, Shutdown, signal, wait_for, wait_until};
use uuid::Uuid;

use crate::hours::Server;

#[test]
fn no_change_is_lost_when_workers_are_terminated_again_and_again() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut copy = FeedCopy::new(database.listen(), database.connect());
    let users: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
    let mut worker = database.worker();
    for _ in 0..4 {
        let sessions: Vec<_> = users.iter().map(|user| service.start(*user).id).collect();
        signal("TERM", worker);
        for session in &sessions[..10] {
            service.end(*session);
        }
        worker = database.new_worker(worker);
        copy.receive();
    }
    for (n, user) in users.iter().enumerate() {
        let online = service.is_online(*user);
        assert!(online || n < 10, "a session that was not ended");
        service.wait_for_written(*user, online);
    }
    copy.wait_until_equal();
    service.assert_no_gaps();
}

#[test]
fn no_change_is_lost_when_a_killed_worker_takes_down_every_connection() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    let (stays, ends) = (Uuid::new_v4(), Uuid::new_v4());
    service.start(stays);
    let session = service.start(ends);
    service.wait_for_written(ends, true);
    let row = service.query_one("SELECT epoch, seq FROM presence.presence_cursor()", &[]);
    let row = row.unwrap();
    let (epoch, seq): (String, i64) = (row.get(0), row.get(1));
    let worker = database.pause_worker();
    service.end(session.id);
    worker.kill();
    // Until it has closed every connection, the server still accepts new ones and closes them too.
    wait_until("every connection is closed", || {
        service.simple_query("SELECT 1").is_err()
    });
    let mut service = wait_for("the server accepts connections", || {
        cluster.config(&database.name, "postgres").connect(postgres::NoTls).ok()
    });
    service.wait_for_written(ends, false);
    assert!(service.is_online(stays));
    assert_eq!(service.written(stays), Some(true));
    let row = service.query_one("SELECT epoch, seq FROM presence.presence_cursor()", &[]);
    let row = row.unwrap();
    // The memory of the server was reinitialized, as after a crash: clients start over, and find every change.
    assert_ne!(row.get::<_, String>(0), epoch);
    assert!(row.get::<_, i64>(1) > seq);
    service.assert_no_gaps();
}

#[test]
fn a_resumed_worker_catches_up_on_everything_it_missed() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    let session = service.start(user);
    listener.wait_for(user, &["active"]);
    let worker = database.pause_worker();
    service.end(session.id);
    let other = Uuid::new_v4();
    service.start(other);
    worker.resume();
    listener.wait_for(user, &["active", "inactive"]);
    listener.wait_for(other, &["active"]);
}

#[test]
fn settings_of_the_database_do_not_affect_the_worker() {
    let cluster = Cluster::private(&[]);
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
    // Not in that database, whose settings would cancel the query.
    let worker = || -> Option<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_presence worker'";
        let row = cluster.connect("postgres").query_opt(sql, &[]);
        row.expect("the processes").map(|row| row.get(0))
    };
    let second = wait_for("a new worker", || worker().filter(|pid| *pid != first));
    let user = Uuid::new_v4();
    let session = service.start(user);
    service.wait_for_written(user, true);
    service.end(session.id);
    service.wait_for_written(user, false);
    assert_eq!(worker(), Some(second));
}

#[test]
fn the_workers_writes_count_for_autovacuum() {
    let database = Cluster::shared().database();
    database.assert_served();
    let mut client = database.connect();
    wait_until("its writes are counted", || {
        let sql = "SELECT pg_stat_get_tuples_inserted('presence.presence_changes'::regclass)";
        client.query_one(sql, &[]).unwrap().get::<_, i64>(0) > 0
    });
}

#[test]
fn a_shutdown_writes_the_last_activity_of_every_session() {
    let cluster = Cluster::private(&[("presence.flush_interval", "1h")]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    service.wait_for_written(user, true);
    let sql = "SELECT extract(epoch FROM last_activity)::float8 FROM presence.user_sessions WHERE id = $1";
    let at_first: f64 = service.query_one(sql, &[&session.id]).unwrap().get(0);
    // The resolution of a flush is a tenth of a second.
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
fn a_user_who_does_not_beat_after_a_restart_is_recovered_to_inactive() {
    let server = Server::new("2h");
    let cluster = &server.cluster;
    let database = cluster.database();
    let mut service = database.connect();
    let (silent, ended) = (Uuid::new_v4(), Uuid::new_v4());
    service.start(silent);
    let session = service.start(ended);
    service.wait_for_written(silent, true);
    service.wait_for_written(ended, true);
    let worker = database.pause_worker();
    service.end(session.id);
    drop(service);
    cluster.stop(Shutdown::Kill);
    worker.kill();
    cluster.start();
    let mut service = database.connect();
    assert!(service.is_online(silent), "everybody has the grace period");
    assert!(!service.is_online(ended));
    service.wait_for_written(ended, false);
    server.pass(3);
    service.wait_for_written(silent, false);
    let sql = "SELECT reason FROM presence.presence_changes WHERE user_id = $1 ORDER BY seq";
    for user in [silent, ended] {
        let rows = service.query(sql, &[&user]).unwrap();
        let reasons: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(reasons, ["started", "recovered"]);
    }
    service.assert_no_gaps();
}

#[test]
fn a_timeout_raised_while_there_is_no_worker_delays_no_release() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    service.wait_for_written(user, true);
    assert!(service.release(session.id, "5 s"));
    let worker = database.pause_worker();
    let old = worker.pid();
    // It exits as soon as it continues, before it reads any settings.
    signal("TERM", old);
    cluster.set("presence.active_timeout", "1h");
    worker.resume();
    database.new_worker(old);
    service.wait_for_written(user, false);
}
