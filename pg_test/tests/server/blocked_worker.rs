//! What blocks the worker delays nothing else: locks, a full roster, an oversized key, an endless stream of changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pg_presence_test::{Cluster, FeedCopy, Install, Presence, StopOnDrop, wait_until};
use postgres::Client;
use uuid::Uuid;

use crate::hours::Server;

#[test]
fn a_locked_session_delays_only_itself() {
    let server = Server::with(&[("presence.active_timeout", "2h"), ("presence.flush_interval", "1s")]);
    let database = server.cluster.database();
    let mut service = database.connect();
    let (locked, other) = (service.start(Uuid::new_v4()), service.start(Uuid::new_v4()));
    let mut client = database.connect();
    let mut transaction = client.transaction().unwrap();
    let lock = "SELECT FROM presence.user_sessions WHERE id = $1 FOR UPDATE";
    transaction.query_one(lock, &[&locked.id]).unwrap();
    server.pass(3);
    let sql = "SELECT is_active FROM presence.user_sessions WHERE id = $1";
    let is_active = |client: &mut Client, id: Uuid| -> bool { client.query_one(sql, &[&id]).unwrap().get(0) };
    wait_until("the other session is deactivated", || {
        !is_active(&mut service, other.id)
    });
    assert!(is_active(&mut service, locked.id));
    let user = Uuid::new_v4();
    service.start(user);
    service.wait_for_written(user, true);
    transaction.rollback().unwrap();
    wait_until("the locked session follows", || !is_active(&mut service, locked.id));
}

#[test]
fn a_locked_user_delays_only_itself() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (locked, other) = (Uuid::new_v4(), Uuid::new_v4());
    let first = service.start(locked);
    let second = service.start(other);
    service.wait_for_written(locked, true);
    service.wait_for_written(other, true);
    let mut client = database.connect();
    let mut transaction = client.transaction().unwrap();
    let lock = "SELECT FROM presence.user_presence WHERE user_id = $1 FOR UPDATE";
    transaction.query_one(lock, &[&locked]).unwrap();
    service.end(first.id);
    service.end(second.id);
    service.wait_for_written(other, false);
    assert_eq!(service.written(locked), Some(true));
    let third = Uuid::new_v4();
    service.start(third);
    service.wait_for_written(third, true);
    transaction.rollback().unwrap();
    service.wait_for_written(locked, false);
    service.assert_no_gaps();
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
        "_feed_state",
        "declared_statuses",
    ] {
        let user = Uuid::new_v4();
        let session = service.start(user);
        service.wait_for_written(user, true);
        let mut transaction = client.transaction().unwrap();
        let lock = format!("LOCK TABLE presence.{table} IN SHARE MODE");
        transaction.batch_execute(&lock).unwrap();
        assert!(service.is_online(user));
        assert_eq!(service.beat(session.id), "ok");
        transaction.rollback().unwrap();
        service.end(session.id);
        service.wait_for_written(user, false);
    }
    assert_eq!(database.worker(), worker);
}

#[test]
fn a_full_roster_loses_no_change() {
    let cluster = Cluster::private(&[("presence.max_sessions", "64")]);
    let database = cluster.database_with(Install::Presence);
    let mut service = database.connect();
    let mut copy = FeedCopy::new(database.listen(), database.connect());
    let users: Vec<Uuid> = (0..200).map(|_| Uuid::new_v4()).collect();
    let sessions: Vec<Uuid> = users.iter().map(|user| service.start(*user).id).collect();
    for user in &users {
        assert!(service.is_online(*user));
        service.wait_for_written(*user, true);
    }
    for session in &sessions[..150] {
        assert!(service.end(*session));
    }
    for (n, user) in users.iter().enumerate() {
        assert_eq!(service.is_online(*user), n >= 150);
        service.wait_for_written(*user, n >= 150);
    }
    copy.wait_until_equal();
    service.assert_no_gaps();
    let log = cluster.log();
    assert!(!log.contains("exited with exit code 1"), "{log}");
}

#[test]
fn a_key_too_long_for_a_message_stops_nobody() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut copy = FeedCopy::new(database.listen(), database.connect());
    let worker = database.worker();
    // Incompressible, so that it is as long in any index.
    let sql = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 600) n";
    let key: String = service.query_one(sql, &[]).unwrap().get(0);
    // As by logical replication, whose rows are not corrected.
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
        service.query_opt(sql, &[&key]).unwrap().is_some_and(|row| row.get(0))
    });
    database.assert_served();
    copy.wait_until_equal();
    assert_eq!(database.worker(), worker);
}

#[test]
fn a_stream_of_changes_does_not_keep_the_table_from_being_flushed() {
    let cluster = Cluster::private(&[
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
        // On a timeout too.
        let stop = StopOnDrop(&over);
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = database.connect();
                while !over.load(Ordering::Relaxed) {
                    let session = client.start(Uuid::new_v4());
                    client.end(session.id);
                    // Endless changes, but no more than a slow machine can handle.
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let mut flushed = |sql: &str| -> bool { service.query_one(sql, &[]).unwrap().get(0) };
        wait_until("the first changes are trimmed", || {
            flushed("SELECT oldest_seq > 1 FROM presence._feed_state")
        });
        wait_until("the old session is deleted", || {
            flushed("SELECT count(*) = 0 FROM presence.user_sessions WHERE last_activity < now() - '1 h'::interval")
        });
        let mut service = database.connect();
        wait_until("a beat is flushed", || {
            assert_eq!(service.beat(session.id), "ok");
            let sql = "SELECT last_activity > created_at + '1 s'::interval FROM presence.user_sessions WHERE id = $1";
            service.query_one(sql, &[&session.id]).unwrap().get(0)
        });
        drop(stop);
    });
    database.connect().assert_no_gaps();
}
