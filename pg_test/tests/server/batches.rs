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
fn each_of_thousands_of_positions_starts_its_own_session() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    // Of every combination of id, key, token and metadata, in an order of its own.
    let sql = "CREATE TEMP TABLE wanted AS
               SELECT n, CASE WHEN n % 2 = 0 THEN gen_random_uuid() END AS user_id,
                   CASE WHEN n % 2 = 1 THEN 'user ' || n END AS user_key,
                   CASE WHEN n % 3 = 0 THEN 'the secret token of the user ' || n END AS session_token,
                   CASE WHEN n % 5 <> 0 THEN jsonb_build_object('n', n) END AS metadata
               FROM generate_series(1, 2500) n;
               CREATE TEMP TABLE started AS
               SELECT * FROM presence.start_sessions(
                   (SELECT array_agg(user_id ORDER BY n) FROM wanted),
                   (SELECT array_agg(user_key ORDER BY n) FROM wanted),
                   (SELECT array_agg(session_token ORDER BY n) FROM wanted),
                   (SELECT array_agg(metadata ORDER BY n) FROM wanted)
               ) WITH ORDINALITY AS s (user_id, session_id, n)";
    service.batch_execute(sql).unwrap();
    let sql = "SELECT count(*) FROM wanted w JOIN started USING (n) JOIN presence.user_sessions s ON s.id = session_id
               WHERE s.user_id = started.user_id AND s.user_id = coalesce(w.user_id, presence.presence_id(w.user_key))
                   AND s.auth_id = s.user_id AND s.user_key IS NOT DISTINCT FROM w.user_key
                   AND s.metadata = coalesce(w.metadata, '{}') AND s.is_active AND s.ended_at IS NULL
                   AND (w.session_token IS NULL OR s.session_token = presence.token_digest(w.session_token))
                   AND s.last_activity = s.created_at
                   AND s.expires_at = s.created_at + current_setting('presence.session_lifetime')::interval";
    assert_eq!(service.query_one(sql, &[]).unwrap().get::<_, i64>(0), 2500);
    assert_eq!(sessions(&mut service), 2500);
    let sql = "SELECT cardinality(presence.heartbeat_many(array_agg(session_id))) FROM started";
    assert_eq!(service.query_one(sql, &[]).unwrap().get::<_, i32>(0), 0);
}

#[test]
fn a_batch_that_a_trigger_of_the_owner_shortens_starts_nothing() {
    let database = Cluster::shared().database();
    database.run(
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER skip BEFORE INSERT ON presence.user_sessions FOR EACH ROW
             WHEN (NEW.user_key = 'b') EXECUTE FUNCTION skip()",
    );
    let mut service = database.connect();
    let sql = "SELECT presence.start_sessions(user_keys => '{a,b,c}')";
    assert_refused(service.query(sql, &[]), &SqlState::T_R_SERIALIZATION_FAILURE);
    assert_eq!(sessions(&mut service), 0);
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
