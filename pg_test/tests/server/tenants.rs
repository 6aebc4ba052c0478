//! Databases that share one server: none takes room that the live sessions of another need.

use pg_presence_test::{Cluster, Database, Install, Presence, wait_until};
use uuid::Uuid;

const SMALL: &[(&str, &str)] = &[("presence.max_sessions", "64")];

fn stat<T: for<'a> postgres::types::FromSql<'a>>(database: &Database, column: &str) -> T {
    let sql = format!("SELECT {column} FROM presence.presence_stats");
    database.connect().query_one(&sql, &[]).unwrap().get(0)
}

/// Starts and ends sessions of new users, as many at a time as there is room for until the worker has written them.
fn log_in_and_out_while_written(database: &Database, times: usize) {
    for _ in 0..times / 50 {
        log_in_and_out(database, 50);
        wait_until("they are written", || {
            stat::<Option<i64>>(database, "oldest_unwritten_ms").is_none()
        });
    }
}

/// Starts and ends sessions of new users, one after the other.
fn log_in_and_out(database: &Database, times: usize) {
    let mut service = database.connect();
    for _ in 0..times {
        let session = service.start(Uuid::new_v4());
        assert!(service.end(session.id));
    }
}

#[test]
fn a_transaction_left_open_keeps_no_place_of_another_database() {
    let cluster = Cluster::private(SMALL);
    let (idle, busy) = (cluster.database(), cluster.database());
    idle.wait_until_served();
    busy.wait_until_served();
    let mut forgotten = idle.connect();
    let mut transaction = forgotten.transaction().unwrap();
    transaction.start(Uuid::new_v4());
    log_in_and_out_while_written(&busy, 200);
    assert_eq!(stat::<i64>(&busy, "overflowed"), 0);
    wait_until("the tombstones are freed", || stat::<i64>(&busy, "used") <= 2);
    drop(transaction);
}

#[test]
fn a_transaction_left_open_keeps_no_place_of_its_own_database_either() {
    let cluster = Cluster::private(SMALL);
    let database = cluster.database();
    database.wait_until_served();
    let mut forgotten = database.connect();
    let mut transaction = forgotten.transaction().unwrap();
    transaction.start(Uuid::new_v4());
    log_in_and_out_while_written(&database, 200);
    assert_eq!(stat::<i64>(&database, "overflowed"), 0);
    transaction.commit().unwrap();
    assert_eq!(database.connect().online_count(), 1);
}

#[test]
fn users_who_wait_to_be_written_give_way_where_memory_is_full() {
    let cluster = Cluster::private(SMALL);
    let database = cluster.database();
    database.wait_until_served();
    let mut holder = database.connect();
    holder
        .batch_execute("BEGIN; LOCK TABLE presence.user_presence IN EXCLUSIVE MODE")
        .unwrap();
    for _ in 0..4 {
        log_in_and_out(&database, 50);
        wait_until("the worker has them", || stat::<i64>(&database, "unwritten_users") == 0);
    }
    assert_eq!(stat::<i64>(&database, "overflowed"), 0);
    holder.batch_execute("ROLLBACK").unwrap();
    let mut client = database.connect();
    wait_until("everybody is written", || {
        let sql = "SELECT count(last_seen) FROM presence.user_presence WHERE NOT is_online";
        client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 200
    });
}

#[test]
fn a_database_without_a_worker_takes_no_place_of_another() {
    let cluster = Cluster::private(&[
        ("presence.max_sessions", "64"),
        ("presence.active_timeout", "3s"),
        ("presence.heartbeat_interval", "1s"),
    ]);
    let (template, healthy) = (cluster.database(), cluster.database());
    healthy.wait_until_served();
    let mut postgres = cluster.connect("postgres");
    let template_name = &template.name;
    template.wait_until_served();
    let make = format!("ALTER DATABASE {template_name} IS_TEMPLATE true");
    postgres.execute(&make, &[]).unwrap();
    wait_until("the worker has left", || {
        stat::<Option<i32>>(&template, "worker_pid").is_none()
    });

    // More users than there are entries, and sessions that nobody ends.
    log_in_and_out(&template, 200);
    let mut service = template.connect();
    for _ in 0..60 {
        service.start(Uuid::new_v4());
    }
    wait_until("they are silent for too long", || service.online_count() == 0);

    let mut service = healthy.connect();
    let users: Vec<Uuid> = (0..60).map(|_| Uuid::new_v4()).collect();
    let sql = "SELECT presence.start_sessions($1)";
    service.execute(sql, &[&users]).unwrap();
    assert_eq!(stat::<i64>(&healthy, "overflowed"), 0);
    assert!(stat::<bool>(&healthy, "is_complete"));
    assert_eq!(template.connect().online_count(), 0);
    let undo = format!("ALTER DATABASE {template_name} IS_TEMPLATE false");
    postgres.execute(&undo, &[]).unwrap();
}

/// Starts sessions of so many new users, and returns their ids.
fn start_many(database: &Database, count: i64) -> Vec<Uuid> {
    let sql = "SELECT array_agg(session_id)
               FROM presence.start_sessions((SELECT array_agg(gen_random_uuid()) FROM generate_series(1, $1::bigint)))";
    database.connect().query_one(sql, &[&count]).unwrap().get(0)
}

#[test]
fn databases_fill_the_last_place_whatever_was_free_before() {
    // No multiple of what memory is shared out by.
    const PLACES: i64 = 1000;
    let cluster = Cluster::private(&[("presence.max_sessions", "1000")]);
    let databases = [cluster.database(), cluster.database(), cluster.database()];
    databases.iter().for_each(Database::wait_until_served);
    let used = || stat::<i64>(&databases[0], "used");
    let mut live: Vec<Vec<Uuid>> = vec![Vec::new(); databases.len()];
    // In runs of very unlike length.
    for (turn, count) in [300, 1, 250, 7, 2, 300, 30, 10, 100].into_iter().enumerate() {
        let at = turn % databases.len();
        live[at].extend(start_many(&databases[at], count));
    }
    assert_eq!(used(), PLACES);

    // What is ended is scattered over all of it.
    for (keep_every, (database, sessions)) in [3, 5, 2].into_iter().zip(databases.iter().zip(&mut live)) {
        let (kept, ended): (Vec<_>, Vec<_>) = (0..).zip(sessions.drain(..)).partition(|(at, _)| at % keep_every == 0);
        let ids = |numbered: Vec<(usize, Uuid)>| numbered.into_iter().map(|(_, id)| id).collect::<Vec<_>>();
        let end = "SELECT presence.end_sessions($1)";
        database.connect().execute(end, &[&ids(ended)]).unwrap();
        *sessions = ids(kept);
    }
    let mut left: i64 = live.iter().map(|sessions| sessions.len() as i64).sum();
    assert!(left < PLACES / 2);
    wait_until("what has ended is freed", || used() == left);

    while left < PLACES {
        for (database, sessions) in databases.iter().zip(&mut live) {
            let count = 37.min(PLACES - left);
            if count > 0 {
                sessions.extend(start_many(database, count));
                left += count;
            }
        }
    }
    assert_eq!(used(), PLACES);
    for (database, sessions) in databases.iter().zip(&live) {
        assert_eq!(stat::<i64>(database, "overflowed"), 0, "{}", database.name);
        assert!(stat::<bool>(database, "is_complete"), "{}", database.name);
        let mut service = database.connect();
        assert_eq!(service.online_count(), sessions.len() as i64);
        let beat = "SELECT presence.heartbeat_many($1)";
        let missed: Vec<Uuid> = service.query_one(beat, &[sessions]).unwrap().get(0);
        assert!(missed.is_empty());
    }
    start_many(&databases[1], 1);
    assert!(stat::<i64>(&databases[1], "overflowed") > 0);
}

#[test]
fn deleting_old_rows_takes_no_place() {
    let cluster = Cluster::private(SMALL);
    let (old, busy) = (cluster.database(), cluster.database());
    old.wait_until_served();
    busy.wait_until_served();
    old.run(
        "INSERT INTO presence.user_sessions (user_id, is_active, ended_at, last_activity)
         SELECT gen_random_uuid(), false, now() - '1 h'::interval, now() - '1 h'::interval FROM generate_series(1, 300)",
    );
    // Timed out ones are in memory, as far as others do not need the room.
    for _ in 0..30 {
        old.run(
            "INSERT INTO presence.user_sessions (user_id, is_active, last_activity)
             SELECT gen_random_uuid(), false, now() - '1 h'::interval FROM generate_series(1, 10)",
        );
    }
    let users: Vec<Uuid> = (0..50).map(|_| Uuid::new_v4()).collect();
    let sql = "SELECT presence.start_sessions($1)";
    busy.connect().execute(sql, &[&users]).unwrap();
    wait_until("all is in memory", || stat::<bool>(&old, "is_complete"));
    let before: i64 = stat(&old, "overflowed");

    let mut deleting = old.connect();
    let mut transaction = deleting.transaction().unwrap();
    transaction.execute("DELETE FROM presence.user_sessions", &[]).unwrap();
    let more: Vec<Uuid> = (0..10).map(|_| Uuid::new_v4()).collect();
    busy.connect().execute(sql, &[&more]).unwrap();
    transaction.commit().unwrap();
    for database in [&old, &busy] {
        assert!(stat::<bool>(database, "is_complete"), "{}", database.name);
    }
    assert_eq!(stat::<i64>(&old, "overflowed"), before);
    assert_eq!(busy.connect().online_count(), 60);
}

#[test]
fn installs_that_are_rolled_back_keep_no_database_out() {
    let cluster = Cluster::private(&[]);
    let tried = cluster.database_with(Install::None);
    // More than there is room for. A process keeps PL/pgSQL's plans, also those of functions that are gone, and each
    // install goes through them: so none makes many.
    for _ in 0..55 {
        let mut client = tried.connect();
        for _ in 0..20 {
            let mut transaction = client.transaction().unwrap();
            transaction
                .batch_execute("CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence")
                .unwrap();
            assert_eq!(transaction.online_count(), 0);
            transaction.rollback().unwrap();
        }
    }
    let other = cluster.database();
    let user = Uuid::new_v4();
    other.connect().start(user);
    assert!(other.connect().is_online(user));
}

#[test]
fn a_terminated_heartbeat_keeps_no_place() {
    let cluster = Cluster::private(SMALL);
    let database = cluster.database();
    database.wait_until_served();
    // A session that only the table knows, and that no worker loads.
    let worker = database.pause_worker();
    database.run(
        "ALTER TABLE presence.user_sessions DISABLE TRIGGER presence_capture;
         INSERT INTO presence.user_sessions (user_id) VALUES (gen_random_uuid());
         ALTER TABLE presence.user_sessions ENABLE ALWAYS TRIGGER presence_capture",
    );
    let mut observer = database.connect();
    let session = observer
        .query_one("SELECT id FROM presence.user_sessions", &[])
        .unwrap();
    let session: Uuid = session.get(0);
    let mut beating = database.connect();
    let pid = beating.process_id();
    let beat = std::thread::spawn(move || {
        beating.batch_execute("SET presence_test.read_delay = 600000").unwrap();
        beating
            .query_one("SELECT presence.heartbeat($1)", &[&session])
            .map(|_| ())
    });
    wait_until("a place is taken", || stat::<i64>(&database, "used") == 1);
    let terminate = "SELECT pg_terminate_backend($1)";
    observer.execute(terminate, &[&pid]).unwrap();
    assert!(beat.join().unwrap().is_err());
    wait_until("it is free again", || stat::<i64>(&database, "used") == 0);
    assert_eq!(observer.beat(session), "ok");
    worker.resume();
}

#[test]
fn the_token_of_a_live_session_works_while_another_session_takes_it_over() {
    let database = Cluster::shared().database();
    let (mut service, mut other) = (database.connect(), database.connect());
    let user = Uuid::new_v4();
    let session = service.start(user);
    let mut transaction = other.transaction().unwrap();
    assert!(transaction.end(session.id));
    let insert = "INSERT INTO presence.user_sessions (user_id, session_token) VALUES ($1, $2)";
    transaction.execute(insert, &[&user, &session.token]).unwrap();
    assert_eq!(service.beat_by_token(&session.token), "ok");
    transaction.rollback().unwrap();
    assert_eq!(service.beat_by_token(&session.token), "ok");
}

#[test]
fn a_beat_in_a_transaction_that_has_written_counts_once() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4()).id;
    let before: i64 = stat(&database, "beats");
    let mut transaction = service.transaction().unwrap();
    transaction.start(Uuid::new_v4());
    assert_eq!(transaction.beat(session), "ok");
    transaction.commit().unwrap();
    assert_eq!(stat::<i64>(&database, "beats"), before + 1);
}
