//! What a client may do with the functions: act on its own sessions, and nothing else.

use std::thread;

use pg_presence_test::{Cluster, Presence, assert_refused, error_of, wait_until};
use postgres::error::SqlState;
use uuid::Uuid;

#[test]
fn a_client_needs_no_ids_and_may_pass_only_its_own() {
    let database = Cluster::shared().database();
    let mut client = database.connect_as(&database.client());
    let own = Uuid::new_v4();
    client.act_for(own);
    let session = client.start_own();
    assert_eq!(client.beat(session.id), "ok");
    assert!(client.is_online(own));
    let sql = "SELECT FROM presence.start_session(user_id => $1, auth_id => $2)";
    client.query_one(sql, &[&own, &own]).unwrap();
    let other = Uuid::new_v4();
    for (user, auth) in [(other, own), (own, other), (other, other)] {
        let error = assert_refused(
            client.query_one(sql, &[&user, &auth]),
            &SqlState::INSUFFICIENT_PRIVILEGE,
        );
        assert!(!format!("{error:?}").contains(&other.to_string()));
    }
    let sql = "SELECT FROM presence.start_session(user_key => 'somebody')";
    assert_refused(client.query_one(sql, &[]), &SqlState::INSUFFICIENT_PRIVILEGE);
}

#[test]
fn foreign_sessions_are_indistinguishable_from_unknown_ones() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut client = database.connect_as(&database.client());
    let user = Uuid::new_v4();
    let (foreign, ended) = (service.start(user), service.start(user));
    service.end(ended.id);
    client.act_for(Uuid::new_v4());
    for session in [foreign.id, ended.id, Uuid::new_v4()] {
        assert_eq!(client.beat(session), "unknown");
        assert!(!client.release(session, "10 ms"));
        assert!(!client.end(session));
        let sql = "SELECT presence.heartbeat_many($1), presence.end_sessions($1), presence.release_sessions($1),
                          presence.rotate_session_token($1[1])";
        let row = client.query_one(sql, &[&&[session][..]]).unwrap();
        assert_eq!(row.get::<_, Vec<Uuid>>(0), [session]);
        assert_eq!((row.get::<_, i32>(1), row.get::<_, i32>(2)), (0, 0));
        assert_eq!(row.get::<_, Option<String>>(3), None);
    }
    assert_eq!(service.beat(foreign.id), "ok");
    assert_eq!(service.beat_by_token(&foreign.token), "ok");
}

#[test]
fn without_an_identity_a_client_owns_nothing() {
    let database = Cluster::shared().database();
    let session = database.connect().start(Uuid::new_v4());
    let mut client = database.connect_as(&database.client());
    for claims in ["", "{}", "not json", r#"{"sub": "not a uuid"}"#, r#"{"sub": null}"#] {
        client.claim(claims);
        for sql in [
            "SELECT FROM presence.start_session()",
            "SELECT presence.end_user_sessions()",
        ] {
            let error = assert_refused(client.query_one(sql, &[]), &SqlState::INSUFFICIENT_PRIVILEGE);
            assert!(!error.message().contains("uuid"), "{error:?}");
        }
        assert_eq!(client.beat(session.id), "unknown");
        assert!(!client.end(session.id));
    }
}

#[test]
fn a_client_signs_itself_out_everywhere_and_nobody_else() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut client = database.connect_as(&database.client());
    let (own, other) = (Uuid::new_v4(), Uuid::new_v4());
    client.act_for(own);
    for _ in 0..3 {
        client.start_own();
    }
    service.start(other);
    let sql = "SELECT presence.end_user_sessions($1)";
    assert_refused(client.query_one(sql, &[&other]), &SqlState::INSUFFICIENT_PRIVILEGE);
    let ended: i32 = client
        .query_one("SELECT presence.end_user_sessions()", &[])
        .unwrap()
        .get(0);
    assert_eq!(ended, 3);
    assert!(!service.is_online(own));
    assert!(service.is_online(other));
}

#[test]
fn a_clients_number_of_sessions_is_limited_and_a_services_is_not() {
    let cluster = Cluster::private(&[("presence.max_sessions_per_user", "3")]);
    let database = cluster.database();
    let mut client = database.connect_as(&database.client());
    let own = Uuid::new_v4();
    client.act_for(own);
    let sessions: Vec<_> = (0..3).map(|_| client.start_own()).collect();
    let sql = "SELECT session_id FROM presence.start_session()";
    assert_refused(client.query_one(sql, &[]), &SqlState::CONFIGURATION_LIMIT_EXCEEDED);
    assert!(client.end(sessions[1].id));
    client.start_own();
    assert_refused(client.query_one(sql, &[]), &SqlState::CONFIGURATION_LIMIT_EXCEEDED);
    let again = "SELECT session_id FROM presence.start_session(session_token => $1)";
    let resumed: Uuid = client.query_one(again, &[&sessions[0].token]).unwrap().get(0);
    assert_eq!(resumed, sessions[0].id);
    database.connect().start(own);
}

#[test]
fn a_clients_lifetime_is_at_most_the_servers() {
    let database = Cluster::shared().database();
    let mut client = database.connect_as(&database.client());
    client.act_for(Uuid::new_v4());
    let sql = "SELECT expires_at - server_time = $2::text::interval
                 FROM presence.start_session(lifetime => $1::text::interval)";
    for (requested, granted) in [("1 hour", "1 hour"), ("8 days", "7 days"), ("10 years", "7 days")] {
        assert!(
            client
                .query_one(sql, &[&requested, &granted])
                .unwrap()
                .get::<_, bool>(0),
            "{requested}"
        );
    }
    let sql = "SELECT expires_at - server_time > '7 days'
                 FROM presence.start_session(user_id => gen_random_uuid(), lifetime => '1 year')";
    assert!(database.connect().query_one(sql, &[]).unwrap().get::<_, bool>(0));
}

#[test]
fn only_services_act_for_others() {
    let database = Cluster::shared().database();
    for role in [
        database.client(),
        database.reader(),
        database.holder(),
        database.role("nobody"),
    ] {
        let mut client = database.connect_as(&role);
        client.act_for(Uuid::new_v4());
        for sql in [
            "SELECT presence.start_sessions(ARRAY[gen_random_uuid()])",
            "SELECT presence.forget_user(gen_random_uuid())",
            "SELECT presence.cleanup_sessions()",
        ] {
            let error = error_of(client.query(sql, &[]));
            assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{role}: {error:?}");
        }
    }
    let mut service = database.connect_as(&database.service());
    let user = Uuid::new_v4();
    let session = service.start(user);
    assert_eq!(service.beat(session.id), "ok");
    assert!(service.is_online(user));
    assert!(service.end(session.id));
}

#[test]
fn concurrent_transactions_of_a_client_do_not_exceed_the_limit() {
    let cluster = Cluster::private(&[("presence.max_sessions_per_user", "3")]);
    let database = cluster.database();
    let own = Uuid::new_v4();
    let (mut one, mut other) = (
        database.connect_as(&database.client()),
        database.connect_as(&database.client()),
    );
    one.act_for(own);
    other.act_for(own);
    other.wait_for_locks();
    one.batch_execute("BEGIN").unwrap();
    let kept: Vec<_> = (0..2).map(|_| one.start_own()).collect();
    thread::scope(|scope| {
        let refused_later = scope.spawn(|| {
            // This waits for the other transaction: until then it is not known whether this is the third session.
            other.start_own();
            assert_refused(
                other.query_one("SELECT session_id FROM presence.start_session()", &[]),
                &SqlState::CONFIGURATION_LIMIT_EXCEEDED,
            );
        });
        let mut watcher = database.connect();
        wait_until("the other transaction to wait", || {
            let sql = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'object'";
            watcher.query_one(sql, &[]).unwrap().get(0)
        });
        one.batch_execute("COMMIT").unwrap();
        refused_later.join().unwrap();
    });
    assert!(kept.iter().all(|session| one.end(session.id)));
}
