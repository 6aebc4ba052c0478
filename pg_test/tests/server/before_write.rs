//! Rows written into `user_sessions` by plain SQL: what is stored as given, and what is corrected or refused.

use pg_presence_test::{Cluster, Presence, assert_refused, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use uuid::Uuid;

use crate::sql_updates::state;

#[test]
fn a_services_row_is_stored_as_given() {
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
    assert_eq!(row.get::<_, String>(0), "7", "an integer is read back from the id");
}

#[test]
fn a_services_raw_token_is_digested_and_works() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let token = "an old token of an application's";
    let sql = "INSERT INTO presence.user_sessions (user_id, session_token) VALUES (gen_random_uuid(), $1)
               RETURNING id, session_token = presence.token_digest($1)";
    let row = service.query_one(sql, &[&token]).unwrap();
    assert!(row.get::<_, bool>(1));
    assert_eq!(service.beat_by_token(token), "ok");
    service.update_session("session_token = 'another old token of an application''s'", row.get(0));
    assert_eq!(service.beat_by_token(token), "unknown");
    assert_eq!(service.beat_by_token("another old token of an application's"), "ok");
}

#[test]
fn last_activity_is_never_in_the_future() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let sql = "INSERT INTO presence.user_sessions (user_id, last_activity)
               VALUES (gen_random_uuid(), now() + interval '1 year') RETURNING id, last_activity <= clock_timestamp()";
    let row = service.query_one(sql, &[]).unwrap();
    assert!(row.get::<_, bool>(1));
    let id: Uuid = row.get(0);
    service.update_session("last_activity = 'infinity'", id);
    let sql = "SELECT last_activity <= clock_timestamp() FROM presence.user_sessions WHERE id = $1";
    assert!(service.query_one(sql, &[&id]).unwrap().get::<_, bool>(0));
}

#[test]
fn a_digest_is_of_no_use_to_a_client() {
    let database = Cluster::shared().database();
    let session = database.connect().start(Uuid::new_v4());
    let me = Uuid::new_v4();
    let mut client = database.connect_as(&database.client());
    client.act_for(me);
    let sql = "INSERT INTO presence.user_sessions (session_token) VALUES (presence.token_digest($1))
               RETURNING session_token <> presence.token_digest($1)";
    let row = client.query_one(sql, &[&session.token]).unwrap();
    assert!(row.get::<_, bool>(0), "a client's token is always digested");
    assert_eq!(database.connect().beat_by_token(&session.token), "ok");
}

#[test]
fn invalid_values_are_refused_with_a_hint() {
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
        let sql = format!("INSERT INTO presence.user_sessions (user_id, metadata) VALUES ($1, '{metadata}')");
        assert_refused(service.execute(&sql, &[&Uuid::new_v4()]), invalid);
        let sql = format!("INSERT INTO presence.user_sessions (metadata) VALUES ('{metadata}')");
        assert_refused(client.execute(&sql, &[]), invalid);
        let sql = format!("UPDATE presence.user_sessions SET metadata = '{metadata}' WHERE id = $1");
        let own = client.start_own().id;
        assert_refused(client.execute(&sql, &[&own]), invalid);
    }
    for values in [
        "(user_id, user_key) VALUES (gen_random_uuid(), 'somebody else')",
        "(user_key) VALUES ('')",
        "(metadata) VALUES ('{}')",
    ] {
        assert_refused(
            service.execute(&format!("INSERT INTO presence.user_sessions {values}"), &[]),
            invalid,
        );
    }
    for values in [
        "(session_token) VALUES ('short')",
        "(session_token) VALUES (repeat('x', 513))",
        "(expires_at) VALUES ('-infinity')",
    ] {
        assert_refused(
            client.execute(&format!("INSERT INTO presence.user_sessions {values}"), &[]),
            invalid,
        );
    }
}

#[test]
fn replicated_rows_are_stored_unchanged_and_count() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    service.batch_execute("SET session_replication_role = replica").unwrap();
    let sql = "INSERT INTO presence.user_sessions (user_id, auth_id, user_key, expires_at, session_token)
               VALUES ($1, $1, 'not this user''s key', 'infinity', 'sha256:' || repeat('0b', 32)) RETURNING id, user_key";
    let row = service.query_one(sql, &[&user]).unwrap();
    assert_eq!(row.get::<_, &str>(1), "not this user's key");
    assert!(service.is_online(user));
    // Replicated as false without ended_at: timed out.
    service.update_session("is_active = false", row.get(0));
    assert_eq!(state(&mut service, row.get(0)), (false, true));
    wait_until("the change is written", || {
        let sql = "SELECT count(*) FROM presence.user_presence WHERE user_id = $1 AND NOT is_online";
        service.query_one(sql, &[&user]).unwrap().get::<_, i64>(0) == 1
    });
}

#[test]
fn nothing_but_a_digest_is_stored_even_where_rows_are_not_corrected() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    service.batch_execute("SET session_replication_role = replica").unwrap();
    let sql = "INSERT INTO presence.user_sessions (user_id, auth_id, expires_at, session_token)
               VALUES (gen_random_uuid(), gen_random_uuid(), 'infinity', $1)";
    let digits = "0123456789abcdef".repeat(4);
    let near = [
        String::new(),
        digits.clone(),
        format!("sha256{digits}"),
        format!("sha256:{}", digits.to_uppercase()),
        format!("sha256:{}", &digits[1..]),
        format!("sha256:{digits}0"),
        format!("sha256:{digits}\n"),
        format!("sha256:{}g", &digits[1..]),
        format!("sha256:g{}", &digits[1..]),
        format!("sha256: {}", &digits[1..]),
        format!("sha256::{}", &digits[1..]),
        format!("sha256:{}:{}", &digits[..32], &digits[..31]),
        format!("sha256:{}", "é".repeat(32)),
        format!("sha224:{digits}"),
        format!("SHA256:{digits}"),
        "a".repeat(71),
    ];
    for text in near {
        assert_refused(service.execute(sql, &[&text]), &SqlState::CHECK_VIOLATION);
    }
    service.execute(sql, &[&format!("sha256:{digits}")]).unwrap();
}

#[test]
fn rows_loaded_by_copy_count_like_others() {
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
    assert_eq!(service.query_one(sql, &[&user]).unwrap().get::<_, i32>(0), 2);
}

#[test]
fn one_statement_cannot_start_more_sessions_than_a_client_may_have() {
    let database = Cluster::shared().database();
    let me = Uuid::new_v4();
    let mut client = database.connect_as(&database.client());
    client.act_for(me);
    let insert = |client: &mut Client, rows: i32| {
        let sql = "INSERT INTO presence.user_sessions (user_id) SELECT $1 FROM generate_series(1, $2)";
        client.execute(sql, &[&me, &rows])
    };
    assert_refused(insert(&mut client, 1001), &SqlState::CONFIGURATION_LIMIT_EXCEEDED);
    assert_eq!(insert(&mut client, 1000).unwrap(), 1000);
    assert_refused(insert(&mut client, 1), &SqlState::CONFIGURATION_LIMIT_EXCEEDED);
}

#[test]
fn user_presence_can_be_restored_after_the_sessions() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (user, gone) = (Uuid::new_v4(), Uuid::new_v4());
    service.start(user);
    let written = "SELECT status::text, last_seen::text FROM presence.user_presence WHERE user_id = $1";
    wait_until("the worker has written", || {
        service.query_opt(written, &[&user]).unwrap().is_some()
    });
    let before = service.query_one(written, &[&user]).unwrap().get::<_, String>(1);
    let sql = "INSERT INTO presence.user_presence (user_id, status, is_online, last_seen, changed_at, seq)
               VALUES ($1, 'inactive', false, '2020-01-01', '2020-01-01', 7),
                      ($2, 'inactive', false, '2020-01-01', '2020-01-01', 8)";
    assert_eq!(service.execute(sql, &[&user, &gone]).unwrap(), 1);
    let row = service.query_one(written, &[&user]).unwrap();
    assert_eq!((row.get(0), row.get(1)), ("active", before.as_str()));
    assert_eq!(
        service.query_one(written, &[&gone]).unwrap().get::<_, &str>(0),
        "inactive"
    );
}
