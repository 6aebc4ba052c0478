//! Logical replication of the extension's tables, and standbys.

use pg_presence_test::{Cluster, Database, Install, Presence, Shutdown, assert_refused, signal, wait_until};
use postgres::error::SqlState;
use uuid::Uuid;

/// Subscribes a database to a publication on another server.
fn subscribe(subscriber: &Database, publisher: &Database) {
    let host = publisher.cluster.socket_directory();
    subscriber.run(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={} user=postgres dbname={}' PUBLICATION p",
        host.display(),
        publisher.name
    ));
}

#[test]
fn a_plain_subscriber_gets_the_rows() {
    let (here, there) = (Cluster::private(&[]), Cluster::private(&[]));
    let (publisher, subscriber) = (here.database(), there.database_with(Install::None));
    publisher.run(
        "CREATE PUBLICATION p;
         ALTER PUBLICATION p ADD TABLE presence.user_sessions, presence.user_presence, presence.declared_statuses",
    );
    subscriber.run(
        "CREATE SCHEMA presence;
         CREATE TABLE presence.user_sessions (id uuid PRIMARY KEY, user_id uuid, auth_id uuid, session_token text,
             is_active bool, last_activity timestamptz, created_at timestamptz, expires_at timestamptz, metadata jsonb,
             ended_at timestamptz, user_key text);
         CREATE TABLE presence.user_presence (user_id uuid PRIMARY KEY, user_key text, status text, is_online bool,
             last_seen timestamptz, changed_at timestamptz, seq bigint, idle_since timestamptz, status_text text,
             emoji text, status_expires_at timestamptz);
         CREATE TABLE presence.declared_statuses (user_id uuid, source text, status text, status_text text, emoji text,
             set_at timestamptz, expires_at timestamptz, by_user bool, last_seen timestamptz, shown_at timestamptz,
             PRIMARY KEY (user_id, source))",
    );
    let mut service = publisher.connect();
    let (before, after) = (Uuid::new_v4(), Uuid::new_v4());
    service.start(before);
    subscribe(&subscriber, &publisher);
    let session = service.start(after);

    let mut reader = subscriber.connect();
    let sessions = "SELECT count(*) FROM presence.user_sessions WHERE user_id = ANY ($1)";
    let online = "SELECT count(*) FROM presence.user_presence WHERE is_online AND user_id = ANY ($1)";
    let both = vec![before, after];
    wait_until("sessions and statuses arrive", || {
        let count = |reader: &mut postgres::Client, sql| reader.query_one(sql, &[&both]).unwrap().get::<_, i64>(0);
        count(&mut reader, sessions) == 2 && count(&mut reader, online) == 2
    });
    let sql = "SELECT presence.set_status('busy', 'in a meeting', user_id => $1)";
    service.execute(sql, &[&before]).unwrap();
    let sql = "SELECT count(*) FROM presence.user_presence u JOIN presence.declared_statuses d USING (user_id)
               WHERE (u.status, u.status_text) = (d.status, d.status_text)";
    wait_until("what is declared arrives", || {
        reader.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 1
    });
    service.end(session.id);
    let sql = "SELECT u.is_online OR s.ended_at IS NULL FROM presence.user_presence u
               JOIN presence.user_sessions s USING (user_id) WHERE user_id = $1";
    wait_until("the logout arrives", || {
        !reader.query_one(sql, &[&after]).unwrap().get::<_, bool>(0)
    });
}

#[test]
fn the_worker_serves_a_database_of_which_all_tables_are_published() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    database.run("CREATE PUBLICATION everything FOR ALL TABLES");
    let worker = database.worker();
    signal("TERM", worker);
    let worker = database.new_worker(worker);
    database.wait_until_served();
    database.assert_served();
    assert_eq!(database.worker(), worker);
}

#[test]
fn a_subscriber_with_the_extension_derives_the_rest_itself() {
    let (here, there) = (Cluster::private(&[]), Cluster::private(&[]));
    let (publisher, subscriber) = (here.database(), there.database());
    publisher.run("CREATE PUBLICATION p FOR TABLE presence.user_sessions");
    subscribe(&subscriber, &publisher);
    let (mut service, mut reader) = (publisher.connect(), subscriber.connect());
    let mut listener = subscriber.listen();
    let user = Uuid::new_v4();
    let session = service.start(user);
    listener.wait_for(user, &["active"]);
    assert!(reader.is_online(user));
    service.end(session.id);
    listener.wait_for(user, &["active", "inactive"]);
    assert!(!reader.is_online(user));
    assert_eq!(reader.beat(session.id), "ended");
    service.execute("DELETE FROM presence.user_sessions", &[]).unwrap();
    wait_until("the rows are gone", || {
        let sql = "SELECT count(*) FROM presence.user_sessions";
        reader.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0
    });
    let other = Uuid::new_v4();
    service.start(other);
    listener.wait_for(other, &["active"]);
}

#[test]
fn a_standby_refuses_writes_and_serves_after_its_promotion() {
    let primary = Cluster::private(&[]);
    let database = primary.database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let (user, ended) = (Uuid::new_v4(), Uuid::new_v4());
    let (session, other) = (service.start(user), service.start(ended));
    listener.wait_for(ended, &["active"]);
    service.end(other.id);
    listener.wait_for(ended, &["active", "inactive"]);
    let epoch = "SELECT epoch FROM presence.presence_cursor()";
    let old: String = service.query_one(epoch, &[]).unwrap().get(0);

    let standby = primary.standby();
    let mut there = standby.connect(&database.name);
    wait_until("the standby has caught up", || {
        let sql = "SELECT count(*) FROM presence.presence_changes";
        there.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 3
    });
    assert!(there.is_online(user));
    assert!(!there.is_online(ended));
    let read_only = &SqlState::READ_ONLY_SQL_TRANSACTION;
    // The second call takes the fast path.
    for _ in 0..2 {
        assert_refused(
            there.execute("SELECT presence.heartbeat($1)", &[&session.id]),
            read_only,
        );
    }
    assert_refused(
        there.execute("SELECT presence.end_session($1)", &[&session.id]),
        read_only,
    );
    assert_refused(
        there.execute("SELECT presence.start_session(user_id => $1)", &[&user]),
        read_only,
    );

    drop((service, listener));
    primary.stop(Shutdown::Immediate);
    there.execute("SELECT pg_promote()", &[]).unwrap();
    wait_until("the promotion", || {
        !there
            .query_one("SELECT pg_is_in_recovery()", &[])
            .unwrap()
            .get::<_, bool>(0)
    });
    assert!(there.is_online(user), "the promotion makes nobody inactive");
    assert_eq!(there.beat(session.id), "ok");
    assert_eq!(there.beat(other.id), "ended");
    let new = Uuid::new_v4();
    there.start(new);
    assert!(there.is_online(new));
    wait_until("the worker serves the database", || {
        let sql = "SELECT count(*) FROM presence.user_presence WHERE user_id = $1";
        there.query_one(sql, &[&new]).unwrap().get::<_, i64>(0) == 1
    });
    assert_ne!(
        there.query_one(epoch, &[]).unwrap().get::<_, String>(0),
        old,
        "a new epoch"
    );
}
