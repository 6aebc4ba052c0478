//! Traps: an attacker's functions, operators, casts and temporary tables, planted where a careless name lookup finds them.

use pg_presence_test::{Cluster, Database, Install, Presence, signal};
use uuid::Uuid;

use crate::login::{ROWS, logins};
use crate::matrix::check_calls;

/// Creates in a schema, for each of PostgreSQL's operators and functions on the types that the extension uses, one of the
/// same name that raises an error.
const TRAPS: &str = "DO $do$
    DECLARE
        f record;
        ours regtype[] := '{uuid,text,timestamptz,interval,jsonb,bool,int4,int8,float8,bytea,oid,name,regclass,
            regrole,regnamespace,uuid[],text[],json}';
    BEGIN
        FOR f IN SELECT oprname AS name, oprleft::regtype AS l, oprright::regtype AS r, oprresult::regtype AS result,
                        oid FROM pg_operator
            WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprleft = ANY (ours) AND oprright = ANY (ours) LOOP
            EXECUTE format('CREATE FUNCTION evil.trap_%s(%s, %s) RETURNS %s LANGUAGE plpgsql
                AS $$ BEGIN RAISE EXCEPTION ''planted operator''; END $$', f.oid, f.l, f.r, f.result);
            EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.trap_%s)',
                           f.name, f.l, f.r, f.oid);
        END LOOP;
        FOR f IN SELECT proname AS name, oidvectortypes(proargtypes) AS args, prorettype::regtype AS result FROM pg_proc
            WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset
              AND prorettype = ANY (ours) AND proargtypes::oid[] <@ ours::oid[] LOOP
            EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql
                AS $$ BEGIN RAISE EXCEPTION ''planted function''; END $$', f.name, f.args, f.result);
        END LOOP;
    END $do$";

fn plant(database: &Database, schema: &str) {
    database.run(&format!("CREATE SCHEMA IF NOT EXISTS {schema}"));
    database.run(&TRAPS.replace("evil.", &format!("{schema}.")));
}

/// Tables and functions with the extension's and PostgreSQL's names, for a session's temporary schema.
const TEMPORARY: &str = "
    CREATE TEMP TABLE user_sessions (id uuid, user_id uuid, auth_id uuid, session_token text, ended_at timestamptz);
    CREATE TEMP TABLE user_presence (user_id uuid, is_online bool);
    CREATE TEMP TABLE presence_changes (seq bigint);
    CREATE TEMP TABLE _feed_state (epoch text, seq bigint);
    CREATE TEMP TABLE pg_extension (oid oid, extname name, extnamespace oid);
    CREATE TEMP TABLE pg_namespace (oid oid, nspname name);
    CREATE TEMP TABLE pg_proc (oid oid);
    CREATE TEMP TABLE pg_class (oid oid);
    CREATE FUNCTION pg_temp.is_service() RETURNS bool LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION pg_temp.presence_auth_id() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'";

#[test]
fn nothing_planted_in_front_of_postgresql_is_ever_run() {
    let database = Cluster::shared().database();
    plant(&database, "evil");
    database.run("GRANT USAGE ON SCHEMA evil TO PUBLIC");
    let mut service = database.connect();
    service.start(Uuid::new_v4());
    database.wait_for_seq(1);
    for login in &mut logins(&database) {
        let path = "SET search_path = evil, pg_temp, pg_catalog, presence";
        login.client.batch_execute(TEMPORARY).unwrap();
        login.client.batch_execute(path).unwrap();
        // The traps do work.
        let trapped = login.client.batch_execute("SELECT now() = now()");
        assert!(format!("{trapped:?}").contains("planted"), "{trapped:?}");
        check_calls(login, &mut service, &ROWS);
    }
    // Nor by the worker, in whose database they are on the default search_path.
    let worker = database.worker();
    database.run(&format!(
        "ALTER DATABASE {} SET search_path = evil, pg_catalog, presence",
        database.name
    ));
    signal("TERM", worker);
    let user = Uuid::new_v4();
    let session = service.start(user);
    service.wait_for_written(user, true);
    service.end(session.id);
    service.wait_for_written(user, false);
}

#[test]
fn a_schema_filled_with_traps_before_the_install_harms_nobody() {
    let database = Cluster::shared().database_with(Install::None);
    database.run("CREATE ROLE early; CREATE SCHEMA presence AUTHORIZATION early");
    plant(&database, "presence");
    let mut service = database.connect();
    service
        .batch_execute("ALTER SCHEMA presence OWNER TO postgres; CREATE EXTENSION pg_presence SCHEMA presence")
        .unwrap();
    service.start(Uuid::new_v4());
    database.wait_for_seq(1);
    for login in &mut logins(&database) {
        check_calls(login, &mut service, &ROWS);
    }
}

#[test]
fn an_existing_object_of_the_same_name_is_not_adopted() {
    for planted in [
        "CREATE TABLE presence.user_sessions (id uuid)",
        "CREATE VIEW presence.presence_stats AS SELECT 1",
        "CREATE TYPE presence.presence_status AS ENUM ('active')",
        "CREATE FUNCTION presence.heartbeat(session_id uuid) RETURNS text LANGUAGE sql AS 'SELECT ''ok'''",
        "CREATE DOMAIN presence._service_marker AS bool",
        "CREATE FUNCTION presence.grant_client(role regrole) RETURNS void LANGUAGE sql AS ''",
    ] {
        let database = Cluster::shared().database_with(Install::None);
        database.run(&format!("CREATE SCHEMA presence; {planted}"));
        let mut client = database.connect();
        let refused = client.batch_execute("CREATE EXTENSION pg_presence SCHEMA presence");
        let error = refused.expect_err(planted);
        assert!(error.to_string().contains("db error"), "{error:?}");
        assert!(format!("{error:?}").contains("already exists"), "{planted}: {error:?}");
        let sql = "SELECT FROM pg_extension WHERE extname = 'pg_presence'";
        assert!(client.query(sql, &[]).unwrap().is_empty());
    }
}

#[test]
fn a_cast_defined_by_an_attacker_grants_nothing() {
    let database = Cluster::shared().database();
    let role = database.client();
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let session = database.connect().start(other);
    database.run(&format!("CREATE SCHEMA own AUTHORIZATION {role}"));
    let mut client = database.connect_as(&role);
    client.act_for(me);
    client
        .batch_execute(&format!(
            "CREATE TYPE own.id AS (id uuid);
             CREATE FUNCTION own.cast(own.id) RETURNS uuid LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM set_config('request.jwt.claims', '{{\"sub\":\"{other}\"}}', false); RETURN $1.id; END $$;
             CREATE CAST (own.id AS uuid) WITH FUNCTION own.cast(own.id) AS IMPLICIT"
        ))
        .unwrap();
    // It can claim to be somebody else, as the README warns; that gives it no other privileges.
    let call = format!("SELECT presence.forget_user(ROW('{other}')::own.id)");
    assert!(client.batch_execute(&call).is_err());
    let sql = format!("SELECT presence.is_online(ROW('{other}')::own.id), presence.is_service()");
    assert!(!client.query_one(&sql, &[]).unwrap().get::<_, bool>(1));
    client.act_for(me);
    assert_eq!(client.beat(session.id), "unknown");
}
