//! More sessions than shared memory holds.

use pg_presence_test::{Cluster, Presence, wait_until, wait_until_equal};
use postgres::Client;
use uuid::Uuid;

use crate::hours::Server;

const SMALL: &[(&str, &str)] = &[("presence.max_sessions", "64")];

/// How many users are written as online, and as offline.
fn written(client: &mut Client) -> (i64, i64) {
    let sql =
        "SELECT count(*) FILTER (WHERE is_online), count(*) FILTER (WHERE NOT is_online) FROM presence.user_presence";
    let row = client.query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn every_status_is_right_with_more_sessions_than_the_roster_holds() {
    let cluster = Cluster::private(SMALL);
    let database = cluster.database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..200).map(|_| Uuid::new_v4()).collect();
    let sessions: Vec<Uuid> = users.iter().map(|user| service.start(*user).id).collect();

    for (user, session) in users.iter().zip(&sessions) {
        assert!(service.is_online(*user));
        assert_eq!(service.beat(*session), "ok");
    }
    assert_eq!(service.online_count(), 200);
    let mut expected = users.clone();
    expected.sort();
    assert_eq!(service.online_users(), expected);
    // Who has no slot, and leaves before the worker has looked, is never written.
    wait_until_equal("who is written as online", &(200, 0), || written(&mut service));

    for session in &sessions[100..] {
        assert!(service.end(*session));
        assert_eq!(service.beat(*session), "ended");
    }
    for (index, user) in users.iter().enumerate() {
        assert_eq!(service.is_online(*user), index < 100, "{index}");
    }
    assert_eq!(service.online_count(), 100);
    wait_until_equal("what is written", &(100, 100), || written(&mut service));
    wait_until("the log warns", || cluster.log().contains("presence.max_sessions"));
    let failed = "SELECT count(*) FROM presence.presence_health() WHERE NOT ok";
    assert!(service.query_one(failed, &[]).unwrap().get::<_, i64>(0) > 0);
}

#[test]
fn silence_is_written_with_more_sessions_than_the_roster_holds() {
    let server = Server::with(&[("presence.max_sessions", "64"), ("presence.active_timeout", "5h")]);
    let database = server.cluster.database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..200).map(|_| Uuid::new_v4()).collect();
    service
        .execute("SELECT presence.start_sessions($1)", &[&users])
        .unwrap();
    assert_eq!(service.online_count(), 200);
    wait_until_equal("who is written as online", &(200, 0), || written(&mut service));
    server.pass(6);
    wait_until_equal("how many readers see", &0, || service.online_count());
    wait_until_equal("who is written as offline", &(0, 200), || written(&mut service));
}

#[test]
fn freed_slots_are_reused() {
    let cluster = Cluster::private(SMALL);
    let database = cluster.database();
    let mut service = database.connect();
    for _ in 0..20 {
        let user = Uuid::new_v4();
        let sessions: Vec<Uuid> = (0..30).map(|_| service.start(user).id).collect();
        let sql = "SELECT presence.heartbeat_many($1)";
        assert!(
            service
                .query_one(sql, &[&sessions])
                .unwrap()
                .get::<_, Vec<Uuid>>(0)
                .is_empty()
        );
        let sql = "SELECT presence.end_user_sessions($1)";
        assert_eq!(service.query_one(sql, &[&user]).unwrap().get::<_, i32>(0), 30);
        assert!(!service.is_online(user));
    }
    assert_eq!(service.online_count(), 0);
}

#[test]
fn a_restart_with_more_sessions_than_the_roster_holds_loses_none() {
    let cluster = Cluster::private(SMALL);
    let database = cluster.database();
    let users: Vec<Uuid> = (0..150).map(|_| Uuid::new_v4()).collect();
    let sessions: Vec<Uuid> = {
        let mut service = database.connect();
        users.iter().map(|user| service.start(*user).id).collect()
    };
    cluster.restart(pg_presence_test::Shutdown::Kill);
    let mut service = database.connect();
    for (user, session) in users.iter().zip(&sessions) {
        assert!(service.is_online(*user));
        assert_eq!(service.beat(*session), "ok");
    }
    assert_eq!(service.online_count(), 150);
}
