//! What the worker cannot write: it delays itself alone, and `presence_health()` names it.

use std::time::{Duration, Instant};

use pg_presence_test::{Cluster, Presence, wait_until};
use postgres::Client;
use uuid::Uuid;

use crate::hours::Server;

const STATS: &str = "SELECT set_aside, coalesce(last_error, '') FROM presence.presence_stats";

fn set_aside(client: &mut Client) -> (i64, String) {
    let row = client.query_one(STATS, &[]).unwrap();
    (row.get(0), row.get(1))
}

/// Returns whether the health check passes, and its detail.
fn unwritable(client: &mut Client) -> (bool, String) {
    let sql = "SELECT ok, detail FROM presence.presence_health() WHERE check_name = 'unwritable'";
    let row = client.query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1))
}

/// Makes a trigger of the owner's that executes `body` for each row of a table, where `condition` holds for it.
pub fn add_trigger(client: &mut Client, table: &str, condition: &str, body: &str) {
    let sql = format!(
        "CREATE FUNCTION presence.hurdle() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN {body}; RETURN coalesce(NEW, OLD); END $$;
         CREATE TRIGGER hurdle BEFORE INSERT OR UPDATE ON presence.{table} FOR EACH ROW WHEN ({condition})
         EXECUTE FUNCTION presence.hurdle()"
    );
    client.batch_execute(&sql).unwrap();
}

/// Waits until all of these users are written.
fn wait_for_all_written(client: &mut Client, users: &[Uuid], online: bool) {
    wait_until(&format!("{users:?} written as {online}"), || {
        users.iter().all(|user| client.written(*user) == Some(online))
    });
}

#[test]
fn a_user_whom_a_trigger_refuses_delays_nobody_else() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut service = database.connect();
    let worker = database.worker();
    database.assert_served();
    let refused = Uuid::new_v4();
    let condition = format!("NEW.user_id = '{refused}'");
    add_trigger(&mut service, "user_presence", &condition, "RAISE 'not this one'");
    let users: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
    let mut transaction = service.transaction().unwrap();
    for (n, user) in users.iter().enumerate() {
        transaction.start(*user);
        if n == 10 {
            transaction.start(refused);
        }
    }
    transaction.commit().unwrap();
    wait_for_all_written(&mut service, &users, true);
    assert_eq!(service.written(refused), None);
    assert!(service.is_online(refused));
    wait_until("it is counted", || set_aside(&mut service).0 == 1);
    let (_, error) = set_aside(&mut service);
    assert!(error.contains("P0001: not this one"), "{error}");
    let (ok, detail) = unwritable(&mut service);
    assert!(!ok && detail.contains("not this one"), "{detail}");
    service
        .batch_execute("DROP TRIGGER hurdle ON presence.user_presence")
        .unwrap();
    service.wait_for_written(refused, true);
    wait_until("nobody waits", || unwritable(&mut service).0);
    assert_eq!(database.worker(), worker);
    service.assert_no_gaps();
}

#[test]
fn users_who_change_again_while_they_cannot_be_written_are_told_once() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    database.assert_served();
    let users: Vec<Uuid> = (0..600).map(|_| Uuid::new_v4()).collect();
    let log_in = |service: &mut Client| -> Vec<Uuid> {
        let sql = "SELECT session_id FROM presence.start_sessions($1)";
        let rows = service.query(sql, &[&users]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let log_out = |service: &mut Client, sessions: Vec<Uuid>| {
        service
            .execute("SELECT presence.end_sessions($1)", &[&sessions])
            .unwrap();
    };
    let sessions = log_in(&mut service);
    log_out(&mut service, sessions);
    for &user in &users {
        service.wait_for_written(user, false);
    }
    add_trigger(
        &mut service,
        "user_presence",
        "NEW.user_id IS NOT NULL",
        "RAISE 'nobody'",
    );
    // So that each is tried several times before the next change.
    let let_it_try = |service: &mut Client| {
        for _ in 0..5 {
            let sql = "SELECT last_tick_at::text FROM presence.presence_stats";
            let last_tick: String = service.query_one(sql, &[]).unwrap().get(0);
            wait_until("a sweep", || {
                service.query_one(sql, &[]).unwrap().get::<_, String>(0) != last_tick
            });
        }
    };
    let sessions = log_in(&mut service);
    let_it_try(&mut service);
    log_out(&mut service, sessions);
    let_it_try(&mut service);
    log_in(&mut service);
    let_it_try(&mut service);
    service
        .batch_execute("DROP TRIGGER hurdle ON presence.user_presence")
        .unwrap();
    for &user in &users {
        service.wait_for_written(user, true);
    }
    wait_until("nobody waits", || unwritable(&mut service).0);
    let sql = "SELECT count(*) FROM presence.presence_changes WHERE status = previous";
    assert_eq!(service.query_one(sql, &[]).unwrap().get::<_, i64>(0), 0);
    let sql = "SELECT count(*) FROM (
                   SELECT status, lag(status) OVER (PARTITION BY user_id ORDER BY seq) AS before
                   FROM presence.presence_changes) c WHERE status = before";
    assert_eq!(service.query_one(sql, &[]).unwrap().get::<_, i64>(0), 0);
    service.assert_no_gaps();
}

#[test]
fn a_user_whose_trigger_takes_long_delays_nobody_else() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut service = database.connect();
    let worker = database.worker();
    database.assert_served();
    let slow = Uuid::new_v4();
    let condition = format!("NEW.user_id = '{slow}'");
    add_trigger(&mut service, "user_presence", &condition, "PERFORM pg_sleep(3600)");
    service.start(slow);
    std::thread::sleep(Duration::from_millis(500));
    let users: Vec<Uuid> = (0..5).map(|_| Uuid::new_v4()).collect();
    for user in &users {
        service.start(*user);
    }
    wait_for_all_written(&mut service, &users, true);
    assert_eq!(database.worker(), worker);
    service
        .batch_execute("DROP TRIGGER hurdle ON presence.user_presence")
        .unwrap();
    service.wait_for_written(slow, true);
}

#[test]
fn a_session_that_violates_a_constraint_delays_nobody_else() {
    let server = Server::with(&[("presence.active_timeout", "2h"), ("presence.flush_interval", "1s")]);
    let database = server.cluster.database();
    database.wait_until_served();
    let mut service = database.connect();
    let worker = database.worker();
    let bad = service.start(Uuid::new_v4());
    service.update_session("metadata = '{\"bad\": true}'", bad.id);
    let others: Vec<Uuid> = (0..10).map(|_| service.start(Uuid::new_v4()).id).collect();
    let sql = "ALTER TABLE presence.user_sessions ADD CONSTRAINT no_bad CHECK (NOT metadata ? 'bad') NOT VALID";
    service.batch_execute(sql).unwrap();
    server.pass(3);
    let sql = "SELECT count(*) FROM presence.user_sessions WHERE is_active AND id = ANY ($1)";
    let active = |client: &mut Client, ids: &[Uuid]| -> i64 { client.query_one(sql, &[&ids]).unwrap().get(0) };
    wait_until("the others are deactivated", || active(&mut service, &others) == 0);
    assert_eq!(active(&mut service, &[bad.id]), 1);
    wait_until("health names it", || unwritable(&mut service).1.contains("no_bad"));
    database.assert_served();
    service
        .batch_execute("ALTER TABLE presence.user_sessions DROP CONSTRAINT no_bad")
        .unwrap();
    wait_until("it follows", || active(&mut service, &[bad.id]) == 0);
    assert_eq!(database.worker(), worker);
}

#[test]
fn a_session_that_no_longer_has_to_be_written_is_no_longer_named() {
    let server = Server::with(&[("presence.active_timeout", "2h"), ("presence.flush_interval", "1s")]);
    let database = server.cluster.database();
    let mut service = database.connect();
    let bad = service.start(Uuid::new_v4());
    service.update_session("metadata = '{\"bad\": true}'", bad.id);
    let sql = "ALTER TABLE presence.user_sessions ADD CONSTRAINT no_bad CHECK (NOT metadata ? 'bad') NOT VALID";
    service.batch_execute(sql).unwrap();
    server.pass(3);
    wait_until("health names it", || unwritable(&mut service).1.contains("no_bad"));
    service
        .batch_execute("DELETE FROM presence.user_sessions WHERE metadata ? 'bad'")
        .unwrap();
    wait_until("health is fine", || unwritable(&mut service).0);
}

#[test]
fn a_session_that_another_table_references_is_kept_and_the_others_are_deleted() {
    let cluster = Cluster::private(&[("presence.retention", "1s")]);
    let database = cluster.database();
    database.wait_until_served();
    let mut service = database.connect();
    let worker = database.worker();
    service
        .batch_execute("CREATE TABLE login_audit (session_id uuid REFERENCES presence.user_sessions (id))")
        .unwrap();
    let sessions: Vec<Uuid> = (0..30).map(|_| service.start(Uuid::new_v4()).id).collect();
    service
        .execute("INSERT INTO login_audit VALUES ($1)", &[&sessions[7]])
        .unwrap();
    for session in &sessions {
        service.end(*session);
    }
    let left = |client: &mut Client| -> Vec<Uuid> {
        let rows = client.query("SELECT id FROM presence.user_sessions WHERE ended_at IS NOT NULL", &[]);
        rows.unwrap().iter().map(|row| row.get(0)).collect()
    };
    wait_until("the others are deleted", || left(&mut service) == [sessions[7]]);
    wait_until("health names it", || unwritable(&mut service).1.contains("login_audit"));
    database.assert_served();
    assert_eq!(database.worker(), worker);
    service.batch_execute("DROP TABLE login_audit").unwrap();
    wait_until("it is deleted", || left(&mut service).is_empty());
    wait_until("health is fine", || unwritable(&mut service).0);
}

#[test]
fn a_publication_that_forbids_updates_of_one_table_stops_nothing_else() {
    let cluster = Cluster::private(&[
        ("wal_level", "logical"),
        ("presence.active_timeout", "2s"),
        ("presence.heartbeat_interval", "1s"),
        ("presence.flush_interval", "1s"),
    ]);
    let database = cluster.database();
    database.wait_until_served();
    let mut service = database.connect();
    let worker = database.worker();
    database.assert_served();
    let start = Instant::now();
    service
        .batch_execute("CREATE PUBLICATION p FOR TABLE presence.user_presence WHERE (is_online)")
        .unwrap();
    let users: Vec<Uuid> = (0..8).map(|_| Uuid::new_v4()).collect();
    let sessions: Vec<Uuid> = users.iter().map(|user| service.start(*user).id).collect();
    wait_until("health names it", || {
        let (ok, detail) = unwritable(&mut service);
        !ok && detail.contains("user_presence")
    });
    let sql = "SELECT count(*) FROM presence.user_sessions WHERE is_active";
    wait_until("the sessions are deactivated all the same", || {
        service.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0
    });
    assert_eq!(service.written(users[0]), None);
    // It is logged once a minute.
    let logged = cluster.log().matches("could not write changes").count();
    assert!(logged == 1 || start.elapsed() > Duration::from_secs(60), "{logged}");
    service.batch_execute("DROP PUBLICATION p").unwrap();
    for session in &sessions {
        service.beat(*session);
    }
    wait_until("they are told", || {
        users.iter().all(|user| service.written(*user).is_some())
    });
    wait_until("health is fine", || unwritable(&mut service).0);
    assert_eq!(database.worker(), worker);
    service.assert_no_gaps();
}

#[test]
fn who_comes_back_after_a_failed_attempt_to_write_that_it_left_has_come_back() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (user, other) = (Uuid::new_v4(), Uuid::new_v4());
    let session = service.start(user);
    service.wait_for_written(user, true);
    service.end(session.id);
    service.wait_for_written(user, false);
    let socket = database.cluster.socket_directory().display();
    database.run(&format!(
        "CREATE EXTENSION dblink SCHEMA public;
         CREATE FUNCTION public.come_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.user_id = '{user}' AND NOT NEW.is_online THEN
                 PERFORM * FROM public.dblink(
                     'host={socket} user=postgres dbname={}',
                     'SELECT session_id FROM presence.start_session(user_id => ''{user}'')'
                 ) AS t (session_id uuid);
                 RAISE EXCEPTION 'not now';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER come_back BEFORE UPDATE ON presence.user_presence
             FOR EACH ROW EXECUTE FUNCTION public.come_back()",
        database.name
    ));
    let worker = database.pause_worker();
    let session = service.start(user);
    service.end(session.id);
    service.start(other);
    worker.resume();
    service.wait_for_written(user, true);
    service.wait_for_written(other, true);
    let sql = "SELECT string_agg(reason, ', ' ORDER BY seq) FROM presence.presence_changes WHERE user_id = $1";
    let reasons: String = service.query_one(sql, &[&user]).unwrap().get(0);
    assert_eq!(reasons, "started, ended, started");
}

#[test]
fn a_call_that_waits_for_somebodys_lock_gives_up_and_names_the_process() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    let mut client = database.connect();
    let pid = client.process_id();
    let mut transaction = client.transaction().unwrap();
    let lock = "SELECT FROM presence.user_sessions WHERE id = $1 FOR UPDATE";
    transaction.query_one(lock, &[&session.id]).unwrap();
    let assert_refused = |service: &mut Client, sql: &str, id: Uuid, at_least: f64| {
        let start = Instant::now();
        let error = service.query_one(sql, &[&id]).unwrap_err();
        let error = error.as_db_error().expect("an error of the server");
        assert_eq!(error.code().code(), "55P03");
        let detail = error.detail().unwrap_or_default();
        // The worker may hold a lock at the moment, too.
        let mut named = detail.split([' ', ',']);
        assert!(named.any(|word| word == pid.to_string()), "{detail}");
        assert!(start.elapsed().as_secs_f64() >= at_least, "{:?}", start.elapsed());
    };
    let (end, forget) = ("SELECT presence.end_session($1)", "SELECT presence.forget_user($1)");
    assert_refused(&mut service, end, session.id, 9.0);
    service.batch_execute("SET lock_timeout = '300ms'").unwrap();
    assert_refused(&mut service, end, session.id, 0.3);
    assert_refused(&mut service, forget, user, 0.3);
    transaction.rollback().unwrap();
    assert!(service.end(session.id));
}

#[test]
fn a_trigger_that_meets_a_lock_of_its_own_table_delays_one_user() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut service = database.connect();
    let worker = database.worker();
    database.assert_served();
    let slow = Uuid::new_v4();
    service
        .batch_execute("CREATE TABLE presence.locked (n int); INSERT INTO presence.locked VALUES (1)")
        .unwrap();
    let mut client = database.connect();
    let mut transaction = client.transaction().unwrap();
    transaction
        .query_one("SELECT FROM presence.locked FOR UPDATE", &[])
        .unwrap();
    let condition = format!("NEW.user_id = '{slow}'");
    add_trigger(
        &mut service,
        "user_presence",
        &condition,
        "UPDATE presence.locked SET n = n + 1",
    );
    let users: Vec<Uuid> = (0..10).map(|_| Uuid::new_v4()).collect();
    let mut together = service.transaction().unwrap();
    together.start(slow);
    for user in &users {
        together.start(*user);
    }
    together.commit().unwrap();
    wait_for_all_written(&mut service, &users, true);
    assert_eq!(service.written(slow), None);
    transaction.rollback().unwrap();
    service.wait_for_written(slow, true);
    assert_eq!(database.worker(), worker);
}
