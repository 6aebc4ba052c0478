//! Reading who is online: who may read, and that the answer is right whatever state memory is in.

use pg_presence_test::{Cluster, Presence, Shutdown, assert_refused, force_parallel, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use uuid::Uuid;

use crate::hours::Server;

/// user_id, user_key, status, is_online, whether there is a last_seen, session_count.
type Shown = (Uuid, Option<String>, String, bool, bool, i32);

fn presence_of(client: &mut Client, users: &[Option<Uuid>]) -> Vec<Shown> {
    let sql = "SELECT user_id, user_key, status::text, is_online, last_seen IS NOT NULL, session_count
                 FROM presence.presence_of($1)";
    let rows = client.query(sql, &[&users]).unwrap();
    let shown = |row: &postgres::Row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5));
    rows.iter().map(shown).collect()
}

/// Asserts that all functions agree on who of these users is online.
fn assert_online(client: &mut Client, online: &[Uuid], offline: &[Uuid]) {
    for (users, expected) in [(online, true), (offline, false)] {
        for &user in users {
            assert_eq!(client.is_online(user), expected, "{user}");
            let status = if expected { "active" } else { "inactive" };
            assert_eq!(client.user_status(user), status, "{user}");
        }
        let ids: Vec<_> = users.iter().copied().map(Some).collect();
        for (_, _, _, is_online, ..) in presence_of(client, &ids) {
            assert_eq!(is_online, expected);
        }
    }
    let mut sorted = online.to_vec();
    sorted.sort();
    assert_eq!(client.online_users(), sorted);
    assert_eq!(client.online_count(), sorted.len() as i64);
}

#[test]
fn last_seen_outlives_the_sessions() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    let session = service.start(user);
    listener.wait_for(user, &["active"]);
    assert_eq!(service.beat(session.id), "ok");
    let last_seen = |client: &mut Client| -> Option<String> {
        let sql = "SELECT presence.last_seen($1)::text";
        client.query_one(sql, &[&user]).unwrap().get(0)
    };
    let seen = last_seen(&mut service);
    assert!(seen.is_some());
    assert!(service.end(session.id));
    assert_eq!(last_seen(&mut service), seen);
    listener.wait_for(user, &["active", "inactive"]);
    database.run("DELETE FROM presence.user_sessions");
    assert_eq!(last_seen(&mut service), seen);
}

#[test]
fn the_last_activity_of_who_has_left_is_known_until_it_is_written() {
    let server = Server::new("5h");
    let database = server.cluster.database();
    let (mut service, mut holder) = (database.connect(), database.connect());
    let leave = [
        "DELETE FROM presence.user_sessions",
        "UPDATE presence.user_sessions SET user_id = gen_random_uuid() WHERE is_active",
        "TRUNCATE presence.user_sessions",
    ];
    for leave in leave {
        let user = Uuid::new_v4();
        let session = service.start(user);
        service.wait_for_written(user, true);
        server.pass(1);
        assert_eq!(service.beat(session.id), "ok");
        let seen = |client: &mut Client| -> f64 {
            let sql = "SELECT extract(epoch FROM last_seen)::float8 FROM presence.presence_of(ARRAY[$1::uuid])
                       WHERE last_seen = presence.last_seen($1)";
            client.query_one(sql, &[&user]).unwrap().get(0)
        };
        let before = seen(&mut service);
        let assert_kept = |client: &mut Client, when: &str| {
            let now = seen(client);
            assert!(now > before - 1800.0, "{leave}, {when}: {now} after {before}");
        };

        // The row cannot be written while it is locked.
        let mut held = holder.transaction().unwrap();
        let lock = "SELECT FROM presence.user_presence WHERE user_id = $1 FOR UPDATE";
        assert_eq!(held.execute(lock, &[&user]).unwrap(), 1);
        let worker = database.pause_worker_at("taken");
        service.execute(leave, &[]).unwrap();
        worker.wait_until_reached();
        assert_kept(&mut service, "taken by the worker");
        worker.resume();
        let worker = database.pause_worker();
        assert_kept(&mut service, "put off");
        let old = worker.pid();
        worker.resume();
        service.query("SELECT pg_terminate_backend($1)", &[&old]).unwrap();
        database.new_worker(old);
        assert_kept(&mut service, "after the worker's end");
        held.rollback().unwrap();
        service.wait_for_written(user, false);
        assert_kept(&mut service, "written");
    }
}

#[test]
fn a_users_sessions_are_counted_and_the_latest_beat_is_shown() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let sessions: Vec<_> = (0..3).map(|_| service.start(user)).collect();
    assert!(service.end(sessions[0].id));
    service.release(sessions[1].id, "1 ms");
    wait_until("one session is left", || {
        presence_of(&mut service, &[Some(user)])[0].5 == 1
    });
    let sql = "SELECT u.last_seen = presence.last_seen($1), u.last_seen = p.last_seen, u.session_count
                 FROM presence.online_users() u, presence.presence_of(ARRAY[$1::uuid]) p";
    let row = service.query_one(sql, &[&user]).unwrap();
    assert!(row.get::<_, bool>(0) && row.get::<_, bool>(1));
    assert_eq!(row.get::<_, i32>(2), 1);
    assert_eq!(service.online_count(), 1);
}

#[test]
fn a_reader_reads_everybody_and_a_client_itself() {
    let database = Cluster::shared().database();
    let (own, other) = (Uuid::new_v4(), Uuid::new_v4());
    database.connect().start(other);

    let mut reader = database.connect_as(&database.reader());
    assert_online(&mut reader, &[other], &[own]);

    let mut client = database.connect_as(&database.client());
    client.act_for(own);
    client.start_own();
    assert!(client.is_online(own));
    assert_eq!(client.user_status(own), "active");
    for function in ["is_online", "user_status", "last_seen"] {
        let sql = format!("SELECT presence.{function}($1)");
        let foreign = assert_refused(client.query(&sql, &[&other]), &SqlState::INSUFFICIENT_PRIVILEGE);
        let unknown = assert_refused(
            client.query(&sql, &[&Uuid::new_v4()]),
            &SqlState::INSUFFICIENT_PRIVILEGE,
        );
        assert_eq!(foreign.message(), unknown.message());
    }
    for sql in [
        "SELECT * FROM presence.online_users()",
        "SELECT presence.online_count()",
        "SELECT * FROM presence.presence_of('{}')",
        "SELECT * FROM presence.presence_cursor()",
        "SELECT * FROM presence.changes_since(0)",
    ] {
        let error = client.query(sql, &[]).unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}");
    }
}

#[test]
fn a_revoked_privilege_is_gone_at_once() {
    let database = Cluster::shared().database();
    let (own, other) = (Uuid::new_v4(), Uuid::new_v4());
    let role = database.client();
    database.run(&format!("SELECT presence.grant_reader('{role}')"));
    let mut client = database.connect_as(&role);
    client.act_for(own);
    assert!(!client.is_online(other));
    database.run(&format!("REVOKE EXECUTE ON FUNCTION presence.presence_of FROM {role}"));
    let sql = "SELECT presence.is_online($1)";
    assert_refused(client.query_one(sql, &[&other]), &SqlState::INSUFFICIENT_PRIVILEGE);
    assert!(!client.is_online(own));
    database.run(&format!("SELECT presence.grant_reader('{role}')"));
    assert!(!client.is_online(other));
}

#[test]
fn statuses_are_right_in_parallel_plans() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    service
        .batch_execute(
            "CREATE TABLE users AS SELECT gen_random_uuid() AS id FROM generate_series(1, 20000);
             SELECT presence.start_sessions(array_agg(id)) FROM (SELECT id FROM users LIMIT 700) u;
             ALTER TABLE users SET (parallel_workers = 2);
             ANALYZE users;
             SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
        )
        .unwrap();
    let count = "SELECT count(*) FROM users WHERE presence.is_online(id)";
    let plan: Vec<String> = service
        .query(&format!("EXPLAIN {count}"), &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(plan.iter().any(|line| line.contains("Parallel")), "{plan:?}");
    assert_eq!(service.query_one(count, &[]).unwrap().get::<_, i64>(0), 700);
    service.batch_execute(&format!("SET {}", force_parallel())).unwrap();
    assert_eq!(service.online_count(), 700);
    let of_all = "SELECT count(*) FROM users u, presence.presence_of(ARRAY[u.id]) p WHERE p.is_online";
    assert_eq!(service.query_one(of_all, &[]).unwrap().get::<_, i64>(0), 700);
}

#[test]
fn statuses_are_right_when_memory_is_full() {
    let cluster = Cluster::private(&[("presence.max_sessions", "64")]);
    let database = cluster.database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..200).map(|_| Uuid::new_v4()).collect();
    let mut sessions: Vec<_> = users.iter().map(|&user| service.start(user)).collect();
    let (gone, here) = (&users[..50], &users[50..]);
    for session in sessions.drain(..50) {
        assert!(service.end(session.id));
        assert_eq!(service.beat(session.id), "ended");
    }
    assert_online(&mut service, here, gone);
    for session in &sessions {
        assert_eq!(service.beat(session.id), "ok");
        assert_eq!(service.beat_by_token(&session.token), "ok");
    }
    assert_online(&mut service, here, gone);
    let all: Vec<_> = users.iter().copied().map(Some).collect();
    let mut parallel = database.connect();
    parallel.batch_execute(&format!("SET {}", force_parallel())).unwrap();
    assert_eq!(presence_of(&mut parallel, &all), presence_of(&mut service, &all));
    assert_eq!(parallel.online_count(), 150);
}

#[test]
fn statuses_are_right_at_once_after_a_crash() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
    let sessions: Vec<_> = users.iter().map(|&user| service.start(user)).collect();
    assert!(service.end(sessions[0].id));
    cluster.restart(Shutdown::Kill);
    let mut service = database.connect();
    assert_online(&mut service, &users[1..], &users[..1]);
    assert_eq!(service.beat(sessions[0].id), "ended");
    assert_eq!(service.beat(sessions[1].id), "ok");
    assert_online(&mut service, &users[1..], &users[..1]);
}

#[test]
fn a_standby_answers_reads_and_refuses_writes() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let mut service = database.connect();
    let (here, gone) = (Uuid::new_v4(), Uuid::new_v4());
    let (session, ended) = (service.start(here), service.start(gone));
    assert!(service.end(ended.id));
    let reader = database.reader();

    let standby = cluster.standby();
    let mut replica = standby.connect(&database.name);
    wait_until("the standby has caught up", || {
        replica.is_online(here) && !replica.is_online(gone)
    });
    assert_online(&mut replica, &[here], &[gone]);
    let sql = "SELECT presence.last_seen($1) IS NOT NULL";
    assert!(replica.query_one(sql, &[&gone]).unwrap().get::<_, bool>(0));
    for call in [
        "heartbeat($1)",
        "heartbeat_many(ARRAY[$1::uuid])",
        "heartbeat_by_token($1::uuid::text)",
        "heartbeat_idle($1)",
        "heartbeat_idle_by_token($1::uuid::text)",
        "start_session($1)",
        "start_sessions(ARRAY[$1::uuid])",
        "end_session($1)",
        "end_session_by_token($1::uuid::text)",
        "end_sessions(ARRAY[$1::uuid])",
        "end_user_sessions($1)",
        "release_session($1)",
        "release_session_by_token($1::uuid::text)",
        "release_sessions(ARRAY[$1::uuid])",
        "bind_sessions(ARRAY[$1::uuid])",
        "rotate_session_token($1)",
        "set_status('busy', user_id => $1)",
        "clear_status(user_id => $1)",
        "forget_user($1)",
        "cleanup_sessions()",
    ] {
        let sql = format!("SELECT presence.{call} WHERE $1::uuid IS NOT NULL");
        assert_refused(
            replica.query(&sql, &[&session.id]),
            &SqlState::READ_ONLY_SQL_TRANSACTION,
        );
    }
    let mut reader = standby
        .config(&database.name, &reader)
        .connect(postgres::NoTls)
        .unwrap();
    assert_online(&mut reader, &[here], &[gone]);
    reader
        .query_one("SELECT * FROM presence.presence_cursor()", &[])
        .unwrap();
}

#[test]
fn a_truncate_counts_for_online_count_at_once() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    database.wait_until_served();
    // The worker is fast, so that one or two attempts would not show a race.
    for _ in 0..100 {
        service.start(Uuid::new_v4());
        assert_eq!(service.online_count(), 1);
        service.batch_execute("TRUNCATE presence.user_sessions").unwrap();
        assert_eq!(service.online_count(), 0);
    }
}
