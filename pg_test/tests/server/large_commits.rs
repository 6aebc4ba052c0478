//! Commits of so many rows that they are applied to memory in parts.

use std::{
    thread,
    time::{Duration, Instant},
};

use pg_presence_test::{Cluster, Presence, wait_until};
use postgres::Client;
use uuid::Uuid;

const USERS: i64 = 1500;

fn count(client: &mut Client, what: &str) -> i64 {
    client
        .query_one(&format!("SELECT count(*) FROM presence.{what}"), &[])
        .unwrap()
        .get(0)
}

#[test]
fn users_whose_sessions_are_replaced_in_a_large_commit_stay_online_in_the_feed() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut observer = database.connect();
    let start =
        format!("SELECT presence.start_sessions(array_agg(gen_random_uuid())) FROM generate_series(1, {USERS})");
    observer.batch_execute(&start).unwrap();
    wait_until("everybody is told", || {
        count(&mut observer, "presence_changes") == USERS
    });
    observer
        .batch_execute("CREATE TABLE users AS SELECT user_id FROM presence.user_presence")
        .unwrap();

    // The worker waits for a commit for five seconds at most; an attempt that takes that long proves nothing.
    wait_until("an attempt without a stall of the machine", || {
        let told = count(&mut observer, "presence_changes");
        let start = Instant::now();
        let mut writer = database.connect();
        let a_part_is_applied = database.pause_at(writer.process_id(), "apply");
        thread::scope(|scope| {
            let commit = scope.spawn(move || {
                let replace = "BEGIN;
                               SELECT presence.end_sessions(array_agg(id)) FROM presence.user_sessions;
                               INSERT INTO presence.user_sessions (user_id) SELECT user_id FROM users;
                               COMMIT";
                writer.batch_execute(replace).unwrap();
            });
            a_part_is_applied.wait_until_reached();
            assert!(observer.online_count() < USERS);
            a_part_is_applied.resume();
            commit.join().unwrap();
        });
        let is_in_time = start.elapsed() < Duration::from_secs(4);
        assert_eq!(observer.online_count(), USERS);
        // Whoever is told later than these users.
        let last = Uuid::new_v4();
        let session = observer.start(last);
        observer.wait_for_written(last, true);
        let told = count(&mut observer, "presence_changes") - told;
        observer.end(session.id);
        observer.wait_for_written(last, false);
        is_in_time && {
            assert_eq!(told, 1);
            true
        }
    });
}

#[test]
fn others_start_and_end_sessions_while_a_large_commit_is_applied() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let (mut writer, mut service) = (database.connect(), database.connect());
    let a_part_is_applied = database.pause_at(writer.process_id(), "apply");
    let start =
        format!("SELECT presence.start_sessions(array_agg(gen_random_uuid())) FROM generate_series(1, {USERS})");
    thread::scope(|scope| {
        let commit = scope.spawn(move || writer.batch_execute(&start).unwrap());
        a_part_is_applied.wait_until_reached();
        assert!(service.online_count() > 0);
        let user = Uuid::new_v4();
        let session = service.start(user);
        assert!(service.is_online(user));
        assert!(service.end(session.id));
        assert!(!service.is_online(user));
        assert!(service.online_count() < USERS);
        a_part_is_applied.resume();
        commit.join().unwrap();
    });
    assert_eq!(service.online_count(), USERS);
    wait_until("everybody is told", || {
        count(&mut service, "user_presence WHERE is_online") == USERS
    });
}

#[test]
fn a_large_transaction_that_is_rolled_back_takes_no_place() {
    let cluster = Cluster::private(&[("presence.max_sessions", "4000")]);
    let database = cluster.database();
    database.wait_until_served();
    let mut service = database.connect();
    let start =
        format!("SELECT presence.start_sessions(array_agg(gen_random_uuid())) FROM generate_series(1, {USERS})");
    let used = "SELECT used FROM presence.presence_stats";
    let mut transaction = service.transaction().unwrap();
    transaction.batch_execute(&start).unwrap();
    let mut savepoint = transaction.savepoint("s").unwrap();
    savepoint.batch_execute(&start).unwrap();
    assert_eq!(savepoint.query_one(used, &[]).unwrap().get::<_, i64>(0), 2 * USERS);
    savepoint.rollback().unwrap();
    assert_eq!(transaction.query_one(used, &[]).unwrap().get::<_, i64>(0), USERS);
    transaction.rollback().unwrap();
    assert_eq!(service.query_one(used, &[]).unwrap().get::<_, i64>(0), 0);
    assert_eq!(service.online_count(), 0);
}

/// Memory that only this server process uses, in kilobytes.
fn private_memory(client: &mut Client) -> u64 {
    let pid = client.process_id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("Linux says so").parse().unwrap()
}

#[test]
fn memory_for_a_transaction_does_not_grow_with_the_ended_sessions_that_it_writes() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for sql in [
        "INSERT INTO presence.user_sessions (user_id, ended_at, is_active)
         SELECT gen_random_uuid(), now(), false FROM generate_series(1, 50000)",
        "UPDATE presence.user_sessions SET metadata = '{\"a\": 1}'",
        "DELETE FROM presence.user_sessions",
    ] {
        service
            .batch_execute("BEGIN; DELETE FROM presence.user_sessions WHERE false")
            .unwrap();
        let before = private_memory(&mut service);
        service.batch_execute(sql).unwrap();
        let grown = private_memory(&mut service).saturating_sub(before);
        service.batch_execute("COMMIT").unwrap();
        assert!(grown < 4_000, "{grown} kB: {sql}");
    }
    let user = Uuid::new_v4();
    let session = service.start(user);
    assert!(service.end(session.id));
    database.run(&format!(
        "BEGIN; DELETE FROM presence.user_sessions WHERE id = '{0}';
         INSERT INTO presence.user_sessions (id, user_id) VALUES ('{0}', '{user}'); COMMIT",
        session.id
    ));
    assert!(service.is_online(user));
}
