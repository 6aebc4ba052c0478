//! Plain SQL on `user_sessions`: what is taken as it is given, what is corrected, and what an UPDATE means.

use pg_presence_test::{Cluster, Presence, refused, wait_until};
use postgres::error::SqlState;
use postgres::{Client, Row};
use uuid::Uuid;

const STATE: &str = "SELECT is_active, ended_at IS NULL FROM presence.user_sessions WHERE id = $1";

/// `is_active`, and whether the session has not ended.
fn state(client: &mut Client, session: Uuid) -> (bool, bool) {
    let row = client.query_one(STATE, &[&session]).unwrap();
    (row.get(0), row.get(1))
}

fn update(client: &mut Client, change: &str, session: Uuid) {
    let sql = format!("UPDATE presence.user_sessions SET {change} WHERE id = $1");
    assert_eq!(client.execute(&sql, &[&session]).unwrap(), 1, "{change}");
}

/// A session that has timed out: so written by a service, which may.
fn timed_out(client: &mut Client, user: Uuid) -> Uuid {
    let sql = "INSERT INTO presence.user_sessions (user_id, is_active, last_activity, created_at)
               VALUES ($1, false, now() - interval '1 hour', now() - interval '2 hours') RETURNING id";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

/// Every column that a program writes back when it saves a whole row, with these two given.
fn save(is_active: &str, last_activity: &str) -> String {
    format!(
        "user_id = user_id, auth_id = auth_id, session_token = session_token, is_active = {is_active},
         last_activity = {last_activity}, created_at = created_at, expires_at = expires_at,
         metadata = '{{\"saved\": true}}'"
    )
}

#[test]
fn a_services_row_is_taken_as_it_is_given() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (id, user, auth) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let sql = "INSERT INTO presence.user_sessions
                   (id, user_id, auth_id, session_token, is_active, last_activity, created_at, expires_at, metadata)
               VALUES ($1, $2, $3, 'sha256:' || repeat('0a', 32), false, now() - interval '1 day',
                       now() - interval '3 days', now() + interval '1 year', '{\"a\": 1}')
               RETURNING *, last_activity = now() - interval '1 day', created_at = now() - interval '3 days',
                         expires_at = now() + interval '1 year', ended_at IS NULL";
    let row = service.query_one(sql, &[&id, &user, &auth]).unwrap();
    let ids = ["id", "user_id", "auth_id"].map(|column| row.get::<_, Uuid>(column));
    assert_eq!(ids, [id, user, auth]);
    let digest = format!("sha256:{}", "0a".repeat(32));
    assert_eq!(row.get::<_, String>("session_token"), digest);
    assert!(!row.get::<_, bool>("is_active"));
    assert!((11..15).all(|column| row.get::<_, bool>(column)), "{row:?}");
    assert!(!service.is_online(user));
}

#[test]
fn a_services_missing_values_are_filled_in() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let sql = "INSERT INTO presence.user_sessions
                   (id, user_key, session_token, is_active, last_activity, created_at, expires_at, metadata)
               VALUES (NULL, $1, NULL, NULL, NULL, NULL, NULL, NULL)
               RETURNING *, user_id = presence.presence_id($1), expires_at - created_at BETWEEN
                   interval '6 days 23:59' AND interval '7 days 00:01', metadata = '{}'";
    for key in ["42", "auth0|abc"] {
        let row = service.query_one(sql, &[&key]).unwrap();
        assert!((11..14).all(|column| row.get::<_, bool>(column)), "{row:?}");
        assert_eq!(row.get::<_, Uuid>("auth_id"), row.get::<_, Uuid>("user_id"));
        assert_eq!(row.get::<_, String>("session_token").len(), 71);
        assert!(service.is_online(row.get("user_id")));
    }
    let sql = "INSERT INTO presence.user_sessions (user_id) VALUES (presence.presence_id(7)) RETURNING user_key";
    let row = service.query_one(sql, &[]).unwrap();
    assert_eq!(
        row.get::<_, String>(0),
        "7",
        "an integer is read back from the id"
    );
}

#[test]
fn a_services_raw_token_is_digested_and_works() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let token = "any old token of the seed's";
    let sql =
        "INSERT INTO presence.user_sessions (user_id, session_token) VALUES (gen_random_uuid(), $1)
               RETURNING id, session_token = presence.token_digest($1)";
    let row = service.query_one(sql, &[&token]).unwrap();
    assert!(row.get::<_, bool>(1));
    assert_eq!(service.beat_by_token(token), "ok");
    update(
        &mut service,
        "session_token = 'another old token of the seed''s'",
        row.get(0),
    );
    assert_eq!(service.beat_by_token(token), "unknown");
    assert_eq!(
        service.beat_by_token("another old token of the seed's"),
        "ok"
    );
}

#[test]
fn nobody_was_active_in_the_future() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let sql = "INSERT INTO presence.user_sessions (user_id, last_activity)
               VALUES (gen_random_uuid(), now() + interval '1 year') RETURNING id, last_activity <= clock_timestamp()";
    let row = service.query_one(sql, &[]).unwrap();
    assert!(row.get::<_, bool>(1));
    let id: Uuid = row.get(0);
    update(&mut service, "last_activity = 'infinity'", id);
    let sql = "SELECT last_activity <= clock_timestamp() FROM presence.user_sessions WHERE id = $1";
    assert!(service.query_one(sql, &[&id]).unwrap().get::<_, bool>(0));
}

#[test]
fn activity_never_goes_backwards() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4()).id;
    let sql = "SELECT last_activity::text FROM presence.user_sessions WHERE id = $1";
    let mut read = || -> String { service.query_one(sql, &[&session]).unwrap().get(0) };
    let before = read();
    let mut other = database.connect();
    update(
        &mut other,
        "last_activity = now() - interval '1 day'",
        session,
    );
    assert_eq!(read(), before);
}

#[test]
fn an_update_of_last_activity_resumes_who_timed_out() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for change in [
        "last_activity = now()",
        "is_active = true",
        "is_active = true, last_activity = now()",
    ] {
        let user = Uuid::new_v4();
        let session = timed_out(&mut service, user);
        assert!(!service.is_online(user));
        update(&mut service, change, session);
        assert_eq!(state(&mut service, session), (true, true), "{change}");
        assert!(service.is_online(user), "{change}");
    }
}

#[test]
fn setting_is_active_to_false_ends_for_good() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for change in [
        "is_active = false",
        "is_active = false, last_activity = now()",
    ] {
        let user = Uuid::new_v4();
        for session in [service.start(user).id, timed_out(&mut service, user)] {
            update(&mut service, change, session);
            assert_eq!(state(&mut service, session), (false, false), "{change}");
            assert_eq!(service.beat(session), "ended");
            update(
                &mut service,
                "is_active = true, last_activity = now()",
                session,
            );
            assert_eq!(
                service.beat(session),
                "ended",
                "by the same SQL it does not come back"
            );
        }
        assert!(!service.is_online(user));
    }
}

#[test]
fn metadata_alone_is_neither_beat_nor_end() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = timed_out(&mut service, user);
    update(&mut service, "metadata = '{\"page\": 2}'", session);
    assert_eq!(state(&mut service, session), (false, true));
    assert!(!service.is_online(user));
}

#[test]
fn saving_a_stale_copy_of_a_row_changes_nothing_but_what_was_meant() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();

    let silent = timed_out(&mut service, user);
    // Read while it was active, written back after its timeout.
    update(
        &mut service,
        &save("true", "last_activity - interval '1 s'"),
        silent,
    );
    assert_eq!(state(&mut service, silent), (false, true));
    // Read after its timeout: false is what it was, not what is meant.
    update(&mut service, &save("false", "last_activity"), silent);
    assert_eq!(state(&mut service, silent), (false, true));
    assert!(!service.is_online(user));

    let live = service.start(user).id;
    update(
        &mut service,
        &save("is_active", "last_activity - interval '1 s'"),
        live,
    );
    assert_eq!(state(&mut service, live), (true, true));
    // Read before its end.
    let ended = service.start(user).id;
    service.end(ended);
    update(
        &mut service,
        &format!("{}, ended_at = NULL", save("true", "now()")),
        ended,
    );
    assert_eq!(state(&mut service, ended), (false, false));
    // Here it is meant.
    update(&mut service, &save("false", "last_activity"), live);
    assert_eq!(state(&mut service, live), (false, false));
}

#[test]
fn a_client_that_keeps_milliseconds_can_save_a_whole_row() {
    let database = Cluster::shared().database();
    let mut client = database.connect_as(&database.client());
    client.act_for(Uuid::new_v4());
    let session = client.start_own().id;
    update(
        &mut client,
        "created_at = date_trunc('milliseconds', created_at), expires_at = date_trunc('milliseconds', expires_at),
         last_activity = date_trunc('milliseconds', last_activity), metadata = '{\"saved\": true}'",
        session,
    );
    assert_eq!(client.beat(session), "ok");
}

#[test]
fn a_client_ends_and_beats_by_plain_sql() {
    let database = Cluster::shared().database();
    let me = Uuid::new_v4();
    let mut client = database.connect_as(&database.client());
    client.act_for(me);
    let mut insert = || -> Row {
        let sql = "INSERT INTO presence.user_sessions (user_id, session_token)
                   VALUES ($1, 'a token that the client makes ' || gen_random_uuid()) RETURNING id";
        client.query_one(sql, &[&me]).unwrap()
    };
    let (first, second): (Uuid, Uuid) = (insert().get(0), insert().get(0));
    update(&mut client, "last_activity = '1999-01-01'", first);
    let sql = "SELECT last_activity > now() - interval '1 minute' FROM presence.user_sessions WHERE id = $1";
    assert!(client.query_one(sql, &[&first]).unwrap().get::<_, bool>(0));
    update(&mut client, "is_active = false", first);
    assert!(client.is_online(me), "another session is left");
    update(&mut client, "is_active = false", second);
    assert!(!client.is_online(me));
}

#[test]
fn a_client_can_make_no_use_of_a_digest_it_has_read() {
    let database = Cluster::shared().database();
    let session = database.connect().start(Uuid::new_v4());
    let me = Uuid::new_v4();
    let mut client = database.connect_as(&database.client());
    client.act_for(me);
    let sql =
        "INSERT INTO presence.user_sessions (session_token) VALUES (presence.token_digest($1))
               RETURNING session_token <> presence.token_digest($1)";
    let row = client.query_one(sql, &[&session.token]).unwrap();
    assert!(row.get::<_, bool>(0), "a client's token is always digested");
    assert_eq!(database.connect().beat_by_token(&session.token), "ok");
}

#[test]
fn values_that_make_no_sense_are_refused_with_what_to_do() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let mut client = database.connect_as(&database.client());
    client.act_for(Uuid::new_v4());
    let invalid = &SqlState::INVALID_PARAMETER_VALUE;
    for metadata in [
        "[]",
        "1",
        "null",
        "\"a\"",
        &format!("{{\"a\": \"{}\"}}", "x".repeat(9000)),
    ] {
        let sql = format!(
            "INSERT INTO presence.user_sessions (user_id, metadata) VALUES ($1, '{metadata}')"
        );
        refused(service.execute(&sql, &[&Uuid::new_v4()]), invalid);
        let sql = format!("INSERT INTO presence.user_sessions (metadata) VALUES ('{metadata}')");
        refused(client.execute(&sql, &[]), invalid);
        let sql =
            format!("UPDATE presence.user_sessions SET metadata = '{metadata}' WHERE id = $1");
        let own = client.start_own().id;
        refused(client.execute(&sql, &[&own]), invalid);
    }
    for values in [
        "(user_id, user_key) VALUES (gen_random_uuid(), 'somebody else')",
        "(user_key) VALUES ('')",
        "(metadata) VALUES ('{}')",
    ] {
        refused(
            service.execute(&format!("INSERT INTO presence.user_sessions {values}"), &[]),
            invalid,
        );
    }
    for values in [
        "(session_token) VALUES ('short')",
        "(session_token) VALUES (repeat('x', 513))",
        "(expires_at) VALUES ('-infinity')",
    ] {
        refused(
            client.execute(&format!("INSERT INTO presence.user_sessions {values}"), &[]),
            invalid,
        );
    }
}

#[test]
fn a_users_key_and_id_stay_one() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4()).id;
    let sql = "SELECT user_id = presence.presence_id(user_key), user_key FROM presence.user_sessions WHERE id = $1";
    update(&mut service, "user_key = 'ana'", session);
    let row = service.query_one(sql, &[&session]).unwrap();
    assert_eq!(
        (row.get(0), row.get::<_, Option<&str>>(1)),
        (Some(true), Some("ana"))
    );
    update(&mut service, "user_id = presence.presence_id(42)", session);
    let row = service.query_one(sql, &[&session]).unwrap();
    assert_eq!(
        (row.get(0), row.get::<_, Option<&str>>(1)),
        (Some(true), Some("42"))
    );
    let sql = "UPDATE presence.user_sessions SET user_id = gen_random_uuid(), user_key = 'bo' WHERE id = $1";
    refused(
        service.execute(sql, &[&session]),
        &SqlState::INVALID_PARAMETER_VALUE,
    );
}

#[test]
fn replicated_rows_are_left_alone_and_count() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    service
        .batch_execute("SET session_replication_role = replica")
        .unwrap();
    let sql = "INSERT INTO presence.user_sessions (user_id, auth_id, user_key, expires_at, session_token)
               VALUES ($1, $1, 'not this user''s key', 'infinity', 'sha256:' || repeat('0b', 32)) RETURNING id, user_key";
    let row = service.query_one(sql, &[&user]).unwrap();
    assert_eq!(row.get::<_, &str>(1), "not this user's key");
    assert!(service.is_online(user));
    // An apply worker brings false with no end: timed out.
    update(&mut service, "is_active = false", row.get(0));
    assert_eq!(state(&mut service, row.get(0)), (false, true));
    wait_until("the change is written", || {
        let sql =
            "SELECT count(*) FROM presence.user_presence WHERE user_id = $1 AND NOT is_online";
        service.query_one(sql, &[&user]).unwrap().get::<_, i64>(0) == 1
    });
}

#[test]
fn rows_copied_in_bulk_count_like_others() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let mut copy = service
        .copy_in("COPY presence.user_sessions (user_id) FROM STDIN")
        .unwrap();
    std::io::Write::write_all(&mut copy, format!("{user}\n{user}\n").as_bytes()).unwrap();
    assert_eq!(copy.finish().unwrap(), 2);
    assert!(service.is_online(user));
    let sql = "SELECT session_count FROM presence.presence_of(ARRAY[$1::uuid])";
    assert_eq!(
        service.query_one(sql, &[&user]).unwrap().get::<_, i32>(0),
        2
    );
}

#[test]
fn one_statement_cannot_start_more_sessions_than_a_client_may_have() {
    let database = Cluster::shared().database();
    let me = Uuid::new_v4();
    let mut client = database.connect_as(&database.client());
    client.act_for(me);
    let insert = |client: &mut Client, rows: i32| {
        let sql =
            "INSERT INTO presence.user_sessions (user_id) SELECT $1 FROM generate_series(1, $2)";
        client.execute(sql, &[&me, &rows])
    };
    refused(
        insert(&mut client, 1001),
        &SqlState::CONFIGURATION_LIMIT_EXCEEDED,
    );
    assert_eq!(insert(&mut client, 1000).unwrap(), 1000);
    refused(
        insert(&mut client, 1),
        &SqlState::CONFIGURATION_LIMIT_EXCEEDED,
    );
}

#[test]
fn presence_can_be_restored_after_the_sessions() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (user, gone) = (Uuid::new_v4(), Uuid::new_v4());
    service.start(user);
    let written =
        "SELECT status::text, last_seen::text FROM presence.user_presence WHERE user_id = $1";
    wait_until("the worker has written", || {
        service.query_opt(written, &[&user]).unwrap().is_some()
    });
    let before = service
        .query_one(written, &[&user])
        .unwrap()
        .get::<_, String>(1);
    let sql = "INSERT INTO presence.user_presence (user_id, status, is_online, last_seen, changed_at, seq)
               VALUES ($1, 'inactive', false, '2020-01-01', '2020-01-01', 7),
                      ($2, 'inactive', false, '2020-01-01', '2020-01-01', 8)";
    assert_eq!(service.execute(sql, &[&user, &gone]).unwrap(), 1);
    let row = service.query_one(written, &[&user]).unwrap();
    assert_eq!((row.get(0), row.get(1)), ("active", before.as_str()));
    assert_eq!(
        service
            .query_one(written, &[&gone])
            .unwrap()
            .get::<_, &str>(0),
        "inactive"
    );
}
