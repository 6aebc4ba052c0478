//! The change feed: numbers without gaps, and a copy kept by it.

use std::collections::BTreeSet;

use pg_presence_test::{Cluster, FeedCopy, Presence, assert_refused, wait_for, wait_until, wait_until_equal};
use postgres::error::SqlState;
use postgres::{Client, Row};
use uuid::Uuid;

#[test]
fn the_feed_has_the_reason_of_each_change() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    let session = service.start(user);
    listener.wait_for(user, &["active"]);
    service.end(session.id);
    listener.wait_for(user, &["active", "inactive"]);
    let sql =
        "SELECT status::text, previous::text, reason FROM presence.presence_changes WHERE user_id = $1 ORDER BY seq";
    let rows = service.query(sql, &[&user]).unwrap();
    let rows: Vec<(&str, &str, &str)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(
        rows,
        [("active", "inactive", "started"), ("inactive", "active", "ended")]
    );
}

#[test]
fn numbers_have_no_gaps_and_are_in_order_under_concurrent_changes() {
    let database = Cluster::shared().database();
    let mut listener = database.listen();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut service = database.connect();
                for _ in 0..40 {
                    let user = Uuid::new_v4();
                    let session = service.start(user);
                    if user.as_bytes()[0].is_multiple_of(2) {
                        service.end(session.id);
                    }
                }
            });
        }
    });
    let mut reader = database.connect();
    let online = reader.online_users();
    wait_until("the table has exactly the online users online", || {
        let sql = "SELECT user_id FROM presence.user_presence WHERE is_online ORDER BY 1";
        let rows = reader.query(sql, &[]).unwrap();
        rows.iter().map(|row| row.get::<_, Uuid>(0)).collect::<Vec<_>>() == online
    });
    wait_until("nothing is left to write", || {
        let sql = "SELECT oldest_unwritten_ms IS NULL FROM presence.presence_stats";
        reader.query_one(sql, &[]).unwrap().get(0)
    });
    let (_, last) = database.cursor();
    let rows = reader
        .query("SELECT seq FROM presence.changes_since(0, NULL, 100000)", &[])
        .unwrap();
    let kept: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(kept, (1..=last).collect::<Vec<_>>());
    wait_until("every change is notified", || {
        listener.receive();
        listener.messages.last().is_some_and(|message| message.seq >= last)
    });
    let notified: Vec<i64> = listener.notified_changes().iter().map(|change| change.seq).collect();
    assert!(notified.is_sorted() && notified.iter().collect::<BTreeSet<_>>().len() == notified.len());
    let mut known = listener.messages[0].prev;
    for message in &listener.messages {
        assert!(
            message.prev <= known,
            "a gap before {}: {:?}",
            message.seq,
            listener.payloads
        );
        known = known.max(message.seq);
    }
}

#[test]
fn a_copy_kept_by_the_feed_ends_equal_to_the_table() {
    let database = Cluster::shared().database();
    let mut copy = FeedCopy::new(database.listen(), database.connect());
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..30).map(|_| Uuid::new_v4()).collect();
    let mut sessions: Vec<Option<Uuid>> = vec![None; users.len()];
    for round in 0..300 {
        let pick = (round * 7 + round / 11) % users.len();
        sessions[pick] = match sessions[pick] {
            None => Some(service.start(users[pick]).id),
            Some(session) => {
                service.end(session);
                None
            }
        };
        if round % 10 == 0 {
            copy.receive();
        }
    }
    let mut online: Vec<Uuid> = users
        .iter()
        .zip(&sessions)
        .filter(|(_, session)| session.is_some())
        .map(|(user, _)| *user)
        .collect();
    online.sort();
    wait_until_equal("whom the copy has online", &online, || {
        copy.receive();
        copy.online()
    });
    copy.wait_until_equal();
    assert_eq!(copy.snapshots, 1);
}

#[test]
fn a_copy_survives_mass_changes_and_lost_connections() {
    let cluster = Cluster::private(&[("presence.notify_max", "5")]);
    let database = cluster.database();
    let mut copy = FeedCopy::new(database.listen(), database.connect());
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..500).map(|_| Uuid::new_v4()).collect();
    service
        .execute("SELECT presence.start_sessions($1)", &[&users])
        .unwrap();
    let all_online = |copy: &FeedCopy| copy.online().len() == users.len();
    wait_until("the copy has caught up", || {
        copy.receive();
        all_online(&copy)
    });

    service
        .execute(
            "SELECT presence.end_user_sessions(u) FROM unnest($1::uuid[]) u",
            &[&users],
        )
        .unwrap();
    database.wait_for_seq(1000);
    copy.reconnect(database.listen(), database.connect());
    wait_until("nobody is online in the copy", || {
        copy.receive();
        copy.online().is_empty()
    });
    copy.wait_until_equal();
}

#[test]
fn changes_since_continues_from_any_number() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..10).map(|_| Uuid::new_v4()).collect();
    service
        .execute("SELECT presence.start_sessions($1)", &[&users])
        .unwrap();
    database.wait_for_seq(10);
    let (epoch, last) = database.cursor();
    assert_eq!(last, 10);
    let sql = "SELECT seq FROM presence.changes_since($1, $2, $3)";
    let mut read = |seq: i64, epoch: Option<&str>, rows: i32| -> Vec<i64> {
        service
            .query(sql, &[&seq, &epoch, &rows])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    };
    assert_eq!(read(0, None, 1000), (1..=10).collect::<Vec<_>>());
    assert_eq!(read(3, Some(&epoch), 4), [4, 5, 6, 7]);
    assert!(read(10, Some(&epoch), 1000).is_empty());
    // A lagging replica may be queried beyond its end.
    assert!(read(1000, Some(&epoch), 1000).is_empty());
    assert_refused(
        service.query(sql, &[&3i64, &"another", &10i32]),
        &SqlState::SNAPSHOT_TOO_OLD,
    );
}

#[test]
fn a_reader_behind_the_retention_has_to_start_over() {
    let cluster = Cluster::private(&[("presence.feed_retention", "1s"), ("presence.retention", "10s")]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    for _ in 0..3 {
        let session = service.start(user);
        wait_until("online", || {
            let sql = "SELECT is_online FROM presence.user_presence WHERE user_id = $1";
            service.query_opt(sql, &[&user]).unwrap().is_some_and(|row| row.get(0))
        });
        service.end(session.id);
        wait_until("offline", || {
            let sql = "SELECT is_online FROM presence.user_presence WHERE user_id = $1";
            !service.query_one(sql, &[&user]).unwrap().get::<_, bool>(0)
        });
    }
    wait_until("the feed is trimmed", || {
        let sql = "SELECT seq FROM presence.changes_since(0)";
        match service.query(sql, &[]) {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::SNAPSHOT_TOO_OLD));
                true
            }
        }
    });
    let (epoch, seq) = database.cursor();
    assert_eq!(seq, 6);
    let sql = "SELECT seq FROM presence.changes_since($1, $2)";
    assert!(service.query(sql, &[&seq, &epoch]).unwrap().is_empty());
}

#[test]
fn without_a_change_nothing_is_written_or_notified() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let session = service.start(Uuid::new_v4());
    database.wait_for_seq(1);
    for _ in 0..100 {
        service.beat(session.id);
    }
    let other = Uuid::new_v4();
    service.start(other);
    listener.wait_for(other, &["active"]);
    assert_eq!(database.cursor().1, 2);
}

#[test]
fn a_change_reads_no_more_users_when_there_are_thousands() {
    let cluster = Cluster::private(&[("autovacuum", "off")]);
    let database = cluster.database();
    let mut service = database.connect();
    let first = service.start(Uuid::new_v4());
    database.wait_for_seq(1);
    // From now on the planner assumes a table of one page.
    service.batch_execute("VACUUM ANALYZE presence.user_presence").unwrap();
    service.end(first.id);
    database.wait_for_seq(2);
    let users: Vec<Uuid> = (0..5000).map(|_| Uuid::new_v4()).collect();
    let rows = service
        .query("SELECT session_id FROM presence.start_sessions($1)", &[&users])
        .unwrap();
    database.wait_for_seq(5002);
    let read = |service: &mut Client, changes: i64| -> i64 {
        let sql = "SELECT n_tup_upd, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'user_presence'";
        wait_for("the statistics of the worker", || {
            let row = service.query_one(sql, &[]).unwrap();
            (row.get::<_, i64>(0) >= changes).then(|| row.get(1))
        })
    };
    let mut seq = 5002;
    let mut end = |service: &mut Client, row: &Row| {
        service.end(row.get(0));
        seq += 1;
        database.wait_for_seq(seq);
    };
    end(&mut service, &rows[0]);
    let before = read(&mut service, 2);
    for row in &rows[1..51] {
        end(&mut service, row);
    }
    let fetched = read(&mut service, 52) - before;
    assert!(fetched < 5000, "50 changes have read {fetched} users");
}

#[test]
fn many_changes_at_once_are_joined_by_hashing_however_few_the_planner_expects() {
    let cluster = Cluster::private(&[
        ("shared_preload_libraries", "pg_presence, auto_explain"),
        ("auto_explain.log_min_duration", "0"),
    ]);
    let database = cluster.database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..2000).map(|_| Uuid::new_v4()).collect();
    let start = "SELECT session_id FROM presence.start_sessions($1)";
    let rows = service.query(start, &[&users]).unwrap();
    database.wait_for_seq(2000);
    // The statement is replanned for tables of this size, and for arrays of a few elements.
    service
        .batch_execute("ANALYZE presence.user_presence, presence.user_sessions")
        .unwrap();
    let sessions: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    let end = "SELECT presence.end_sessions($1)";
    service.execute(end, &[&sessions]).unwrap();
    database.wait_for_seq(4000);
    let plans = wait_for("a plan", || {
        let log = cluster.log();
        let update = "Update on user_presence p  (";
        let plans = log.match_indices(update);
        let joins = plans.map(|(at, _)| log[at..].lines().nth(1).unwrap_or_default());
        Some(joins.map(str::to_owned).collect::<Vec<_>>()).filter(|joins| !joins.is_empty())
    });
    assert!(plans.iter().all(|join| join.contains("Hash Join")), "{plans:#?}");
}
