//! Rows that somebody writes to the tables where nobody else expects it, or past the triggers.

use pg_presence_test::{Cluster, Database, Presence, wait_until};
use postgres::{Client, error::SqlState};
use uuid::Uuid;

/// The user's status in the table.
fn written(client: &mut Client, user: Uuid) -> Option<(String, bool)> {
    let sql = "SELECT status::text, is_online FROM presence.user_presence WHERE user_id = $1";
    let row = client.query_opt(sql, &[&user]).unwrap();
    row.map(|row| (row.get(0), row.get(1)))
}

fn wait_for_active(client: &mut Client, user: Uuid, what: &str) {
    wait_until(what, || written(client, user) == Some(("active".to_owned(), true)));
}

#[test]
fn who_is_online_is_written_again_after_others_have_written_over_it() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (online, offline) = (Uuid::new_v4(), Uuid::new_v4());
    service.start(online);
    let session = service.start(offline);
    service.end(session.id);
    service.wait_for_written(online, true);
    service.wait_for_written(offline, false);
    for sql in [
        "TRUNCATE presence.user_presence",
        "DELETE FROM presence.user_presence",
        "UPDATE presence.user_presence SET is_online = false",
        "UPDATE presence.user_presence SET status = 'inactive'",
        "UPDATE presence.user_presence SET status = 'inactive', is_online = false",
        "BEGIN; SAVEPOINT a; DELETE FROM presence.user_presence; ROLLBACK TO a; TRUNCATE presence.user_presence; COMMIT",
    ] {
        service.batch_execute(sql).unwrap();
        wait_for_active(&mut service, online, sql);
    }
    for sql in [
        "UPDATE presence.user_presence SET is_online = true",
        "UPDATE presence.user_presence SET status = 'active'",
        "UPDATE presence.user_presence SET status = 'active', is_online = true",
        "INSERT INTO presence.user_presence SELECT gen_random_uuid(), NULL, 'active', true, now(), now(), 1",
    ] {
        service.batch_execute(sql).unwrap();
        wait_until(sql, || {
            let others = "SELECT count(*) FROM presence.user_presence
                          WHERE (is_online OR status <> 'inactive') AND user_id <> $1";
            service.query_one(others, &[&online]).unwrap().get::<_, i64>(0) == 0
        });
        wait_for_active(&mut service, online, sql);
    }
    service.assert_no_gaps();
}

/// Statements after which the trigger is not fired, and those that undo them.
const BYPASSES: [[&str; 2]; 2] = [
    [
        "ALTER TABLE presence.user_sessions DISABLE TRIGGER presence_capture",
        "ALTER TABLE presence.user_sessions ENABLE ALWAYS TRIGGER presence_capture",
    ],
    [
        "DROP TRIGGER presence_capture ON presence.user_sessions",
        "CREATE TRIGGER presence_capture AFTER INSERT OR UPDATE OR DELETE ON presence.user_sessions
             FOR EACH ROW EXECUTE FUNCTION presence._capture();
         ALTER TABLE presence.user_sessions ENABLE ALWAYS TRIGGER presence_capture;
         ALTER TRIGGER presence_capture ON presence.user_sessions DEPENDS ON EXTENSION pg_presence",
    ],
];

/// Runs statements as somebody does who bypasses the triggers, in one transaction or in several.
fn bypass(database: &Database, sql: &str, [disable, enable]: [&str; 2], at_once: bool) {
    match at_once {
        true => database.run(&format!("{disable}; {sql}; {enable}")),
        false => [disable, sql, enable]
            .map(|sql| database.run(sql))
            .into_iter()
            .collect(),
    }
}

#[test]
fn sessions_written_while_the_trigger_was_disabled_count_once_it_is_enabled() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut service = database.connect();
    for (how, at_once) in [(0, false), (0, true), (1, false), (1, true)] {
        let (started, ended, deleted) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        let sessions = [ended, deleted].map(|user| service.start(user).id);
        for user in [ended, deleted] {
            service.wait_for_written(user, true);
        }
        let sql = format!(
            "INSERT INTO presence.user_sessions (user_id) VALUES ('{started}');
             UPDATE presence.user_sessions SET ended_at = now(), is_active = false WHERE user_id = '{ended}';
             DELETE FROM presence.user_sessions WHERE user_id = '{deleted}'"
        );
        bypass(&database, &sql, BYPASSES[how], at_once);
        service.wait_for_written(started, true);
        for user in [ended, deleted] {
            service.wait_for_written(user, false);
        }
        assert!(service.is_online(started));
        for (user, session) in [ended, deleted].into_iter().zip(sessions) {
            assert!(!service.is_online(user));
            assert_ne!(service.beat(session), "ok");
        }
    }
}

/// The answers to heartbeats by the old token and by the new one.
fn beats(client: &mut Client, tokens: [&str; 2]) -> [String; 2] {
    tokens.map(|token| client.beat_by_token(token))
}

#[test]
fn a_token_changed_while_the_trigger_was_disabled_is_unknown_once_it_is_enabled() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut service = database.connect();
    for (how, at_once) in [(0, false), (0, true), (1, false), (1, true)] {
        let (rotated, expired, moved) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        let old = service.start(rotated);
        for user in [expired, moved] {
            service.start(user);
            service.wait_for_written(user, true);
        }
        let (new, other) = (Uuid::new_v4().to_string(), Uuid::new_v4());
        let sql = format!(
            "UPDATE presence.user_sessions SET session_token = presence.token_digest('{new}')
                 WHERE user_id = '{rotated}';
             UPDATE presence.user_sessions SET expires_at = now() WHERE user_id = '{expired}';
             SET session_replication_role = replica;
             UPDATE presence.user_sessions SET user_id = '{other}' WHERE user_id = '{moved}';
             RESET session_replication_role"
        );
        bypass(&database, &sql, BYPASSES[how], at_once);
        let after = ["unknown".to_owned(), "ok".to_owned()];
        wait_until("the new token is known", || {
            beats(&mut service, [&old.token, &new]) == after
        });
        for (user, is_online) in [(expired, false), (moved, false), (other, true)] {
            service.wait_for_written(user, is_online);
        }
    }
}

#[test]
fn a_token_that_alter_table_has_rewritten_is_unknown() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut service = database.connect();
    let old = service.start(Uuid::new_v4());
    let new = Uuid::new_v4().to_string();
    database.run(&format!(
        "ALTER TABLE presence.user_sessions ALTER session_token TYPE text USING presence.token_digest('{new}')"
    ));
    let after = ["unknown".to_owned(), "ok".to_owned()];
    wait_until("the new token is known", || {
        beats(&mut service, [&old.token, &new]) == after
    });
}

#[test]
fn the_table_is_believed_for_as_long_as_the_trigger_is_disabled() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut service = database.connect();
    let (started, ended) = (Uuid::new_v4(), Uuid::new_v4());
    service.start(ended);
    service.wait_for_written(ended, true);
    let [disable, enable] = BYPASSES[0];
    database.run(disable);
    let is_complete = || -> bool {
        let sql = "SELECT ok FROM presence.presence_health() WHERE check_name = 'complete'";
        database.connect().query_one(sql, &[]).unwrap().get(0)
    };
    wait_until("memory is not complete", || !is_complete());
    // For longer than until the load that follows.
    for _ in 0..2 {
        let user = Uuid::new_v4();
        database.run(&format!(
            "INSERT INTO presence.user_sessions (user_id) VALUES ('{user}')"
        ));
        service.wait_for_written(user, true);
        assert!(!is_complete());
    }
    database.run(&format!(
        "INSERT INTO presence.user_sessions (user_id) VALUES ('{started}');
         UPDATE presence.user_sessions SET ended_at = now(), is_active = false WHERE user_id = '{ended}'"
    ));
    assert!(service.is_online(started));
    service.wait_for_written(started, true);
    service.wait_for_written(ended, false);
    assert!(!is_complete());
    database.run(enable);
    wait_until("memory is complete", is_complete);
    assert!(service.is_online(started) && !service.is_online(ended));
    service.assert_no_gaps();
}

#[test]
fn thousands_of_sessions_that_have_ended_past_the_trigger_count_as_ended() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut service = database.connect();
    // More than are compared with the table at once.
    let sql = "CREATE TEMP TABLE started AS
               SELECT row_number() OVER () AS n, * FROM presence.start_sessions(
                   (SELECT array_agg(gen_random_uuid()) FROM generate_series(1, 12000)))";
    service.batch_execute(sql).unwrap();
    let [disable, enable] = BYPASSES[0];
    service.batch_execute(disable).unwrap();
    let sql = "UPDATE presence.user_sessions SET is_active = false, ended_at = now() FROM started
               WHERE id = session_id AND n % 2 = 0";
    service.batch_execute(sql).unwrap();
    service.batch_execute(enable).unwrap();
    let answers = "SELECT DISTINCT n % 2 || ': ' || presence.heartbeat(session_id) FROM started ORDER BY 1";
    wait_until("each has the table's status", || {
        let rows = service.query(answers, &[]).unwrap();
        rows.iter().map(|row| row.get::<_, String>(0)).eq(["0: ended", "1: ok"])
    });
    database.wait_until_served();
    assert_eq!(service.online_count(), 6000);
}

#[test]
fn a_trigger_that_is_not_fired_by_every_write_is_logged_once() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let worker = format!("[{}]", database.worker());
    let warnings = || {
        let log = database.cluster.log();
        let of_worker = log.lines().filter(|line| line.contains(&worker));
        of_worker
            .filter(|line| line.contains("WARNING:  triggers on user_sessions are not enabled"))
            .count()
    };
    assert_eq!(warnings(), 0);
    let mut service = database.connect();
    for times in 1..=2 {
        // As pg_restore --disable-triggers leaves it.
        database.run("ALTER TABLE presence.user_sessions ENABLE TRIGGER presence_capture");
        wait_until("the log says so", || warnings() == times);
        let user = Uuid::new_v4();
        service.start(user);
        service.wait_for_written(user, true);
        database.run(BYPASSES[0][1]);
        database.wait_until_served();
        assert_eq!(warnings(), times);
    }
}

#[test]
fn an_end_that_memory_reads_from_the_table_has_its_reason() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut service = database.connect();
    for (reason, sql, answer) in [
        ("ended", "SELECT presence.end_session($1)", "ended"),
        ("deleted", "DELETE FROM presence.user_sessions WHERE id = $1", "unknown"),
    ] {
        let user = Uuid::new_v4();
        let session = service.start(user);
        service.wait_for_written(user, true);
        let worker = database.pause_worker();
        database.run(&BYPASSES[0].join("; "));
        let mut other = database.connect();
        let ending = database.pause_at(other.process_id(), "commit");
        std::thread::scope(|scope| {
            scope.spawn(|| other.execute(sql, &[&session.id]).unwrap());
            ending.wait_until_reached();
            // Committed, and memory has not been told yet.
            worker.resume();
            service.wait_for_written(user, false);
            assert_eq!(service.beat(session.id), answer);
            ending.resume();
        });
        assert_eq!(service.beat(session.id), answer);
        let sql = "SELECT string_agg(reason, ', ' ORDER BY seq) FROM presence.presence_changes WHERE user_id = $1";
        let reasons: String = service.query_one(sql, &[&user]).unwrap().get(0);
        assert_eq!(reasons, format!("started, {reason}"));
    }
}

#[test]
fn who_is_active_by_a_commit_that_memory_has_not_been_told_of_stays_active_when_the_table_is_loaded() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    database.wait_until_served();
    let (mut service, mut other, user) = (database.connect(), database.connect(), Uuid::new_v4());
    let session = service.start(user);
    service.wait_for_written(user, true);
    service.execute("DELETE FROM presence.user_sessions", &[]).unwrap();
    service.wait_for_written(user, false);
    let worker = database.pause_worker();
    // Memory is incomplete until the worker can load the table.
    database.run(&BYPASSES[0].join("; "));
    let failure = cluster.fail_at("load");
    let restoring = database.pause_at(other.process_id(), "commit");
    std::thread::scope(|scope| {
        let insert = "INSERT INTO presence.user_sessions (id, user_id) VALUES ($1, $2)";
        scope.spawn(|| other.execute(insert, &[&session.id, &user]).unwrap());
        restoring.wait_until_reached();
        // Committed, and all that memory knows of the session is that it was deleted.
        worker.resume();
        service.wait_for_written(user, true);
        drop(failure);
        database.wait_until_served();
        // The second is written after the comparison that follows the load.
        for latecomer in [Uuid::new_v4(), Uuid::new_v4()] {
            service.start(latecomer);
            service.wait_for_written(latecomer, true);
        }
        // The commit is applied while the worker is about to write its user again.
        let taken = database.pause_worker_at("taken");
        taken.wait_until_reached();
        restoring.resume();
        wait_until("it is applied", || service.is_online(user));
        taken.resume();
    });
    assert_eq!(service.beat(session.id), "ok");
    let last = Uuid::new_v4();
    service.start(last);
    service.wait_for_written(last, true);
    let sql = "SELECT string_agg(reason, ', ' ORDER BY seq) FROM presence.presence_changes WHERE user_id = $1";
    let reasons: String = service.query_one(sql, &[&user]).unwrap().get(0);
    assert_eq!(reasons, "started, deleted, started");
}

#[test]
fn who_is_known_to_be_online_while_being_written_is_not_told_gone() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    database.wait_until_served();
    let (mut service, user, other) = (database.connect(), Uuid::new_v4(), Uuid::new_v4());
    let first = service.start(user);
    service.wait_for_written(user, true);
    let failure = cluster.fail_at("load");
    let second = Uuid::new_v4();
    let insert = format!("INSERT INTO presence.user_sessions (id, user_id) VALUES ('{second}', '{user}')");
    bypass(&database, &insert, BYPASSES[0], true);
    wait_until("the worker notices", || {
        let sql = "SELECT NOT is_complete FROM presence.presence_stats";
        service.query_one(sql, &[]).unwrap().get(0)
    });
    let taken = database.pause_worker_at("taken");
    service.end(first.id);
    // Taken as offline by the roster, as the other session is in the table alone: until somebody asks for it.
    taken.wait_until_reached();
    assert_eq!(service.beat(second), "ok");
    taken.resume();
    service.start(other);
    service.wait_for_written(other, true);
    drop(failure);
    database.wait_until_served();
    let sql = "SELECT string_agg(reason, ', ' ORDER BY seq) FROM presence.presence_changes WHERE user_id = $1";
    let reasons: String = service.query_one(sql, &[&user]).unwrap().get(0);
    assert_eq!(reasons, "started");
}

#[test]
fn a_session_that_is_being_written_does_not_keep_memory_incomplete() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4());
    let worker = database.pause_worker();
    let started = Uuid::new_v4();
    let sql = format!("INSERT INTO presence.user_sessions (user_id) VALUES ('{started}')");
    bypass(&database, &sql, BYPASSES[0], false);
    let mut transaction = service.transaction().unwrap();
    let beat = "UPDATE presence.user_sessions SET last_activity = clock_timestamp() WHERE id = $1";
    transaction.execute(beat, &[&session.id]).unwrap();
    worker.resume();
    let mut owner = database.connect();
    owner.wait_for_written(started, true);
    let state = "SELECT is_complete FROM presence.presence_stats";
    wait_until("memory is complete", || owner.query_one(state, &[]).unwrap().get(0));
    transaction.commit().unwrap();
    assert_eq!(service.beat(session.id), "ok");
}

#[test]
fn a_session_started_while_the_trigger_was_not_marked_counts_once_it_is() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    database.run("ALTER TRIGGER presence_capture ON presence.user_sessions NO DEPENDS ON EXTENSION pg_presence");
    // Not fired by the extension's own statements.
    service.start(user);
    database.run("ALTER TRIGGER presence_capture ON presence.user_sessions DEPENDS ON EXTENSION pg_presence");
    service.wait_for_written(user, true);
    assert!(service.is_online(user));
}

#[test]
fn a_reader_of_a_feed_with_a_gap_has_to_start_over() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for delete in [
        "TRUNCATE presence.presence_changes",
        "DELETE FROM presence.presence_changes",
        "DELETE FROM presence.presence_changes WHERE seq = (SELECT max(seq) - 1 FROM presence.presence_changes)",
        "DELETE FROM presence.presence_changes WHERE seq = (SELECT max(seq) FROM presence.presence_changes)",
    ] {
        let user = Uuid::new_v4();
        let first = service.start(user);
        service.wait_for_written(user, true);
        let (epoch, seq) = database.cursor();
        service.end(first.id);
        service.wait_for_written(user, false);
        service.start(user);
        service.wait_for_written(user, true);
        let read = "SELECT count(*) FROM presence.changes_since($1, $2)";
        let changes: i64 = service.query_one(read, &[&seq, &epoch]).unwrap().get(0);
        assert_eq!(changes, 2);
        service.batch_execute(delete).unwrap();
        let error = service.query_one(read, &[&seq, &epoch]).expect_err(delete);
        assert_eq!(error.code(), Some(&SqlState::SNAPSHOT_TOO_OLD), "{delete}");
        let (epoch, seq) = database.cursor();
        assert_eq!(service.query(read, &[&seq, &epoch]).unwrap().len(), 1);
    }
}

#[test]
fn a_page_of_the_feed_is_no_gap() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for _ in 0..3 {
        let user = Uuid::new_v4();
        service.start(user);
        service.wait_for_written(user, true);
    }
    let mut seqs = Vec::new();
    for at in 0..3 {
        let page = "SELECT seq FROM presence.changes_since($1, NULL, 1)";
        let rows = service.query(page, &[&(at as i64)]).unwrap();
        seqs.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
    }
    assert_eq!(seqs, [1, 2, 3]);
}
