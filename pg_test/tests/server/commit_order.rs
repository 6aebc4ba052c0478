//! Changes count in commit order, whatever order the commit callbacks run in. A debug build can be made to wait between
//! a commit and its callback, so that a later commit is applied to the roster first.

use std::thread;

use pg_presence_test::{Cluster, Database, Presence, wait_until};
use postgres::Client;
use uuid::Uuid;

/// Commits `sql` in another thread, with a delay between the commit and its application to the roster. Meanwhile, once
/// the commit is visible to `seen`, runs `then`.
fn applied_late(database: &Database, sql: &str, seen: impl Fn(&mut Client) -> bool, then: impl FnOnce(&mut Client)) {
    let (mut late, mut other) = (database.connect(), database.connect());
    thread::scope(|scope| {
        let late = scope.spawn(move || {
            late.batch_execute("SET presence_test.commit_delay = '3000'").unwrap();
            late.batch_execute(sql).unwrap();
        });
        wait_until("the commit to become visible", || seen(&mut other));
        then(&mut other);
        late.join().unwrap();
    });
}

fn count(client: &mut Client, condition: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM presence.user_sessions WHERE {condition}");
    client.query_one(&sql, &[]).unwrap().get(0)
}

#[test]
fn a_logout_applied_before_an_older_beat_by_sql_stays_a_logout() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    applied_late(
        &database,
        &format!(
            "UPDATE presence.user_sessions SET last_activity = now(), metadata = '{{\"late\": 1}}'
             WHERE id = '{}'",
            session.id
        ),
        |client| count(client, "metadata ? 'late'") == 1,
        |client| assert!(client.end(session.id)),
    );
    assert!(!service.is_online(user));
    assert_eq!(service.beat(session.id), "ended");
}

#[test]
fn a_login_applied_after_a_later_logout_is_not_online() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (user, id) = (Uuid::new_v4(), Uuid::new_v4());
    applied_late(
        &database,
        &format!("INSERT INTO presence.user_sessions (id, user_id) VALUES ('{id}', '{user}')"),
        |client| count(client, "true") == 1,
        |client| assert!(client.end(id)),
    );
    assert!(!service.is_online(user));
    assert_eq!(service.beat(id), "ended");
}

#[test]
fn a_login_applied_after_a_later_truncate_is_gone() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (user, id) = (Uuid::new_v4(), Uuid::new_v4());
    applied_late(
        &database,
        &format!("INSERT INTO presence.user_sessions (id, user_id) VALUES ('{id}', '{user}')"),
        |client| count(client, "true") == 1,
        |client| client.batch_execute("TRUNCATE presence.user_sessions").unwrap(),
    );
    assert!(!service.is_online(user));
    assert_eq!(service.beat(id), "unknown");
}

#[test]
fn a_truncate_applied_late_does_not_touch_later_logins() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (before, after) = (Uuid::new_v4(), Uuid::new_v4());
    let gone = service.start(before);
    let mut kept = None;
    applied_late(
        &database,
        "TRUNCATE presence.user_sessions",
        |client| count(client, "true") == 0,
        |client| kept = Some(client.start(after)),
    );
    assert!(!service.is_online(before));
    assert_eq!(service.beat(gone.id), "unknown");
    assert!(service.is_online(after));
    assert_eq!(service.beat(kept.unwrap().id), "ok");
}

#[test]
fn of_two_rotations_the_later_one_decides_the_token() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4());
    let mut last = String::new();
    applied_late(
        &database,
        &format!(
            "UPDATE presence.user_sessions
             SET session_token = presence.token_digest('the first of two new tokens')
             WHERE id = '{}'",
            session.id
        ),
        |client| {
            count(
                client,
                "session_token = presence.token_digest('the first of two new tokens')",
            ) == 1
        },
        |client| {
            let row = client.query_one("SELECT presence.rotate_session_token($1)", &[&session.id]);
            last = row.unwrap().get(0);
        },
    );
    assert_eq!(service.beat_by_token(&last), "ok");
    assert_eq!(service.beat_by_token("the first of two new tokens"), "unknown");
    assert_eq!(service.beat_by_token(&session.token), "unknown");
}

#[test]
fn a_session_read_during_an_uncommitted_write_is_unchanged() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let changes = [
        "session_token = presence.token_digest('another token of the client')",
        "user_id = $2",
        "auth_id = $2",
    ];
    let sessions = changes.map(|change| {
        let (id, user) = (Uuid::new_v4(), Uuid::new_v4());
        let token = format!("the token of {user}");
        // Timed out, so that a starting server leaves it in the table until it is needed.
        let sql = "INSERT INTO presence.user_sessions (id, user_id, session_token, is_active)
                   VALUES ($1, $2, presence.token_digest($3), false)";
        let mut service = database.connect();
        service.execute(sql, &[&id, &user, &token]).unwrap();
        (change, id, user, token)
    });
    cluster.restart(pg_presence_test::Shutdown::Fast);
    database.wait_until_served();
    let mut service = database.connect();
    for (change, id, user, token) in sessions {
        let other = Uuid::new_v4();
        let mut uncommitted = database.connect();
        let mut transaction = uncommitted.transaction().unwrap();
        let sql = format!("UPDATE presence.user_sessions SET {change} WHERE id = $1 AND $2::uuid IS NOT NULL");
        assert_eq!(transaction.execute(&sql, &[&id, &other]).unwrap(), 1);
        let mut assert_unchanged = || {
            assert_eq!(service.beat(id), "ok", "{change}");
            assert!(service.is_online(user), "{change}");
            assert!(!service.is_online(other), "{change}");
            assert_eq!(service.beat_by_token(&token), "ok", "{change}");
            let another = service.beat_by_token("another token of the client");
            assert_eq!(another, "unknown", "{change}");
            assert_eq!(database.client_for(user).beat(id), "ok", "{change}");
            assert_eq!(database.client_for(other).beat(id), "unknown", "{change}");
        };
        assert_unchanged();
        transaction.rollback().unwrap();
        assert_unchanged();
    }
}

#[test]
fn a_beat_overtaken_by_a_write_of_something_else_counts() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    assert!(service.release(session.id, "1 s"));
    wait_until("the release", || !service.is_online(user));
    let mut reader = database.connect();
    applied_late(
        &database,
        &format!(
            "UPDATE presence.user_sessions SET last_activity = clock_timestamp() WHERE id = '{}'",
            session.id
        ),
        |client| count(client, "last_activity > created_at") == 1,
        |client| {
            client.update_session("metadata = '{\"a\": 1}'", session.id);
            assert!(reader.is_online(user));
        },
    );
    assert!(service.is_online(user));
}

#[test]
fn a_time_out_overtaken_by_a_write_of_something_else_counts() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    applied_late(
        &database,
        // As from another server, which replicates a session that has timed out there.
        &format!(
            "SET session_replication_role = replica;
             UPDATE presence.user_sessions SET is_active = false WHERE id = '{}'",
            session.id
        ),
        |client| count(client, "NOT is_active") == 1,
        |client| client.update_session("metadata = '{\"a\": 1}'", session.id),
    );
    assert!(!service.is_online(user));
}
