//! Starting sessions with tokens that are in use already.

use std::thread;

use pg_presence_test::{Cluster, Presence, assert_refused, wait_until};
use postgres::GenericClient;
use postgres::error::SqlState;
use uuid::Uuid;

const TOKEN: &str = "a token that a client has made for itself";

/// Starts or resumes a session of a user by token; returns its id.
fn start_with(client: &mut impl GenericClient, user: Uuid, token: &str) -> Result<Uuid, postgres::Error> {
    let sql = "SELECT session_id FROM presence.start_session(user_id => $1, session_token => $2)";
    client.query_one(sql, &[&user, &token]).map(|row| row.get(0))
}

fn count(client: &mut impl GenericClient) -> i64 {
    client
        .query_one("SELECT count(*) FROM presence.user_sessions", &[])
        .unwrap()
        .get(0)
}

fn has_transaction_id(client: &mut impl GenericClient) -> bool {
    let sql = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
    client.query_one(sql, &[]).unwrap().get(0)
}

#[test]
fn resuming_a_session_writes_nothing() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = start_with(&mut service, user, TOKEN).unwrap();
    let mut transaction = service.build_transaction().read_only(true).start().unwrap();
    assert_eq!(start_with(&mut transaction, user, TOKEN).unwrap(), session);
    assert!(!has_transaction_id(&mut transaction));
}

#[test]
fn the_same_token_twice_in_one_transaction_is_one_session() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let mut transaction = service.transaction().unwrap();
    let first = start_with(&mut transaction, user, TOKEN).unwrap();
    assert_eq!(start_with(&mut transaction, user, TOKEN).unwrap(), first);
    transaction.commit().unwrap();
    assert_eq!(count(&mut service), 1);
}

#[test]
fn a_foreign_and_an_ended_token_are_refused_alike() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (user, other) = (Uuid::new_v4(), Uuid::new_v4());
    let session = start_with(&mut service, user, TOKEN).unwrap();
    let foreign = assert_refused(
        start_with(&mut service, other, TOKEN),
        &SqlState::INSUFFICIENT_PRIVILEGE,
    );
    assert!(service.end(session));
    let ended = assert_refused(start_with(&mut service, user, TOKEN), &SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(foreign.message(), ended.message());
    assert_eq!(foreign.detail(), ended.detail());
    assert!(!format!("{foreign:?}{ended:?}").contains(TOKEN));
    assert!(!service.is_online(user) && !service.is_online(other));
}

#[test]
fn starts_at_once_with_one_token_make_one_session() {
    let database = Cluster::shared().database();
    let user = Uuid::new_v4();
    for round in 0..5 {
        let token = format!("{TOKEN} {round}");
        let ids: Vec<Uuid> = thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| start_with(&mut database.connect(), user, &token).unwrap()))
                .collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
    assert_eq!(count(&mut database.connect()), 5);
}

#[test]
fn a_start_waits_for_another_with_its_token_to_commit_or_roll_back() {
    let database = Cluster::shared().database();
    let user = Uuid::new_v4();
    for commit in [true, false] {
        let token = format!("{TOKEN} {commit}");
        let mut first = database.connect();
        let mut transaction = first.transaction().unwrap();
        let theirs = start_with(&mut transaction, user, &token).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                let mut second = database.connect();
                second.wait_for_locks();
                start_with(&mut second, user, &token).unwrap()
            });
            let mut watcher = database.connect();
            wait_until("the second start waits", || {
                let sql = "SELECT count(*) FROM pg_stat_activity
                            WHERE wait_event_type = 'Lock' AND datname = current_database()";
                watcher.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 1
            });
            if commit {
                transaction.commit().unwrap();
            } else {
                transaction.rollback().unwrap();
            }
            assert_eq!(second.join().unwrap() == theirs, commit);
        });
    }
}

#[test]
fn an_end_keeps_the_last_beat() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4());
    service.batch_execute("SELECT pg_sleep(0.05)").unwrap();
    assert_eq!(service.beat(session.id), "ok");
    assert!(service.end(session.id));
    let sql = "SELECT NOT is_active AND last_activity > created_at AND last_activity <= ended_at
                 FROM presence.user_sessions WHERE id = $1";
    assert!(service.query_one(sql, &[&session.id]).unwrap().get::<_, bool>(0));
}

#[test]
fn a_digest_never_works_as_a_token() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    let sql = "SELECT session_token FROM presence.user_sessions WHERE id = $1";
    let digest: String = service.query_one(sql, &[&session.id]).unwrap().get(0);
    assert_eq!(service.beat_by_token(&digest), "unknown");
    assert_refused(
        start_with(&mut service, user, &digest),
        &SqlState::INVALID_PARAMETER_VALUE,
    );
    assert_eq!(count(&mut service), 1);
}
