//! Crashes and restarts: nothing committed is lost, and nobody who keeps beating is reported inactive.

use pg_presence_test::{Cluster, Database, Presence, Session, Shutdown, signal, wait_until};
use postgres::Client;
use uuid::Uuid;

use crate::hours::{HOUR, Server};

/// A session in each state.
struct Sessions {
    live: Session,
    ended: Session,
    timed_out: Session,
    users: [Uuid; 3],
}

const SETTINGS: &[(&str, &str)] = &[("presence.flush_interval", "1s")];

fn set_up(database: &Database) -> Sessions {
    let mut service = database.connect();
    let mut listener = database.listen();
    let users = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
    let (ended, timed_out) = (service.start(users[1]), service.start(users[2]));
    service.end(ended.id);
    listener.wait_for(users[2], &["active"]);
    service.release(timed_out.id, "100 ms");
    listener.wait_for(users[2], &["active", "inactive"]);
    wait_until("the timeout is in the table", || {
        let sql = "SELECT is_active FROM presence.user_sessions WHERE id = $1";
        !service.query_one(sql, &[&timed_out.id]).unwrap().get::<_, bool>(0)
    });
    let live = service.start(users[0]);
    listener.wait_for(users[0], &["active"]);
    Sessions {
        live,
        ended,
        timed_out,
        users,
    }
}

/// Asserts everything that must be true after the recovery.
fn check(database: &Database, sessions: &Sessions) {
    let mut service = database.connect();
    assert!(
        service.is_online(sessions.users[0]),
        "online without having to beat again"
    );
    assert_eq!(service.beat(sessions.live.id), "ok");
    assert_eq!(service.beat_by_token(&sessions.live.token), "ok");
    assert_eq!(service.beat(sessions.ended.id), "ended");
    assert!(!service.is_online(sessions.users[1]));
    assert_eq!(service.beat(sessions.timed_out.id), "ok");
    assert!(service.is_online(sessions.users[2]));

    // A user who keeps beating was never reported inactive.
    wait_until("the worker is back and writes new changes", || {
        service.beat(sessions.live.id);
        let sql = "SELECT count(*) FROM presence.user_presence WHERE user_id = $1 AND is_online";
        service.query_one(sql, &[&sessions.users[2]]).unwrap().get::<_, i64>(0) == 1
    });
    let sql = "SELECT count(*) FROM presence.presence_changes WHERE user_id = $1 AND status = 'inactive'";
    assert_eq!(
        service.query_one(sql, &[&sessions.users[0]]).unwrap().get::<_, i64>(0),
        0
    );
    // A user who no longer beats becomes inactive, once.
    service.release(sessions.live.id, "1 s");
    wait_until("the timeout is written", || {
        service.query_one(sql, &[&sessions.users[0]]).unwrap().get::<_, i64>(0) == 1
    });
}

#[test]
fn sessions_survive_a_clean_restart() {
    let cluster = Cluster::private(SETTINGS);
    let database = cluster.database();
    let sessions = set_up(&database);
    cluster.restart(Shutdown::Fast);
    check(&database, &sessions);
}

#[test]
fn sessions_survive_a_kill_of_the_server() {
    let cluster = Cluster::private(SETTINGS);
    let database = cluster.database();
    let sessions = set_up(&database);
    cluster.restart(Shutdown::Kill);
    check(&database, &sessions);
}

/// Makes the server reinitialize its shared memory, by killing a backend.
pub fn kill_a_backend(database: &Database) {
    let mut victim = database.connect();
    let pid = victim.process_id();
    let mut witness = database.connect();
    signal("KILL", pid);
    wait_until("the server notices the crash and closes every connection", || {
        witness.batch_execute("SELECT 1").is_err()
    });
    wait_until("the server accepts connections", || {
        let config = database.cluster.config(&database.name, "postgres");
        config.connect(postgres::NoTls).is_ok()
    });
}

#[test]
fn sessions_survive_a_kill_of_a_backend() {
    let cluster = Cluster::private(SETTINGS);
    let database = cluster.database();
    let sessions = set_up(&database);
    kill_a_backend(&database);
    check(&database, &sessions);
}

#[test]
fn sessions_survive_a_kill_of_the_worker() {
    let cluster = Cluster::private(SETTINGS);
    let database = cluster.database();
    let sessions = set_up(&database);
    let worker = database.worker();
    signal("KILL", worker);
    wait_until("another worker", || {
        let Ok(mut client) = cluster.config(&database.name, "postgres").connect(postgres::NoTls) else {
            return false;
        };
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND backend_type LIKE '%presence%' AND pid <> $1";
        client
            .query_one(sql, &[&worker])
            .is_ok_and(|row| row.get::<_, i64>(0) == 1)
    });
    check(&database, &sessions);
}

#[test]
fn after_an_hour_of_downtime_nobody_is_inactive_before_having_had_time_to_beat() {
    let server = Server::with(&[
        ("presence.active_timeout", "30min"),
        ("presence.heartbeat_interval", "10min"),
    ]);
    let cluster = &server.cluster;
    let database = cluster.database();
    let sql = "INSERT INTO presence.user_sessions (user_id, auth_id, last_activity, created_at)
               SELECT u, u, now() - '1 h'::interval, now() - '2 h'::interval FROM (SELECT gen_random_uuid() u) s
               RETURNING id, user_id";
    // As in the table of a server that has been down: active, with an old last activity.
    let mut service = database.connect();
    let worker = database.pause_worker();
    let (kept, silent) = (
        service.query_one(sql, &[]).unwrap(),
        service.query_one(sql, &[]).unwrap(),
    );
    drop(service);
    cluster.stop(Shutdown::Kill);
    worker.kill();
    cluster.start();

    let mut service = database.connect();
    let (session, user): (Uuid, Uuid) = (kept.get(0), kept.get(1));
    assert!(service.is_online(user));
    assert_eq!(service.beat(session), "ok");
    let other: Uuid = silent.get(1);
    service.wait_for_written(other, true);
    // The time that everybody has is over, and the timeout of who has beaten is not.
    cluster.set_clock("clock", HOUR / 3);
    let sql = "SELECT reason FROM presence.presence_changes WHERE user_id = $1 AND status = 'inactive'";
    wait_until("the silent user is recovered to inactive", || {
        service.beat(session);
        let change = service.query_opt(sql, &[&other]).unwrap();
        change.is_some_and(|row| row.get::<_, &str>(0) == "recovered")
    });
    assert!(service.query_opt(sql, &[&user]).unwrap().is_none());
    assert!(service.is_online(user));
}

#[test]
fn after_a_crash_numbers_continue_or_the_epoch_changes() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    for how in [Shutdown::Fast, Shutdown::Immediate, Shutdown::Kill] {
        let mut copy = pg_presence_test::FeedCopy::new(database.listen(), database.connect());
        let user = Uuid::new_v4();
        database.connect().start(user);
        wait_until("the copy has the change", || {
            copy.receive();
            copy.online().contains(&user)
        });
        cluster.restart(how);
        let other = Uuid::new_v4();
        database.connect().start(other);
        copy.reconnect(database.listen(), database.connect());
        wait_until("the copy has the change after the crash", || {
            copy.receive();
            copy.catch_up();
            copy.online().contains(&other)
        });
        assert!(copy.online().contains(&user));
        let sql = "SELECT count(*) = max(seq) - min(seq) + 1 FROM presence.presence_changes";
        assert!(
            database.connect().query_one(sql, &[]).unwrap().get::<_, bool>(0),
            "a gap after {how:?}"
        );
    }
}

#[test]
fn a_fast_shutdown_under_load_is_fast_and_loses_nothing() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let started = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = database.connect();
                    let mut started = Vec::new();
                    // Bounded, in case the server is never stopped.
                    for _ in 0..5000 {
                        let user = Uuid::new_v4();
                        match client.execute("SELECT presence.start_session(user_id => $1)", &[&user]) {
                            Ok(_) => started.push(user),
                            Err(_) => break,
                        }
                    }
                    started
                })
            })
            .collect();
        let mut watcher = database.connect();
        wait_until("some load", || watcher.online_count() > 200);
        drop(watcher);
        cluster.stop(Shutdown::Fast);
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    cluster.start();
    let mut service = database.connect();
    let sql = "SELECT count(*) FROM unnest($1::uuid[]) u WHERE presence.is_online(u)";
    let online: i64 = service.query_one(sql, &[&started]).unwrap().get(0);
    assert_eq!(online, started.len() as i64);
    wait_until("the worker has written everybody", || {
        let sql = "SELECT count(*) FROM presence.user_presence WHERE is_online AND user_id = ANY ($1)";
        service.query_one(sql, &[&started]).unwrap().get::<_, i64>(0) == online
    });
    assert!(!cluster.log().contains("PANIC") && !cluster.log().contains("was terminated by signal"));
}

/// Crashes the server while only the feed has that a user is back: the session is timed out in the table. Returns the
/// session and its user.
fn crash_before_the_table_knows_of_a_return(database: &Database) -> (Uuid, Uuid) {
    let sessions = set_up(database);
    let (user, session) = (sessions.users[2], sessions.timed_out.id);
    let mut listener = database.listen();
    let (mut service, mut other) = (database.connect(), database.connect());
    // While the row is locked, the worker cannot write into the table that the session is active again.
    let mut holds = other.transaction().unwrap();
    let sql = "SELECT FROM presence.user_sessions WHERE id = $1 FOR UPDATE";
    holds.query_one(sql, &[&session]).unwrap();
    assert_eq!(service.beat(session), "ok");
    listener.wait_for(user, &["active"]);
    let sql = "SELECT is_active FROM presence.user_sessions WHERE id = $1";
    let known: bool = service.query_one(sql, &[&session]).unwrap().get(0);
    assert!(!known, "the table has it already");
    database.cluster.stop(Shutdown::Kill);
    (session, user)
}

/// Returns how many changes the feed has of a user.
fn changes(client: &mut Client, user: Uuid) -> i64 {
    let sql = "SELECT count(*) FROM presence.presence_changes WHERE user_id = $1";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

/// Returns what memory, feed and tables say of a user.
fn evidence(client: &mut Client, user: Uuid) -> String {
    let sql = "SELECT concat_ws(E'\\n', clock_timestamp(), (SELECT s FROM presence.presence_stats s),
                   (SELECT p FROM presence.user_presence p WHERE p.user_id = $1),
                   (SELECT string_agg(c::text, E'\\n' ORDER BY c.seq) FROM presence.presence_changes c WHERE c.user_id = $1),
                   (SELECT string_agg(s::text, E'\\n') FROM presence.user_sessions s WHERE s.user_id = $1))";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

/// Long enough that nobody times out meanwhile.
const LONG_TIMEOUT: &[(&str, &str)] = &[
    ("presence.active_timeout", "10min"),
    ("presence.heartbeat_interval", "2min"),
];

#[test]
fn a_user_resumed_just_before_a_crash_is_not_reported_inactive_after_it() {
    let cluster = Cluster::private(LONG_TIMEOUT);
    let database = cluster.database();
    let (session, user) = crash_before_the_table_knows_of_a_return(&database);
    cluster.start();
    let mut service = database.connect();
    let before = changes(&mut service, user);
    let stranger = Uuid::new_v4();
    service.start(stranger);
    wait_until("a new change is written", || changes(&mut service, stranger) == 1);
    assert!(service.is_online(user), "{}", evidence(&mut service, user));
    assert_eq!(service.beat(session), "ok");
    assert_eq!(
        changes(&mut service, user),
        before,
        "a user who kept beating was reported"
    );
}

#[test]
fn nobody_is_reported_inactive_because_the_table_could_not_be_read_at_first() {
    let cluster = Cluster::private(LONG_TIMEOUT);
    let database = cluster.database();
    let (_, user) = crash_before_the_table_knows_of_a_return(&database);
    let failure = cluster.fail_at("load");
    cluster.start();
    let mut service = database.connect();
    let before = changes(&mut service, user);
    assert!(service.is_online(user), "before the table is loaded");
    assert!(service.online_users().contains(&user));
    wait_until("the load to fail", || cluster.log().contains("injected at load"));
    drop(failure);
    database.wait_until_served();
    assert!(service.is_online(user));
    let stranger = Uuid::new_v4();
    service.start(stranger);
    wait_until("a new change is written", || changes(&mut service, stranger) == 1);
    assert_eq!(changes(&mut service, user), before);
}

#[test]
fn who_starts_a_session_while_the_table_is_loaded_has_not_recovered() {
    let cluster = Cluster::private(LONG_TIMEOUT);
    let database = cluster.database();
    database.wait_until_served();
    cluster.stop(Shutdown::Fast);
    let failure = cluster.fail_at("load");
    cluster.start();
    let (mut service, mut other, user) = (database.connect(), database.connect(), Uuid::new_v4());
    let starting = database.pause_at(other.process_id(), "commit");
    std::thread::scope(|scope| {
        scope.spawn(|| other.start(user));
        // Committed, and memory has not been told yet.
        starting.wait_until_reached();
        drop(failure);
        service.wait_for_written(user, true);
        starting.resume();
    });
    let sql = "SELECT string_agg(reason, ', ' ORDER BY seq) FROM presence.presence_changes WHERE user_id = $1";
    let reasons: String = service.query_one(sql, &[&user]).unwrap().get(0);
    assert_eq!(reasons, "started");
}

#[test]
fn a_reader_that_the_load_overtakes_knows_who_had_resumed() {
    let cluster = Cluster::private(LONG_TIMEOUT);
    let database = cluster.database();
    let (_, user) = crash_before_the_table_knows_of_a_return(&database);
    let failure = cluster.fail_at("load");
    cluster.start();
    let mut reader = database.connect();
    let pid = reader.process_id();
    // It has looked into memory, and not yet into the table.
    let paused = database.pause_at(pid, "table");
    let found = std::thread::spawn(move || reader.is_online(user));
    paused.wait_until_reached();
    drop(failure);
    database.wait_until_served();
    paused.resume();
    assert!(found.join().unwrap());
}
