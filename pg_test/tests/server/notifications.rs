//! What a listening client is notified of.

use std::collections::BTreeSet;

use pg_presence_test::{Cluster, Listener, Presence, wait_for, wait_until};
use uuid::Uuid;

#[test]
fn a_change_is_notified_as_documented() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let sql = "SELECT session_id, presence.presence_id('42') FROM presence.start_session(user_key => '42')";
    let row = service.query_one(sql, &[]).unwrap();
    let (session, user): (Uuid, Uuid) = (row.get(0), row.get(1));
    listener.wait_for(user, &["active"]);
    service.end(session);
    listener.wait_for(user, &["active", "inactive"]);

    let (epoch, seq) = database.cursor();
    assert_eq!(seq, 2);
    for message in &listener.messages {
        assert_eq!((message.v, &message.epoch), (1, &epoch));
        assert!(message.prev < message.seq || message.changes.is_none());
    }
    let changes = listener.notified_changes();
    assert_eq!(changes.iter().map(|change| change.seq).collect::<Vec<_>>(), [1, 2]);
    for change in &changes {
        assert_eq!(change.key.as_deref(), Some("42"));
        // Byte for byte the times of the table, in UTC, to the microsecond.
        let sql = "SELECT changed_at, last_seen,
                          to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
                   FROM presence.presence_changes WHERE seq = $1";
        let row = service.query_one(sql, &[&change.seq]).unwrap();
        assert_eq!(row.get::<_, chrono::DateTime<chrono::Utc>>(0), change.at);
        assert_eq!(row.get::<_, Option<chrono::DateTime<chrono::Utc>>>(1), change.last_seen);
        let at = format!("\"at\":\"{}\"", row.get::<_, &str>(2));
        assert!(
            listener.payloads.iter().any(|payload| payload.contains(&at)),
            "{at}: {:?}",
            listener.payloads
        );
    }
}

#[test]
fn a_user_without_a_key_is_notified_without_one() {
    let database = Cluster::shared().database();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    database.connect().start(user);
    listener.wait_for(user, &["active"]);
    assert!(listener.payloads.iter().all(|payload| !payload.contains("\"key\"")));
}

#[test]
fn a_change_is_readable_before_it_is_notified() {
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
    assert_eq!(listener.statuses_of(user), ["active"]);
    service.end(two.id);
    listener.wait_for(user, &["active", "inactive"]);
}

#[test]
fn nothing_rolled_back_is_notified() {
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
    assert!(listener.statuses_of(user).is_empty());
    let sql = "SELECT count(*) FROM presence.user_presence WHERE user_id = $1";
    assert_eq!(service.query_one(sql, &[&user]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn many_changes_at_once_are_notified_as_a_wakeup() {
    let cluster = Cluster::private(&[("presence.notify_max", "5"), ("presence.notify_interval", "1s")]);
    let database = cluster.database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let users: Vec<Uuid> = (0..50).map(|_| Uuid::new_v4()).collect();
    // Stopped during the commit, or the worker may find the first few of them alone.
    let worker = database.pause_worker();
    service
        .execute("SELECT presence.start_sessions($1)", &[&users])
        .unwrap();
    worker.resume();
    database.wait_for_seq(50);
    wait_until("a wakeup", || {
        listener.receive();
        listener
            .messages
            .iter()
            .any(|message| message.changes.is_none() && message.seq >= 50)
    });
    assert!(listener.notified_changes().is_empty());
}

#[test]
fn many_changes_are_split_into_several_messages() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let keys: Vec<String> = (0..200).map(|i| format!("{i}-{}", "🟢\"\\".repeat(20))).collect();
    let mut transaction = service.transaction().unwrap();
    for key in &keys {
        transaction
            .execute("SELECT presence.start_session(user_key => $1)", &[key])
            .unwrap();
    }
    transaction.commit().unwrap();
    // receive() refuses payloads of 8,000 bytes and invalid JSON.
    let notified = wait_for("all keys", || {
        listener.receive();
        let notified: BTreeSet<String> = listener
            .notified_changes()
            .into_iter()
            .filter_map(|change| change.key)
            .collect();
        (notified.len() == keys.len()).then_some(notified)
    });
    assert_eq!(notified, keys.into_iter().collect());
    let with_changes = listener.messages.iter().filter(|message| message.changes.is_some());
    assert!(with_changes.count() > 1);
}

#[test]
fn payloads_can_be_reduced_to_wakeups_or_turned_off() {
    let cluster = Cluster::private(&[("presence.notify_payload", "wakeup")]);
    let database = cluster.database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    service.start(user);
    wait_until("a wakeup", || {
        listener.receive();
        listener.messages.iter().any(|message| message.seq == 1)
    });
    assert!(listener.notified_changes().is_empty());
    assert!(
        listener
            .payloads
            .iter()
            .all(|payload| !payload.contains(&user.to_string()))
    );

    cluster.set("presence.notify_payload", "off");
    let mut received = listener.messages.len();
    let mut seq = 1;
    // Off once the worker has read the setting.
    wait_until("silence", || {
        service.start(Uuid::new_v4());
        seq += 1;
        database.wait_for_seq(seq);
        listener.receive();
        let silent = listener.messages.len() == received;
        received = listener.messages.len();
        silent
    });
}

#[test]
fn the_channel_is_a_setting() {
    let cluster = Cluster::private(&[("presence.channel", "Who is there")]);
    let database = cluster.database();
    database.wait_until_served();
    let mut listener = Listener::new(database.connect(), database.connect(), "Who is there");
    let user = Uuid::new_v4();
    database.connect().start(user);
    listener.wait_for(user, &["active"]);
}
