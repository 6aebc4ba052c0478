//! Databases whose encoding is not UTF-8: a text is the same everywhere, and invalid text does no harm.

use pg_presence_test::{Cluster, Database, Install, Listener, Presence, error_of, wait_until};
use postgres::Client;
use uuid::Uuid;

/// Encodings, and a key in each that is not ASCII.
const KEYS: &[(&str, &str)] = &[
    ("UTF8", "müller"),
    ("UTF8", "🟢 한국"),
    ("LATIN1", "müller"),
    ("WIN1252", "€ müller"),
    ("EUC_KR", "한국"),
    ("SQL_ASCII", "müller"),
    ("SQL_ASCII", "🟢 한국"),
];

/// Encodings, and bytes, in SQL notation, that are stored as text there but cannot be converted to UTF-8.
const UNREADABLE: &[(&str, &str)] = &[("SQL_ASCII", r"\xff\xfe"), ("WIN1252", r"\x81")];

fn database(encoding: &'static str) -> Database<'static> {
    Cluster::shared().database_with(Install::Encoding(encoding))
}

/// Connects as a client whose claim is a text.
fn client(database: &Database) -> Client {
    database.run(&format!(
        "ALTER DATABASE {} SET presence.claim_format = 'text'",
        database.name
    ));
    database.connect_as(&database.client())
}

/// Returns a listener that is notified of every change from now on: the first message of a new worker, a mere wakeup, is
/// past.
fn listener(database: &Database) -> Listener {
    let mut listener = database.listen();
    let user = Uuid::new_v4();
    let session = database.connect().start(user);
    listener.wait_for(user, &["active"]);
    database.connect().end(session.id);
    listener.wait_for(user, &["active", "inactive"]);
    database.run("DELETE FROM presence.user_sessions; TRUNCATE presence.user_presence");
    listener
}

/// Returns the keys of a user's changes, as notified.
fn notified_keys(listener: &Listener, user: Uuid) -> Vec<Option<String>> {
    let changes = listener.notified_changes().into_iter();
    changes
        .filter(|change| change.user_id == user)
        .map(|change| change.key)
        .collect()
}

/// Returns the text that a query returns.
fn text(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]);
    row.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

#[test]
fn a_key_is_stored_and_notified_unchanged() {
    for &(encoding, key) in KEYS {
        let database = database(encoding);
        let mut listener = listener(&database);
        let mut service = database.connect();
        let sql = "SELECT session_id FROM presence.start_session(user_key => $1)";
        let session: Uuid = service.query_one(sql, &[&key]).unwrap().get(0);
        let sql = "SELECT user_id, user_key FROM presence.user_sessions";
        let row = service.query_one(sql, &[]).unwrap();
        let user: Uuid = row.get(0);
        assert_eq!(row.get::<_, String>(1), key, "{encoding}");

        listener.wait_for(user, &["active"]);
        assert_eq!(notified_keys(&listener, user), [Some(key.to_owned())], "{encoding}");
        for table in [
            "user_presence",
            "changes_since(0)",
            "online_users()",
            "presence_of(ARRAY[presence.presence_id(user_key)])",
        ] {
            let sql = format!(
                "SELECT t.user_key FROM presence.user_sessions s, LATERAL (SELECT * FROM presence.{table}) t
                 WHERE t.user_id = s.user_id"
            );
            assert_eq!(text(&mut service, &sql), key, "{table} in {encoding}");
        }
        assert_eq!(service.beat(session), "ok");
        assert!(service.end(session));
        listener.wait_for(user, &["active", "inactive"]);
    }
}

#[test]
fn ids_and_digests_are_the_same_in_every_encoding() {
    let utf8 = Cluster::shared().database();
    for &(encoding, key) in KEYS {
        let sql = "SELECT presence.presence_id($1::text)::text || presence.token_digest($1)";
        let of = |database: &Database| -> String {
            let row = database.connect().query_one(sql, &[&key]);
            row.unwrap().get(0)
        };
        assert_eq!(of(&database(encoding)), of(&utf8), "{key} in {encoding}");
    }
}

#[test]
fn any_text_can_be_a_token() {
    for &(encoding, key) in KEYS {
        let database = database(encoding);
        let mut service = database.connect();
        let token = key.repeat(8);
        let sql = "SELECT session_token FROM presence.start_session($1, session_token => $2)";
        let user = Uuid::new_v4();
        let returned: String = service.query_one(sql, &[&user, &token]).unwrap().get(0);
        assert_eq!(returned, token, "{encoding}");
        assert_eq!(service.beat_by_token(&token), "ok", "{encoding}");
        let sql = "SELECT count(*) FROM presence.user_sessions WHERE session_token = presence.token_digest($1)";
        assert_eq!(
            service.query_one(sql, &[&token]).unwrap().get::<_, i64>(0),
            1,
            "{encoding}"
        );
        let sql = "SELECT presence.release_session_by_token($1), presence.end_session_by_token($1)";
        let row = service.query_one(sql, &[&token]).unwrap();
        assert!(row.get::<_, bool>(0) && row.get::<_, bool>(1), "{encoding}");
    }
}

#[test]
fn plain_sql_accepts_any_key() {
    for &(encoding, key) in KEYS {
        let database = database(encoding);
        let mut service = database.connect();
        let sql =
            "INSERT INTO presence.user_sessions (user_key, session_token) VALUES ($1, $1 || 'a long enough token')";
        service.execute(sql, &[&key]).unwrap();
        let sql = "UPDATE presence.user_sessions SET last_activity = now(), user_key = 'new ' || user_key
             RETURNING user_key, user_id = presence.presence_id(user_key)";
        let row = service.query_one(sql, &[]).unwrap();
        assert_eq!(row.get::<_, String>(0), format!("new {key}"), "{encoding}");
        assert!(row.get::<_, bool>(1), "{encoding}");
    }
}

#[test]
fn a_client_is_who_its_claim_names() {
    for &(encoding, key) in KEYS {
        let database = database(encoding);
        let mut client = client(&database);
        client.claim(&format!(r#"{{"name":"{key}","sub":"{key}"}}"#));
        client.start_own();
        let sql = "SELECT user_key, auth_id = presence.presence_id(user_key) AND user_id = auth_id \
                   FROM presence.user_sessions";
        let row = client.query_one(sql, &[]).unwrap();
        assert_eq!(row.get::<_, String>(0), key, "{encoding}");
        assert!(row.get::<_, bool>(1), "{encoding}");
    }
}

#[test]
fn a_claim_that_is_not_valid_text_is_no_identity() {
    for &(encoding, bytes) in UNREADABLE {
        let database = database(encoding);
        let mut client = client(&database);
        let user = Uuid::new_v4();
        let sql = format!(
            "SET presence.user_id = '{user}';
             SELECT FROM set_config('request.jwt.claims', E'{{\"sub\":\"{bytes}\"}}', false)"
        );
        client.batch_execute(&sql).unwrap();
        let row = client.query_one("SELECT presence.presence_auth_id() IS NULL", &[]);
        assert!(row.unwrap().get::<_, bool>(0), "{encoding}");
        let error = error_of(client.query("SELECT presence.start_session()", &[]));
        assert_eq!(error.code().code(), "42501", "{encoding}");
    }
}

#[test]
fn a_key_that_the_encoding_cannot_represent_is_refused() {
    let database = database("LATIN1");
    let mut client = client(&database);
    client.claim(r#"{"sub":"\u4e2d"}"#);
    let error = error_of(client.query("SELECT presence.start_session()", &[]));
    assert_eq!(error.code().code(), "22P05", "{error:?}");
    client.claim(r#"{"sub":"m\u00fcller"}"#);
    client.start_own();
}

#[test]
fn invalid_text_is_refused_and_nothing_is_lost() {
    for &(encoding, bytes) in UNREADABLE {
        let database = database(encoding);
        let worker = database.worker();
        let mut service = database.connect();
        let kept = service.start(Uuid::new_v4());
        let long = format!("E'{bytes} a token that is long enough'");
        for sql in [
            format!("SELECT presence.start_session(user_key => E'{bytes}')"),
            format!("SELECT presence.start_session(gen_random_uuid(), session_token => {long})"),
            format!("SELECT presence.presence_id(E'{bytes}')"),
            format!("SELECT presence.token_digest(E'{bytes}')"),
            format!("SELECT presence.changes_since(0, E'{bytes}')"),
            format!("INSERT INTO presence.user_sessions (user_key) VALUES (E'{bytes}')"),
            format!("UPDATE presence.user_sessions SET user_key = E'{bytes}'"),
            format!("UPDATE presence.user_sessions SET session_token = {long}"),
        ] {
            let error = error_of(service.query(&sql, &[]));
            assert!(
                ["22021", "22P05"].contains(&error.code().code()),
                "{sql} in {encoding}: {error:?}"
            );
        }
        assert_eq!(service.beat(kept.id), "ok", "{encoding}");
        assert_eq!(database.worker(), worker, "{encoding}");
    }
}

#[test]
fn a_row_whose_key_is_not_valid_text_is_written_notified_and_ended_without_it() {
    for &(encoding, bytes) in UNREADABLE {
        let database = database(encoding);
        let mut listener = listener(&database);
        let worker = database.worker();
        let mut service = database.connect();
        let (user, session) = (Uuid::new_v4(), Uuid::new_v4());
        let replicate = |values: &str, session: Uuid, user: Uuid| {
            database.run(&format!(
                "SET session_replication_role = replica;
                 INSERT INTO presence.user_sessions (id, user_id, auth_id, session_token, expires_at, user_key)
                 VALUES ('{session}', '{user}', '{user}', {values})"
            ))
        };
        let digest = "'sha256:' || encode(sha256(gen_random_uuid()::text::bytea), 'hex'), 'tomorrow'";
        replicate(&format!("{digest}, E'{bytes}'"), session, user);
        listener.wait_for(user, &["active"]);
        assert_eq!(notified_keys(&listener, user), [None], "{encoding}");

        assert_eq!(service.beat(session), "ok", "{encoding}");
        assert_eq!(service.online_users(), [user], "{encoding}");
        service
            .execute("UPDATE presence.user_sessions SET metadata = '{}'", &[])
            .unwrap();
        service
            .execute("UPDATE presence.user_sessions SET last_activity = now()", &[])
            .unwrap();
        // Readers get the bytes as they are.
        let kept = format!(
            "SELECT bool_and(convert_to(user_key, '{encoding}') = '{bytes}'::bytea)::text FROM
                 (SELECT user_key FROM presence.user_sessions UNION ALL
                  SELECT user_key FROM presence.user_presence UNION ALL
                  SELECT user_key FROM presence.online_users() UNION ALL
                  SELECT user_key FROM presence.presence_of('{{{user}}}') UNION ALL
                  SELECT user_key FROM presence.changes_since(0) WHERE user_id = '{user}') found"
        )
        .replace(r"\xff\xfe", r"\xfffe");
        assert_eq!(text(&mut service, &kept), "true", "{encoding}");
        assert!(service.end(session), "{encoding}");
        listener.wait_for(user, &["active", "inactive"]);
        assert_eq!(database.worker(), worker, "{encoding}");
    }
}

#[test]
fn a_schema_may_have_any_name() {
    for &(encoding, key) in KEYS {
        let database = database(encoding);
        let schema = format!("\"{key} \"\"a\\\"");
        database.run(&format!("ALTER SCHEMA presence RENAME TO {schema}"));
        let mut service = database.connect();
        let user = Uuid::new_v4();
        let sql = format!("SELECT FROM {schema}.start_session($1)");
        service.query_one(&sql, &[&user]).unwrap();
        let sql = format!("SELECT FROM {schema}.user_presence WHERE user_id = $1 AND is_online");
        wait_until("the worker writes the change", || {
            service.query_opt(&sql, &[&user]).unwrap().is_some()
        });
        let sql = format!("SELECT {schema}.end_user_sessions($1)");
        assert_eq!(
            service.query_one(&sql, &[&user]).unwrap().get::<_, i32>(0),
            1,
            "{encoding}"
        );
    }
}

#[test]
fn a_token_that_is_not_valid_text_is_unknown() {
    for &(encoding, bytes) in UNREADABLE {
        let database = database(encoding);
        let mut holder = database.connect();
        let token = format!("E'{bytes} a token that is long enough'");
        for (call, answer) in [
            ("heartbeat_by_token", "unknown"),
            ("heartbeat_idle_by_token", "unknown"),
            ("end_session_by_token", "false"),
            ("release_session_by_token", "false"),
        ] {
            let sql = format!("SELECT presence.{call}({token})::text");
            assert_eq!(text(&mut holder, &sql), answer, "{encoding}");
        }
    }
}
