//! Other people's triggers and foreign keys on the tables: refused when made, and never fired by what the extension writes.

use pg_presence_test::{Cluster, DENIED, Database, Install, Presence, Shutdown, assert_refused, wait_until};
use postgres::Client;
use uuid::Uuid;

/// Creates a role with all privileges that `GRANT ALL` gives, a schema of its own, and a function there that makes it a
/// superuser.
fn careless_grantee(database: &Database) -> String {
    let eve = database.role("eve");
    database.run(&format!(
        "GRANT ALL ON ALL TABLES IN SCHEMA presence TO {eve};
         GRANT ALL ON ALL ROUTINES IN SCHEMA presence TO {eve};
         CREATE SCHEMA eve AUTHORIZATION {eve};
         SET ROLE {eve};
         CREATE FUNCTION eve.take() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             EXECUTE 'ALTER ROLE {eve} SUPERUSER'; RETURN coalesce(NEW, OLD); END $$;
         CREATE FUNCTION eve.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE 'stopped by a trigger of others'; END $$;
         CREATE FUNCTION eve.is_taken(anyelement) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
             EXECUTE 'ALTER ROLE {eve} SUPERUSER'; RETURN true; END $$;
         CREATE FUNCTION eve.is_taken_id(uuid) RETURNS bool LANGUAGE sql AS 'SELECT eve.is_taken($1)';
         CREATE OPERATOR eve.### (RIGHTARG = uuid, FUNCTION = eve.is_taken_id)"
    ));
    eve
}

fn is_superuser(client: &mut Client, role: &str) -> bool {
    let sql = "SELECT rolsuper FROM pg_roles WHERE rolname = $1";
    client.query_one(sql, &[&role]).unwrap().get(0)
}

/// What a role with TRIGGER and REFERENCES may try.
const ATTEMPTS: &[&str] = &[
    "CREATE TRIGGER a BEFORE INSERT OR UPDATE ON presence.user_presence FOR EACH ROW EXECUTE FUNCTION eve.take()",
    "CREATE TRIGGER a AFTER DELETE ON presence.user_sessions FOR EACH STATEMENT EXECUTE FUNCTION eve.take()",
    "CREATE CONSTRAINT TRIGGER a AFTER INSERT ON presence.presence_changes DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION eve.take()",
    "CREATE TRIGGER a BEFORE UPDATE ON presence._feed_state EXECUTE FUNCTION eve.take()",
    "CREATE TRIGGER a BEFORE UPDATE ON presence.user_sessions FOR EACH ROW
         EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE TRIGGER a BEFORE UPDATE ON presence.user_sessions FOR EACH ROW
         WHEN (query_to_xml('ALTER ROLE me SUPERUSER', true, true, '') IS NOT NULL)
         EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE OR REPLACE TRIGGER presence_capture AFTER INSERT OR UPDATE OR DELETE ON presence.user_sessions
         FOR EACH ROW EXECUTE FUNCTION eve.take()",
    "CREATE OR REPLACE TRIGGER presence_capture AFTER INSERT ON presence.user_sessions
         FOR EACH ROW WHEN (eve.is_taken(NEW.id)) EXECUTE FUNCTION presence._capture()",
    "CREATE TABLE eve.a (id uuid REFERENCES presence.user_sessions ON DELETE CASCADE)",
    "CREATE TABLE eve.a (id uuid); ALTER TABLE eve.a ADD FOREIGN KEY (id) REFERENCES presence.user_presence NOT VALID",
    "CREATE TABLE eve.a (); ALTER TABLE eve.a ADD COLUMN id uuid REFERENCES presence.user_sessions",
    "CREATE TEMP TABLE a (seq bigint REFERENCES presence.presence_changes)",
    "CREATE TABLE eve.a (id uuid) PARTITION BY HASH (id);
     ALTER TABLE eve.a ADD FOREIGN KEY (id) REFERENCES presence.user_sessions",
    "SET search_path = presence; CREATE TABLE eve.a (id uuid REFERENCES user_sessions)",
    "CREATE VIEW eve.v AS SELECT 1; DO $$ BEGIN
         EXECUTE 'CREATE TABLE eve.a (id uuid REFERENCES presence.user_sessions)'; END $$",
];

#[test]
fn a_careless_grant_is_not_enough_for_a_trigger_or_a_foreign_key() {
    let database = Cluster::shared().database();
    let eve = careless_grantee(&database);
    let mut client = database.connect_as(&eve);
    for attempt in ATTEMPTS {
        let refused = client.batch_execute(&format!("BEGIN; {attempt}; COMMIT"));
        println!("{attempt}");
        assert_refused(refused, DENIED);
        client.batch_execute("ROLLBACK; RESET search_path").unwrap();
    }
    let user = Uuid::new_v4();
    let mut service = database.connect();
    let session = service.start(user);
    service.wait_for_written(user, true);
    service.end(session.id);
    service.wait_for_written(user, false);
    assert!(!is_superuser(&mut service, &eve));
}

#[test]
fn not_even_a_superuser_may_attach_the_code_of_others() {
    let database = Cluster::shared().database();
    careless_grantee(&database);
    let mut superuser = database.connect();
    superuser.batch_execute("CREATE TABLE eve.mine (id uuid)").unwrap();
    let eve = "ALTER TABLE eve.mine OWNER TO ";
    let owner: String = superuser
        .query_one(
            "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'eve'",
            &[],
        )
        .unwrap()
        .get(0);
    superuser.batch_execute(&format!("{eve}{owner}")).unwrap();
    for attempt in [
        "CREATE TRIGGER a BEFORE INSERT ON presence.user_presence FOR EACH ROW EXECUTE FUNCTION eve.take()",
        "CREATE TRIGGER a BEFORE UPDATE ON presence.user_sessions FOR EACH ROW WHEN (eve.is_taken(NEW.id))
             EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE TRIGGER a BEFORE UPDATE ON presence.user_sessions FOR EACH ROW WHEN (OPERATOR(eve.###) NEW.id)
             EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "ALTER TABLE eve.mine ADD FOREIGN KEY (id) REFERENCES presence.user_sessions",
    ] {
        println!("{attempt}");
        assert_refused(superuser.batch_execute(attempt), DENIED);
    }
}

#[test]
fn triggers_and_foreign_keys_of_the_owner_and_of_superusers_are_welcome() {
    let database = Cluster::shared().database();
    let owner = database.role("owner");
    let tables = [
        "user_sessions",
        "user_presence",
        "presence_changes",
        "_feed_state",
        "declared_statuses",
    ];
    for table in tables {
        database.run(&format!("ALTER TABLE presence.{table} OWNER TO {owner}"));
    }
    database.run(&format!(
        "CREATE SCHEMA app AUTHORIZATION {owner};
         CREATE TABLE app.log (who name, what text); ALTER TABLE app.log OWNER TO {owner};
         SET ROLE {owner};
         CREATE FUNCTION app.log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO app.log VALUES (current_user, TG_NAME); RETURN NULL; END $$;
         CREATE TRIGGER of_owner AFTER INSERT ON presence.user_sessions FOR EACH ROW EXECUTE FUNCTION app.log();
         CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON presence.user_presence DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION app.log();
         CREATE TABLE app.device (session_id uuid REFERENCES presence.user_sessions ON DELETE CASCADE);
         CREATE TRIGGER cascaded AFTER DELETE ON app.device FOR EACH ROW EXECUTE FUNCTION app.log();
         RESET ROLE;
         CREATE TRIGGER of_superuser AFTER INSERT ON presence.presence_changes FOR EACH ROW EXECUTE FUNCTION app.log();"
    ));
    let user = Uuid::new_v4();
    let mut service = database.connect_as(&database.service());
    let session = service.start(user);
    service.wait_for_written(user, true);
    let mut superuser = database.connect();
    superuser
        .execute("INSERT INTO app.device VALUES ($1)", &[&session.id])
        .unwrap();
    service.execute("SELECT presence.forget_user($1)", &[&user]).unwrap();
    // A deferred trigger of what the worker writes does not run with the worker's rights, which are a superuser's.
    let sql = "SELECT coalesce(string_agg(DISTINCT what || ' by ' || who, ', ' ORDER BY what || ' by ' || who), '')
               FROM app.log";
    let expected = ["cascaded", "deferred", "of_owner", "of_superuser"].map(|name| format!("{name} by {owner}"));
    wait_until("all triggers have fired", || {
        superuser.query_one(sql, &[]).unwrap().get::<_, String>(0) == expected.join(", ")
    });
}

#[test]
fn what_others_have_made_without_the_library_is_never_fired() {
    let cluster = Cluster::private(&[("presence.retention", "1s"), ("presence.flush_interval", "1s")]);
    let database = cluster.database();
    let mut superuser = database.connect();
    let kept = superuser.start(Uuid::new_v4());
    let eve = careless_grantee(&database);
    drop(superuser);
    cluster.stop(Shutdown::Fast);
    cluster.configure(&[("shared_preload_libraries", "")]);
    cluster.start();
    let mut client = database.connect_as(&eve);
    let tables = [
        "user_sessions",
        "user_presence",
        "presence_changes",
        "_feed_state",
        "declared_statuses",
    ];
    for table in tables {
        for (timing, function) in [
            ("BEFORE", "take"),
            ("AFTER", "take"),
            ("BEFORE", "refuse"),
            ("AFTER", "refuse"),
        ] {
            client
                .batch_execute(&format!(
                    "CREATE TRIGGER {timing}_{function} {timing} INSERT OR UPDATE OR DELETE ON presence.{table}
                         FOR EACH ROW EXECUTE FUNCTION eve.{function}();
                     CREATE TRIGGER s_{timing}_{function} {timing} INSERT OR UPDATE OR DELETE ON presence.{table}
                         FOR EACH STATEMENT EXECUTE FUNCTION eve.{function}();"
                ))
                .unwrap();
        }
        client
            .batch_execute(&format!(
                "CREATE TRIGGER of_superuser BEFORE INSERT OR UPDATE OR DELETE ON presence.{table} FOR EACH ROW
                     WHEN (query_to_xml('SELECT 1/0', true, true, '') IS NOT NULL)
                     EXECUTE FUNCTION suppress_redundant_updates_trigger();"
            ))
            .unwrap_or_else(|error| println!("{error:?}"));
    }
    client
        .batch_execute(&format!(
            "CREATE TABLE eve.cascade (session_id uuid REFERENCES presence.user_sessions ON DELETE CASCADE);
             CREATE TABLE eve.stop (session_id uuid REFERENCES presence.user_sessions);
             CREATE TRIGGER take AFTER DELETE ON eve.cascade FOR EACH ROW EXECUTE FUNCTION eve.take();
             INSERT INTO eve.cascade VALUES ('{0}'); INSERT INTO eve.stop VALUES ('{0}')",
            kept.id
        ))
        .unwrap();
    drop(client);
    cluster.stop(Shutdown::Fast);
    cluster.configure(&[("shared_preload_libraries", "pg_presence")]);
    cluster.start();

    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    service.wait_for_written(user, true);
    assert!(service.end(session.id));
    assert!(service.end(kept.id));
    service.wait_for_written(user, false);
    wait_until("both sessions are deleted", || {
        let sql = "SELECT count(*) FROM presence.user_sessions";
        service.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0
    });
    assert!(!is_superuser(&mut service, &eve));
    // Health lists them, and its statements remove them.
    let sql = "SELECT hint FROM presence.presence_health() WHERE check_name = 'other_triggers' AND NOT ok";
    let hint: String = service.query_one(sql, &[]).unwrap().get(0);
    for name in ["cascade", "stop", "before_take", "s_after_refuse"] {
        assert!(hint.contains(name), "{hint}");
    }
    let statements = hint.trim_start_matches("Run ");
    service
        .batch_execute(&statements[..=statements.rfind(';').expect("a statement")])
        .unwrap();
    assert!(service.query(sql, &[]).unwrap().is_empty());
    let user = Uuid::new_v4();
    service.start(user);
    service.wait_for_written(user, true);
}

#[test]
fn a_trigger_of_the_install_without_its_mark_is_found() {
    let database = Cluster::shared().database();
    let mut owner = database.connect();
    let sql = "SELECT hint FROM presence.presence_health() WHERE check_name = 'other_triggers' AND NOT ok";
    owner
        .batch_execute("ALTER TRIGGER presence_capture ON presence.user_sessions NO DEPENDS ON EXTENSION pg_presence")
        .unwrap();
    let hint: String = owner.query_one(sql, &[]).unwrap().get(0);
    let statements = hint.trim_start_matches("Run ");
    owner
        .batch_execute(&statements[..=statements.find(';').expect("a statement")])
        .unwrap();
    assert!(owner.query(sql, &[]).unwrap().is_empty());
    database.assert_served();
}

#[test]
fn a_trigger_whose_function_gets_another_owner_is_no_longer_fired() {
    let database = Cluster::shared().database();
    let eve = careless_grantee(&database);
    let mut service = database.connect();
    service
        .batch_execute(
            "CREATE TABLE public.log (what text);
             GRANT ALL ON public.log TO PUBLIC;
             CREATE FUNCTION public.log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO public.log VALUES (TG_TABLE_NAME); RETURN NULL; END $$;
             CREATE TRIGGER log AFTER INSERT ON presence.user_sessions FOR EACH ROW EXECUTE FUNCTION public.log();
             CREATE TRIGGER log AFTER INSERT ON presence.user_presence FOR EACH ROW EXECUTE FUNCTION public.log();",
        )
        .unwrap();
    let logged_by_start = |service: &mut Client| -> i64 {
        let user = Uuid::new_v4();
        service.start(user);
        service.wait_for_written(user, true);
        let sql = "WITH gone AS (DELETE FROM public.log RETURNING 1) SELECT count(*) FROM gone";
        service.query_one(sql, &[]).unwrap().get(0)
    };
    assert_eq!(logged_by_start(&mut service), 2);
    database.run(&format!("ALTER FUNCTION public.log() OWNER TO {eve}"));
    assert_eq!(logged_by_start(&mut service), 0);
    database.run("ALTER FUNCTION public.log() OWNER TO postgres");
    assert_eq!(logged_by_start(&mut service), 2);
}

#[test]
fn a_dump_restores_triggers_of_the_install_with_their_mark() {
    let database = Cluster::shared().database_with(Install::Public);
    let sql = "SELECT count(*) FROM pg_trigger t WHERE NOT tgisinternal AND NOT EXISTS (
                   SELECT FROM pg_depend d WHERE d.classid = 'pg_trigger'::regclass AND d.objid = t.oid AND deptype = 'x')";
    let unmarked: i64 = database.connect().query_one(sql, &[]).unwrap().get(0);
    assert_eq!(unmarked, 0);
}
