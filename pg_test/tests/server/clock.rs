//! Somebody sets the clock.

use std::time::{Duration, Instant};

use pg_presence_test::{Cluster, Database, Presence, Session, Shutdown, Stalls, wait_until};
use postgres::Client;
use uuid::Uuid;

use crate::hours::Server;

const HOUR: i64 = 3600;

/// Sets the time of day of a server, by `seconds` from the true one.
fn set_clock(cluster: &Cluster, seconds: i64) {
    cluster.set_clock("clock_step", seconds * 1_000_000);
}

/// Lets a new user log in, and waits until that is written. Returns a service's connection, too.
pub fn login(database: &Database) -> (Client, Uuid, Session) {
    let mut service = database.connect();
    let (user, session) = service.start_written();
    (service, user, session)
}

pub fn reasons(client: &mut Client, user: Uuid) -> Vec<String> {
    let sql = "SELECT reason FROM presence.presence_changes WHERE user_id = $1 ORDER BY seq";
    let rows = client.query(sql, &[&user]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits until the worker has swept the deadlines, with the clock as it is now.
pub fn wait_for_sweeps(client: &mut Client) {
    let mut last_tick = || -> Option<String> {
        let sql = "SELECT last_tick_at::text FROM presence.presence_stats";
        client.query_one(sql, &[]).unwrap().get(0)
    };
    for _ in 0..3 {
        let before = last_tick();
        wait_until("the worker has swept", || last_tick() != before);
    }
}

fn short_timeout() -> Cluster {
    Cluster::private(&[("presence.active_timeout", "6s"), ("presence.heartbeat_interval", "1s")])
}

#[test]
fn who_falls_silent_goes_offline_in_time_though_the_clock_is_set_back() {
    let server = Server::new("2h");
    let database = server.cluster.database();
    database.wait_until_served();
    let (mut service, user, _) = login(&database);
    // By the time of day the user would be online for hours to come.
    set_clock(&server.cluster, -10 * HOUR);
    wait_for_sweeps(&mut service);
    assert!(service.is_online(user));
    server.pass(3);
    assert!(!service.is_online(user));
    wait_until("the timeout is written", || {
        reasons(&mut service, user) == ["started", "timed_out"]
    });
}

#[test]
fn who_falls_silent_goes_offline_in_time_though_the_clock_was_ahead_at_the_start() {
    let cluster = short_timeout();
    let database = cluster.database();
    database.wait_until_served();
    let (service, user, _) = login(&database);
    drop(service);
    cluster.stop(Shutdown::Fast);
    set_clock(&cluster, HOUR);
    cluster.start();
    let (mut service, later, _) = login(&database);
    set_clock(&cluster, 0);
    for user in [user, later] {
        wait_until("readers see the timeout", || !service.is_online(user));
        wait_until("the timeout is written", || {
            reasons(&mut service, user)
                .last()
                .is_some_and(|reason| reason != "started")
        });
    }
}

#[test]
fn who_beats_stays_online_though_the_clock_is_set_forward_and_back() {
    let cluster = short_timeout();
    let database = cluster.database();
    database.wait_until_served();
    // A machine that stalls for longer than the timeout causes a real silence; then the attempt proves nothing.
    wait_until("an attempt without a stall of the machine", || {
        let mut stalls = Stalls::begin();
        let (mut service, user, session) = login(&database);
        for ahead in [HOUR, 0, -HOUR, 0] {
            assert_eq!(service.beat(session.id), "ok");
            stalls.step();
            set_clock(&cluster, ahead);
            wait_for_sweeps(&mut service);
        }
        let reasons = reasons(&mut service, user);
        stalls.end() < Duration::from_secs(5) && {
            assert_eq!(reasons, ["started"]);
            true
        }
    });
}

#[test]
fn a_session_started_after_the_clock_was_set_is_online_at_once() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    database.wait_until_served();
    let mut service = database.connect();
    for ahead in [HOUR, -HOUR, 0] {
        set_clock(&cluster, ahead);
        let user = Uuid::new_v4();
        service.start(user);
        assert!(service.is_online(user));
    }
}

#[test]
fn a_session_expires_by_the_time_of_day() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    database.wait_until_served();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let sql = "SELECT session_id FROM presence.start_session(user_id => $1, lifetime => '1 hour')";
    let session: Uuid = service.query_one(sql, &[&user]).unwrap().get(0);
    service.wait_for_written(user, true);
    set_clock(&cluster, 2 * HOUR);
    wait_until("the end is written", || {
        reasons(&mut service, user) == ["started", "expired"]
    });
    assert_eq!(service.beat(session), "ended");
}

#[test]
fn an_activity_in_the_future_becomes_now_with_the_next_flush() {
    let cluster = Cluster::private(&[("presence.flush_interval", "1s")]);
    let database = cluster.database();
    database.wait_until_served();
    let mut service = database.connect();
    set_clock(&cluster, HOUR);
    let user = Uuid::new_v4();
    let session = service.start(user);
    let is_future = "SELECT last_activity > clock_timestamp() FROM presence.user_sessions WHERE id = $1";
    let is_future = |service: &mut Client| -> bool { service.query_one(is_future, &[&session.id]).unwrap().get(0) };
    assert!(is_future(&mut service));
    set_clock(&cluster, 0);
    wait_until("the flush", || !is_future(&mut service));
    assert!(service.is_online(user));
    let sql = "SELECT presence.last_seen($1) <= clock_timestamp()";
    assert!(service.query_one(sql, &[&user]).unwrap().get::<_, bool>(0));
}

#[test]
fn an_activity_in_the_future_becomes_now_where_memory_is_full() {
    let cluster = Cluster::private(&[("presence.max_sessions", "64"), ("presence.flush_interval", "1s")]);
    let database = cluster.database();
    database.wait_until_served();
    let mut service = database.connect();
    set_clock(&cluster, HOUR);
    for _ in 0..80 {
        service.start(Uuid::new_v4());
    }
    set_clock(&cluster, 0);
    let sql = "SELECT count(*) FROM presence.user_sessions WHERE last_activity > clock_timestamp()";
    wait_until("every activity is in the past", || {
        service.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0
    });
    assert_eq!(service.online_count(), 80);
}

#[test]
fn who_beats_stays_online_where_memory_is_full_though_the_clock_is_set_forward() {
    let cluster = Cluster::private(&[("presence.max_sessions", "64"), ("presence.active_timeout", "10min")]);
    let database = cluster.database();
    database.wait_until_served();
    let mut service = database.connect();
    for _ in 0..80 {
        service.start(Uuid::new_v4());
    }
    wait_until("everybody is written", || {
        service
            .query_one("SELECT count(*) FROM presence.user_presence WHERE is_online", &[])
            .unwrap()
            .get::<_, i64>(0)
            == 80
    });
    set_clock(&cluster, HOUR);
    assert_eq!(service.online_count(), 80);
    wait_for_sweeps(&mut service);
    service.batch_execute("SELECT presence.cleanup_sessions()").unwrap();
    assert_eq!(service.online_count(), 80);
    let sql = "SELECT count(*) FROM presence.presence_changes WHERE status = 'inactive'";
    assert_eq!(service.query_one(sql, &[]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn what_timed_out_before_the_clock_was_set_back_is_written() {
    let cluster = Cluster::private(&[
        ("presence.active_timeout", "4s"),
        ("presence.heartbeat_interval", "1s"),
        ("presence.flush_interval", "1s"),
        ("presence.retention", "7d"),
    ]);
    let database = cluster.database();
    database.wait_until_served();
    let mut service = database.connect();
    let sessions: Vec<Uuid> = (0..2).map(|_| service.start(Uuid::new_v4()).id).collect();
    let sql = "SELECT count(*) FROM presence.user_sessions WHERE NOT is_active AND ended_at IS NULL";
    let mut timed_out = || -> i64 { service.query_one(sql, &[]).unwrap().get(0) };
    wait_until("the timeouts are written", || timed_out() == sessions.len() as i64);
    drop(service);
    let (mut service, _, _) = login(&database);
    // Less than the others have been silent for, and then more.
    for step in [-2, -HOUR] {
        set_clock(&cluster, step);
        wait_for_sweeps(&mut service);
    }
    wait_until("the timeout of the later one is written", || {
        service.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 3
    });
    let sql = "SELECT oldest_unflushed_ms IS NULL FROM presence.presence_stats";
    wait_until("nothing is left to write", || {
        service.query_one(sql, &[]).unwrap().get(0)
    });
}

#[test]
fn a_plain_update_beats_though_the_table_has_an_activity_in_the_future() {
    let cluster = short_timeout();
    let database = cluster.database();
    database.wait_until_served();
    set_clock(&cluster, HOUR);
    let (mut service, user, session) = login(&database);
    set_clock(&cluster, 0);
    let beat = "UPDATE presence.user_sessions SET last_activity = now() WHERE id = $1";
    wait_until("the timeout is written", || reasons(&mut service, user).len() == 2);
    wait_until("the beat resumes the session", || {
        service.execute(beat, &[&session.id]).unwrap();
        reasons(&mut service, user).len() > 2
    });
    assert_eq!(reasons(&mut service, user)[2], "resumed");
}

#[test]
fn who_beats_is_online_on_a_server_that_starts_in_1970() {
    let cluster = short_timeout();
    let database = cluster.database();
    database.wait_until_served();
    let (service, user, session) = login(&database);
    drop(service);
    cluster.stop(Shutdown::Fast);
    let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    set_clock(&cluster, -since_1970);
    cluster.start();
    database.wait_until_served();
    let mut service = database.connect();
    wait_until("an attempt without a stall of the machine", || {
        let start = Instant::now();
        assert_eq!(service.beat(session.id), "ok");
        let is_online = service.is_online(user);
        wait_for_sweeps(&mut service);
        let is_still_online = service.is_online(user);
        start.elapsed() < Duration::from_secs(5) && {
            assert!(is_online && is_still_online);
            true
        }
    });
    wait_until("readers see the timeout", || !service.is_online(user));
}
