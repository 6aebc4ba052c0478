//! A user is forgotten while the worker is about to write a change of that user, or to notify of one.

use std::thread;

use pg_presence_test::{Cluster, Database, Presence, wait_until};
use postgres::Client;
use uuid::Uuid;

fn forget(client: &mut Client, user: Uuid) {
    let forgotten = client.query_one("SELECT presence.forget_user($1)", &[&user]).unwrap();
    assert!(forgotten.get::<_, bool>(0));
}

/// Asserts that no table names the user.
fn assert_erased(database: &Database, user: Uuid) {
    // Changes are written in order, so this one comes last.
    database.assert_served();
    for table in ["user_sessions", "user_presence", "presence_changes"] {
        let sql = format!("SELECT count(*) FROM presence.{table} WHERE user_id = $1");
        let found: i64 = database.connect().query_one(&sql, &[&user]).unwrap().get(0);
        assert_eq!(found, 0, "{table}");
    }
    let mut service = database.connect();
    let sql = "SELECT presence.last_seen($1) IS NULL AND NOT presence.is_online($1)";
    assert!(service.query_one(sql, &[&user]).unwrap().get::<_, bool>(0));
    service.assert_no_gaps();
}

#[test]
fn a_change_that_the_worker_has_taken_is_not_written_after_its_user_is_forgotten() {
    // With fewer sessions in shared memory than there are, the worker finds changes in the tables.
    for max_sessions in ["1000", "64"] {
        let cluster = Cluster::private(&[("presence.max_sessions", max_sessions)]);
        let database = cluster.database();
        let mut service = database.connect();
        let others: Vec<Uuid> = (0..64).map(|_| Uuid::new_v4()).collect();
        service
            .execute("SELECT presence.start_sessions($1)", &[&others])
            .unwrap();
        for other in others {
            service.wait_for_written(other, true);
        }
        let mut listener = database.listen();
        let worker = database.pause_worker_at("taken");
        let user = Uuid::new_v4();
        service.start(user);
        worker.wait_until_reached();
        forget(&mut service, user);
        worker.resume();

        assert_erased(&database, user);
        listener.receive();
        assert!(
            listener
                .payloads
                .iter()
                .all(|payload| !payload.contains(&user.to_string()))
        );
    }
}

#[test]
fn a_change_is_not_written_between_the_commit_that_forgets_its_user_and_the_callback() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    database.assert_served();
    // Nothing can be written until this ends.
    let mut holder = database.connect();
    let mut held = holder.transaction().unwrap();
    held.batch_execute("LOCK TABLE presence._feed_state IN EXCLUSIVE MODE")
        .unwrap();
    let (user, mut service) = (Uuid::new_v4(), database.connect());
    service.start(user);
    let mut late = database.connect();
    let callback = database.pause_at(late.process_id(), "commit");
    thread::scope(|scope| {
        let late = scope.spawn(move || forget(&mut late, user));
        callback.wait_until_reached();
        let sql = "SELECT count(*) FROM presence.user_sessions";
        assert_eq!(service.query_one(sql, &[]).unwrap().get::<_, i64>(0), 1, "visible");
        held.rollback().unwrap();
        assert!(service.is_online(user), "the callback has already run");
        database.assert_served();
        callback.resume();
        late.join().unwrap();
    });
    assert_erased(&database, user);
}

/// Creates a trigger that forgets a user on another connection, as soon as the worker writes to `user_presence`.
fn forget_in_trigger(database: &Database, event: &str, user: Uuid) {
    let socket = database.cluster.socket_directory().display();
    database.run(&format!(
        "CREATE EXTENSION IF NOT EXISTS dblink SCHEMA public;
         CREATE FUNCTION public.forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF (SELECT backend_type FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid())
                     = 'pg_presence worker'
                 AND EXISTS (SELECT FROM presence.user_sessions WHERE user_id = '{user}')
             THEN
                 PERFORM * FROM public.dblink(
                     'host={socket} user=postgres dbname={}',
                     'SELECT presence.forget_user(''{user}'')'
                 ) AS t (forgotten boolean);
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER forget BEFORE {event} ON presence.user_presence
             FOR EACH STATEMENT EXECUTE FUNCTION public.forget()",
        database.name
    ));
}

fn wait_until_forgotten(client: &mut Client, user: Uuid) {
    wait_until("the user to be forgotten", || {
        let sql = "SELECT count(*) FROM presence.user_sessions WHERE user_id = $1";
        client.query_one(sql, &[&user]).unwrap().get::<_, i64>(0) == 0
    });
}

#[test]
fn a_new_user_forgotten_while_the_worker_writes_leaves_nothing() {
    let database = Cluster::shared().database();
    let (mut service, mut listener) = (database.connect(), database.listen());
    let [user, other] = [(); 2].map(|()| Uuid::new_v4());
    forget_in_trigger(&database, "INSERT", user);
    service
        .execute("SELECT presence.start_sessions($1)", &[&vec![user, other]])
        .unwrap();
    wait_until_forgotten(&mut service, user);
    // Who is in the same batch is told all the same.
    listener.wait_for(other, &["active"]);
    assert_erased(&database, user);
    assert!(listener.statuses_of(user).is_empty());
}

#[test]
fn a_known_user_forgotten_while_the_worker_writes_leaves_nothing() {
    let database = Cluster::shared().database();
    let (mut service, mut listener) = (database.connect(), database.listen());
    let [user, other] = [(); 2].map(|()| Uuid::new_v4());
    let sessions = [user, other].map(|user| service.start(user).id);
    listener.wait_for(user, &["active"]);
    listener.wait_for(other, &["active"]);
    forget_in_trigger(&database, "UPDATE", user);
    service
        .execute("SELECT presence.end_sessions($1)", &[&sessions.to_vec()])
        .unwrap();
    wait_until_forgotten(&mut service, user);
    listener.wait_for(other, &["active", "inactive"]);
    assert_erased(&database, user);
    assert_eq!(listener.statuses_of(user), ["active"]);
}

#[test]
fn a_forgotten_user_is_not_named_in_a_later_notification() {
    // The worker sends a message when it starts. The next one comes a minute later.
    let cluster = Cluster::private(&[("presence.notify_interval", "1min")]);
    let database = cluster.database();
    let (mut service, mut listener) = (database.connect(), database.listen());
    let [user, other] = [(); 2].map(|()| Uuid::new_v4());
    for user in [user, other] {
        service.start(user);
        service.wait_for_written(user, true);
    }
    forget(&mut service, user);
    cluster.set("presence.notify_interval", "10ms");
    listener.wait_for(other, &["active"]);
    assert!(
        listener
            .payloads
            .iter()
            .all(|payload| !payload.contains(&user.to_string()))
    );
    assert_erased(&database, user);
}

#[test]
fn a_user_is_told_if_forgetting_it_is_rolled_back() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let (mut service, mut listener) = (database.connect(), database.listen());
    let worker = database.pause_worker_at("taken");
    let user = Uuid::new_v4();
    service.start(user);
    worker.wait_until_reached();
    let mut transaction = service.transaction().unwrap();
    transaction.batch_execute("SAVEPOINT s").unwrap();
    transaction
        .batch_execute(&format!("SELECT presence.forget_user('{user}'); ROLLBACK TO s"))
        .unwrap();
    transaction.commit().unwrap();
    worker.resume();
    listener.wait_for(user, &["active"]);
    service.wait_for_written(user, true);
}

#[test]
fn a_session_started_while_its_user_is_being_forgotten_is_told() {
    let database = Cluster::shared().database();
    let (mut service, mut listener) = (database.connect(), database.listen());
    let user = Uuid::new_v4();
    let old = service.start(user);
    listener.wait_for(user, &["active"]);
    // The user is forgotten, all but the row that somebody has locked.
    let mut holder = database.connect();
    let mut held = holder.transaction().unwrap();
    held.execute(
        "SELECT FROM presence.user_sessions WHERE id = $1 FOR UPDATE",
        &[&old.id],
    )
    .unwrap();
    let mut forgetting = database.connect();
    forgetting.wait_for_locks();
    thread::scope(|scope| {
        let forgetting = scope.spawn(move || forget(&mut forgetting, user));
        wait_until("it to wait for the row", || {
            let sql = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'
                           AND query LIKE '%forget_user%'";
            service.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 1
        });
        service.start(user);
        held.rollback().unwrap();
        forgetting.join().unwrap();
    });
    assert!(service.is_online(user));
    service.wait_for_written(user, true);
    listener.wait_for(user, &["active", "active"]);
}
