//! Many sessions or users in one call: positions, keys, tokens and metadata.

use pg_presence_test::{Cluster, Presence, assert_refused};
use postgres::{Client, error::SqlState};
use uuid::Uuid;

const INVALID: &SqlState = &SqlState::INVALID_PARAMETER_VALUE;

/// The rows of a call of start_sessions, each as user and session.
fn started(client: &mut Client, arguments: &str) -> Vec<(Uuid, Option<Uuid>)> {
    let sql = format!("SELECT user_id, session_id FROM presence.start_sessions({arguments})");
    let rows = client.query(&sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn sessions(client: &mut Client) -> i64 {
    let count = "SELECT count(*) FROM presence.user_sessions";
    client.query_one(count, &[]).unwrap().get(0)
}

#[test]
fn users_of_a_batch_may_be_named_by_key() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let rows = started(&mut service, "user_keys => '{42,auth0|abc}'");
    let sql = "SELECT user_id, user_key FROM presence.user_sessions ORDER BY user_key";
    let stored = service.query(sql, &[]).unwrap();
    let stored: Vec<(Uuid, &str)> = stored.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(stored, [(rows[0].0, "42"), (rows[1].0, "auth0|abc")]);
    for (_, session) in rows {
        assert_eq!(service.beat(session.unwrap()), "ok");
    }
}

#[test]
fn a_position_may_name_its_user_by_id_or_by_key() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let both = format!("user_ids => ARRAY['{user}', NULL]::uuid[], user_keys => ARRAY[NULL, '7']");
    let rows = started(&mut service, &both);
    assert_eq!(rows[0].0, user);
    let seven = service.query_one("SELECT presence.presence_id(7)", &[]).unwrap();
    assert_eq!(rows[1].0, seven.get::<_, Uuid>(0));
}

#[test]
fn a_browser_that_reconnects_through_a_gateway_gets_its_session_back() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let batch = "user_keys => '{a,b,c}', session_tokens => ARRAY['token of a, 22 bytes at least', NULL,
                 'token of c, 22 bytes at least']";
    let first = started(&mut service, batch);
    let again = started(&mut service, batch);
    assert_eq!(first[0], again[0]);
    assert_ne!(first[1].1, again[1].1);
    assert_eq!(first[2], again[2]);
    assert_eq!(sessions(&mut service), 4);
    assert_eq!(service.beat_by_token("token of a, 22 bytes at least"), "ok");
}

#[test]
fn a_refused_token_is_a_null_session_and_stops_nobody_else() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let owned = started(
        &mut service,
        "user_keys => '{a}', session_tokens => '{the secret of the user a}'",
    );
    let ended = started(
        &mut service,
        "user_keys => '{b}', session_tokens => '{the secret of the user b}'",
    );
    assert!(service.end(ended[0].1.unwrap()));
    let rows = started(
        &mut service,
        "user_keys => '{thief,b,c}',
         session_tokens => '{the secret of the user a,the secret of the user b,the secret of the user c}'",
    );
    let refused: Vec<bool> = rows.iter().map(|(_, session)| session.is_none()).collect();
    assert_eq!(refused, [true, true, false]);
    assert_eq!(service.beat(owned[0].1.unwrap()), "ok");
    assert_eq!(sessions(&mut service), 3);
}

#[test]
fn one_token_twice_in_a_batch_is_one_session() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let rows = started(
        &mut service,
        "user_keys => '{a,a}', session_tokens => '{the secret of the user a,the secret of the user a}'",
    );
    assert_eq!(rows[0], rows[1]);
    assert_eq!(sessions(&mut service), 1);
}

#[test]
fn metadata_of_a_batch_is_for_each_position_or_for_all() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    started(
        &mut service,
        "user_keys => '{a,b}', metadata => ARRAY['{\"n\":1}', NULL]::jsonb[]",
    );
    started(
        &mut service,
        "user_keys => '{c,d}', metadata => ARRAY['{\"n\":2}']::jsonb[]",
    );
    let sql = "SELECT string_agg(user_key || metadata::text, ' ' ORDER BY user_key) FROM presence.user_sessions";
    let stored: String = service.query_one(sql, &[]).unwrap().get(0);
    assert_eq!(stored, r#"a{"n": 1} b{} c{"n": 2} d{"n": 2}"#);
}

#[test]
fn a_batch_with_one_bad_position_starts_nothing() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for arguments in [
        "",
        "user_keys => '{a,NULL}'",
        "user_ids => ARRAY[gen_random_uuid()], user_keys => '{a}'",
        "user_keys => '{a,b}', user_ids => ARRAY[gen_random_uuid()]",
        "user_keys => '{a,b}', session_tokens => '{the secret of the user a}'",
        "user_keys => '{a,b}', session_tokens => '{the secret of the user a,short}'",
        "user_keys => '{a,b,c}', metadata => ARRAY['{}','{}']::jsonb[]",
        "user_keys => '{a,b}', metadata => ARRAY['{}','[]']::jsonb[]",
        "user_keys => '{a,b}', session_tokens => ARRAY['the secret of the user a', presence.token_digest('x')]",
        "session_tokens => '{the secret of the user a}'",
    ] {
        let sql = format!("SELECT presence.start_sessions({arguments})");
        let error = assert_refused(service.query(&sql, &[]), INVALID);
        assert!(error.hint().is_some(), "{arguments}");
    }
    assert_eq!(sessions(&mut service), 0);
    assert!(started(&mut service, "user_keys => '{}'").is_empty());
}

#[test]
fn presence_is_read_by_id_and_by_key_once_for_each_user_in_order() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    service.start(user);
    started(&mut service, "user_keys => '{auth0|abc}'");
    let sql = "SELECT user_key, is_online FROM presence.presence_of(
                   ARRAY[presence.presence_id(42), $1, NULL],
                   ARRAY['stranger', 'auth0|abc', '42', NULL, 'auth0|abc'])";
    let rows = service.query(sql, &[&user]).unwrap();
    let rows: Vec<(Option<&str>, bool)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(
        rows,
        [
            (Some("42"), false),
            (None, true),
            (Some("stranger"), false),
            (Some("auth0|abc"), true)
        ]
    );
    let nobody = "SELECT count(*) FROM presence.presence_of()";
    assert_eq!(service.query_one(nobody, &[]).unwrap().get::<_, i64>(0), 0);
}
