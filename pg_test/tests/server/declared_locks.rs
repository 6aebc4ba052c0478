//! While others have locked `declared_statuses`, nobody waits: readers and the worker go by what was last written.

use pg_presence_test::{Cluster, Presence, wait_until_equal};
use postgres::error::SqlState;
use uuid::Uuid;

use crate::{
    declared::{assert_shown, clear, declare, feed, online, shown, written},
    hours::Server,
};

#[test]
fn while_others_have_locked_the_table_nobody_waits_and_what_was_written_shows() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let (mut service, mut lock) = (database.connect(), database.connect());
    let (busy, away, later) = (online(&mut service), online(&mut service), online(&mut service));
    declare(&mut service, busy, "'busy', 'writing', '📝', expires_in => '3 h'");
    declare(&mut service, away, "'away'");
    assert_shown(&mut service, busy, "busy writing 📝 expires");
    assert_shown(&mut service, away, "idle");
    let worker = database.pause_worker();
    declare(&mut service, later, "'busy'");
    let mut locked = lock.transaction().unwrap();
    locked.batch_execute("LOCK TABLE presence.declared_statuses").unwrap();
    worker.resume();
    assert_eq!(shown(&mut service, busy), "busy writing 📝 expires");
    assert_eq!(shown(&mut service, away), "idle");
    // The worker tells of who comes and goes, twice, so that it has looked at who is locked out.
    for _ in 0..2 {
        let session = service.start(Uuid::new_v4());
        let (comes, goes) = (online(&mut service), session.id);
        assert_eq!(written(&mut service, comes), "active");
        assert!(service.end(goes));
    }
    assert_eq!(written(&mut service, later), "active");
    assert_eq!(written(&mut service, busy), "busy writing 📝 expires");
    // What is declared waits, and who declares it is told for whom.
    let pid = locked
        .query_one("SELECT pg_backend_pid()", &[])
        .unwrap()
        .get::<_, i32>(0);
    service.batch_execute("SET lock_timeout = '100ms'").unwrap();
    for sql in [
        "SELECT presence.set_status('away', user_id => $1)",
        "SELECT presence.clear_status(user_id => $1)",
    ] {
        let error = service.execute(sql, &[&busy]).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code(), &SqlState::LOCK_NOT_AVAILABLE);
        let text = format!("{error:?}");
        assert!(text.contains(&pid.to_string()), "{text}");
    }
    // An expiry is read all the same. Where that table is locked, too, sessions alone decide.
    server.pass(4);
    assert_eq!(shown(&mut service, busy), "active");
    locked.batch_execute("LOCK TABLE presence.user_presence").unwrap();
    assert_eq!(service.user_status(away), "active");
    locked.rollback().unwrap();
    assert_shown(&mut service, later, "busy");
    assert_shown(&mut service, busy, "active");
    assert_shown(&mut service, away, "idle");
    service.assert_no_gaps();
}

#[test]
fn who_rebuilds_the_indexes_of_the_table_keeps_nobody_waiting() {
    let database = Cluster::shared().database();
    let (mut service, mut owner) = (database.connect(), database.connect());
    let user = online(&mut service);
    declare(&mut service, user, "'busy', 'writing'");
    assert_shown(&mut service, user, "busy writing");
    let mut rebuilding = owner.transaction().unwrap();
    rebuilding
        .batch_execute("REINDEX TABLE presence.declared_statuses")
        .unwrap();
    assert_eq!(shown(&mut service, user), "busy writing");
    online(&mut service);
    rebuilding.rollback().unwrap();
    assert!(clear(&mut service, user));
    assert_shown(&mut service, user, "active");
}

#[test]
fn nobody_flickers_who_is_at_a_session_while_the_table_is_locked() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let (mut service, mut lock) = (database.connect(), database.connect());
    let (user, plain) = (Uuid::new_v4(), Uuid::new_v4());
    let sessions = [user, plain].map(|user| service.start(user).id);
    for session in sessions {
        assert_eq!(service.beat_idle(session), "ok");
    }
    declare(&mut service, user, "'away'");
    server.pass(2);
    for user in [user, plain] {
        assert_shown(&mut service, user, "idle");
    }
    let idle_since = "SELECT count(*) FROM presence.user_presence WHERE idle_since IS NOT NULL";
    wait_until_equal("both to be idle", &2, || {
        service.query_one(idle_since, &[]).unwrap().get::<_, i64>(0)
    });
    let mut locked = lock.transaction().unwrap();
    locked.batch_execute("LOCK TABLE presence.declared_statuses").unwrap();
    for session in sessions {
        assert_eq!(service.beat(session), "ok");
    }
    for _ in 0..2 {
        online(&mut service);
    }
    locked.rollback().unwrap();
    assert_shown(&mut service, plain, "active");
    assert_shown(&mut service, user, "idle");
    wait_until_equal("neither to be idle", &0, || {
        service.query_one(idle_since, &[]).unwrap().get::<_, i64>(0)
    });
    let expected = feed(&mut service, user);
    assert!(!expected.contains("idle, active"), "{expected}");
    service.assert_no_gaps();
}

#[test]
fn who_is_gone_after_a_truncate_is_told_while_the_table_is_locked() {
    let database = Cluster::shared().database();
    let (mut service, mut lock) = (database.connect(), database.connect());
    let user = online(&mut service);
    declare(&mut service, user, "'busy'");
    assert_shown(&mut service, user, "busy");
    let mut locked = lock.transaction().unwrap();
    locked.batch_execute("LOCK TABLE presence.declared_statuses").unwrap();
    service.batch_execute("TRUNCATE presence.user_sessions").unwrap();
    service.wait_for_written(user, false);
    assert_eq!(shown(&mut service, user), "inactive");
}

#[test]
fn what_is_declared_of_who_comes_while_the_table_is_locked_is_told_after_that() {
    let database = Cluster::shared().database();
    let (mut service, mut lock) = (database.connect(), database.connect());
    let user = Uuid::new_v4();
    declare(&mut service, user, "'busy'");
    let worker = database.pause_worker();
    // One entry of the queue for both.
    let session = service.start(user);
    declare(&mut service, user, "'away'");
    let mut locked = lock.transaction().unwrap();
    locked.batch_execute("LOCK TABLE presence.declared_statuses").unwrap();
    worker.resume();
    service.wait_for_written(user, true);
    locked.rollback().unwrap();
    assert_shown(&mut service, user, "idle");
    assert_eq!(service.beat(session.id), "ok");
}
