//! Sessions bound to a connection: live without heartbeats while it is open, released when it ends.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use pg_presence_test::{Cluster, Database, Presence, Session, Shutdown, wait_until};
use postgres::{Client, GenericClient};
use uuid::Uuid;

use crate::hours::{Server, feed, wait_for_feed};

const STARTED: &str = "started: inactive, active";
const RELEASED: &str = "started: inactive, active; released: active, inactive";

/// Binds a session; it has `grace` when the connection ends. Returns whether it is bound.
fn bind(gateway: &mut impl GenericClient, session: Uuid, grace: &str) -> bool {
    let sql = format!("SELECT presence.bind_sessions(ARRAY[$1::uuid], '{grace}')");
    let unbound: Vec<Uuid> = gateway.query_one(&sql, &[&session]).unwrap().get(0);
    assert!(unbound.is_empty() || unbound == [session]);
    unbound.is_empty()
}

/// Starts a session of a user.
fn started(database: &Database) -> (Uuid, Session) {
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    wait_for_feed(&mut service, user, STARTED);
    (user, session)
}

/// Lets hours pass, and waits until somebody else has timed out meanwhile: the worker has looked.
fn let_pass(server: &Server, database: &Database, hours: i64) {
    let (stranger, _) = started(database);
    server.pass(hours);
    let timed_out = "started: inactive, active; timed_out: active, inactive";
    wait_for_feed(&mut database.connect(), stranger, timed_out);
}

fn wait_until_gone(service: &mut Client, pid: i32) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
    wait_until("the connection has ended", || {
        service.query_one(sql, &[&pid]).unwrap().get::<_, i64>(0) == 0
    });
}

fn end_of_connection(service: &mut Client, mut gateway: Client) {
    let pid = gateway.process_id();
    drop(gateway);
    wait_until_gone(service, pid);
}

fn last_seen(client: &mut Client, user: Uuid) -> f64 {
    let sql = "SELECT extract(epoch FROM presence.last_seen($1))::float8";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

#[test]
fn a_bound_session_is_live_without_heartbeats_and_its_last_activity_is_now() {
    let server = Server::with(&[("presence.active_timeout", "5min"), ("presence.flush_interval", "1s")]);
    let database = server.cluster.database();
    let (mut service, mut gateway) = (database.connect(), database.connect());
    let (user, session) = started(&database);
    assert!(bind(&mut gateway, session.id, "30 s"));
    let before = last_seen(&mut service, user);
    let_pass(&server, &database, 10);
    assert!(service.is_online(user));
    assert_eq!(service.user_status(user), "active");
    assert_eq!(feed(&mut service, user), STARTED);
    assert!(last_seen(&mut service, user) >= before + 36_000.0);
    wait_until("the table has it", || {
        let sql = "SELECT is_active AND last_activity > created_at + interval '9 hours'
                   FROM presence.user_sessions WHERE id = $1";
        service.query_one(sql, &[&session.id]).unwrap().get(0)
    });
    assert!(gateway.is_online(user));
}

#[test]
fn however_a_connection_ends_its_sessions_have_the_grace() {
    let server = Server::new("5h");
    let database = server.cluster.database();
    let mut service = database.connect();
    type End = fn(&mut Client, Client);
    let ends: [(&str, End); 3] = [
        ("closed", end_of_connection),
        ("terminated", |service, mut gateway| {
            let pid = gateway.process_id();
            service.query("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
            wait_until_gone(service, pid);
        }),
        ("idle for too long", |service, mut gateway| {
            let pid = gateway.process_id();
            // It may be answered by the end of the connection already.
            let _ = gateway.batch_execute("SET idle_session_timeout = 1");
            wait_until_gone(service, pid);
        }),
    ];
    for (what, end) in ends {
        let (user, session) = started(&database);
        let mut gateway = database.connect();
        assert!(bind(&mut gateway, session.id, "3 h"));
        end(&mut service, gateway);
        assert!(service.is_online(user), "{what}: in the grace");
        assert_eq!(feed(&mut service, user), STARTED, "{what}");
        server.pass(4);
        assert!(!service.is_online(user), "{what}: after the grace");
        wait_for_feed(&mut service, user, RELEASED);
    }
}

#[test]
fn a_gateway_that_is_killed_releases_its_sessions() {
    let server = Server::new("5h");
    let database = server.cluster.database();
    let mut service = database.connect();
    let (user, session) = started(&database);
    let mut psql = server.cluster.program("psql", &database.name);
    let psql = psql.args(["-qAtX"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut gateway = psql.spawn().expect("psql");
    let mut input = gateway.stdin.take().expect("a pipe");
    let mut output = BufReader::new(gateway.stdout.take().expect("a pipe")).lines();
    writeln!(
        input,
        "SELECT presence.bind_sessions('{{{}}}', '3 h'); SELECT pg_backend_pid();",
        session.id
    )
    .unwrap();
    assert_eq!(output.next().unwrap().unwrap(), "{}");
    let pid: i32 = output.next().unwrap().unwrap().parse().unwrap();
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    wait_until_gone(&mut service, pid);
    assert!(service.is_online(user));
    server.pass(4);
    wait_for_feed(&mut service, user, RELEASED);
}

#[test]
fn who_is_heard_from_or_bound_again_within_the_grace_stays_online() {
    let server = Server::new("5h");
    let database = server.cluster.database();
    let (mut service, mut first, mut second) = (database.connect(), database.connect(), database.connect());
    let ((beats, beating), (moves, moving)) = (started(&database), started(&database));
    for session in [beating.id, moving.id] {
        assert!(bind(&mut first, session, "1 h"));
    }
    end_of_connection(&mut service, first);
    assert_eq!(service.beat(beating.id), "ok");
    assert!(bind(&mut second, moving.id, "1 h"));
    server.pass(4);
    let_pass(&server, &database, 6);
    assert_eq!(feed(&mut service, moves), STARTED);
    assert!(service.is_online(moves));
    // No longer bound, it times out as others do.
    wait_for_feed(
        &mut service,
        beats,
        "started: inactive, active; timed_out: active, inactive",
    );
}

#[test]
fn the_last_binding_counts_whatever_the_former_connection_leaves_behind() {
    let server = Server::new("5h");
    let database = server.cluster.database();
    let (mut service, mut old, mut new) = (database.connect(), database.connect(), database.connect());
    let (user, session) = started(&database);
    assert!(bind(&mut old, session.id, "1 h"));
    assert!(bind(&mut new, session.id, "3 h"));
    assert!(old.release(session.id, "1 min"), "there is such a session");
    assert!(service.release(session.id, "1 min"));
    end_of_connection(&mut service, old);
    let_pass(&server, &database, 10);
    assert!(service.is_online(user));
    assert_eq!(feed(&mut service, user), STARTED);
    end_of_connection(&mut service, new);
    server.pass(2);
    assert!(service.is_online(user), "the grace of the last binding");
    server.pass(2);
    wait_for_feed(&mut service, user, RELEASED);
}

#[test]
fn the_connection_that_has_bound_a_session_can_release_it_alone() {
    let server = Server::new("5h");
    let database = server.cluster.database();
    let (mut service, mut gateway) = (database.connect(), database.connect());
    let ((leaves, leaving), (stays, staying)) = (started(&database), started(&database));
    for session in [leaving.id, staying.id] {
        assert!(bind(&mut gateway, session, "30 s"));
    }
    assert!(gateway.release(leaving.id, "1 h"));
    assert!(service.is_online(leaves));
    let_pass(&server, &database, 6);
    wait_for_feed(&mut service, leaves, RELEASED);
    assert!(service.is_online(stays));
    assert_eq!(feed(&mut service, stays), STARTED);
    // No longer bound: any connection may resume and release it.
    assert_eq!(service.beat(leaving.id), "ok");
    assert!(service.release(leaving.id, "1 h"));
    server.pass(2);
    assert!(!service.is_online(leaves));
}

#[test]
fn a_bound_session_stays_bound_though_it_moves_to_another_user() {
    let server = Server::new("5h");
    let database = server.cluster.database();
    let (mut service, mut gateway) = (database.connect(), database.connect());
    let ((former, session), other) = (started(&database), Uuid::new_v4());
    assert!(bind(&mut gateway, session.id, "1 h"));
    let_pass(&server, &database, 6);
    let before = last_seen(&mut service, former);
    service.update_session(&format!("user_id = '{other}'"), session.id);
    assert!(last_seen(&mut service, former) >= before, "it was there until now");
    assert!(service.is_online(other));
    let_pass(&server, &database, 6);
    assert!(service.is_online(other));
    assert_eq!(feed(&mut service, other), STARTED);
    end_of_connection(&mut service, gateway);
    server.pass(2);
    wait_for_feed(&mut service, other, RELEASED);
}

#[test]
fn a_bound_session_ends_from_anywhere_and_when_it_expires() {
    let server = Server::new("5h");
    let database = server.cluster.database();
    let (mut service, mut gateway) = (database.connect(), database.connect());
    let (user, session) = started(&database);
    let short_lived = Uuid::new_v4();
    let sql = "SELECT session_id FROM presence.start_session($1, lifetime => '3 h')";
    let expiring: Uuid = service.query_one(sql, &[&short_lived]).unwrap().get(0);
    for session in [session.id, expiring] {
        assert!(bind(&mut gateway, session, "1 day"));
    }
    server.pass(2);
    let before = last_seen(&mut service, user);
    assert!(service.end(session.id));
    assert_eq!(service.beat(session.id), "ended");
    assert!(!service.is_online(user));
    wait_for_feed(&mut service, user, "started: inactive, active; ended: active, inactive");
    assert!(
        last_seen(&mut service, user) >= before,
        "it was heard from until its end"
    );
    assert!(service.is_online(short_lived));
    server.pass(2);
    assert!(!service.is_online(short_lived));
    wait_for_feed(
        &mut service,
        short_lived,
        "started: inactive, active; expired: active, inactive",
    );
    assert!(!bind(&mut gateway, session.id, "30 s") && !bind(&mut gateway, expiring, "30 s"));
    assert!(!bind(&mut gateway, Uuid::new_v4(), "30 s"));
}

#[test]
fn a_binding_counts_though_its_transaction_rolls_back_unless_that_has_started_the_session() {
    let server = Server::new("5h");
    let database = server.cluster.database();
    let (mut service, mut gateway) = (database.connect(), database.connect());
    let (user, session) = started(&database);
    let mut transaction = gateway.transaction().unwrap();
    assert!(bind(&mut transaction, session.id, "1 h"));
    let never = transaction.start(Uuid::new_v4());
    assert!(bind(&mut transaction, never.id, "1 h"));
    transaction.rollback().unwrap();
    assert_eq!(service.beat(never.id), "unknown");

    let mut transaction = gateway.transaction().unwrap();
    let own = Uuid::new_v4();
    let own_session = transaction.start(own);
    let mut savepoint = transaction.transaction().unwrap();
    assert!(bind(&mut savepoint, own_session.id, "1 h"));
    savepoint.rollback().unwrap();
    let other = Uuid::new_v4();
    let other_session = transaction.start(other);
    assert!(bind(&mut transaction, other_session.id, "1 h"));
    let left = Uuid::new_v4();
    let left_session = transaction.start(left);
    assert!(bind(&mut transaction, left_session.id, "1 h"));
    assert!(transaction.release(left_session.id, "2 h"));
    let ended = transaction.start(Uuid::new_v4());
    assert!(bind(&mut transaction, ended.id, "1 h"));
    assert!(transaction.end(ended.id));
    assert!(!bind(&mut transaction, ended.id, "1 h"));
    transaction.commit().unwrap();
    assert_eq!(service.beat(ended.id), "ended");

    server.pass(3);
    assert!(!service.is_online(left), "released by the transaction itself");
    let_pass(&server, &database, 6);
    assert!(service.is_online(user) && service.is_online(other));
    assert!(!service.is_online(own), "its binding was rolled back");
    end_of_connection(&mut service, gateway);
    server.pass(2);
    assert!(!service.is_online(user) && !service.is_online(other));
}

#[test]
fn a_bound_session_is_idle_or_active_by_its_heartbeats() {
    let server = Server::with(&[("presence.active_timeout", "5h"), ("presence.flush_interval", "1s")]);
    let database = server.cluster.database();
    let (mut service, mut gateway, mut new) = (database.connect(), database.connect(), database.connect());
    let (user, session) = started(&database);
    assert!(bind(&mut gateway, session.id, "1 h"));
    let_pass(&server, &database, 6);
    assert_eq!(service.user_status(user), "active");
    // Somebody was there until now.
    assert_eq!(service.beat_idle(session.id), "ok");
    assert_eq!(service.user_status(user), "active");
    server.pass(2);
    assert_eq!(service.user_status(user), "idle");
    let idle = format!("{STARTED}; idle: active, idle");
    wait_for_feed(&mut service, user, &idle);
    // What the worker flushes is no news.
    wait_until("the table has the activity", || {
        let sql = "SELECT last_activity > created_at + interval '7 hours' FROM presence.user_sessions WHERE id = $1";
        service.query_one(sql, &[&session.id]).unwrap().get(0)
    });
    service.update_session("metadata = '{}'", session.id);
    assert_eq!(service.user_status(user), "idle");
    // Who is bound elsewhere stays idle.
    assert!(bind(&mut new, session.id, "1 h"));
    end_of_connection(&mut service, gateway);
    let_pass(&server, &database, 6);
    assert_eq!(service.user_status(user), "idle");
    assert_eq!(feed(&mut service, user), idle);
    assert_eq!(service.beat(session.id), "ok");
    assert_eq!(service.user_status(user), "active");
    let_pass(&server, &database, 6);
    assert!(service.is_online(user), "a heartbeat does not unbind");
}

#[test]
fn a_restart_or_crash_releases_nothing() {
    for how in [Shutdown::Fast, Shutdown::Kill] {
        let server = Server::new("5min");
        let database = server.cluster.database();
        let mut gateway = database.connect();
        let (user, session) = started(&database);
        assert!(bind(&mut gateway, session.id, "1 h"));
        server.cluster.restart(how);
        let mut service = database.connect();
        database.wait_until_served();
        assert!(service.is_online(user));
        assert!(bind(&mut service, session.id, "1 h"));
        let_pass(&server, &database, 6);
        assert_eq!(feed(&mut service, user), STARTED, "{how:?}");
    }
}

#[test]
fn a_session_that_memory_has_no_room_for_is_not_bound() {
    let cluster = Cluster::private(&[("presence.max_sessions", "64")]);
    let database = cluster.database();
    let mut gateway = database.connect();
    let users: Vec<Uuid> = (0..200).map(|_| Uuid::new_v4()).collect();
    let sql = "SELECT array_agg(session_id) FROM presence.start_sessions($1)";
    let sessions: Vec<Uuid> = gateway.query_one(sql, &[&users]).unwrap().get(0);
    let sql = "SELECT presence.bind_sessions($1)";
    let unbound: Vec<Uuid> = gateway.query_one(sql, &[&sessions]).unwrap().get(0);
    assert!(unbound.len() >= 200 - 64 && unbound.len() < 200, "{}", unbound.len());
    // In one transaction, of which nothing is in memory yet.
    let mut transaction = gateway.transaction().unwrap();
    let late = transaction.start(Uuid::new_v4());
    assert!(!bind(&mut transaction, late.id, "30 s"));
    transaction.commit().unwrap();
    assert_eq!(gateway.online_count(), 201);
}

#[test]
fn one_connection_may_bind_very_many_sessions() {
    let server = Server::new("5h");
    let database = server.cluster.database();
    let (mut service, mut gateway) = (database.connect(), database.connect());
    let users: Vec<Uuid> = (0..20_000).map(|_| Uuid::new_v4()).collect();
    let sql = "SELECT array_agg(session_id) FROM presence.start_sessions($1)";
    let sessions: Vec<Uuid> = gateway.query_one(sql, &[&users]).unwrap().get(0);
    let sql = "SELECT presence.bind_sessions($1, '1 h')";
    let unbound: Vec<Uuid> = gateway.query_one(sql, &[&sessions]).unwrap().get(0);
    assert_eq!(unbound.len(), 0);
    // A session for each was started by another gateway, too, for one in a hundred.
    let mut other = database.connect();
    for session in sessions.iter().step_by(100) {
        assert!(bind(&mut other, *session, "1 h"));
    }
    end_of_connection(&mut service, gateway);
    server.pass(2);
    assert_eq!(service.online_count(), 200);
    wait_until("everybody else is written", || {
        let sql = "SELECT count(*) FILTER (WHERE is_online), count(*) FROM presence.user_presence";
        let row = service.query_one(sql, &[]).unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1)) == (200, 20_000)
    });
}
