//! Users and their keys, by whatever type the application names them; forgetting users.

use pg_presence_test::{Cluster, Presence, wait_until};
use postgres::Client;
use uuid::Uuid;

#[test]
fn a_users_key_is_stored_with_the_session() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for key in ["auth0|abc", "42", "Jürgen 🟢", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"] {
        let row = service
            .query_one(
                "SELECT session_id, presence.presence_id($1::text) FROM presence.start_session(user_key => $1)",
                &[&key],
            )
            .unwrap();
        let (session, user): (Uuid, Uuid) = (row.get(0), row.get(1));
        let sql = "SELECT user_id, user_key FROM presence.user_sessions WHERE id = $1";
        let row = service.query_one(sql, &[&session]).unwrap();
        assert_eq!((row.get::<_, Uuid>(0), row.get::<_, &str>(1)), (user, key));
        let sql = "SELECT user_key, is_online FROM presence.presence_of(ARRAY[$1::uuid])";
        let row = service.query_one(sql, &[&user]).unwrap();
        assert_eq!((row.get::<_, &str>(0), row.get::<_, bool>(1)), (key, true));
        let sql = "SELECT user_key FROM presence.online_users() WHERE user_id = $1";
        assert_eq!(service.query_one(sql, &[&user]).unwrap().get::<_, &str>(0), key);
    }
}

#[test]
fn an_integer_and_its_text_are_the_same_user() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let sql = "SELECT presence.presence_id(42) = presence.presence_id('42'),
                      presence.presence_id(42) = presence.presence_id('042'),
                      presence.presence_id(9223372036854775807) = presence.presence_id('9223372036854775807'),
                      presence.presence_id(NULL::text) IS NULL";
    let row = service.query_one(sql, &[]).unwrap();
    let answers: Vec<bool> = (0..4).map(|i| row.get(i)).collect();
    assert_eq!(answers, [true, false, true, true]);
}

#[test]
fn presence_of_returns_one_row_for_each_id_in_order() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (online, stranger, gone) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    service.start(online);
    let session = service.start(gone);
    service.end(session.id);
    let ids = [Some(stranger), None, Some(online), Some(gone), Some(online)];
    let sql = "SELECT user_id, status::text, is_online, last_seen IS NULL, session_count::bigint
               FROM presence.presence_of($1)";
    let rows = service.query(sql, &[&&ids[..]]).unwrap();
    let rows: Vec<(Uuid, String, bool, bool, i64)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4)))
        .collect();
    let inactive = || "inactive".to_owned();
    assert_eq!(
        rows,
        [
            (stranger, inactive(), false, true, 0),
            (online, "active".to_owned(), true, false, 1),
            (gone, inactive(), false, false, 0),
        ]
    );
}

#[test]
fn a_null_or_unknown_user_is_inactive() {
    let database = Cluster::shared().database();
    let sql = "SELECT presence.is_online(NULL), presence.user_status(NULL)::text, presence.last_seen(NULL) IS NULL,
                      (SELECT count(*) FROM presence.presence_of(NULL)),
                      (SELECT count(*) FROM presence.presence_of('{}')),
                      presence.is_online(gen_random_uuid()), presence.user_status(gen_random_uuid())::text,
                      presence.last_seen(gen_random_uuid()) IS NULL";
    let row = database.connect().query_one(sql, &[]).unwrap();
    assert!(!row.get::<_, bool>(0));
    assert_eq!(row.get::<_, &str>(1), "inactive");
    assert!(row.get::<_, bool>(2));
    assert_eq!((row.get::<_, i64>(3), row.get::<_, i64>(4)), (0, 0));
    assert!(!row.get::<_, bool>(5));
    assert_eq!(row.get::<_, &str>(6), "inactive");
    assert!(row.get::<_, bool>(7));
}

#[test]
fn a_forgotten_user_leaves_the_numbers_of_the_feed_but_no_id() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut listener = database.listen();
    let (user, other) = (Uuid::new_v4(), Uuid::new_v4());
    service.start(user);
    listener.wait_for(user, &["active"]);
    service.start(other);
    listener.wait_for(other, &["active"]);

    let sql = "SELECT presence.forget_user($1)";
    assert!(service.query_one(sql, &[&user]).unwrap().get::<_, bool>(0));
    assert!(!service.query_one(sql, &[&Uuid::new_v4()]).unwrap().get::<_, bool>(0));
    assert!(!service.is_online(user));
    let sql = "SELECT (SELECT count(*) FROM presence.user_sessions WHERE user_id = $1),
                      (SELECT count(*) FROM presence.user_presence WHERE user_id = $1),
                      (SELECT count(*) FROM presence.presence_changes WHERE user_id = $1),
                      (SELECT count(*) FROM presence.presence_changes WHERE seq = 1)";
    let row = service.query_one(sql, &[&user]).unwrap();
    let counts: Vec<i64> = (0..4).map(|i| row.get(i)).collect();
    assert_eq!(counts, [0, 0, 0, 1]);
    assert!(service.is_online(other));
}

#[test]
fn a_user_signed_out_and_forgotten_at_once_stays_forgotten() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let [ended, held] = [(); 2].map(|()| Uuid::new_v4());
    service.start(ended);
    service.wait_for_written(ended, true);
    let sql = "SELECT presence.end_user_sessions($1), presence.forget_user($1)";
    service.execute(sql, &[&ended]).unwrap();

    // The worker finds the user's row locked, and tries again later.
    service.start(held);
    service.wait_for_written(held, true);
    let mut slow = database.connect();
    let mut transaction = slow.transaction().unwrap();
    transaction.execute(sql, &[&held]).unwrap();
    service
        .execute("SELECT presence.end_user_sessions($1)", &[&ended])
        .unwrap();
    database.assert_served();
    transaction.commit().unwrap();

    // Changes are written in order, so this one comes last.
    database.assert_served();
    let sql = "SELECT count(*) FROM presence.user_presence WHERE user_id = ANY ($1)";
    let kept = service.query_one(sql, &[&vec![ended, held]]).unwrap();
    assert_eq!(kept.get::<_, i64>(0), 0);
}

#[test]
fn users_offline_past_user_retention_are_forgotten_and_others_are_not() {
    let cluster = Cluster::private(&[
        // The shorter the timeout, the more often the worker cleans up.
        ("presence.active_timeout", "2s"),
        ("presence.heartbeat_interval", "1s"),
        ("presence.user_retention", "1s"),
    ]);
    let database = cluster.database();
    let mut client = database.connect();
    let [gone, online, silent] = [(); 3].map(|()| Uuid::new_v4());
    let left = client.start(gone);
    let there = client.start(online);
    client.start(silent);
    assert!(client.end(left.id));
    let written = "SELECT count(*) FROM presence.user_presence WHERE is_online = (user_id = $1)";
    wait_until("all three to be written", || {
        client.beat(there.id);
        client.query_one(written, &[&online]).unwrap().get::<_, i64>(0) == 3
    });
    // As long as a session is kept, so is its user.
    client
        .execute("DELETE FROM presence.user_sessions WHERE user_id = $1", &[&gone])
        .unwrap();
    let known = "SELECT array_agg(user_id ORDER BY user_id) FROM presence.user_presence";
    let mut kept = vec![online, silent];
    kept.sort();
    wait_until("the user without sessions to be forgotten", || {
        client.query_one(known, &[]).unwrap().get::<_, Vec<Uuid>>(0) == kept
    });
}

#[test]
fn a_forgotten_user_is_a_stranger_though_a_session_was_bound() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    let (mut service, mut gateway) = (database.connect(), database.connect());
    let user = Uuid::new_v4();
    let session = service.start(user);
    service.wait_for_written(user, true);
    let bind = "SELECT presence.bind_sessions(ARRAY[$1::uuid])";
    gateway.execute(bind, &[&session.id]).unwrap();
    let worker = database.pause_worker();
    service
        .batch_execute(&format!(
            "BEGIN; TRUNCATE presence.user_sessions; SELECT presence.forget_user('{user}'); COMMIT"
        ))
        .unwrap();
    let sql = "SELECT presence.last_seen($1) IS NULL";
    let is_stranger = |client: &mut Client| -> bool { client.query_one(sql, &[&user]).unwrap().get(0) };
    assert!(is_stranger(&mut service));
    worker.resume();
    database.assert_served();
    assert!(is_stranger(&mut service));
}

#[test]
fn a_forgotten_user_is_a_stranger_at_once() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let last_seen = |client: &mut Client, user: Uuid| -> [Option<String>; 2] {
        let sql = "SELECT presence.last_seen($1)::text, (SELECT last_seen::text FROM presence.presence_of(ARRAY[$1]))";
        let row = client.query_one(sql, &[&user]).unwrap();
        [row.get(0), row.get(1)]
    };
    for _ in 0..20 {
        let user = Uuid::new_v4();
        let session = service.start(user);
        let mut transaction = service.transaction().unwrap();
        transaction
            .query_one("SELECT presence.forget_user($1)", &[&user])
            .unwrap();
        transaction.rollback().unwrap();
        assert!(last_seen(&mut service, user)[0].is_some());
        assert_eq!(service.beat(session.id), "ok");
        service.query_one("SELECT presence.forget_user($1)", &[&user]).unwrap();
        assert_eq!(last_seen(&mut service, user), [None, None]);
    }
}
