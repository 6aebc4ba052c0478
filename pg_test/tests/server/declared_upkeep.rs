//! What becomes of declared statuses over restarts, among other triggers, and in much else that is not about them.

use pg_presence_test::{Cluster, Database, Presence, Shutdown, assert_refused, wait_until, wait_until_equal};
use postgres::{Client, error::SqlState};
use uuid::Uuid;

use crate::{
    declared::{assert_shown, clear, count, declare, feed, online, shown, written},
    hours::{HOUR, Server},
};

#[test]
fn a_commit_of_more_users_than_memory_has_room_for_misses_nobody() {
    let cluster = Cluster::private(&[("presence.max_sessions", "64")]);
    let database = cluster.database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..50).map(|_| online(&mut service)).collect();
    let sql = "INSERT INTO presence.declared_statuses (user_id, status, status_text)
               SELECT gen_random_uuid(), 'busy', 'all' FROM generate_series(1, $2)
               UNION ALL SELECT u, 'busy', 'all' FROM unnest($1::uuid[]) u";
    service.execute(sql, &[&users, &20_000_i32]).unwrap();
    for user in &users {
        assert_shown(&mut service, *user, "busy all");
    }
    service
        .execute(
            "UPDATE presence.declared_statuses SET status = 'away' WHERE random() < 0.2 OR user_id = ANY ($1)",
            &[&users],
        )
        .unwrap();
    for user in &users {
        assert_shown(&mut service, *user, "idle all");
    }
    // Those who were never seen have taken no room for good.
    online(&mut service);
    service.assert_no_gaps();
}

#[test]
fn what_is_declared_outlives_a_restart_and_a_crash() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let (busy, gone) = (online(&mut service), online(&mut service));
    declare(&mut service, busy, "'busy', 'writing'");
    declare(&mut service, gone, "'busy', expires_in => '3 h'");
    for user in [busy, gone] {
        wait_until("the worker to write it", || {
            written(&mut service, user).starts_with("busy")
        });
    }
    let feeds = [busy, gone].map(|user| feed(&mut service, user));
    for how in [Shutdown::Fast, Shutdown::Kill] {
        server.cluster.restart(how);
        let mut service = database.connect();
        assert_eq!(shown(&mut service, busy), "busy writing", "{how:?}");
        assert_eq!(shown(&mut service, gone), "busy expires", "{how:?}");
        database.assert_served();
        assert_eq!([busy, gone].map(|user| feed(&mut service, user)), feeds, "{how:?}");
    }
    // It expires while the server is down: that is told by the comparison at the start.
    server.cluster.stop(Shutdown::Fast);
    server.pass(4);
    server.cluster.start();
    let mut service = database.connect();
    assert_eq!(shown(&mut service, gone), "active");
    assert_shown(&mut service, gone, "active");
    assert_shown(&mut service, busy, "busy writing");
}

#[test]
fn a_standby_shows_what_is_declared_and_tells_it_when_promoted() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    declare(&mut service, user, "'busy', 'writing', expires_in => '2 h'");
    assert_shown(&mut service, user, "busy writing expires");
    let standby = server.cluster.standby();
    let mut there = standby.connect(&database.name);
    wait_until("the standby to catch up", || {
        shown(&mut there, user) == "busy writing expires"
    });
    let error = there.batch_execute(&format!("SELECT presence.set_status('away', user_id => '{user}')"));
    assert_refused(error, &SqlState::READ_ONLY_SQL_TRANSACTION);
    standby.set_clock("clock", 3 * HOUR);
    assert_eq!(shown(&mut there, user), "active");
    server.cluster.stop(Shutdown::Immediate);
    there.execute("SELECT pg_promote()", &[]).unwrap();
    let sql = "SELECT NOT pg_is_in_recovery()";
    wait_until("the promotion", || there.query_one(sql, &[]).unwrap().get(0));
    assert_shown(&mut there, user, "active");
    declare(&mut there, user, "'away'");
    assert_shown(&mut there, user, "idle");
}

#[test]
fn a_forgotten_user_has_declared_nothing() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    declare(&mut service, user, "'busy', 'a secret', source => 'calendar'");
    assert_shown(&mut service, user, "busy a secret");
    let forget = "SELECT presence.forget_user($1)";
    assert!(service.query_one(forget, &[&user]).unwrap().get::<_, bool>(0));
    assert_eq!(shown(&mut service, user), "inactive");
    assert_eq!(count(&mut service, user), 0);
    let traces = "SELECT (SELECT count(*) FROM presence.presence_changes WHERE details OR user_id = $1)
                      + (SELECT count(*) FROM presence.user_presence WHERE user_id = $1)";
    assert_eq!(service.query_one(traces, &[&user]).unwrap().get::<_, i64>(0), 0);
    // One of whom only this was known.
    let stranger = Uuid::new_v4();
    declare(&mut service, stranger, "'busy'");
    assert!(service.query_one(forget, &[&stranger]).unwrap().get::<_, bool>(0));
    assert!(!service.query_one(forget, &[&stranger]).unwrap().get::<_, bool>(0));
}

#[test]
fn a_prepared_transaction_cannot_declare_anything() {
    let cluster = Cluster::private(&[("max_prepared_transactions", "2")]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    for statement in [
        format!("SELECT presence.set_status('busy', user_id => '{user}')"),
        format!("INSERT INTO presence.declared_statuses (user_id, status) VALUES ('{user}', 'busy')"),
        "TRUNCATE presence.declared_statuses".to_owned(),
    ] {
        let sql = format!("BEGIN; {statement}; PREPARE TRANSACTION 'p'");
        assert_refused(service.batch_execute(&sql), &SqlState::FEATURE_NOT_SUPPORTED);
        let _ = service.batch_execute("ROLLBACK");
    }
}

/// Returns whether a statement has locked the table of what is declared.
fn reads_the_table(client: &mut Client, statement: &str) -> bool {
    let mut transaction = client.transaction().unwrap();
    transaction.batch_execute(statement).unwrap();
    let sql = "SELECT count(*) FROM pg_locks
               WHERE pid = pg_backend_pid() AND relation = 'presence.declared_statuses'::regclass";
    transaction.query_one(sql, &[]).unwrap().get::<_, i64>(0) > 0
}

#[test]
fn where_nothing_is_declared_readers_leave_the_table_alone() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    let readers = [
        format!("SELECT presence.user_status('{user}')"),
        format!("SELECT presence.presence_of(ARRAY['{user}'::uuid])"),
        "SELECT presence.online_users()".to_owned(),
    ];
    // It is known to be empty soon after the start, and again after what was declared is taken back.
    for _ in 0..2 {
        wait_until("readers to leave the table alone", || {
            !readers.iter().any(|sql| reads_the_table(&mut service, sql))
        });
        declare(&mut service, user, "'busy'");
        assert!(readers.iter().all(|sql| reads_the_table(&mut service, sql)));
        assert_eq!(shown(&mut service, user), "busy");
        assert!(clear(&mut service, user));
    }
}

#[test]
fn what_is_declared_of_absent_users_takes_little_of_the_room_that_others_need() {
    let cluster = Cluster::private(&[("presence.max_sessions", "5000")]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    let worker = database.pause_worker();
    for text in ["a", "b"] {
        let sql = "INSERT INTO presence.declared_statuses (user_id, status_text)
                   SELECT gen_random_uuid(), $1 FROM generate_series(1, 4000)";
        service.execute(sql, &[&text]).unwrap();
    }
    declare(&mut service, user, "'busy'");
    let sql = "SELECT known_users FROM presence.presence_stats";
    let users: i64 = service.query_one(sql, &[]).unwrap().get(0);
    assert!(users < 2000, "{users} users in memory");
    worker.resume();
    assert_shown(&mut service, user, "busy");
}

#[test]
fn who_declares_something_before_the_table_is_loaded_is_not_told_to_be_gone() {
    let cluster = Cluster::private(&[("presence.active_timeout", "1d")]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    service.wait_for_written(user, true);
    // Past the triggers: as the row of a session that had resumed just before the crash.
    let resumed = "BEGIN; SET LOCAL session_replication_role = replica;
                   ALTER TABLE presence.user_sessions DISABLE TRIGGER presence_capture;
                   UPDATE presence.user_sessions SET is_active = false;
                   ALTER TABLE presence.user_sessions ENABLE ALWAYS TRIGGER presence_capture; COMMIT";
    let worker = database.pause_worker();
    service.batch_execute(resumed).unwrap();
    cluster.stop(Shutdown::Kill);
    worker.kill();
    let failure = cluster.fail_at("load");
    cluster.start();
    let mut service = database.connect();
    declare(&mut service, user, "'busy'");
    // Somebody who has nothing to do with it is told of before.
    online(&mut service);
    drop(failure);
    database.wait_until_served();
    assert_shown(&mut service, user, "busy");
    assert_eq!(service.beat(session.id), "ok");
    let expected = "started: inactive, active; declared: active, busy";
    assert_eq!(feed(&mut service, user), expected);
}

#[test]
fn a_worker_that_comes_back_just_after_a_restart_tells_an_expiry() {
    // The grace after the restart lasts for minutes.
    let cluster = Cluster::private(&[("presence.active_timeout", "1d")]);
    let database = cluster.database();
    let user = online(&mut database.connect());
    cluster.restart(Shutdown::Fast);
    database.wait_until_served();
    let worker = database.worker();
    let mut service = database.connect();
    service.execute("SELECT pg_terminate_backend($1)", &[&worker]).unwrap();
    database.new_worker(worker);
    database.wait_until_served();
    declare(&mut service, user, "'busy', expires_in => '90 s'");
    assert_shown(&mut service, user, "busy expires");
    cluster.set_clock("clock", 100_000_000);
    assert_shown(&mut service, user, "active");
}

#[test]
fn an_expired_row_that_cannot_be_deleted_keeps_no_other() {
    let server = Server::new("1d");
    server.cluster.set("presence.retention", "30 s");
    let database = server.cluster.database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
    let kept = users[7];
    service
        .batch_execute(&format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
             CREATE TRIGGER refuse BEFORE DELETE ON presence.declared_statuses
                 FOR EACH ROW WHEN (OLD.user_id = '{kept}') EXECUTE FUNCTION refuse()"
        ))
        .unwrap();
    let sql = "SELECT presence.set_status('busy', expires_in => '1 h', user_id => u) FROM unnest($1::uuid[]) u";
    service.execute(sql, &[&users]).unwrap();
    server.pass(2);
    let left = "SELECT array_agg(user_id) FROM presence.declared_statuses";
    wait_until_equal("the others to go", &vec![kept], || {
        service.query_one(left, &[]).unwrap().get::<_, Vec<Uuid>>(0)
    });
    wait_until("presence_health() to tell", || !is_ok(&database, "unwritable"));
    service.batch_execute("DROP FUNCTION refuse CASCADE").unwrap();
    wait_until_equal("the last to go", &0, || count(&mut service, kept));
}

#[test]
fn a_declaration_that_is_not_committed_when_the_worker_finds_the_table_empty_shows_at_its_commit() {
    let database = Cluster::shared().database();
    let (mut service, mut observer) = (database.connect(), database.connect());
    let user = online(&mut service);
    let mut transaction = service.transaction().unwrap();
    let sql = "SELECT presence.set_status('busy', user_id => $1)";
    transaction.execute(sql, &[&user]).unwrap();
    // A worker that starts looks at once.
    let worker = database.worker();
    observer.execute("SELECT pg_terminate_backend($1)", &[&worker]).unwrap();
    database.new_worker(worker);
    database.wait_until_served();
    for _ in 0..3 {
        online(&mut observer);
    }
    assert_eq!(observer.user_status(user), "active");
    transaction.commit().unwrap();
    assert_eq!(observer.user_status(user), "busy");
    assert_shown(&mut observer, user, "busy");
}

#[test]
fn what_is_set_last_shows_also_where_the_clock_was_set_back() {
    let cluster = Cluster::private(&[("presence.active_timeout", "1d")]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    let set_clock = |hours: i64| cluster.set_clock("clock_step", hours * HOUR);
    declare(&mut service, user, "'busy', expires_in => '1 h', source => 'a'");
    assert_shown(&mut service, user, "busy expires");
    set_clock(2);
    assert_shown(&mut service, user, "active");
    declare(&mut service, user, "'away', 'b', source => 'b'");
    assert_shown(&mut service, user, "idle b");
    set_clock(0);
    // What had expired is valid again, and was set before.
    assert_shown(&mut service, user, "idle b");
    declare(&mut service, user, "'busy', 'c', source => 'c'");
    assert_shown(&mut service, user, "busy c");
    declare(&mut service, user, "'away', 'a', source => 'a'");
    assert_shown(&mut service, user, "idle a");
    service
        .batch_execute("DELETE FROM presence.declared_statuses WHERE source <> 'c'")
        .unwrap();
    assert_shown(&mut service, user, "busy c");
}

#[test]
fn rows_that_expired_long_ago_are_deleted() {
    let server = Server::new("1d");
    server.cluster.set("presence.retention", "30 s");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    declare(&mut service, user, "'busy', expires_in => '1 h'");
    declare(&mut service, user, "'away', source => 'calendar'");
    server.pass(2);
    wait_until_equal("the expired row to go", &1, || count(&mut service, user));
    assert_shown(&mut service, user, "idle");
}

/// Has the worker of a database notice what others have done to the table.
fn is_ok(database: &Database, check: &str) -> bool {
    let sql = "SELECT ok FROM presence.presence_health() WHERE check_name = $1";
    database.connect().query_one(sql, &[&check]).unwrap().get(0)
}

#[test]
fn what_was_written_past_the_triggers_shows_once_they_are_enabled_again() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    service
        .batch_execute(&format!(
            "BEGIN;
             ALTER TABLE presence.declared_statuses DISABLE TRIGGER ALL;
             INSERT INTO presence.declared_statuses (user_id, status) VALUES ('{user}', 'busy');
             ALTER TABLE presence.declared_statuses ENABLE TRIGGER ALL;
             COMMIT"
        ))
        .unwrap();
    assert!(!is_ok(&database, "triggers"));
    wait_until_equal("what is written", &"busy".to_owned(), || written(&mut service, user));
    assert_eq!(shown(&mut service, user), "busy");
}
