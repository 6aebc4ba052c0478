//! The feed, and the notifications that tell of it.

use std::collections::BTreeSet;

use pg_presence_test::{
    Cluster, Database, Listener, Mirror, Presence, refused, signal, wait_for, wait_until,
};
use postgres::Client;
use postgres::error::SqlState;
use uuid::Uuid;

fn cursor(client: &mut Client) -> (String, i64) {
    let row = client
        .query_one("SELECT epoch, seq FROM presence.presence_cursor()", &[])
        .unwrap();
    (row.get(0), row.get(1))
}

/// What the table says, in the order of [`Mirror::statuses`].
fn statuses(client: &mut Client) -> Vec<(Uuid, String)> {
    let sql = "SELECT user_id, status::text FROM presence.user_presence ORDER BY user_id";
    client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

/// Waits until the feed has told of as many changes as said.
fn wait_for_seq(database: &Database, seq: i64) {
    let mut client = database.connect();
    wait_until(&format!("change {seq}"), || cursor(&mut client).1 >= seq);
}

#[test]
fn a_change_is_told_as_the_contract_says() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let sql = "SELECT session_id, presence.presence_id('42') FROM presence.start_session(user_key => '42')";
    let row = service.query_one(sql, &[]).unwrap();
    let (session, user): (Uuid, Uuid) = (row.get(0), row.get(1));
    listener.wait_for(user, &["active"]);
    service.end(session);
    listener.wait_for(user, &["active", "inactive"]);

    let (epoch, seq) = cursor(&mut service);
    assert_eq!(seq, 2);
    for message in &listener.messages {
        assert_eq!((message.v, &message.epoch), (1, &epoch));
        assert!(message.prev < message.seq || message.changes.is_none());
    }
    let changes = listener.told_changes();
    assert_eq!(
        changes.iter().map(|change| change.seq).collect::<Vec<_>>(),
        [1, 2]
    );
    for change in &changes {
        assert_eq!(change.key.as_deref(), Some("42"));
        // Byte for byte the times of the table, in UTC, to the microsecond.
        let sql = "SELECT changed_at, last_seen,
                          to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
                   FROM presence.presence_changes WHERE seq = $1";
        let row = service.query_one(sql, &[&change.seq]).unwrap();
        assert_eq!(row.get::<_, chrono::DateTime<chrono::Utc>>(0), change.at);
        assert_eq!(
            row.get::<_, Option<chrono::DateTime<chrono::Utc>>>(1),
            change.last_seen
        );
        let at = format!("\"at\":\"{}\"", row.get::<_, &str>(2));
        assert!(
            listener
                .payloads
                .iter()
                .any(|payload| payload.contains(&at)),
            "{at}: {:?}",
            listener.payloads
        );
    }
}

#[test]
fn a_user_without_a_key_is_told_without_one() {
    let database = Cluster::shared().database();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    database.connect().start(user);
    listener.wait_for(user, &["active"]);
    assert!(
        listener
            .payloads
            .iter()
            .all(|payload| !payload.contains("\"key\""))
    );
}

#[test]
fn a_change_is_readable_before_it_is_told() {
    let database = Cluster::shared().database();
    let (mut service, mut reader) = (database.connect(), database.connect());
    let mut listener = database.listen();
    for _ in 0..20 {
        let user = Uuid::new_v4();
        service.start(user);
        listener.wait_for(user, &["active"]);
        let sql = "SELECT (SELECT count(*) FROM presence.presence_changes WHERE user_id = $1),
                          (SELECT count(*) FROM presence.user_presence WHERE user_id = $1 AND is_online)";
        let row = reader.query_one(sql, &[&user]).unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 1));
    }
}

#[test]
fn a_second_session_is_no_change() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    let (one, two) = (service.start(user), service.start(user));
    listener.wait_for(user, &["active"]);
    service.end(one.id);
    let other = Uuid::new_v4();
    service.start(other);
    listener.wait_for(other, &["active"]);
    assert_eq!(listener.told(user), ["active"]);
    service.end(two.id);
    listener.wait_for(user, &["active", "inactive"]);
}

#[test]
fn nothing_rolled_back_is_told() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    let mut transaction = service.transaction().unwrap();
    transaction.start(user);
    transaction.rollback().unwrap();
    let other = Uuid::new_v4();
    service.start(other);
    listener.wait_for(other, &["active"]);
    assert!(listener.told(user).is_empty());
    let sql = "SELECT count(*) FROM presence.user_presence WHERE user_id = $1";
    assert_eq!(
        service.query_one(sql, &[&user]).unwrap().get::<_, i64>(0),
        0
    );
}

#[test]
fn the_reason_says_why() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    let session = service.start(user);
    listener.wait_for(user, &["active"]);
    service.end(session.id);
    listener.wait_for(user, &["active", "inactive"]);
    let sql = "SELECT status::text, previous::text, reason FROM presence.presence_changes WHERE user_id = $1 ORDER BY seq";
    let rows = service.query(sql, &[&user]).unwrap();
    let rows: Vec<(&str, &str, &str)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    assert_eq!(
        rows,
        [
            ("active", "inactive", "started"),
            ("inactive", "active", "ended")
        ]
    );
}

#[test]
fn numbers_have_no_gaps_and_come_in_order_whatever_happens_at_once() {
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
    wait_until("everybody online is written so", || {
        let sql = "SELECT user_id FROM presence.user_presence WHERE is_online ORDER BY 1";
        let rows = reader.query(sql, &[]).unwrap();
        rows.iter()
            .map(|row| row.get::<_, Uuid>(0))
            .collect::<Vec<_>>()
            == online
    });
    let (_, last) = cursor(&mut reader);
    let rows = reader
        .query(
            "SELECT seq FROM presence.changes_since(0, NULL, 100000)",
            &[],
        )
        .unwrap();
    let kept: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(kept, (1..=last).collect::<Vec<_>>());
    wait_until("every change told", || {
        listener.receive();
        listener
            .messages
            .last()
            .is_some_and(|message| message.seq >= last)
    });
    let told: Vec<i64> = listener
        .told_changes()
        .iter()
        .map(|change| change.seq)
        .collect();
    assert!(told.is_sorted() && told.iter().collect::<BTreeSet<_>>().len() == told.len());
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
fn a_mirror_ends_with_exactly_the_tables_state() {
    let database = Cluster::shared().database();
    let mut mirror = Mirror::new(database.listen(), database.connect());
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
            mirror.receive();
        }
    }
    let mut online: Vec<Uuid> = users
        .iter()
        .zip(&sessions)
        .filter(|(_, session)| session.is_some())
        .map(|(user, _)| *user)
        .collect();
    online.sort();
    wait_until("the mirror agrees", || {
        mirror.receive();
        mirror.online() == online && mirror.statuses() == statuses(&mut service)
    });
    assert_eq!(mirror.snapshots, 1);
}

#[test]
fn a_mirror_survives_mass_changes_and_lost_connections() {
    let cluster = Cluster::own(&[("presence.notify_max", "5")]);
    let database = cluster.database();
    let mut mirror = Mirror::new(database.listen(), database.connect());
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..500).map(|_| Uuid::new_v4()).collect();
    service
        .execute("SELECT presence.start_sessions($1)", &[&users])
        .unwrap();
    let all_online = |mirror: &Mirror| mirror.online().len() == users.len();
    wait_until("the mirror has caught up", || {
        mirror.receive();
        all_online(&mirror)
    });

    service
        .execute(
            "SELECT presence.end_user_sessions(u) FROM unnest($1::uuid[]) u",
            &[&users],
        )
        .unwrap();
    wait_for_seq(&database, 1000);
    mirror.reconnect(database.listen(), database.connect());
    wait_until("the mirror agrees", || {
        mirror.receive();
        mirror.online().is_empty() && mirror.statuses() == statuses(&mut service)
    });
}

#[test]
fn many_changes_at_once_are_told_as_a_wakeup() {
    let cluster = Cluster::own(&[
        ("presence.notify_max", "5"),
        ("presence.notify_interval", "1s"),
    ]);
    let database = cluster.database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let users: Vec<Uuid> = (0..50).map(|_| Uuid::new_v4()).collect();
    // Held still during the commit, or the worker may find the first few of them by themselves.
    let worker = database.worker();
    signal("STOP", worker);
    service
        .execute("SELECT presence.start_sessions($1)", &[&users])
        .unwrap();
    signal("CONT", worker);
    wait_for_seq(&database, 50);
    wait_until("a wakeup", || {
        listener.receive();
        listener
            .messages
            .iter()
            .any(|message| message.changes.is_none() && message.seq >= 50)
    });
    assert!(listener.told_changes().is_empty());
}

#[test]
fn many_changes_are_split_into_several_messages() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let keys: Vec<String> = (0..200)
        .map(|i| format!("{i}-{}", "🟢\"\\".repeat(20)))
        .collect();
    let mut transaction = service.transaction().unwrap();
    for key in &keys {
        transaction
            .execute("SELECT presence.start_session(user_key => $1)", &[key])
            .unwrap();
    }
    transaction.commit().unwrap();
    // receive() refuses payloads of 8,000 bytes and those that are no JSON.
    let told = wait_for("all keys", || {
        listener.receive();
        let told: BTreeSet<String> = listener
            .told_changes()
            .into_iter()
            .filter_map(|change| change.key)
            .collect();
        (told.len() == keys.len()).then_some(told)
    });
    assert_eq!(told, keys.into_iter().collect());
    let with_changes = listener
        .messages
        .iter()
        .filter(|message| message.changes.is_some());
    assert!(with_changes.count() > 1);
}

#[test]
fn payloads_can_be_reduced_to_wakeups_or_turned_off() {
    let cluster = Cluster::own(&[("presence.notify_payload", "wakeup")]);
    let database = cluster.database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    service.start(user);
    wait_until("a wakeup", || {
        listener.receive();
        listener.messages.iter().any(|message| message.seq == 1)
    });
    assert!(listener.told_changes().is_empty());
    assert!(
        listener
            .payloads
            .iter()
            .all(|payload| !payload.contains(&user.to_string()))
    );

    cluster.set("presence.notify_payload", "off");
    let mut told = listener.messages.len();
    let mut seq = 1;
    // Turned off once the worker has read it.
    wait_until("silence", || {
        service.start(Uuid::new_v4());
        seq += 1;
        wait_for_seq(&database, seq);
        listener.receive();
        let silent = listener.messages.len() == told;
        told = listener.messages.len();
        silent
    });
}

#[test]
fn the_channel_is_a_setting() {
    let cluster = Cluster::own(&[("presence.channel", "Who is there")]);
    let database = cluster.database();
    database.wait_until_served();
    let mut listener = Listener::new(database.connect(), database.connect(), "Who is there");
    let user = Uuid::new_v4();
    database.connect().start(user);
    listener.wait_for(user, &["active"]);
}

#[test]
fn changes_since_reads_on_from_any_number() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..10).map(|_| Uuid::new_v4()).collect();
    service
        .execute("SELECT presence.start_sessions($1)", &[&users])
        .unwrap();
    wait_for_seq(&database, 10);
    let (epoch, last) = cursor(&mut service);
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
    // A replica that lags is asked for more than it has.
    assert!(read(1000, Some(&epoch), 1000).is_empty());
    refused(
        service.query(sql, &[&3i64, &"another", &10i32]),
        &SqlState::SNAPSHOT_TOO_OLD,
    );
}

#[test]
fn what_is_no_longer_kept_must_be_read_again() {
    let cluster = Cluster::own(&[
        ("presence.feed_retention", "1s"),
        ("presence.retention", "10s"),
    ]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    for _ in 0..3 {
        let session = service.start(user);
        wait_until("online", || {
            let sql = "SELECT is_online FROM presence.user_presence WHERE user_id = $1";
            service
                .query_opt(sql, &[&user])
                .unwrap()
                .is_some_and(|row| row.get(0))
        });
        service.end(session.id);
        wait_until("offline", || {
            let sql = "SELECT is_online FROM presence.user_presence WHERE user_id = $1";
            !service.query_one(sql, &[&user]).unwrap().get::<_, bool>(0)
        });
    }
    wait_until("the feed forgets", || {
        let sql = "SELECT seq FROM presence.changes_since(0)";
        match service.query(sql, &[]) {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::SNAPSHOT_TOO_OLD));
                true
            }
        }
    });
    let (epoch, seq) = cursor(&mut service);
    assert_eq!(seq, 6);
    let sql = "SELECT seq FROM presence.changes_since($1, $2)";
    assert!(service.query(sql, &[&seq, &epoch]).unwrap().is_empty());
}

#[test]
fn without_a_change_nothing_is_written_or_told() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let session = service.start(Uuid::new_v4());
    wait_for_seq(&database, 1);
    for _ in 0..100 {
        service.beat(session.id);
    }
    let other = Uuid::new_v4();
    service.start(other);
    listener.wait_for(other, &["active"]);
    assert_eq!(cursor(&mut service).1, 2);
}
