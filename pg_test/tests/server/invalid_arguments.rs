//! Invalid values in every argument: a clear error or the documented answer, and a connection that survives.

use pg_presence_test::{Cluster, Presence, assert_refused, error_of, error_text, wait_until};
use postgres::Client;
use postgres::error::SqlState;
use uuid::Uuid;

fn text(client: &mut Client, call: &str) -> Option<String> {
    let sql = format!("SELECT (presence.{call})::text");
    client
        .query_one(&sql, &[])
        .unwrap_or_else(|error| panic!("{call}: {error:?}"))
        .get(0)
}

fn rows(client: &mut Client, call: &str) -> usize {
    let sql = format!("SELECT FROM presence.{call}");
    client
        .query(&sql, &[])
        .unwrap_or_else(|error| panic!("{call}: {error:?}"))
        .len()
}

fn refuse(client: &mut Client, call: &str, state: &SqlState) {
    let sql = format!("SELECT presence.{call}");
    let result = client.query(&sql, &[]);
    assert!(result.is_err(), "{call} should have been refused");
    assert_refused(result, state);
}

#[test]
fn null_and_empty_arguments_return_the_documented_answers() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for (call, answer) in [
        ("heartbeat(NULL)", Some("unknown")),
        ("heartbeat_by_token(NULL)", Some("unknown")),
        ("heartbeat_idle(NULL)", Some("unknown")),
        ("heartbeat_idle_by_token(NULL)", Some("unknown")),
        ("heartbeat_many(NULL)", Some("{}")),
        ("heartbeat_many('{}')", Some("{}")),
        ("heartbeat_many('{NULL,NULL}')", Some("{}")),
        ("end_session(NULL)", Some("false")),
        ("end_session_by_token(NULL)", Some("false")),
        ("end_sessions(NULL)", Some("0")),
        ("end_sessions('{}')", Some("0")),
        ("end_sessions('{NULL}')", Some("0")),
        ("release_session(NULL)", Some("false")),
        ("release_session_by_token(NULL)", Some("false")),
        ("release_sessions(NULL)", Some("0")),
        ("release_sessions('{NULL}')", Some("0")),
        ("bind_sessions(NULL)", Some("{}")),
        ("bind_sessions('{NULL}')", Some("{}")),
        ("rotate_session_token(NULL)", None),
        ("user_status(NULL)", Some("inactive")),
        ("is_online(NULL)", Some("false")),
        ("last_seen(NULL)", None),
        ("forget_user(NULL)", Some("false")),
        ("clear_status(NULL, gen_random_uuid())", Some("false")),
    ] {
        assert_eq!(text(&mut service, call).as_deref(), answer, "{call}");
    }
    for call in [
        "presence_of(NULL)",
        "presence_of('{}')",
        "presence_of('{NULL}')",
        "changes_since(NULL)",
        "changes_since(NULL, 'x', 1)",
        "changes_since(0, NULL, NULL)",
        "start_sessions('{}')",
    ] {
        assert_eq!(rows(&mut service, call), 0, "{call}");
    }
}

#[test]
fn a_client_gets_the_same_answers_to_null_and_empty_arguments() {
    let database = Cluster::shared().database();
    let mut client = database.connect_as(&database.client());
    for claims in ["", r#"{"sub":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}"#] {
        client.claim(claims);
        assert_eq!(text(&mut client, "heartbeat(NULL)").unwrap(), "unknown");
        assert_eq!(text(&mut client, "heartbeat_many('{NULL}')").unwrap(), "{}");
        assert_eq!(text(&mut client, "end_session(NULL)").unwrap(), "false");
        assert_eq!(text(&mut client, "end_sessions('{}')").unwrap(), "0");
        assert_eq!(text(&mut client, "release_session(NULL)").unwrap(), "false");
        assert_eq!(text(&mut client, "is_online(NULL)").unwrap(), "false");
        assert_eq!(text(&mut client, "user_status(NULL)").unwrap(), "inactive");
        assert_eq!(text(&mut client, "rotate_session_token(NULL)"), None);
    }
}

#[test]
fn a_missing_required_argument_is_refused() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for call in [
        "start_session()",
        "start_session(NULL, NULL, NULL, NULL, NULL, NULL)",
        "start_session(auth_id => gen_random_uuid())",
        "start_sessions(NULL)",
        "start_sessions('{NULL}')",
        "start_sessions(ARRAY[gen_random_uuid(), NULL])",
        "end_user_sessions()",
        "end_user_sessions(NULL)",
        "release_session(gen_random_uuid(), NULL)",
        "release_sessions('{}', NULL)",
        "bind_sessions('{}', NULL)",
        "release_session_by_token('x', NULL)",
    ] {
        refuse(&mut service, call, &SqlState::INVALID_PARAMETER_VALUE);
    }
}

#[test]
fn an_invalid_interval_is_refused() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for interval in [
        "0",
        "-1 s",
        "-1 day",
        "1 day -25 hours",
        "-178000000 years",
        "1 month -60 days",
    ] {
        for call in [
            format!("start_session(gen_random_uuid(), lifetime => '{interval}')"),
            format!("release_session(gen_random_uuid(), '{interval}')"),
            format!("release_session_by_token('unknown', '{interval}')"),
            format!("release_sessions(NULL, '{interval}')"),
            format!("bind_sessions(NULL, '{interval}')"),
        ] {
            refuse(&mut service, &call, &SqlState::INVALID_PARAMETER_VALUE);
        }
    }
    for call in [
        "start_session(gen_random_uuid(), lifetime => '178000000 years')",
        "start_session(gen_random_uuid(), lifetime => '2147483647 months 2147483647 days')",
        "start_session(gen_random_uuid(), lifetime => '11 years')",
        "release_session(gen_random_uuid(), '2 days')",
        "bind_sessions(NULL, '2 days')",
        "release_session(gen_random_uuid(), '178000000 years')",
    ] {
        refuse(&mut service, call, &SqlState::INVALID_PARAMETER_VALUE);
    }
    for lifetime in ["1 microsecond", "10 years", "1 month", "119 months 30 days"] {
        let call = format!("start_session(gen_random_uuid(), lifetime => '{lifetime}')");
        assert!(text(&mut service, &call).is_some(), "{lifetime}");
    }
}

#[test]
fn a_key_must_be_valid_and_match_its_user() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for call in [
        "start_session(user_key => '')".to_owned(),
        format!("start_session(user_key => '{}')", "x".repeat(513)),
        "start_session(gen_random_uuid(), user_key => 'a')".to_owned(),
        "start_session(presence.presence_id(42), user_key => '43')".to_owned(),
    ] {
        refuse(&mut service, &call, &SqlState::INVALID_PARAMETER_VALUE);
    }
    for call in [
        format!("start_session(user_key => '{}')", "x".repeat(512)),
        "start_session(presence.presence_id(42), user_key => '42')".to_owned(),
        "start_session(presence.presence_id('a'), user_key => 'a')".to_owned(),
    ] {
        assert!(text(&mut service, &call).is_some(), "{call}");
    }
}

#[test]
fn the_feed_is_read_from_a_valid_cursor_only() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for call in [
        "changes_since(0, max_rows => 0)",
        "changes_since(0, max_rows => -1)",
        "changes_since(NULL, NULL, 0)",
    ] {
        refuse(&mut service, call, &SqlState::INVALID_PARAMETER_VALUE);
    }
    for call in [
        "changes_since(-1)",
        "changes_since(-9223372036854775808)",
        "changes_since(0, 'another epoch')",
        "changes_since(0, '')",
        "changes_since(9223372036854775807, 'another epoch')",
        "changes_since(9223372036854775807)",
    ] {
        refuse(&mut service, call, &SqlState::SNAPSHOT_TOO_OLD);
    }
    // A replica that lags answers so.
    let same_epoch = "changes_since(9223372036854775807, (presence.presence_cursor()).epoch)";
    assert_eq!(rows(&mut service, same_epoch), 0);
    assert_eq!(rows(&mut service, "changes_since(0, max_rows => 2147483647)"), 0);
}

#[test]
fn arrays_of_any_shape_are_accepted() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let a = service.start(user).id;
    let b = service.start(user).id;
    let unknown = Uuid::new_v4();
    for (ids, missed) in [
        (
            format!("ARRAY[ARRAY['{a}', '{b}'], ARRAY['{unknown}', NULL]]::uuid[]"),
            format!("{{{unknown}}}"),
        ),
        (
            format!("'[5:7]={{{a},{unknown},{b}}}'::uuid[]"),
            format!("{{{unknown}}}"),
        ),
        (format!("ARRAY['{a}', NULL, '{b}', '{a}']::uuid[]"), "{}".to_owned()),
        (
            format!("(ARRAY['{unknown}', '{a}', '{b}']::uuid[])[2:3]"),
            "{}".to_owned(),
        ),
        (
            "(SELECT array_agg(id) FROM presence.user_sessions)".to_owned(),
            "{}".to_owned(),
        ),
        // Compressed and stored out of line in a table.
        (
            format!("(SELECT ids FROM stored WHERE '{a}' = ANY (ids))"),
            "{}".to_owned(),
        ),
    ] {
        service
            .batch_execute(&format!(
                "CREATE TEMPORARY TABLE IF NOT EXISTS stored (ids uuid[]);
                 TRUNCATE stored;
                 INSERT INTO stored SELECT array_agg('{a}'::uuid) FROM generate_series(1, 10000)"
            ))
            .unwrap();
        assert_eq!(
            text(&mut service, &format!("heartbeat_many({ids})")).unwrap(),
            missed,
            "{ids}"
        );
    }
    let shape = format!("ARRAY[ARRAY['{user}'], ARRAY['{unknown}'], ARRAY['{user}']]::uuid[]");
    assert_eq!(rows(&mut service, &format!("presence_of({shape})")), 2);
    assert_eq!(rows(&mut service, &format!("start_sessions({shape})")), 3);
}

#[test]
fn huge_arrays_are_accepted() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let many = "(SELECT array_agg(gen_random_uuid()) FROM generate_series(1, 200000))";
    for call in [
        format!("cardinality(presence.heartbeat_many({many}))"),
        format!("presence.end_sessions({many}) + 200000"),
        format!("presence.release_sessions({many}) + 200000"),
        format!("(SELECT count(*) FROM presence.presence_of({many}))::integer"),
    ] {
        let sql = format!("SELECT {call}");
        assert_eq!(
            service.query_one(&sql, &[]).unwrap().get::<_, i32>(0),
            200_000,
            "{call}"
        );
    }
}

#[test]
fn a_token_may_be_any_text() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    for token in [
        "",
        "'; DROP TABLE users; --",
        "🟢🟢🟢🟢🟢🟢",
        &"é".repeat(256),
        &"x".repeat(100_000),
    ] {
        assert_eq!(service.beat_by_token(token), "unknown");
        let sql = "SELECT presence.end_session_by_token($1), presence.release_session_by_token($1)";
        let row = service.query_one(sql, &[&token]).unwrap();
        assert!(!row.get::<_, bool>(0) && !row.get::<_, bool>(1));
        let sql = "SELECT FROM presence.start_session($1, session_token => $2)";
        let started = service.query_one(sql, &[&user, &token]);
        if (22..=512).contains(&token.len()) {
            started.unwrap();
            assert_eq!(service.beat_by_token(token), "ok");
        } else {
            assert_refused(started, &SqlState::INVALID_PARAMETER_VALUE);
        }
    }
}

#[test]
fn metadata_is_measured_as_it_is_stored() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let sql = "SELECT FROM presence.start_session($1, metadata => jsonb_build_object('a', repeat('x', $2)))";
    for size in [1, 1000, 8000] {
        service.query_one(sql, &[&user, &size]).unwrap();
    }
    for size in [8200, 1_000_000] {
        assert_refused(
            service.query_one(sql, &[&user, &size]),
            &SqlState::INVALID_PARAMETER_VALUE,
        );
    }
    for metadata in ["[]", "1", "\"a\"", "null", "true"] {
        let call = format!("start_sessions(ARRAY[gen_random_uuid()], metadata => ARRAY['{metadata}'::jsonb])");
        refuse(&mut service, &call, &SqlState::INVALID_PARAMETER_VALUE);
    }
}

#[test]
fn null_in_every_argument_is_answered_or_refused() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let sql = "SELECT p.oid::regproc::text || '(' ||
                      (SELECT string_agg('NULL::' || format_type(t, NULL), ', ') FROM unnest(p.proargtypes) t) || ')'
               FROM pg_proc p WHERE pronamespace = 'presence'::regnamespace AND pronargs > 0 ORDER BY 1";
    for row in service.query(sql, &[]).unwrap() {
        let call: &str = row.get(0);
        if let Err(error) = service.batch_execute(&format!("SELECT {call}")) {
            let error = error
                .as_db_error()
                .unwrap_or_else(|| panic!("{call} breaks the connection: {error:?}"));
            assert_eq!(error.code(), &SqlState::INVALID_PARAMETER_VALUE, "{call}: {error:?}");
            assert!(error.detail().or(error.hint()).is_some(), "{call}: {error:?}");
        }
    }
}

#[test]
fn malformed_ids_are_refused_by_postgresql() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for call in [
        "heartbeat('x')",
        "is_online('')",
        "end_session('{')",
        "presence_of('{x}')",
    ] {
        let error = service.batch_execute(&format!("SELECT presence.{call}")).unwrap_err();
        assert!(error.as_db_error().is_some(), "{error:?}");
    }
    service.batch_execute("SELECT 1").unwrap();
}

#[test]
fn times_at_infinity_by_plain_sql_break_nothing() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let sql = "INSERT INTO presence.user_sessions (user_id, auth_id, last_activity, created_at, expires_at)
               SELECT u, u, $1::text::timestamptz, $2::text::timestamptz, $3::text::timestamptz
               FROM (SELECT gen_random_uuid() u) s RETURNING user_id, id";
    for activity in [
        "infinity",
        "-infinity",
        "4714-11-24 00:00:00+00 BC",
        "294276-12-31 23:59:59+00",
        "now",
    ] {
        for expiry in ["infinity", "-infinity", "294276-12-31 23:59:59+00", "now"] {
            match service.query_one(sql, &[&activity, &"-infinity", &expiry]) {
                Ok(row) => {
                    let (user, session): (Uuid, Uuid) = (row.get(0), row.get(1));
                    service.is_online(user);
                    service.beat(session);
                    service
                        .query("SELECT * FROM presence.presence_of(ARRAY[$1::uuid])", &[&user])
                        .unwrap();
                    service
                        .execute("SELECT presence.last_seen($1)::text", &[&user])
                        .unwrap();
                    service.end(session);
                    assert!(!service.is_online(user), "{activity} {expiry}");
                }
                Err(error) => assert!(error.as_db_error().is_some(), "{error:?}"),
            }
        }
    }
    let user = Uuid::new_v4();
    service.start(user);
    wait_until("the worker survives", || {
        let sql = "SELECT count(*) FROM presence.user_presence WHERE user_id = $1 AND is_online";
        service.query_one(sql, &[&user]).unwrap().get::<_, i64>(0) == 1
    });
}

#[test]
fn an_error_has_no_backtrace_though_the_server_s_environment_asks_for_one() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    // Raised by a trigger, inside a statement of a function.
    let error = error_of(service.query("SELECT presence.start_session(user_key => '')", &[]));
    let text = error_text(&error);
    assert!(!text.contains(".rs") && !text.contains("backtrace"), "{text}");
    assert!(
        error.detail().is_none_or(|detail| detail.lines().count() == 1),
        "{text}"
    );
}
