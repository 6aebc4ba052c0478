//! What takes effect at commit, and what takes effect at once.

use pg_presence_test::{Cluster, Presence, assert_refused, wait_until};
use postgres::{IsolationLevel, error::SqlState};
use uuid::Uuid;

#[test]
fn a_login_is_seen_at_commit_and_not_before() {
    let database = Cluster::shared().database();
    let (mut service, mut reader) = (database.connect(), database.connect());
    let user = Uuid::new_v4();
    let mut transaction = service.transaction().unwrap();
    let session = transaction.start(user);
    assert!(!reader.is_online(user));
    assert_eq!(reader.beat(session.id), "unknown");
    transaction.commit().unwrap();
    assert!(reader.is_online(user));
}

#[test]
fn a_logout_is_seen_at_commit_and_not_before() {
    let database = Cluster::shared().database();
    let (mut service, mut reader) = (database.connect(), database.connect());
    let user = Uuid::new_v4();
    let session = service.start(user);
    let mut transaction = service.transaction().unwrap();
    assert!(transaction.end(session.id));
    assert!(reader.is_online(user));
    transaction.commit().unwrap();
    assert!(!reader.is_online(user));
}

#[test]
fn what_is_rolled_back_never_happened() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (user, other) = (Uuid::new_v4(), Uuid::new_v4());
    let kept = service.start(other);

    let mut transaction = service.transaction().unwrap();
    let session = transaction.start(user);
    assert!(transaction.end(kept.id));
    transaction.rollback().unwrap();

    assert!(!service.is_online(user));
    assert_eq!(service.beat(session.id), "unknown");
    assert!(service.is_online(other));
    assert_eq!(service.beat(kept.id), "ok");
}

#[test]
fn a_savepoint_rolled_back_takes_only_its_own() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..4).map(|_| Uuid::new_v4()).collect();
    let ended = service.start(users[3]);

    let mut transaction = service.transaction().unwrap();
    transaction.start(users[0]);
    let mut savepoint = transaction.savepoint("one").unwrap();
    savepoint.start(users[1]);
    savepoint.end(ended.id);
    let mut inner = savepoint.savepoint("two").unwrap();
    inner.start(users[2]);
    inner.commit().unwrap();
    savepoint.rollback().unwrap();
    transaction.commit().unwrap();

    let online: Vec<bool> = users.iter().map(|user| service.is_online(*user)).collect();
    assert_eq!(online, [true, false, false, true]);
}

#[test]
fn a_savepoint_released_counts_with_its_transaction() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (user, other) = (Uuid::new_v4(), Uuid::new_v4());
    for commits in [false, true] {
        let mut transaction = service.transaction().unwrap();
        transaction.start(other);
        let mut savepoint = transaction.savepoint("one").unwrap();
        savepoint.start(user);
        savepoint.commit().unwrap();
        if commits {
            transaction.commit().unwrap();
        } else {
            transaction.rollback().unwrap();
        }
        assert_eq!(service.is_online(user), commits);
    }
}

#[test]
fn an_exception_caught_in_plpgsql_takes_its_block_back() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (before, inside) = (Uuid::new_v4(), Uuid::new_v4());
    service
        .batch_execute(&format!(
            "DO $$ BEGIN
                PERFORM presence.start_session(user_id => '{before}');
                BEGIN
                    PERFORM presence.start_session(user_id => '{inside}');
                    RAISE division_by_zero;
                EXCEPTION WHEN division_by_zero THEN NULL;
                END;
            END $$"
        ))
        .unwrap();
    assert!(service.is_online(before));
    assert!(!service.is_online(inside));
}

#[test]
fn the_last_change_of_a_transaction_counts() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (started, ended) = (Uuid::new_v4(), Uuid::new_v4());

    let mut transaction = service.transaction().unwrap();
    let session = transaction.start(ended);
    transaction.end(session.id);
    let session = transaction.start(started);
    transaction.end(session.id);
    transaction.start(started);
    transaction.commit().unwrap();

    assert!(!service.is_online(ended));
    assert!(service.is_online(started));
}

#[test]
fn a_beat_on_a_session_just_started_is_ok() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut transaction = service.transaction().unwrap();
    let session = transaction.start(Uuid::new_v4());
    assert_eq!(transaction.beat(session.id), "ok");
    transaction.commit().unwrap();
    assert_eq!(service.beat(session.id), "ok");
}

#[test]
fn prepare_transaction_is_refused_after_a_change() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    service.batch_execute("BEGIN").unwrap();
    let session = service.start(user);
    assert_refused(
        service.batch_execute("PREPARE TRANSACTION 'presence'"),
        &SqlState::FEATURE_NOT_SUPPORTED,
    );
    service.batch_execute("ROLLBACK").unwrap();
    assert!(!service.is_online(user));
    assert_eq!(service.beat(session.id), "unknown");
}

#[test]
fn prepare_transaction_is_allowed_without_a_change() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4());
    let name = &database.name;
    service
        .batch_execute("CREATE TABLE t (a int); BEGIN; INSERT INTO t VALUES (1)")
        .unwrap();
    assert_eq!(service.beat(session.id), "ok");
    service.batch_execute(&format!("PREPARE TRANSACTION '{name}'")).unwrap();
    service.batch_execute(&format!("COMMIT PREPARED '{name}'")).unwrap();
}

#[test]
fn a_terminated_backend_leaves_no_session() {
    let database = Cluster::shared().database();
    let (mut service, mut reader) = (database.connect(), database.connect());
    let user = Uuid::new_v4();
    let pid = service.process_id();
    service.batch_execute("BEGIN").unwrap();
    let session = service.start(user);
    reader.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    wait_until("the backend is gone", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        reader.query_one(sql, &[&pid]).unwrap().get::<_, i64>(0) == 0
    });
    assert!(!reader.is_online(user));
    assert_eq!(reader.beat(session.id), "unknown");
}

#[test]
fn a_cancelled_statement_leaves_no_session() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    service.batch_execute("SET statement_timeout = '50ms'").unwrap();
    let sql = "SELECT presence.start_session(user_id => $1), pg_sleep(100)";
    let error = service.execute(sql, &[&user]).unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    // Without the limit.
    assert!(!database.connect().is_online(user));
}

#[test]
fn plain_sql_counts_as_the_functions_do() {
    let database = Cluster::shared().database();
    let (mut service, mut reader) = (database.connect(), database.connect());
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    let insert = "INSERT INTO presence.user_sessions (user_id, auth_id) VALUES ($1, $1) RETURNING id";
    let session: Uuid = service.query_one(insert, &[&user]).unwrap().get(0);
    assert!(reader.is_online(user));
    listener.wait_for(user, &["active"]);
    assert_eq!(reader.beat(session), "ok");

    let update = "UPDATE presence.user_sessions SET is_active = false WHERE id = $1";
    assert_eq!(service.execute(update, &[&session]).unwrap(), 1);
    assert!(!reader.is_online(user));
    listener.wait_for(user, &["active", "inactive"]);
    assert_eq!(reader.beat(session), "ended");
}

#[test]
fn deleting_the_last_session_makes_a_user_inactive() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    let (one, two) = (service.start(user), service.start(user));
    listener.wait_for(user, &["active"]);
    let delete = "DELETE FROM presence.user_sessions WHERE id = $1";
    service.execute(delete, &[&one.id]).unwrap();
    assert!(service.is_online(user));
    service.execute(delete, &[&two.id]).unwrap();
    assert!(!service.is_online(user));
    assert_eq!(service.beat(two.id), "unknown");
    listener.wait_for(user, &["active", "inactive"]);
    let sql = "SELECT reason FROM presence.presence_changes WHERE user_id = $1 ORDER BY seq DESC LIMIT 1";
    assert_eq!(service.query_one(sql, &[&user]).unwrap().get::<_, &str>(0), "deleted");
}

#[test]
fn truncate_makes_everybody_inactive_at_commit() {
    let database = Cluster::shared().database();
    let (mut service, mut reader) = (database.connect(), database.connect());
    let users: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
    let sessions: Vec<Uuid> = users.iter().map(|user| service.start(*user).id).collect();

    service
        .batch_execute("BEGIN; TRUNCATE presence.user_sessions; ROLLBACK")
        .unwrap();
    assert_eq!(reader.online_count(), 3);
    assert_eq!(reader.beat(sessions[0]), "ok");

    service.batch_execute("TRUNCATE presence.user_sessions").unwrap();
    assert!(reader.online_users().is_empty());
    assert_eq!(reader.beat(sessions[0]), "unknown");
    assert!(!reader.is_online(users[1]));
    let again = service.start(users[2]);
    assert_eq!(reader.online_users(), [users[2]]);
    assert_eq!(reader.beat(again.id), "ok");
}

#[test]
fn truncate_and_insert_in_one_transaction_leave_the_new_rows() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (old, new) = (Uuid::new_v4(), Uuid::new_v4());
    service.start(old);
    let mut transaction = service.transaction().unwrap();
    transaction.start(old);
    transaction.batch_execute("TRUNCATE presence.user_sessions").unwrap();
    transaction.start(new);
    transaction.commit().unwrap();
    assert_eq!(service.online_users(), [new]);
}

#[test]
fn on_conflict_do_update_counts_as_the_update_it_is() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    let sql = "INSERT INTO presence.user_sessions (id, user_id, auth_id) VALUES ($1, $2, $2)
               ON CONFLICT (id) DO UPDATE SET is_active = $3";
    service.execute(sql, &[&session.id, &user, &true]).unwrap();
    assert_eq!(service.beat(session.id), "ok");
    service.execute(sql, &[&session.id, &user, &false]).unwrap();
    assert!(!service.is_online(user));
    assert_eq!(service.beat(session.id), "ended");

    let nothing =
        "INSERT INTO presence.user_sessions (id, user_id, auth_id) VALUES ($1, $2, $2) ON CONFLICT DO NOTHING";
    service.execute(nothing, &[&session.id, &user]).unwrap();
    assert!(!service.is_online(user));
}

#[test]
fn two_connections_that_start_and_end_one_session_leave_it_ended() {
    let database = Cluster::shared().database();
    let user = Uuid::new_v4();
    let (mut one, mut two) = (database.connect(), database.connect());
    for _ in 0..50 {
        let session = one.start(user);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..5).for_each(|_| drop(one.beat(session.id))));
            scope.spawn(|| two.end(session.id));
        });
        assert_eq!(one.beat(session.id), "ended");
        assert!(!one.is_online(user));
    }
}

#[test]
fn a_commit_is_atomic() {
    let database = Cluster::shared().database();
    let mut listener = database.listen();
    let mut client = database.connect();
    let (stays, passes) = (Uuid::new_v4(), Uuid::new_v4());
    let mut session = client.start(stays);
    listener.wait_for(stays, &["active"]);
    // The more is written in between, the more time the worker has to see half of it.
    let others = "SELECT presence.start_sessions(array_agg(gen_random_uuid())) FROM generate_series(1, 400)";
    for _ in 0..20 {
        let mut transaction = client.transaction().unwrap();
        transaction.end(session.id);
        session = transaction.start(passes);
        transaction.batch_execute(others).unwrap();
        transaction.update_session(&format!("user_id = '{stays}'"), session.id);
        transaction.commit().unwrap();
    }
    client.end(session.id);
    listener.wait_for(stays, &["active", "inactive"]);
    assert!(
        listener.statuses_of(passes).is_empty(),
        "the user never had a session after a commit"
    );
}

#[test]
fn a_session_released_before_its_commit_is_not_visible_before_it() {
    let database = Cluster::shared().database();
    let (mut client, mut other) = (database.connect(), database.connect());
    let user = Uuid::new_v4();
    let mut transaction = client.transaction().unwrap();
    let session = transaction.start(user);
    assert!(transaction.release(session.id, "1 hour"));
    assert!(!other.is_online(user), "not committed");
    transaction.rollback().unwrap();
    assert!(!other.is_online(user), "rolled back");
    assert_eq!(other.beat(session.id), "unknown");
}

#[test]
fn an_expired_session_refuses_beats_in_the_transaction_that_started_it_too() {
    let database = Cluster::shared().database();
    let (mut client, mut other) = (database.connect(), database.connect());
    let mut transaction = client.transaction().unwrap();
    let sql = "SELECT session_id FROM presence.start_session(user_id => $1, lifetime => '1 s')";
    let user = Uuid::new_v4();
    let own: Uuid = transaction.query_one(sql, &[&user]).unwrap().get(0);
    // The other session expires later.
    let session: Uuid = other.query_one(sql, &[&user]).unwrap().get(0);
    wait_until("the session expires", || other.beat(session) == "ended");
    assert_eq!(transaction.beat(own), "ended");
}

#[test]
fn a_session_flushed_since_the_snapshot_can_be_ended() {
    let database = Cluster::shared_short_timeout().database();
    let mut service = database.connect();
    for isolation in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let user = Uuid::new_v4();
        let session = service.start(user);
        let activity = "SELECT last_activity::text FROM presence.user_sessions WHERE id = $1";
        let mut other = database.connect();
        let mut transaction = service.build_transaction().isolation_level(isolation).start().unwrap();
        let before: String = transaction.query_one(activity, &[&session.id]).unwrap().get(0);
        wait_until("the flush", || {
            assert_eq!(transaction.beat(session.id), "ok");
            other.query_one(activity, &[&session.id]).unwrap().get::<_, String>(0) != before
        });
        assert!(transaction.end(session.id));
        transaction.commit().unwrap();
        assert!(!service.is_online(user));
    }
}
