//! What the catalogs say of the extension's objects: names, comments, defaults, row types; and what happens where somebody
//! has changed them.

use pg_presence_test::{Cluster, Presence, assert_refused};
use postgres::error::SqlState;
use uuid::Uuid;

/// Objects of the extension without a comment.
const UNCOMMENTED: &str = include_str!("uncommented.sql");

#[test]
fn every_object_has_a_comment() {
    let database = Cluster::shared().database();
    let rows = database.connect().query(UNCOMMENTED, &[]).unwrap();
    let uncommented: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(uncommented, Vec::<String>::new());
}

#[test]
fn the_query_for_comments_finds_an_object_without_one() {
    let database = Cluster::shared().database();
    database.run(
        "COMMENT ON COLUMN presence.user_sessions.user_id IS NULL; COMMENT ON FUNCTION presence.heartbeat IS NULL",
    );
    assert_eq!(database.connect().query(UNCOMMENTED, &[]).unwrap().len(), 2);
}

#[test]
fn what_is_internal_begins_with_an_underscore() {
    let database = Cluster::shared().database();
    let sql = "SELECT p.oid::regprocedure::text FROM pg_proc p
               WHERE p.pronamespace = 'presence'::regnamespace
                   AND (p.prorettype = 'trigger'::regtype) AND p.proname !~ '^_'";
    assert!(database.connect().query(sql, &[]).unwrap().is_empty());
}

#[test]
fn functions_with_many_columns_return_a_named_row_type() {
    let database = Cluster::shared().database();
    let sql = "SELECT p.proname::text FROM pg_proc p
               WHERE p.pronamespace = 'presence'::regnamespace
                   AND (SELECT count(*) FROM unnest(p.proargmodes) mode WHERE mode = 't') > 6";
    assert!(database.connect().query(sql, &[]).unwrap().is_empty());
    let rows = "SELECT prorows FROM pg_proc WHERE oid = 'presence._stats()'::regprocedure";
    assert_eq!(database.connect().query_one(rows, &[]).unwrap().get::<_, f32>(0), 1.0);
}

#[test]
fn code_generators_take_user_and_identity_for_optional() {
    let database = Cluster::shared().database();
    let sql = "SELECT column_name::text FROM information_schema.columns
               WHERE table_schema = 'presence' AND table_name = 'user_sessions'
                   AND is_nullable = 'NO' AND column_default IS NULL";
    assert!(database.connect().query(sql, &[]).unwrap().is_empty());
}

#[test]
fn a_client_that_names_no_user_inserts_a_session_of_its_own() {
    let database = Cluster::shared().database();
    let own = Uuid::new_v4();
    let mut client = database.client_for(own);
    let sql = "INSERT INTO presence.user_sessions (metadata) VALUES ('{}') RETURNING user_id, auth_id";
    let row = client.query_one(sql, &[]).unwrap();
    assert_eq!((row.get::<_, Uuid>(0), row.get::<_, Uuid>(1)), (own, own));
    assert!(database.connect().is_online(own));
}

#[test]
fn a_service_with_claims_may_insert_a_session_of_somebody_else() {
    let database = Cluster::shared().database();
    let mut service = database.connect_as(&database.service());
    service.act_for(Uuid::new_v4());
    let user = Uuid::new_v4();
    let sql = "INSERT INTO presence.user_sessions (user_id) VALUES ($1) RETURNING auth_id";
    assert_eq!(service.query_one(sql, &[&user]).unwrap().get::<_, Uuid>(0), user);
    let sql = "INSERT INTO presence.user_sessions (user_key) VALUES ('somebody') RETURNING user_key";
    assert_eq!(service.query_one(sql, &[]).unwrap().get::<_, &str>(0), "somebody");
}

#[test]
fn a_column_of_another_type_is_refused_and_never_read_as_the_old_one() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4());
    database.run(
        "DROP POLICY own_or_service_select ON presence.user_sessions;
         DROP POLICY own_or_service_insert ON presence.user_sessions;
         DROP POLICY own_or_service_update ON presence.user_sessions;
         DROP POLICY own_or_service_delete ON presence.user_sessions;
         ALTER TABLE presence.user_sessions ALTER auth_id DROP DEFAULT, ALTER auth_id TYPE bigint USING 1",
    );
    let mut other = database.connect();
    let insert = "INSERT INTO presence.user_sessions (user_id, auth_id) VALUES (gen_random_uuid(), 1)";
    for call in [
        insert.to_owned(),
        format!(
            "UPDATE presence.user_sessions SET is_active = false WHERE id = '{}'",
            session.id
        ),
    ] {
        let error = assert_refused(other.execute(&call, &[]), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
        assert!(error.hint().is_some());
    }
    assert_eq!(other.beat(session.id), "ok");
}
