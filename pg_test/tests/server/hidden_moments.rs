//! Moments at which somebody who is hidden might be seen: between a commit and what it does to memory, in snapshots that are
//! kept, at the return.

use std::thread;

use pg_presence_test::{Cluster, Database, Presence, force_parallel, wait_until, wait_until_equal};
use postgres::{Client, Transaction};
use uuid::Uuid;

use crate::{
    declared::{assert_shown, online, shown},
    hours::{Server, feed, wait_for_feed},
};

const HIDE: &str = "SELECT presence.set_invisible(true, user_id => $1)";
const SHOW: &str = "SELECT presence.set_invisible(false, user_id => $1)";
const END: &str = "SELECT presence.end_user_sessions($1)";

/// Asserts that nobody sees a user online, by whatever they read, and that the worker tells nothing.
fn assert_unseen(database: &Database, user: Uuid, told: &str) {
    let mut reader = database.connect();
    let leaving = reader.start_written().1;
    assert_eq!(shown(&mut reader, user), "inactive");
    assert_eq!(reader.online_count(), 1);
    assert_eq!(reader.online_users().len(), 1);
    let stats = "SELECT users_online, live_sessions FROM presence.presence_stats";
    let row = reader.query_one(stats, &[]).unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 1));
    assert!(reader.end(leaving.id));
    assert_eq!(feed(&mut reader, user), told);
}

/// A user who is hidden, and has started a session since.
fn hidden(client: &mut Client) -> Uuid {
    let user = Uuid::new_v4();
    client.execute(HIDE, &[&user]).unwrap();
    client.start(user);
    user
}

/// Commits in another thread, and has the process wait once others see the commit, before it is applied.
fn with_commit_unapplied(database: &Database, write: impl FnOnce(&mut Transaction), then: impl FnOnce()) {
    let mut client = database.connect();
    let pid = client.process_id();
    let mut transaction = client.transaction().unwrap();
    write(&mut transaction);
    let paused = database.pause_at(pid, "commit");
    thread::scope(|scope| {
        scope.spawn(|| transaction.commit().unwrap());
        paused.wait_until_reached();
        then();
        paused.resume();
    });
}

#[test]
fn who_signs_out_and_shows_again_was_never_there() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    for order in [[END, SHOW], [SHOW, END]] {
        let user = hidden(&mut service);
        with_commit_unapplied(
            &database,
            |transaction| {
                for sql in order {
                    transaction.execute(sql, &[&user]).unwrap();
                }
            },
            || assert_unseen(&database, user, ""),
        );
        assert_unseen(&database, user, "");
    }
}

#[test]
fn who_shows_again_while_its_session_ends_has_gone_once_both_are_done() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = hidden(&mut service);
    with_commit_unapplied(
        &database,
        |transaction| {
            transaction.execute(END, &[&user]).unwrap();
        },
        // Before the other has been told that it has ended: which of them came first, nobody can tell.
        || {
            service.execute(SHOW, &[&user]).unwrap();
        },
    );
    assert_shown(&mut service, user, "inactive");
    // Sessions that start from now on are seen.
    service.start(user);
    assert_shown(&mut service, user, "active");
}

#[test]
fn who_shows_again_is_seen_at_once_though_others_write_its_session() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let (mut service, mut other) = (database.connect(), database.connect());
    let user = hidden(&mut service);
    let mut writing = other.transaction().unwrap();
    let sql = "UPDATE presence.user_sessions SET metadata = '{\"a\": 1}' WHERE user_id = $1";
    writing.execute(sql, &[&user]).unwrap();
    service.execute(SHOW, &[&user]).unwrap();
    assert_eq!(shown(&mut service, user), "active");
    writing.rollback().unwrap();
    assert_shown(&mut service, user, "active");
    wait_for_feed(&mut service, user, "started: inactive, active");
}

#[test]
fn a_snapshot_that_is_kept_shows_nobody_who_has_hidden_since_also_in_parallel() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    let other = service.start_written().0;
    let mut reader = database.connect_as(&database.reader());
    let mut kept = reader
        .build_transaction()
        .isolation_level(postgres::IsolationLevel::RepeatableRead)
        .start()
        .unwrap();
    kept.batch_execute("SELECT 1").unwrap();
    service.execute(HIDE, &[&user]).unwrap();
    let session: Uuid = service
        .query_one("SELECT id FROM presence.user_sessions WHERE user_id = $1", &[&user])
        .unwrap()
        .get(0);
    assert_eq!(service.beat(session), "ok");
    for parallel in [false, true] {
        if parallel {
            kept.batch_execute(&format!("SET LOCAL {}", force_parallel())).unwrap();
        }
        let sql = "SELECT presence.is_online($1), presence.user_status($1)::text, presence.online_count(),
                       (SELECT count(*) FROM presence.online_users()),
                       (SELECT is_online FROM presence.presence_of(ARRAY[$1])),
                       presence.last_seen($1) < (SELECT presence.last_seen($2)) + '1 h'";
        let row = kept.query_one(sql, &[&user, &other]).unwrap();
        assert!(!row.get::<_, bool>(0), "parallel: {parallel}");
        assert_eq!(row.get::<_, &str>(1), "inactive");
        assert_eq!((row.get::<_, i64>(2), row.get::<_, i64>(3)), (1, 1));
        assert!(!row.get::<_, bool>(4));
    }
    let seen = "SELECT presence.last_seen($1)::text";
    let there: String = kept.query_one(seen, &[&user]).unwrap().get(0);
    let here: String = service.query_one(seen, &[&user]).unwrap().get(0);
    assert_eq!(there, here);
}

#[test]
fn who_comes_back_idle_becomes_so_as_one_whose_session_has_just_started() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let users = [(); 2].map(|()| {
        let user = Uuid::new_v4();
        let session = service.start(user).id;
        service.wait_for_written(user, true);
        assert_eq!(service.beat_idle(session), "ok");
        user
    });
    server.pass(2);
    for user in users {
        assert_shown(&mut service, user, "idle");
    }
    service.execute(HIDE, &[&users[0]]).unwrap();
    let sql = "SELECT presence.set_invisible(true, '1 h', $1)";
    service.execute(sql, &[&users[1]]).unwrap();
    for user in users {
        assert_shown(&mut service, user, "inactive");
    }
    // One by a call, one without, which readers see before the worker does.
    let worker = database.pause_worker();
    server.pass(2);
    service.execute(SHOW, &[&users[0]]).unwrap();
    for user in users {
        assert_eq!(
            shown(&mut service, user),
            if user == users[0] { "active" } else { "idle" }
        );
    }
    worker.resume();
    assert_shown(&mut service, users[0], "active");
    server.pass(2);
    assert_shown(&mut service, users[0], "idle");
    let expected = "started: inactive, active; idle: active, idle; ended: idle, inactive; started: inactive, active; \
                    idle: active, idle";
    wait_for_feed(&mut service, users[0], expected);
}

#[test]
fn what_was_hidden_stays_so_where_users_may_not_hide_themselves_any_more() {
    let server = Server::new("5h");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user).id;
    service.wait_for_written(user, true);
    let seen = |client: &mut Client| -> String {
        let sql = "SELECT presence.last_seen($1)::text";
        client.query_one(sql, &[&user]).unwrap().get(0)
    };
    let before = seen(&mut service);
    let mut client = database.client_for(user);
    client.execute("SELECT presence.set_invisible(true)", &[]).unwrap();
    server.pass(1);
    assert_eq!(service.beat(session), "ok");
    assert!(service.end(session));
    client.execute("SELECT presence.set_invisible(false)", &[]).unwrap();
    assert_eq!(seen(&mut service), before);
    server.cluster.set("presence.allow_invisible", "off");
    let mut fresh = database.connect();
    assert_eq!(seen(&mut fresh), before);
}

#[test]
fn what_a_service_hides_for_a_while_does_not_end_what_the_user_has_hidden_for_longer() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    let mut client = database.client_for(user);
    client.execute("SELECT presence.set_invisible(true)", &[]).unwrap();
    service
        .execute("SELECT presence.set_invisible(true, '1 h', $1)", &[&user])
        .unwrap();
    server.pass(2);
    assert_shown(&mut service, user, "inactive");
    service.execute(SHOW, &[&user]).unwrap();
    assert_shown(&mut service, user, "active");
}

#[test]
fn who_has_come_back_stays_so_though_the_clock_is_set_back() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    service.execute(HIDE, &[&user]).unwrap();
    assert_shown(&mut service, user, "inactive");
    service.execute(SHOW, &[&user]).unwrap();
    assert_shown(&mut service, user, "active");
    server.cluster.set_clock("clock_step", -2 * crate::hours::HOUR);
    wait_until("the clock to be noticed", || {
        let sql = "SELECT last_tick_at < clock_timestamp() - '1 h'::interval FROM presence.presence_stats";
        service.query_one(sql, &[]).unwrap().get(0)
    });
    assert_shown(&mut service, user, "active");
    online(&mut service);
    wait_until_equal("the changes", &3, || {
        let sql = "SELECT count(*) FROM presence.presence_changes WHERE user_id = $1";
        service.query_one(sql, &[&user]).unwrap().get::<_, i64>(0)
    });
}
