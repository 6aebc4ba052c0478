//! The identity that a client acts for, as set by a gateway.

use pg_presence_test::{Cluster, DENIED, Presence, assert_refused, error_of, error_text};
use postgres::Client;
use uuid::Uuid;

#[test]
fn without_an_identity_a_client_can_do_nothing_and_learns_nothing() {
    let database = Cluster::shared().database();
    let other = database.connect().start(Uuid::new_v4());
    let mut client = database.connect_as(&database.client());
    let mut answers = Vec::new();
    for claims in [
        "",
        "{}",
        "not json SECRET",
        r#"{"sub": "SECRET"}"#,
        r#"{"sub": 17}"#,
        r#"{"sub": null}"#,
        r#"{"sub": ["3dfd2b5a-6d2b-4cc4-a1b3-2b1f5b9f7e10"]}"#,
        r#"{"role": "authenticated"}"#,
        r#"{"sub": "3dfd2b5a-6d2b-4cc4-a1b3-2b1f5b9f7e10""#,
        r#"[{"sub": "3dfd2b5a-6d2b-4cc4-a1b3-2b1f5b9f7e10"}]"#,
        r#"{"user": {"sub": "3dfd2b5a-6d2b-4cc4-a1b3-2b1f5b9f7e10"}}"#,
    ] {
        client.claim(claims);
        let who = "SELECT presence.presence_auth_id() IS NULL AND presence.presence_user_id() IS NULL";
        assert!(client.query_one(who, &[]).unwrap().get::<_, bool>(0), "{claims}");
        let error = assert_refused(client.execute("SELECT presence.start_session()", &[]), DENIED);
        assert!(!error_text(&error).contains("SECRET"), "{error:?}");
        answers.push(error_text(&error));
        assert_eq!(client.beat(other.id), "unknown");
        assert!(!client.end(other.id));
        assert!(
            client
                .query("SELECT * FROM presence.user_sessions", &[])
                .unwrap()
                .is_empty()
        );
        let insert =
            "INSERT INTO presence.user_sessions (user_id, auth_id) VALUES (gen_random_uuid(), gen_random_uuid())";
        let error = error_of(client.execute(insert, &[]));
        assert_eq!(error.code(), DENIED, "{error:?}");
        assert!(!error_text(&error).contains("SECRET"), "{error:?}");
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "not one fixed text: {answers:#?}");
}

#[test]
fn an_identity_is_never_remembered() {
    let database = Cluster::shared().database();
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let mut client = database.connect_as(&database.client());
    let beat = client.prepare("SELECT presence.heartbeat($1)").unwrap();
    let rows = client.prepare("SELECT count(*) FROM presence.user_sessions").unwrap();
    client.act_for(me);
    let session = client.start_own();
    for _ in 0..8 {
        for (identity, answer, count) in [(me, "ok", 1i64), (other, "unknown", 0)] {
            client.act_for(identity);
            assert_eq!(
                client.query_one(&beat, &[&session.id]).unwrap().get::<_, &str>(0),
                answer
            );
            assert_eq!(client.query_one(&rows, &[]).unwrap().get::<_, i64>(0), count);
        }
        client.claim("");
        assert_eq!(
            client.query_one(&beat, &[&session.id]).unwrap().get::<_, &str>(0),
            "unknown"
        );
    }
}

#[test]
fn the_user_id_setting_counts_only_where_there_are_no_claims() {
    let database = Cluster::shared().database();
    let (by_claim, by_setting) = (Uuid::new_v4(), Uuid::new_v4());
    let mut client = database.connect_as(&database.client());
    let who = |client: &mut Client| -> Option<Uuid> {
        client
            .query_one("SELECT presence.presence_auth_id()", &[])
            .unwrap()
            .get(0)
    };
    client
        .batch_execute(&format!("SET presence.user_id = '{by_setting}'"))
        .unwrap();
    assert_eq!(who(&mut client), Some(by_setting));
    // For one transaction, as PostgREST does; afterwards the claims are empty, not absent.
    client.batch_execute("BEGIN").unwrap();
    client
        .batch_execute(&format!("SET LOCAL request.jwt.claims = '{{\"sub\": \"{by_claim}\"}}'"))
        .unwrap();
    assert_eq!(who(&mut client), Some(by_claim));
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(who(&mut client), Some(by_setting));
    client.claim("{}");
    assert_eq!(who(&mut client), None);
    error_of(client.batch_execute("SET presence.user_id = 'SECRET'"));
}

#[test]
fn text_claims_become_presence_ids_with_their_key() {
    let database = Cluster::shared().database();
    database.run(&format!(
        "ALTER DATABASE {} SET presence.claim_format = 'text'",
        database.name
    ));
    let mut client = database.connect_as(&database.client());
    for (claims, key) in [
        (r#"{"sub": "auth0|abc"}"#, "auth0|abc"),
        (r#"{"sub": 42}"#, "42"),
        (r#"{"sub": "J\u00fcrgen"}"#, "Jürgen"),
    ] {
        client.claim(claims);
        let session = client.start_own();
        let sql = "SELECT user_key, user_id = presence.presence_id($2::text), auth_id = user_id
                   FROM presence.user_sessions WHERE id = $1";
        let row = client.query_one(sql, &[&session.id, &key]).unwrap();
        assert_eq!(
            (row.get::<_, &str>(0), row.get::<_, bool>(1), row.get::<_, bool>(2)),
            (key, true, true)
        );
        assert_eq!(client.beat(session.id), "ok");
    }
}

#[test]
fn another_claim_can_carry_the_identity() {
    let database = Cluster::shared().database();
    database.run(&format!(
        "ALTER DATABASE {} SET presence.claim = 'user_id'",
        database.name
    ));
    let mut client = database.connect_as(&database.client());
    let (me, sub) = (Uuid::new_v4(), Uuid::new_v4());
    client.claim(&format!(r#"{{"sub": "{sub}", "user_id": "{me}"}}"#));
    let who = client.query_one("SELECT presence.presence_auth_id()", &[]).unwrap();
    assert_eq!(who.get::<_, Uuid>(0), me);
}

#[test]
fn a_function_can_map_identities_to_users() {
    let database = Cluster::shared().database();
    let (auth, user) = (Uuid::new_v4(), Uuid::new_v4());
    database.run(&format!(
        "CREATE TABLE users (id uuid, auth_id uuid);
         INSERT INTO users VALUES ('{user}', '{auth}');
         CREATE FUNCTION user_of(uuid) RETURNS uuid STABLE LANGUAGE sql SECURITY DEFINER
             AS 'SELECT id FROM public.users WHERE auth_id = $1';
         ALTER DATABASE {} SET presence.user_id_function = 'public.user_of'",
        database.name
    ));
    let mut client = database.client_for(auth);
    let session = client.start_own();
    let sql = "SELECT auth_id, user_id FROM presence.user_sessions WHERE id = $1";
    let row = client.query_one(sql, &[&session.id]).unwrap();
    assert_eq!((row.get::<_, Uuid>(0), row.get::<_, Uuid>(1)), (auth, user));
    assert!(database.connect().is_online(user));
    assert!(client.is_online(user));
    client.act_for(Uuid::new_v4());
    assert_refused(client.execute("SELECT presence.start_session()", &[]), DENIED);
}

#[test]
fn a_client_cannot_change_the_identity_settings() {
    let database = Cluster::shared().database();
    let mut client = database.connect_as(&database.client());
    for setting in [
        "claim = 'role'",
        "claim_format = 'text'",
        "user_id_function = 'public.f'",
        "active_timeout = '1d'",
    ] {
        error_of(client.batch_execute(&format!("SET presence.{setting}")));
    }
}
