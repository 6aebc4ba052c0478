//! Who is hidden is so in the order of commits, whatever the order in which memory learns of them, and however little room it
//! has.

use std::thread;

use pg_presence_test::{Cluster, Database, Presence, wait_until_equal};
use postgres::Client;
use uuid::Uuid;

use crate::{
    declared::{assert_shown, online, shown, wait_for_shown, written},
    hours::{Server, feed, wait_for_feed},
};

const HIDE: &str = "SELECT presence.set_invisible(true, user_id => $1)";
const SHOW: &str = "SELECT presence.set_invisible(false, user_id => $1)";
const END: &str = "SELECT presence.end_user_sessions($1)";

/// Executes a statement in another connection, which waits at a point of the code, while `then` runs.
fn with_paused(database: &Database, sql: &str, user: Uuid, point: &str, then: impl FnOnce()) {
    let mut client = database.connect();
    let paused = database.pause_at(client.process_id(), point);
    thread::scope(|scope| {
        scope.spawn(|| client.execute(sql, &[&user]).unwrap());
        paused.wait_until_reached();
        then();
        paused.resume();
    });
}

fn last_seen(client: &mut Client, user: Uuid) -> Option<String> {
    let sql = "SELECT presence.last_seen($1)::text";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

#[test]
fn the_last_of_two_commits_counts_that_memory_learns_of_in_the_opposite_order() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    for (first, second, expected) in [(HIDE, SHOW, "active"), (SHOW, HIDE, "inactive")] {
        let user = online(&mut service);
        if first == SHOW {
            service.execute(HIDE, &[&user]).unwrap();
            assert_shown(&mut service, user, "inactive");
        }
        with_paused(&database, first, user, "commit", || {
            service.execute(second, &[&user]).unwrap();
        });
        assert_shown(&mut service, user, expected);
        // Also once the worker has read the table.
        online(&mut service);
        assert_shown(&mut service, user, expected);
    }
}

#[test]
fn who_hides_while_the_session_of_another_call_starts_is_hidden() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    // So that there is somebody to look for.
    let other = online(&mut service);
    service.execute(HIDE, &[&other]).unwrap();
    for (before, during, expected) in [(None, HIDE, "nothing"), (Some(HIDE), SHOW, "active")] {
        let user = Uuid::new_v4();
        if let Some(before) = before {
            service.execute(before, &[&user]).unwrap();
        }
        let start = "SELECT presence.start_session($1)";
        with_paused(&database, start, user, "resolve", || {
            service.execute(during, &[&user]).unwrap();
        });
        assert_eq!(service.is_online(user), expected == "active");
        online(&mut service);
        wait_until_equal("what is written", &expected.to_owned(), || written(&mut service, user));
        assert_eq!(service.is_online(user), expected == "active");
    }
}

#[test]
fn who_hides_while_somebody_reads_when_it_was_seen_last_is_not_seen_since() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    service.execute(END, &[&user]).unwrap();
    assert_shown(&mut service, user, "inactive");
    let seen = last_seen(&mut service, user);
    let mut reader = database.connect();
    let paused = database.pause_at(reader.process_id(), "stored");
    let found = thread::scope(|scope| {
        let found = scope.spawn(|| last_seen(&mut reader, user));
        paused.wait_until_reached();
        service.execute(HIDE, &[&user]).unwrap();
        server.pass(1);
        service.start(user);
        paused.resume();
        found.join().unwrap()
    });
    assert_eq!(found, seen);
}

#[test]
fn a_transaction_that_hides_and_shows_again_has_hidden_nobody_and_the_other_way_round() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    let (shows, hides) = (online(&mut service), online(&mut service));
    service.execute(HIDE, &[&hides]).unwrap();
    wait_for_feed(
        &mut service,
        hides,
        "started: inactive, active; ended: active, inactive",
    );
    for (user, calls, expected) in [
        (shows, [HIDE, SHOW, HIDE, SHOW], "active"),
        (hides, [SHOW, HIDE, SHOW, HIDE], "inactive"),
    ] {
        let told = feed(&mut service, user);
        let mut transaction = service.transaction().unwrap();
        for sql in calls {
            transaction.execute(sql, &[&user]).unwrap();
        }
        transaction.commit().unwrap();
        assert_eq!(shown(&mut service, user), expected);
        for _ in 0..2 {
            online(&mut service);
        }
        assert_shown(&mut service, user, expected);
        assert_eq!(feed(&mut service, user), told);
    }
}

#[test]
fn a_savepoint_that_is_rolled_back_has_neither_hidden_nor_shown_anybody() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    for (first, second, expected) in [(HIDE, SHOW, "inactive"), (SHOW, HIDE, "active")] {
        let user = online(&mut service);
        if first == SHOW {
            service.execute(HIDE, &[&user]).unwrap();
        }
        let mut transaction = service.transaction().unwrap();
        transaction.execute(first, &[&user]).unwrap();
        let mut nested = transaction.transaction().unwrap();
        nested.execute(second, &[&user]).unwrap();
        nested.rollback().unwrap();
        transaction.commit().unwrap();
        assert_shown(&mut service, user, expected);
    }
}

#[test]
fn more_users_are_hidden_at_once_than_a_transaction_keeps() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    let sql = "SELECT count(*) FROM generate_series(1, 12000) n,
               LATERAL presence.start_session(presence.presence_id(n::text))";
    service.execute(sql, &[]).unwrap();
    assert_eq!(service.online_count(), 12_000);
    let worker = database.pause_worker();
    let sql = "INSERT INTO presence.declared_statuses (user_id, source, status)
               SELECT presence.presence_id(n::text), 'visibility', 'invisible' FROM generate_series(1, 11000) n";
    service.execute(sql, &[]).unwrap();
    let expect = |client: &mut Client, expected: i64| {
        assert_eq!(client.online_count(), expected);
        assert_eq!(client.online_users().len() as i64, expected);
    };
    expect(&mut service, 1000);
    worker.resume();
    let online = "SELECT count(*) FROM presence.user_presence WHERE is_online";
    let written = |client: &mut Client| client.query_one(online, &[]).unwrap().get::<_, i64>(0);
    wait_until_equal("who is written as online", &1000, || written(&mut service));
    expect(&mut service, 1000);
    service.execute("DELETE FROM presence.declared_statuses", &[]).unwrap();
    wait_until_equal("who is written as online", &12_000, || written(&mut service));
    expect(&mut service, 12_000);
}

#[test]
fn who_has_hidden_is_told_to_have_gone_also_while_others_have_locked_the_table() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let (mut service, mut lock) = (database.connect(), database.connect());
    let users = [(); 2].map(|()| online(&mut service));
    let seen = users.map(|user| last_seen(&mut service, user));
    let worker = database.pause_worker();
    service.execute(HIDE, &[&users[0]]).unwrap();
    let mut locked = lock.transaction().unwrap();
    locked.batch_execute("LOCK TABLE presence.declared_statuses").unwrap();
    worker.resume();
    server.pass(1);
    service.execute(END, &[&users[1]]).unwrap();
    for user in users {
        service.wait_for_written(user, false);
        assert_eq!(shown(&mut service, user), "inactive");
        wait_for_feed(&mut service, user, "started: inactive, active; ended: active, inactive");
    }
    assert_eq!(users.map(|user| last_seen(&mut service, user)), seen);
    locked.rollback().unwrap();
    service.execute(SHOW, &[&users[0]]).unwrap();
    assert_shown(&mut service, users[0], "active");
}

#[test]
fn who_is_forgotten_while_hidden_was_never_there() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    service.execute(HIDE, &[&user]).unwrap();
    service.start(user);
    let mut reader = database.connect();
    with_paused(&database, "SELECT presence.forget_user($1)", user, "commit", || {
        assert_eq!(shown(&mut reader, user), "inactive");
        assert_eq!(reader.online_count(), 0);
    });
    assert_eq!(shown(&mut reader, user), "inactive");
    assert_eq!(last_seen(&mut reader, user), None);
    // A stranger that nothing hides.
    service.start(user);
    assert_shown(&mut service, user, "active");
    wait_for_feed(&mut service, user, "started: inactive, active");
}

#[test]
fn who_may_not_hide_any_more_shows_and_hides_again_where_that_is_allowed() {
    let server = Server::new("5h");
    let database = server.cluster.database();
    let mut service = database.connect();
    let (stays, leaves) = (online(&mut service), Uuid::new_v4());
    let session = service.start(leaves).id;
    service.wait_for_written(leaves, true);
    let before = last_seen(&mut service, leaves);
    for user in [stays, leaves] {
        let mut client = database.client_for(user);
        client.execute("SELECT presence.set_invisible(true)", &[]).unwrap();
        assert_shown(&mut service, user, "inactive");
    }
    // What it did while it was hidden does not show then either.
    server.pass(1);
    assert_eq!(service.beat(session), "ok");
    assert!(service.end(session));
    server.cluster.set("presence.allow_invisible", "off");
    wait_for_shown(&mut service, stays, "active");
    assert_shown(&mut service, stays, "active");
    assert_eq!(shown(&mut service, leaves), "inactive");
    assert_eq!(last_seen(&mut service, leaves), before);
    // What it does meanwhile does.
    let session = service.start(leaves).id;
    assert_shown(&mut service, leaves, "active");
    server.pass(1);
    assert_eq!(service.beat(session), "ok");
    let meanwhile = last_seen(&mut service, leaves);
    server.cluster.set("presence.allow_invisible", "on");
    for user in [stays, leaves] {
        wait_for_shown(&mut service, user, "inactive");
        assert_shown(&mut service, user, "inactive");
    }
    assert_eq!(last_seen(&mut service, leaves), meanwhile);
    // Who has shown itself stays so.
    let mut client = database.client_for(stays);
    client.execute("SELECT presence.set_invisible(false)", &[]).unwrap();
    for allowed in ["off", "on"] {
        server.cluster.set("presence.allow_invisible", allowed);
        let expected = if allowed == "off" { "active" } else { "inactive" };
        wait_for_shown(&mut service, leaves, expected);
        assert_shown(&mut service, stays, "active");
    }
}
