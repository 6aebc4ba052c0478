//! Timeouts, releases and expiry. Most of these tests use a server on which a session times out after two seconds.

use std::time::{Duration, Instant};

use pg_presence_test::{Cluster, Listener, Presence, Session, Stalls, wait_for, wait_until, wait_until_equal};
use postgres::Client;
use uuid::Uuid;

use crate::hours::Server;

/// Returns one user's changes: status, reason, and the seconds since the last activity.
fn changes(client: &mut Client, user: Uuid) -> Vec<(String, String, f64)> {
    let sql = "SELECT status::text, reason, extract(epoch FROM changed_at - last_seen)::float8
               FROM presence.presence_changes WHERE user_id = $1 ORDER BY seq";
    client
        .query(sql, &[&user])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

fn reasons(client: &mut Client, user: Uuid) -> Vec<String> {
    changes(client, user).into_iter().map(|(_, reason, _)| reason).collect()
}

/// Returns a session of a new user whose login was notified. A worker that is stalled for the whole timeout finds nothing
/// to notify; then this tries another user.
fn notified_login(service: &mut Client, listener: &mut Listener) -> (Uuid, Session) {
    wait_for("a notified login", || {
        let user = Uuid::new_v4();
        let session = service.start(user);
        wait_until("the login to be notified, or to time out", || {
            listener.receive();
            !listener.statuses_of(user).is_empty() || !service.is_online(user)
        });
        (!listener.statuses_of(user).is_empty()).then_some((user, session))
    })
}

#[test]
fn silence_is_notified_once_and_never_before_the_timeout() {
    let database = Cluster::shared_short_timeout().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let (user, _) = notified_login(&mut service, &mut listener);
    listener.wait_for(user, &["active", "inactive"]);
    let (later, _) = notified_login(&mut service, &mut listener);
    listener.wait_for(later, &["active", "inactive"]);
    assert_eq!(listener.statuses_of(user), ["active", "inactive"]);
    let changes = changes(&mut service, user);
    // Recovered, where the whole server stood still for longer than a heartbeat.
    assert!(["timed_out", "recovered"].contains(&&*changes[1].1), "{changes:?}");
    assert!(changes[1].2 >= 5.0, "{changes:?}");
    assert!(!service.is_online(user));
}

#[test]
fn a_user_who_keeps_beating_is_never_reported_inactive() {
    let database = Cluster::shared_short_timeout().database();
    let mut service = database.connect();
    // A machine that stalls for longer than the timeout causes a real silence; then the attempt proves nothing.
    wait_until("ten seconds without a stall of the machine", || {
        let mut stalls = Stalls::begin();
        let (user, session) = service.start_written();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            let beat = Instant::now();
            assert_eq!(service.beat(session.id), "ok");
            assert!(service.is_online(user) || beat.elapsed() > Duration::from_secs(3));
            stalls.step();
            std::thread::sleep(Duration::from_millis(100));
        }
        let reasons = reasons(&mut service, user);
        let longest = stalls.end();
        service.end(session.id);
        longest < Duration::from_secs(3) && {
            assert_eq!(reasons, ["started"]);
            true
        }
    });
}

#[test]
fn a_beat_resumes_a_session_that_timed_out() {
    let database = Cluster::shared_short_timeout().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let (user, session) = notified_login(&mut service, &mut listener);
    listener.wait_for(user, &["active", "inactive"]);
    let sql = "SELECT is_active, ended_at IS NULL FROM presence.user_sessions WHERE id = $1";
    wait_until("is_active becomes false in the table", || {
        let row = service.query_one(sql, &[&session.id]).unwrap();
        assert!(row.get::<_, bool>(1));
        !row.get::<_, bool>(0)
    });
    wait_until("resumed is written", || {
        if !service.is_online(user) {
            assert_eq!(service.beat(session.id), "ok");
        }
        reasons(&mut service, user).len() >= 3
    });
    let reasons_so_far = reasons(&mut service, user);
    assert!(
        ["timed_out", "recovered"].contains(&&*reasons_so_far[1]) && reasons_so_far[2] == "resumed",
        "{reasons_so_far:?}"
    );
    wait_until("is_active becomes true again, or the next timeout is written", || {
        service.query_one(sql, &[&session.id]).unwrap().get::<_, bool>(0) || reasons(&mut service, user).len() > 3
    });
}

#[test]
fn a_login_with_the_same_token_resumes_a_session_that_timed_out() {
    let database = Cluster::shared_short_timeout().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let (user, session) = notified_login(&mut service, &mut listener);
    listener.wait_for(user, &["active", "inactive"]);
    let sql = "SELECT session_id FROM presence.start_session(user_id => $1, session_token => $2)";
    wait_until("resumed is written", || {
        if !service.is_online(user) {
            let again = service.query_one(sql, &[&user, &session.token]).unwrap();
            assert_eq!(again.get::<_, Uuid>(0), session.id);
        }
        reasons(&mut service, user).len() >= 3
    });
    assert_eq!(reasons(&mut service, user)[2], "resumed");
}

#[test]
fn readers_are_right_while_the_worker_is_stopped() {
    let server = Server::new("2h");
    let database = server.cluster.database();
    database.wait_until_served();
    let mut service = database.connect();
    let worker = database.pause_worker();
    let user = Uuid::new_v4();
    let session = service.start(user);
    assert!(service.is_online(user));
    server.pass(3);
    assert!(!service.is_online(user));
    assert_eq!(service.user_status(user), "inactive");
    assert_eq!(service.online_count(), 0);
    assert!(service.online_users().is_empty());
    assert_eq!(service.beat(session.id), "ok");
    assert!(service.is_online(user));
    assert_eq!(service.online_count(), 1);
    let other = Uuid::new_v4();
    let second = service.start(other);
    assert!(service.is_online(other));
    service.end(second.id);
    assert!(!service.is_online(other));
    worker.resume();
}

#[test]
fn a_released_session_times_out_after_its_grace() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    let session = service.start(user);
    listener.wait_for(user, &["active"]);
    assert!(service.release(session.id, "1 h"));
    assert!(service.is_online(user));
    server.pass(2);
    listener.wait_for(user, &["active", "inactive"]);
    assert_eq!(reasons(&mut service, user), ["started", "released"]);
    assert_eq!(service.beat(session.id), "ok");
    listener.wait_for(user, &["active", "inactive", "active"]);
}

#[test]
fn a_beat_within_the_grace_cancels_the_release() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let (user, other) = (Uuid::new_v4(), Uuid::new_v4());
    let (session, short) = (service.start(user), service.start(other));
    listener.wait_for(user, &["active"]);
    listener.wait_for(other, &["active"]);
    assert!(service.release(session.id, "1 h"));
    assert_eq!(service.beat(session.id), "ok");
    // Its grace ends later.
    assert!(service.release(short.id, "2 h"));
    server.pass(3);
    listener.wait_for(other, &["active", "inactive"]);
    assert_eq!(listener.statuses_of(user), ["active"]);
    assert!(service.is_online(user));
}

#[test]
fn releases_by_token_and_of_many_sessions_work_alike() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let users: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
    let sessions: Vec<_> = users.iter().map(|user| service.start(*user)).collect();
    for user in &users {
        listener.wait_for(*user, &["active"]);
    }
    let sql = "SELECT presence.release_session_by_token($1, '100 ms')";
    assert!(service.query_one(sql, &[&sessions[0].token]).unwrap().get::<_, bool>(0));
    let sql = "SELECT presence.release_sessions($1, '100 ms')";
    let ids = [sessions[1].id, sessions[2].id, Uuid::new_v4()];
    assert_eq!(service.query_one(sql, &[&&ids[..]]).unwrap().get::<_, i32>(0), 2);
    for user in users {
        listener.wait_for(user, &["active", "inactive"]);
    }
}

#[test]
fn a_release_never_prolongs_a_session() {
    let database = Cluster::shared_short_timeout().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = wait_for("a release in time", || {
        let (user, session) = notified_login(&mut service, &mut listener);
        service.release(session.id, "1 h").then_some(user)
    });
    listener.wait_for(user, &["active", "inactive"]);
}

#[test]
fn a_session_ends_at_expires_at_however_it_beats() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    let sql = "SELECT session_id FROM presence.start_session(user_id => $1, lifetime => '3 h')";
    let session: Uuid = service.query_one(sql, &[&user]).unwrap().get(0);
    listener.wait_for(user, &["active"]);
    for _ in 0..2 {
        server.pass(1);
        assert_eq!(service.beat(session), "ok");
    }
    server.pass(2);
    assert_eq!(service.beat(session), "ended");
    assert!(!service.is_online(user));
    listener.wait_for(user, &["active", "inactive"]);
    assert_eq!(reasons(&mut service, user), ["started", "expired"]);
    wait_until("is_active is false in the table", || {
        let sql = "SELECT is_active FROM presence.user_sessions WHERE id = $1";
        !service.query_one(sql, &[&session]).unwrap().get::<_, bool>(0)
    });
}

#[test]
fn a_polling_query_on_the_table_stays_right() {
    let database = Cluster::shared_short_timeout().database();
    database.wait_until_served();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    // Whether the table has the user online, and whether the worker has stalled.
    let sql = "SELECT EXISTS (SELECT FROM presence.user_sessions
                              WHERE user_id = $1 AND is_active AND last_activity > now() - interval '5 s'),
                      last_tick_at < now() - interval '2 s' FROM presence.presence_stats";
    let mut beat_and_poll = || -> (bool, bool) {
        assert_eq!(service.beat(session.id), "ok");
        let row = service.query_one(sql, &[&user]).unwrap();
        (row.get(0), row.get(1))
    };
    wait_until("eight seconds without a stall of the machine", || {
        wait_until("the table has the user online", || beat_and_poll().0);
        let (start, mut last) = (Instant::now(), Instant::now());
        while start.elapsed() < Duration::from_secs(8) {
            let (seen, worker_stalled) = beat_and_poll();
            if worker_stalled || last.elapsed() > Duration::from_secs(1) {
                return false;
            }
            assert!(seen, "the table has the user offline after {:?}", start.elapsed());
            last = Instant::now();
            std::thread::sleep(Duration::from_millis(200));
        }
        true
    });
}

#[test]
fn silent_sessions_are_deactivated_then_deleted() {
    let cluster = Cluster::private(&[
        ("presence.active_timeout", "1s"),
        ("presence.heartbeat_interval", "1s"),
        ("presence.retention", "20s"),
    ]);
    let database = cluster.database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4());
    let sql = "SELECT is_active FROM presence.user_sessions WHERE id = $1";
    // A test that stalls finds it deleted.
    wait_until("deactivated", || {
        let row = service.query_opt(sql, &[&session.id]).unwrap();
        row.is_none_or(|row| !row.get::<_, bool>(0))
    });
    wait_until("deleted", || service.query_opt(sql, &[&session.id]).unwrap().is_none());
    let sql = "SELECT last_seen IS NOT NULL FROM presence.user_presence";
    assert!(
        service.query_one(sql, &[]).unwrap().get::<_, bool>(0),
        "last_seen is kept after the session is gone"
    );
    wait_until("unknown", || service.beat(session.id) == "unknown");
}

#[test]
fn manual_cleanup_does_what_the_worker_does() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut service = database.connect();
    let insert = "INSERT INTO presence.user_sessions (user_id, auth_id, is_active, last_activity, created_at)
                  SELECT u, u, $1, now() - $2::text::interval, now() - '2 d'::interval
                  FROM (SELECT gen_random_uuid() u) s";
    service.execute(insert, &[&true, &"10 min"]).unwrap();
    service.execute(insert, &[&false, &"23 h"]).unwrap();
    service.execute(insert, &[&false, &"25 h"]).unwrap();
    let live = service.start(Uuid::new_v4());
    // What the worker has locked at the moment is left to it.
    wait_until_equal("active and all sessions", &(1, 3), || {
        service
            .query("SELECT deactivated, deleted FROM presence.cleanup_sessions()", &[])
            .unwrap();
        let sql = "SELECT count(*) FILTER (WHERE is_active), count(*) FROM presence.user_sessions";
        let row = service.query_one(sql, &[]).unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    });
    assert_eq!(service.beat(live.id), "ok");
}

#[test]
fn a_changed_timeout_takes_effect_with_the_reload() {
    let cluster = Cluster::private(&[("presence.active_timeout", "1d"), ("presence.heartbeat_interval", "1s")]);
    let database = cluster.database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    service.start(user);
    listener.wait_for(user, &["active"]);
    cluster.set("presence.active_timeout", "1s");
    listener.wait_for(user, &["active", "inactive"]);
    let sql = "SELECT timeout_ms FROM presence.start_session(user_id => $1)";
    assert_eq!(
        service.query_one(sql, &[&Uuid::new_v4()]).unwrap().get::<_, i32>(0),
        1000
    );
}

#[test]
fn the_heartbeat_interval_given_to_clients_is_well_within_the_timeout() {
    let cluster = Cluster::private(&[("presence.active_timeout", "10s")]);
    let database = cluster.database();
    let sql = "SELECT heartbeat_ms, timeout_ms FROM presence.start_session(user_id => gen_random_uuid())";
    let row = database.connect().query_one(sql, &[]).unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (4000, 10_000));
}

#[test]
fn who_logs_out_after_the_release_ran_out_was_released() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    service.wait_for_written(user, true);
    // So that nobody but the logout finds out.
    let worker = database.pause_worker();
    service.release(session.id, "10 ms");
    wait_until("the release has run out", || !service.is_online(user));
    service.end(session.id);
    worker.resume();
    service.wait_for_written(user, false);
    assert_eq!(reasons(&mut service, user), ["started", "released"]);
}
