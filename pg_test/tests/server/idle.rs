//! The status 'idle': sessions that are connected, but that nobody is at.

use pg_presence_test::{Database, Presence, Session, Shutdown, wait_until};
use postgres::Client;
use uuid::Uuid;

use crate::hours::{HOUR, Server, feed, wait_for_feed};

/// Returns the status of a user, who is online, once every function has said the same.
fn status(client: &mut Client, user: Uuid) -> String {
    let sql = "SELECT p.status::text, p.is_online AND presence.is_online($1)
                   AND p.status = presence.user_status($1) AND (p.idle_since IS NOT NULL) = (p.status = 'idle')
                   AND (p.status, p.idle_since) IS NOT DISTINCT FROM (o.status, o.idle_since)
               FROM presence.presence_of(ARRAY[$1::uuid]) p LEFT JOIN presence.online_users() o USING (user_id)";
    let row = client.query_one(sql, &[&user]).unwrap();
    let status = row.get(0);
    assert!(row.get::<_, bool>(1), "not everything says that {user} is {status}");
    status
}

/// Returns since when a user is idle, as text: by the functions, and as written.
fn idle_since(client: &mut Client, user: Uuid) -> [Option<String>; 2] {
    let sql = "SELECT f.idle_since::text, t.idle_since::text
               FROM presence.presence_of(ARRAY[$1::uuid]) f JOIN presence.user_presence t USING (user_id)";
    let row = client.query_one(sql, &[&user]).unwrap();
    [row.get(0), row.get(1)]
}

fn last_seen(client: &mut Client, user: Uuid) -> Option<String> {
    let sql = "SELECT presence.last_seen($1)::text";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

const STARTED: &str = "started: inactive, active";
const WENT_IDLE: &str = "started: inactive, active; idle: active, idle";
const RETURNED: &str = "started: inactive, active; idle: active, idle; returned: idle, active";

/// Starts a session, and makes its user idle.
fn idle_user(server: &Server, database: &Database) -> (Uuid, Session) {
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    wait_for_feed(&mut service, user, STARTED);
    assert_eq!(service.beat_idle(session.id), "ok");
    server.pass(2);
    wait_for_feed(&mut service, user, WENT_IDLE);
    (user, session)
}

#[test]
fn since_when_a_user_is_idle_is_not_told_by_a_session_that_is_over_though_the_worker_has_not_come_by() {
    let server = Server::new("10h");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let stays = service.start(user).id;
    wait_for_feed(&mut service, user, STARTED);
    let active_at = last_seen(&mut service, user);
    let leaves = service.start(user).id;
    assert_eq!(service.beat_idle(stays), "ok");
    server.pass(1);
    assert_eq!(service.beat(leaves), "ok");
    assert_eq!(service.beat_idle(leaves), "ok");
    let worker = database.pause_worker();
    assert!(service.release(leaves, "1 h"));
    server.pass(3);
    let idle_since = |client: &mut Client| -> Option<String> {
        let sql = "SELECT idle_since::text FROM presence.presence_of(ARRAY[$1::uuid])";
        client.query_one(sql, &[&user]).unwrap().get(0)
    };
    assert_eq!(idle_since(&mut service), active_at);
    worker.resume();
    wait_for_feed(&mut service, user, WENT_IDLE);
    assert_eq!(idle_since(&mut service), active_at);
}

#[test]
fn a_user_is_idle_once_nobody_has_been_there_for_a_while_and_returns_with_a_heartbeat() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let (mut service, mut listener) = (database.connect(), database.listen());
    let user = Uuid::new_v4();
    let session = service.start(user);
    listener.wait_for(user, &["active"]);
    let active_at = last_seen(&mut service, user);
    assert_eq!(service.beat_idle(session.id), "ok");
    assert_eq!(status(&mut service, user), "active");
    server.pass(2);
    assert_eq!(status(&mut service, user), "idle");
    listener.wait_for(user, &["active", "idle"]);
    assert_eq!(idle_since(&mut service, user), [active_at.clone(), active_at.clone()]);
    // The other clock goes on.
    assert_eq!(service.beat_idle(session.id), "ok");
    assert_ne!(last_seen(&mut service, user), active_at);
    assert_eq!(idle_since(&mut service, user), [active_at.clone(), active_at]);
    assert_eq!(service.online_count(), 1);

    assert_eq!(service.beat(session.id), "ok");
    assert_eq!(status(&mut service, user), "active");
    listener.wait_for(user, &["active", "idle", "active"]);
    assert_eq!(idle_since(&mut service, user), [None, None]);
    assert_eq!(feed(&mut service, user), RETURNED);
    service.assert_no_gaps();
}

#[test]
fn whatever_says_that_somebody_is_there_makes_an_idle_user_active() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    for call in [
        "SELECT presence.heartbeat('{id}')",
        "SELECT presence.heartbeat_by_token('{token}')",
        "SELECT presence.heartbeat_many('{{id}}')",
        "SELECT presence.start_session('{user}', session_token => '{token}')",
        "SELECT presence.start_session('{user}')",
        "UPDATE presence.user_sessions SET last_activity = now() + interval '1000 h' WHERE id = '{id}'",
    ] {
        let (user, session) = idle_user(&server, &database);
        let call = call
            .replace("{id}", &session.id.to_string())
            .replace("{token}", &session.token);
        service
            .batch_execute(&call.replace("{user}", &user.to_string()))
            .unwrap();
        assert_eq!(status(&mut service, user), "active", "{call}");
        wait_for_feed(&mut service, user, RETURNED);
    }
}

#[test]
fn one_device_that_somebody_is_at_is_enough() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let (phone, laptop) = (service.start(user), service.start(user));
    wait_for_feed(&mut service, user, STARTED);
    for _ in 0..20 {
        assert_eq!(service.beat_idle(phone.id), "ok");
        server.pass(2);
        assert_eq!(service.beat(laptop.id), "ok");
        assert_eq!(status(&mut service, user), "active");
    }
    // The worker has looked since, as it has found somebody else.
    idle_user(&server, &database);
    assert_eq!(feed(&mut service, user), STARTED);
    assert!(service.end(laptop.id));
    assert_eq!(status(&mut service, user), "idle");
    wait_for_feed(&mut service, user, WENT_IDLE);
    let tablet = service.start(user);
    assert_eq!(status(&mut service, user), "active");
    wait_for_feed(&mut service, user, RETURNED);
    assert!(service.end(phone.id) && service.end(tablet.id));
    wait_for_feed(&mut service, user, &format!("{RETURNED}; ended: active, inactive"));
    assert_eq!(idle_since(&mut service, user), [None, None]);
}

#[test]
fn the_newest_of_several_idle_devices_says_since_when() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let (user, _) = idle_user(&server, &database);
    let tablet = service.start(user);
    wait_for_feed(&mut service, user, RETURNED);
    let active_at = last_seen(&mut service, user);
    assert_eq!(service.beat_idle(tablet.id), "ok");
    server.pass(2);
    wait_for_feed(&mut service, user, &format!("{RETURNED}; idle: active, idle"));
    assert_eq!(idle_since(&mut service, user), [active_at.clone(), active_at]);
    assert!(service.end(tablet.id));
    wait_until("the row to follow", || {
        let [found, written] = idle_since(&mut service, user);
        found == written && found.is_some()
    });
    assert_eq!(feed(&mut service, user), format!("{RETURNED}; idle: active, idle"));
}

#[test]
fn who_only_sends_heartbeats_is_never_idle() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let (beats, returned) = (Uuid::new_v4(), Uuid::new_v4());
    service.start(beats);
    let session = service.start(returned);
    assert_eq!(service.beat_idle(session.id), "ok");
    assert_eq!(service.beat(session.id), "ok");
    for user in [beats, returned] {
        wait_for_feed(&mut service, user, STARTED);
    }
    server.pass(20);
    idle_user(&server, &database);
    for user in [beats, returned] {
        assert_eq!(status(&mut service, user), "active");
        assert_eq!(feed(&mut service, user), STARTED);
    }
}

#[test]
fn readers_know_who_is_idle_while_the_worker_is_stopped() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let (user, other) = (Uuid::new_v4(), idle_user(&server, &database));
    let session = service.start(user);
    wait_for_feed(&mut service, user, STARTED);
    let worker = database.pause_worker();
    assert_eq!(service.beat_idle(session.id), "ok");
    assert_eq!(status(&mut service, user), "active");
    server.pass(2);
    assert_eq!(status(&mut service, user), "idle");
    assert_eq!(service.beat(other.1.id), "ok");
    assert_eq!(status(&mut service, other.0), "active");
    assert_eq!(service.online_count(), 2);
    // Flips between two looks of the worker are none.
    assert_eq!(service.beat(session.id), "ok");
    assert_eq!(status(&mut service, user), "active");
    worker.resume();
    wait_for_feed(&mut service, other.0, RETURNED);
    assert_eq!(feed(&mut service, user), STARTED);
}

#[test]
fn an_idle_user_stays_idle_over_a_restart_until_heard_of() {
    let server = Server::with(&[("presence.active_timeout", "1d"), ("presence.flush_interval", "1s")]);
    let database = server.cluster.database();
    let (user, session) = idle_user(&server, &database);
    let since = idle_since(&mut database.connect(), user);
    for how in [Shutdown::Fast, Shutdown::Kill] {
        server.cluster.restart(how);
        let mut service = database.connect();
        assert_eq!(status(&mut service, user), "idle", "{how:?}");
        assert_eq!(service.beat_idle(session.id), "ok");
        assert_eq!(status(&mut service, user), "idle", "{how:?}");
        database.assert_served();
        database.wait_until_served();
        assert_eq!(service.beat_idle(session.id), "ok");
        assert_eq!(status(&mut service, user), "idle", "{how:?}");
        assert_eq!(idle_since(&mut service, user), since, "{how:?}");
        assert_eq!(feed(&mut service, user), WENT_IDLE, "{how:?}");
    }
    let mut service = database.connect();
    assert_eq!(service.beat(session.id), "ok");
    assert_eq!(status(&mut service, user), "active");
    wait_for_feed(&mut service, user, RETURNED);
}

#[test]
fn a_standby_knows_who_is_idle_and_forgets_nothing_when_promoted() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let (user, session) = idle_user(&server, &database);
    let active = Uuid::new_v4();
    database.connect().start(active);
    database.connect().wait_for_written(active, true);
    let standby = server.cluster.standby();
    standby.set_clock("clock", server.hours.get() * HOUR);
    let mut there = standby.connect(&database.name);
    wait_until("the standby to catch up", || there.is_online(active));
    assert_eq!(status(&mut there, user), "idle");
    assert_eq!(status(&mut there, active), "active");
    server.cluster.stop(Shutdown::Immediate);
    there.execute("SELECT pg_promote()", &[]).unwrap();
    let sql = "SELECT NOT pg_is_in_recovery()";
    wait_until("the promotion", || there.query_one(sql, &[]).unwrap().get(0));
    assert_eq!(status(&mut there, user), "idle");
    assert_eq!(there.beat_idle(session.id), "ok");
    assert_eq!(status(&mut there, user), "idle");
    let new = Uuid::new_v4();
    there.start(new);
    there.wait_for_written(new, true);
    assert_eq!(feed(&mut there, user), WENT_IDLE);
    assert_eq!(there.beat(session.id), "ok");
    wait_for_feed(&mut there, user, RETURNED);
}

#[test]
fn an_idle_heartbeat_keeps_a_session_live_also_if_it_rolls_back() {
    let server = Server::new("2h");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    wait_for_feed(&mut service, user, STARTED);
    for _ in 0..5 {
        assert!(service.release(session.id, "30 min"));
        let mut transaction = service.transaction().unwrap();
        assert_eq!(transaction.beat_idle(session.id), "ok");
        transaction.rollback().unwrap();
        server.pass(1);
        assert_eq!(status(&mut service, user), "idle");
    }
    wait_for_feed(&mut service, user, WENT_IDLE);
}

#[test]
fn a_session_that_timed_out_comes_back_idle_where_nobody_is_there() {
    let server = Server::new("2h");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    let active_at = last_seen(&mut service, user);
    wait_for_feed(&mut service, user, STARTED);
    server.pass(3);
    let timed_out = format!("{STARTED}; timed_out: active, inactive");
    wait_for_feed(&mut service, user, &timed_out);
    assert_eq!(service.beat_idle(session.id), "ok");
    assert_eq!(status(&mut service, user), "idle");
    let resumed = format!("{timed_out}; resumed: inactive, idle");
    wait_for_feed(&mut service, user, &resumed);
    assert_eq!(idle_since(&mut service, user), [active_at.clone(), active_at]);
    server.pass(3);
    wait_for_feed(&mut service, user, &format!("{resumed}; timed_out: idle, inactive"));
    assert_eq!(service.beat(session.id), "ok");
    let active = format!("{resumed}; timed_out: idle, inactive; resumed: inactive, active");
    wait_for_feed(&mut service, user, &active);
}

#[test]
fn a_changed_idle_timeout_takes_effect_with_the_reload() {
    let server = Server::with(&[("presence.active_timeout", "1d"), ("presence.idle_timeout", "10h")]);
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    wait_for_feed(&mut service, user, STARTED);
    assert_eq!(service.beat_idle(session.id), "ok");
    server.pass(2);
    assert_eq!(status(&mut service, user), "active");
    server.cluster.set("presence.idle_timeout", "1h");
    wait_for_feed(&mut service, user, WENT_IDLE);
    assert_eq!(status(&mut service, user), "idle");
    server.cluster.set("presence.idle_timeout", "0");
    wait_for_feed(&mut service, user, RETURNED);
    assert_eq!(status(&mut service, user), "active");
}

#[test]
fn a_session_that_memory_has_no_room_for_is_never_idle() {
    let server = Server::with(&[("presence.active_timeout", "1d"), ("presence.max_sessions", "64")]);
    let database = server.cluster.database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..150).map(|_| Uuid::new_v4()).collect();
    let sessions: Vec<Uuid> = users.iter().map(|user| service.start(*user).id).collect();
    for session in &sessions {
        assert_eq!(service.beat_idle(*session), "ok");
    }
    server.pass(2);
    let statuses: Vec<String> = users.iter().map(|user| status(&mut service, *user)).collect();
    let idle = statuses.iter().filter(|status| *status == "idle").count();
    assert!((1..=64).contains(&idle), "{idle} idle");
    assert_eq!(service.online_count(), 150);
    wait_until("the worker to write the same", || {
        let sql = "SELECT count(*), count(*) FILTER (WHERE status = 'idle'), bool_and(is_online)
                   FROM presence.user_presence WHERE status = presence.user_status(user_id)";
        let row = service.query_one(sql, &[]).unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1)) == (150, idle as i64) && row.get(2)
    });
    for (user, session) in users.iter().zip(&sessions) {
        assert_eq!(service.beat(*session), "ok");
        assert_eq!(status(&mut service, *user), "active");
    }
}
