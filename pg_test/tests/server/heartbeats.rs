//! What a heartbeat costs the database: nothing; and what one of a client that nobody is at is answered.

use pg_presence_test::{Cluster, Database, Presence, wait_until};
use uuid::Uuid;

#[test]
fn a_million_beats_write_no_wal_take_no_transaction_id_and_leave_no_dead_rows() {
    let cluster = Cluster::private(&[("presence.active_timeout", "1d"), ("presence.flush_interval", "1h")]);
    let database = cluster.database();
    let mut service = database.connect();
    // The worker flushes once after its start, and then not for an hour.
    wait_until("the first flush", || {
        let sql = "SELECT last_flush_at IS NOT NULL FROM presence.presence_stats";
        service.query_one(sql, &[]).unwrap().get(0)
    });
    let session = service.start(Uuid::new_v4());
    let lsn = "SELECT pg_current_wal_insert_lsn()::text";
    // The server itself writes some WAL now and then, so only the rounds count in which it has not done so.
    let mut rounds = 0;
    wait_until("a million beats without WAL", || {
        let before: String = service.query_one(lsn, &[]).unwrap().get(0);
        let mut transaction = service.transaction().unwrap();
        let beats: i64 = transaction
            .query_one(
                "SELECT count(*) FILTER (WHERE presence.heartbeat($1) = 'ok')
                 FROM generate_series(1, 100000)",
                &[&session.id],
            )
            .unwrap()
            .get(0);
        assert_eq!(beats, 100_000);
        let assigned: bool = transaction
            .query_one("SELECT pg_current_xact_id_if_assigned() IS NOT NULL", &[])
            .unwrap()
            .get(0);
        assert!(!assigned, "a beat took a transaction id");
        transaction.commit().unwrap();
        let after: String = service.query_one(lsn, &[]).unwrap().get(0);
        rounds += i32::from(before == after);
        rounds == 10
    });
    let written: (i64, i64) = {
        let row = service
            .query_one(
                "SELECT n_dead_tup, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'user_sessions'",
                &[],
            )
            .unwrap();
        (row.get(0), row.get(1))
    };
    assert_eq!(written, (0, 0));
}

#[test]
fn a_beat_counts_in_a_read_only_transaction_and_when_it_is_rolled_back() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    let last_seen = "SELECT presence.last_seen($1)";
    let before: chrono::DateTime<chrono::Utc> = service.query_one(last_seen, &[&user]).unwrap().get(0);
    let mut transaction = service.build_transaction().read_only(true).start().unwrap();
    assert_eq!(transaction.beat(session.id), "ok");
    transaction.rollback().unwrap();
    let after: chrono::DateTime<chrono::Utc> = service.query_one(last_seen, &[&user]).unwrap().get(0);
    assert!(after > before);
}

/// Returns the heartbeats counted and refused, from `presence_stats`.
fn counted(database: &Database) -> (i64, i64) {
    let sql = "SELECT beats, rejected_beats FROM presence.presence_stats";
    let row = database.connect().query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn beats_of_many_connections_at_once_are_each_counted_once() {
    const CONNECTIONS: i64 = 20;
    const BEATS: i64 = 20_000;
    let database = Cluster::shared().database();
    let session = database.connect().start(Uuid::new_v4()).id;
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let sql = "SELECT count(*) FILTER (WHERE presence.heartbeat($1) = 'ok')
                     FROM generate_series(1, $2::bigint)";
                let row = database.connect().query_one(sql, &[&session, &BEATS]);
                assert_eq!(row.unwrap().get::<_, i64>(0), BEATS);
            });
        }
    });
    assert_eq!(counted(&database), (CONNECTIONS * BEATS, 0));
}

#[test]
fn beats_stay_counted_when_another_databases_backend_reuses_their_slot() {
    // A private server: a new backend gets the proc number of the one that exited last.
    let cluster = Cluster::private(&[]);
    let databases = [cluster.database(), cluster.database()];
    let sessions = databases
        .each_ref()
        .map(|database| database.connect().start(Uuid::new_v4()).id);
    let mut expected = [(0, 0); 2];
    for _ in 0..10 {
        for (n, database) in databases.iter().enumerate() {
            let mut service = database.connect();
            assert_eq!(service.beat(sessions[n]), "ok");
            assert_eq!(service.beat(sessions[n]), "ok");
            assert_eq!(service.beat(Uuid::new_v4()), "unknown");
            expected[n].0 += 2;
            expected[n].1 += 1;
            drop(service);
            assert_eq!(databases.each_ref().map(counted), expected);
        }
    }
}

#[test]
fn many_sessions_are_beaten_in_the_transaction_that_starts_them() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut transaction = service.transaction().unwrap();
    let sql = "SELECT array_agg(session_id) FROM presence.start_sessions(
                   (SELECT array_agg(gen_random_uuid()) FROM generate_series(1, 10000)))";
    let ids: Vec<Uuid> = transaction.query_one(sql, &[]).unwrap().get(0);
    let missed: Vec<Uuid> = transaction
        .query_one("SELECT presence.heartbeat_many($1)", &[&ids])
        .unwrap()
        .get(0);
    assert!(missed.is_empty());
}

#[test]
fn an_idle_heartbeat_is_answered_as_a_heartbeat() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    let (mut own, mut other) = (database.client_for(user), database.client_for(Uuid::new_v4()));
    let mut holder = database.connect_as(&database.holder());
    let sql = "SELECT presence.heartbeat_idle_by_token($1)";
    let mut by_token = |token: &str| -> String { holder.query_one(sql, &[&token]).unwrap().get(0) };
    assert_eq!(own.beat_idle(session.id), "ok");
    assert_eq!(other.beat_idle(session.id), "unknown");
    assert_eq!(service.beat_idle(Uuid::new_v4()), "unknown");
    assert_eq!(by_token(&session.token), "ok");
    assert_eq!(by_token("a token that nobody has"), "unknown");
    assert_eq!(by_token("short"), "unknown");
    let mut transaction = service.transaction().unwrap();
    let mine = transaction.start(user);
    assert_eq!(transaction.beat_idle(mine.id), "ok");
    assert!(transaction.end(session.id));
    assert_eq!(transaction.beat_idle(session.id), "ended");
    transaction.commit().unwrap();
    assert_eq!(own.beat_idle(session.id), "ended");
    assert_eq!(other.beat_idle(session.id), "unknown");
    assert_eq!(by_token(&session.token), "ended");
}
