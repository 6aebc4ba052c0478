//! What a heartbeat costs the database: nothing.

use pg_presence_test::{Cluster, Presence, wait_until};
use uuid::Uuid;

#[test]
fn a_million_beats_write_no_wal_take_no_transaction_id_and_leave_no_dead_rows() {
    let cluster = Cluster::own(&[
        ("presence.active_timeout", "1d"),
        ("presence.flush_interval", "1h"),
    ]);
    let database = cluster.database();
    let mut service = database.connect();
    // The worker flushes once when it has started, and then not for an hour.
    wait_until("the first flush", || {
        let sql = "SELECT last_flush_at IS NOT NULL FROM presence.presence_stats";
        service.query_one(sql, &[]).unwrap().get(0)
    });
    let session = service.start(Uuid::new_v4());
    let lsn = "SELECT pg_current_wal_insert_lsn()::text";
    // The server itself writes some WAL now and then: it has to leave us one million beats in peace.
    wait_until("a million beats without WAL", || {
        let before: String = service.query_one(lsn, &[]).unwrap().get(0);
        let mut transaction = service.transaction().unwrap();
        let beats: i64 = transaction
            .query_one(
                "SELECT count(*) FILTER (WHERE presence.heartbeat($1) = 'ok')
                 FROM generate_series(1, 1000000)",
                &[&session.id],
            )
            .unwrap()
            .get(0);
        assert_eq!(beats, 1_000_000);
        let assigned: bool = transaction
            .query_one("SELECT pg_current_xact_id_if_assigned() IS NOT NULL", &[])
            .unwrap()
            .get(0);
        assert!(!assigned, "a beat took a transaction id");
        transaction.commit().unwrap();
        let after: String = service.query_one(lsn, &[]).unwrap().get(0);
        before == after
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
    let before: chrono::DateTime<chrono::Utc> =
        service.query_one(last_seen, &[&user]).unwrap().get(0);
    let mut transaction = service.build_transaction().read_only(true).start().unwrap();
    assert_eq!(transaction.beat(session.id), "ok");
    transaction.rollback().unwrap();
    let after: chrono::DateTime<chrono::Utc> =
        service.query_one(last_seen, &[&user]).unwrap().get(0);
    assert!(after > before);
}
