//! Careless GRANTs and REVOKEs: they open nothing, lock out nobody who has been let in, and health names what mends them.

use pg_presence_test::{
    Cluster, DENIED, Database, Install, Presence, assert_denied, assert_refused, error_of, wait_until,
};
use postgres::Client;
use postgres::error::SqlState;
use uuid::Uuid;

const TABLES: [&str; 5] = [
    "user_sessions",
    "user_presence",
    "presence_changes",
    "_feed_state",
    "declared_statuses",
];

/// Returns the checks that are not ok, with their hints.
fn failed(client: &mut Client) -> Vec<(String, String)> {
    let sql = "SELECT check_name, coalesce(hint, '') FROM presence.presence_health()
               WHERE NOT ok AND check_name NOT IN ('worker', 'changes', 'flush', 'unwritable') ORDER BY 1";
    let rows = client.query(sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn healthy(database: &Database) -> Client {
    let mut client = database.connect();
    wait_until("a healthy start", || failed(&mut client).is_empty());
    client
}

/// Runs the statements that the hints of health contain, until nothing is wrong.
fn mend(client: &mut Client) {
    for _ in 0..3 {
        for (_, hint) in failed(client) {
            for statement in hint.trim_start_matches("Run ").split_inclusive(';') {
                if statement.ends_with(';') {
                    println!("{statement}");
                    client.batch_execute(statement).unwrap();
                }
            }
        }
    }
    wait_until("nothing is wrong", || failed(client).is_empty());
}

#[test]
fn grant_all_makes_no_service_and_changes_nothing_of_others() {
    let database = Cluster::shared().database();
    let mut superuser = healthy(&database);
    let other = Uuid::new_v4();
    let session = superuser.start(other);
    superuser.wait_for_written(other, true);
    superuser
        .execute("SELECT presence.set_status('busy', user_id => $1)", &[&other])
        .unwrap();
    let role = database.role("careless");
    for grantee in [role.as_str(), "PUBLIC"] {
        database.run(&format!(
            "GRANT ALL ON ALL TABLES IN SCHEMA presence TO {grantee};
             GRANT ALL ON ALL ROUTINES IN SCHEMA presence TO {grantee};
             GRANT ALL ON ALL SEQUENCES IN SCHEMA presence TO {grantee}"
        ));
        let mut client = database.connect_as(&role);
        client.act_for(Uuid::new_v4());
        let is_service: bool = client.query_one("SELECT presence.is_service()", &[]).unwrap().get(0);
        assert!(!is_service);
        for table in TABLES {
            assert_refused(client.batch_execute(&format!("TRUNCATE presence.{table}")), DENIED);
            assert_eq!(
                client.execute(&format!("DELETE FROM presence.{table}"), &[]).unwrap(),
                0
            );
        }
        assert_refused(
            client.batch_execute("TRUNCATE presence.user_sessions, presence._feed_state CASCADE"),
            DENIED,
        );
        for update in [
            "UPDATE presence.user_sessions SET metadata = '{}'",
            "UPDATE presence.user_presence SET is_online = false",
            "UPDATE presence.presence_changes SET reason = 'ended'",
            "UPDATE presence._feed_state SET seq = 0",
            "UPDATE presence.declared_statuses SET status = 'away'",
        ] {
            assert_eq!(client.execute(update, &[]).unwrap(), 0, "{update}");
        }
        for insert in [
            "INSERT INTO presence.user_presence VALUES (gen_random_uuid(), NULL, 'active', true, now(), now(), 1)",
            "INSERT INTO presence._feed_state VALUES ('mine', 1, 1)",
            "INSERT INTO presence.declared_statuses (user_id, status) VALUES (gen_random_uuid(), 'busy')",
            "INSERT INTO presence.declared_statuses (status) VALUES ('busy')",
            "INSERT INTO presence.user_sessions (user_id) VALUES (gen_random_uuid())",
            "INSERT INTO presence.presence_changes VALUES (0, NULL, NULL, 'active', 'inactive', now(), now(), 'x')",
        ] {
            assert_denied(client.execute(insert, &[]));
        }
        for call in [
            format!("forget_user('{other}')"),
            format!("start_sessions(ARRAY['{other}'::uuid])"),
            format!("end_user_sessions('{other}')"),
            format!("set_status('busy', user_id => '{other}')"),
            format!("clear_status(user_id => '{other}')"),
            format!("set_invisible(true, user_id => '{other}')"),
            format!("own_presence('{other}')"),
            "cleanup_sessions()".to_owned(),
            "presence_health()".to_owned(),
            "_stats()".to_owned(),
            format!("grant_service('{role}')"),
            format!("_grant_service('{role}')"),
        ] {
            assert_denied(client.batch_execute(&format!("SELECT presence.{call}")));
        }
        assert_denied(client.batch_execute("SELECT * FROM presence.presence_stats"));
        assert!(
            !client
                .query_one("SELECT presence.end_session($1)", &[&session.id])
                .unwrap()
                .get::<_, bool>(0)
        );
        assert!(superuser.is_online(other));
        mend(&mut superuser);
    }
}

#[test]
fn privileges_passed_on_and_roles_of_any_name_are_mended_too() {
    let database = Cluster::shared().database();
    let mut superuser = healthy(&database);
    let (one, two, service) = (database.role("one"), database.role("two"), database.service());
    let (eve, bob) = (format!("\"{one}'s Eve\""), format!("\"{two}'s Bob\""));
    database.run(&format!(
        "ALTER ROLE {one} RENAME TO {eve}; ALTER ROLE {two} RENAME TO {bob};
         SELECT presence.grant_client('{}')",
        eve.replace('\'', "''")
    ));
    for (damage, check) in [
        (
            "GRANT TRUNCATE, TRIGGER ON presence.user_sessions TO {eve} WITH GRANT OPTION; SET ROLE {eve};
          GRANT TRUNCATE, TRIGGER ON presence.user_sessions TO {bob}",
            "grants",
        ),
        (
            "GRANT UPDATE, DELETE ON presence.user_sessions TO {service} WITH GRANT OPTION; SET ROLE {service};
          GRANT UPDATE, DELETE ON presence.user_sessions TO {bob}",
            "grants",
        ),
        (
            "GRANT EXECUTE ON FUNCTION presence.online_users() TO {eve} WITH GRANT OPTION; SET ROLE {eve};
          GRANT EXECUTE ON FUNCTION presence.online_users() TO PUBLIC",
            "grants",
        ),
        (
            "GRANT UPDATE (seq), REFERENCES (user_id) ON presence.user_presence TO {eve}",
            "grants",
        ),
        ("GRANT SELECT (epoch) ON presence._feed_state TO {bob}", "grants"),
        (
            "GRANT CREATE ON SCHEMA presence TO {eve} WITH GRANT OPTION; SET ROLE {eve};
          GRANT CREATE ON SCHEMA presence TO {bob}",
            "schema",
        ),
        ("GRANT CREATE ON SCHEMA presence TO PUBLIC", "schema"),
        (
            "GRANT USAGE ON TYPE presence._service_marker TO {service} WITH GRANT OPTION; SET ROLE {service};
          GRANT USAGE ON TYPE presence._service_marker TO PUBLIC",
            "services",
        ),
        ("REVOKE USAGE ON SCHEMA presence FROM {eve}", "locked_out"),
    ] {
        let damage = damage
            .replace("{eve}", &eve)
            .replace("{bob}", &bob)
            .replace("{service}", &service);
        database.run(&damage);
        assert_eq!(failed(&mut superuser)[0].0, check, "{damage}");
        mend(&mut superuser);
    }
}

#[test]
fn the_marker_granted_to_public_makes_nobody_a_service() {
    let database = Cluster::shared().database();
    let mut superuser = healthy(&database);
    let (role, member, service) = (database.role("anybody"), database.role("member"), database.service());
    database.run(&format!(
        "GRANT USAGE ON TYPE presence._service_marker TO PUBLIC; GRANT {service} TO {member}"
    ));
    for (role, expected) in [(role, false), (member, true), (service, true)] {
        let is_service: bool = database
            .connect_as(&role)
            .query_one("SELECT presence.is_service()", &[])
            .unwrap()
            .get(0);
        assert_eq!(is_service, expected, "{role}");
    }
    assert_eq!(failed(&mut superuser)[0].0, "services");
    mend(&mut superuser);
}

#[test]
fn the_owner_and_services_may_truncate() {
    let database = Cluster::shared().database();
    let service = database.service();
    database.run(&format!("GRANT TRUNCATE ON presence.user_sessions TO {service}"));
    database
        .connect_as(&service)
        .batch_execute("TRUNCATE presence.user_sessions")
        .unwrap();
    database.run("TRUNCATE presence.user_sessions, presence.user_presence");
}

/// Starts, beats, reads and ends a session by plain SQL and by function, as whoever `client` is.
fn use_everything(client: &mut Client, user: Uuid) {
    client
        .execute("INSERT INTO presence.user_sessions (user_id) VALUES ($1)", &[&user])
        .unwrap();
    let sql =
        "SELECT id FROM presence.user_sessions WHERE user_id = $1 AND session_token <> presence.token_digest('x')";
    let id: Uuid = client.query_one(sql, &[&user]).unwrap().get(0);
    client
        .execute(
            "UPDATE presence.user_sessions SET metadata = '{}' WHERE id = $1",
            &[&id],
        )
        .unwrap();
    client
        .execute(
            "SELECT presence.presence_id('7'), presence.presence_id(7), presence.presence_user_id()",
            &[],
        )
        .unwrap();
    assert_eq!(client.beat(id), "ok");
    assert!(client.is_online(user));
    assert!(client.end(id));
}

#[test]
fn a_revoke_from_public_locks_out_nobody_who_has_been_let_in() {
    let database = Cluster::shared().database();
    let mut superuser = healthy(&database);
    let (client, service) = (database.client(), database.service());
    let check = || {
        let me = Uuid::new_v4();
        let mut client = database.connect_as(&client);
        client.act_for(me);
        use_everything(&mut client, me);
        use_everything(&mut database.connect_as(&service), Uuid::new_v4());
    };
    check();
    database.run(
        "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA presence FROM PUBLIC;
         REVOKE ALL ON ALL TABLES IN SCHEMA presence FROM PUBLIC;
         REVOKE ALL ON SCHEMA presence FROM PUBLIC;
         ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    );
    check();
    assert_eq!(failed(&mut superuser), []);
    database.run(&format!(
        "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA presence FROM {client};
         GRANT EXECUTE ON FUNCTION presence.start_session TO {client};
         REVOKE EXECUTE ON FUNCTION presence.is_service() FROM {service};
         REVOKE USAGE ON SCHEMA presence FROM {service}"
    ));
    assert_eq!(failed(&mut superuser)[0].0, "locked_out");
    mend(&mut superuser);
    check();
}

#[test]
fn a_revoke_of_the_schema_from_public_locks_out_nobody() {
    let database = Cluster::shared().database_with(Install::Public);
    let role = database.cluster.database().role("late");
    database.run(&format!("SELECT grant_client('{role}')"));
    database.run("REVOKE ALL ON SCHEMA public FROM PUBLIC");
    let mut client = database.connect_as(&role);
    client.act_for(Uuid::new_v4());
    client.execute("SELECT public.start_session()", &[]).unwrap();
}

#[test]
fn an_insert_with_the_token_of_an_ended_session_is_refused() {
    let database = Cluster::shared().database();
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let token = "a token that somebody has chosen";
    let mut first = database.client_for(one);
    let sql = "SELECT session_id FROM presence.start_session(session_token => $1)";
    let id: Uuid = first.query_one(sql, &[&token]).unwrap().get(0);
    let insert = "INSERT INTO presence.user_sessions (user_id, session_token) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let mut second = database.client_for(two);
    // While the session lives, and after its end.
    assert_refused(second.execute(insert, &[&two, &token]), DENIED);
    assert!(first.end(id));
    assert_refused(second.execute(insert, &[&two, &token]), DENIED);
    assert_refused(first.execute(insert, &[&one, &token]), DENIED);
    let mut holder = database.connect_as(&database.holder());
    assert_eq!(holder.beat_by_token(token), "ended");
    assert_eq!(
        second
            .execute(insert, &[&two, &"a token that nobody has chosen"])
            .unwrap(),
        1
    );
}

#[test]
fn the_owner_of_the_database_sets_up_without_a_superuser() {
    let database = Cluster::shared().database();
    let (owner, role) = (database.role("dbowner"), database.role("app"));
    let stranger = database.service();
    database.run(&format!(
        "ALTER DATABASE {} OWNER TO {owner}; GRANT SET ON PARAMETER presence.claim TO {owner}",
        database.name
    ));
    let mut client = database.connect_as(&owner);
    use_everything(&mut client, Uuid::new_v4());
    for kind in ["holder", "client", "reader", "service"] {
        client
            .batch_execute(&format!("SELECT presence.grant_{kind}('{role}')"))
            .unwrap();
        assert_denied(
            database
                .connect_as(&stranger)
                .batch_execute(&format!("SELECT presence.grant_{kind}('{role}')")),
        );
    }
    use_everything(&mut database.connect_as(&role), Uuid::new_v4());
    client
        .batch_execute(&format!("ALTER DATABASE {} SET presence.claim = 'user'", database.name))
        .unwrap();
    // The owner of the objects can revoke what the database's owner has granted.
    database.run(&format!("REVOKE USAGE ON TYPE presence._service_marker FROM {role}"));
    let is_service = "SELECT presence.is_service()";
    assert!(
        !database
            .connect_as(&role)
            .query_one(is_service, &[])
            .unwrap()
            .get::<_, bool>(0)
    );
}

#[test]
fn a_schema_of_somebody_else_is_refused_and_found() {
    let database = Cluster::shared().database_with(Install::None);
    let role = database.cluster.database().role("anon");
    database.run(&format!("CREATE SCHEMA presence AUTHORIZATION {role}"));
    let refused = database
        .connect()
        .batch_execute("CREATE EXTENSION pg_presence SCHEMA presence");
    assert_refused(refused, &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    database.run("ALTER SCHEMA presence OWNER TO postgres; CREATE EXTENSION pg_presence SCHEMA presence");
    let mut superuser = healthy(&database);
    database.run(&format!("ALTER SCHEMA presence OWNER TO {role}"));
    assert_eq!(failed(&mut superuser)[0].0, "schema_owner");
    mend(&mut superuser);
}

#[test]
fn health_answers_whatever_the_user_id_function_is() {
    let database = Cluster::shared().database();
    let mut superuser = healthy(&database);
    superuser
        .batch_execute("CREATE FUNCTION public.many(uuid) RETURNS SETOF uuid LANGUAGE sql AS 'SELECT $1'")
        .unwrap();
    for function in ["public.f(uuid)", "public.many", "a b.c", "\"", "public."] {
        superuser
            .batch_execute(&format!("SET presence.user_id_function = '{function}'"))
            .unwrap();
        let names: Vec<String> = failed(&mut superuser).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["identity"], "{function}");
    }
}

#[test]
fn a_command_that_is_not_permitted_does_not_queue_for_a_lock() {
    let database = Cluster::shared().database();
    let mut reading = database.client_for(Uuid::new_v4());
    reading
        .batch_execute("BEGIN; SELECT FROM presence.user_sessions")
        .unwrap();
    let mut other = database.client_for(Uuid::new_v4());
    other.batch_execute("SET lock_timeout = '3s'").unwrap();
    for command in [
        "CREATE RULE mine AS ON UPDATE TO presence.user_sessions DO ALSO NOTHING",
        "DROP TRIGGER presence_capture ON presence.user_sessions",
        "DROP RULE mine ON presence.user_sessions",
        "DROP POLICY own_or_service_select ON presence.user_sessions",
        "ALTER TRIGGER presence_capture ON presence.user_sessions DEPENDS ON EXTENSION pg_presence",
        "CREATE TRIGGER mine BEFORE INSERT ON presence.user_sessions
             EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ] {
        let error = error_of(other.batch_execute(command));
        assert_eq!(error.code(), DENIED, "{command}: {error:?}");
    }
}
