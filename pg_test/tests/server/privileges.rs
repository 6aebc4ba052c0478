//! Who may do what, tried by real roles on their own connections.

use pg_presence_test::{Cluster, DENIED, Install, Presence, assert_denied, assert_refused, wait_until};
use uuid::Uuid;

#[test]
fn everybody_may_read_their_own_identity_and_nothing_else() {
    let database = Cluster::shared().database();
    let role = database.role("nobody");
    let sql = "SELECT proname::text FROM pg_proc
               WHERE pronamespace = 'presence'::regnamespace AND has_function_privilege($1::text, oid, 'EXECUTE')
               GROUP BY 1 ORDER BY 1";
    let mut superuser = database.connect();
    let rows = superuser.query(sql, &[&role]).unwrap();
    let callable: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        callable,
        [
            "is_service",
            "presence_auth_id",
            "presence_id",
            "presence_user_id",
            "token_digest"
        ]
    );

    let sql = "SELECT relname::text FROM pg_class
               WHERE relnamespace = 'presence'::regnamespace AND relkind IN ('r', 'v', 'S')
                 AND (has_any_column_privilege($1::text, oid, 'SELECT, INSERT, UPDATE, REFERENCES')
                      OR has_table_privilege($1::text, oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER'))";
    let rows = superuser.query(sql, &[&role]).unwrap();
    let readable: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert!(readable.is_empty(), "{readable:?}");

    let mut nobody = database.connect_as(&role);
    assert!(
        !nobody
            .query_one("SELECT presence.is_service()", &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    assert_denied(nobody.batch_execute("SELECT presence.online_users()"));
}

#[test]
fn a_service_acts_for_anybody() {
    let database = Cluster::shared().database();
    let mut service = database.connect_as(&database.service());
    let user = Uuid::new_v4();
    assert!(
        service
            .query_one("SELECT presence.is_service()", &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    let session = service.start(user);
    assert_eq!(service.beat(session.id), "ok");
    assert_eq!(service.beat_by_token(&session.token), "ok");
    assert!(service.is_online(user));
    assert_eq!(service.online_users(), [user]);
    service
        .execute("UPDATE presence.user_sessions SET metadata = '{}'", &[])
        .unwrap();
    service.query("SELECT * FROM presence.presence_stats", &[]).unwrap();
    service.query("SELECT * FROM presence.presence_health()", &[]).unwrap();
    assert!(service.end(session.id));
    service.execute("DELETE FROM presence.user_sessions", &[]).unwrap();
}

#[test]
fn a_revoked_service_is_none_from_the_next_statement_on() {
    let database = Cluster::shared().database();
    let role = database.service();
    let mut service = database.connect_as(&role);
    let user = Uuid::new_v4();
    service.start(user);
    database.run(&format!(
        "DO $$ DECLARE f regprocedure; BEGIN
            FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'presence'::regnamespace LOOP
                EXECUTE format('REVOKE ALL ON FUNCTION %s FROM {role}', f);
            END LOOP;
            REVOKE USAGE ON TYPE presence._service_marker FROM {role};
        END $$"
    ));
    assert!(
        !service
            .query_one("SELECT presence.is_service()", &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    assert_denied(service.execute("SELECT presence.start_session(user_id => $1)", &[&user]));
}

#[test]
fn bypassrls_and_membership_of_the_owner_make_a_service() {
    let database = Cluster::shared().database();
    let (bypass, member, plain) = (database.role("bypass"), database.role("member"), database.role("plain"));
    let owner = database.role("owner");
    database.run(&format!("ALTER ROLE {bypass} BYPASSRLS; GRANT {owner} TO {member}"));
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
    for (role, expected) in [(bypass, true), (member, true), (plain, false)] {
        let mut client = database.connect_as(&role);
        let is_service: bool = client.query_one("SELECT presence.is_service()", &[]).unwrap().get(0);
        assert_eq!(is_service, expected, "{role}");
    }
}

#[test]
fn a_client_acts_for_its_identity() {
    let database = Cluster::shared().database();
    let mut reader = database.connect();
    let me = Uuid::new_v4();
    let mut client = database.client_for(me);
    let who = client
        .query_one("SELECT presence.presence_auth_id(), presence.presence_user_id()", &[])
        .unwrap();
    assert_eq!((who.get::<_, Uuid>(0), who.get::<_, Uuid>(1)), (me, me));

    let session = client.start_own();
    assert!(reader.is_online(me));
    assert_eq!(client.beat(session.id), "ok");
    assert!(client.is_online(me));
    assert_eq!(client.user_status(me), "active");
    let sql = "SELECT presence.rotate_session_token($1)";
    let _: String = client.query_one(sql, &[&session.id]).unwrap().get(0);
    assert!(client.release(session.id, "1 h"));
    assert!(client.end(session.id));
    assert_eq!(client.beat(session.id), "ended");
    client.start_own();
    assert_eq!(
        client
            .query_one("SELECT presence.end_user_sessions()", &[])
            .unwrap()
            .get::<_, i32>(0),
        1
    );
    assert!(!reader.is_online(me));
}

#[test]
fn a_client_may_name_itself_but_nobody_else() {
    let database = Cluster::shared().database();
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let mut client = database.client_for(me);
    client.start(me);
    for call in [
        "start_session(user_id => $1)",
        "start_session(auth_id => $1)",
        "start_session(user_key => $1::text)",
        "end_user_sessions($1)",
        "is_online($1)",
        "last_seen($1)",
        "user_status($1)",
    ] {
        let sql = format!("SELECT presence.{call} FROM (SELECT $1::uuid) s");
        let sql = sql.replace("presence.user_status($1)", "presence.user_status($1)::text");
        assert_refused(client.execute(&sql, &[&other]), DENIED);
    }
    for call in [
        "start_sessions(ARRAY[$1::uuid])",
        "forget_user($1)",
        "cleanup_sessions()",
    ] {
        let sql = format!("SELECT presence.{call} FROM (SELECT $1::uuid) s");
        assert_denied(client.execute(&sql, &[&me]));
    }
    for call in [
        "online_users()",
        "online_count()",
        "presence_of(ARRAY[]::uuid[])",
        "changes_since(0)",
        "presence_cursor()",
    ] {
        assert_denied(client.batch_execute(&format!("SELECT presence.{call}")));
    }
    for table in ["user_presence", "presence_changes", "_feed_state", "presence_stats"] {
        let seen = client.query(&format!("SELECT * FROM presence.{table}"), &[]);
        assert!(seen.is_err() || seen.unwrap().is_empty(), "{table}");
    }
    assert!(!database.connect().is_online(other));
}

#[test]
fn a_reader_sees_everybodys_status_and_no_session() {
    let database = Cluster::shared().database();
    let user = Uuid::new_v4();
    let mut service = database.connect();
    let session = service.start(user);
    let mut listener = database.listen();
    listener.receive();
    let mut reader = database.connect_as(&database.reader());
    assert!(reader.is_online(user));
    assert_eq!(reader.user_status(user), "active");
    assert_eq!(reader.online_users(), [user]);
    assert_eq!(reader.online_count(), 1);
    wait_until("the change is in the feed", || {
        reader
            .query("SELECT * FROM presence.changes_since(0)", &[])
            .unwrap()
            .len()
            == 1
    });
    assert_eq!(
        reader.query("SELECT * FROM presence.user_presence", &[]).unwrap().len(),
        1
    );
    assert_eq!(
        reader
            .query("SELECT * FROM presence.presence_changes", &[])
            .unwrap()
            .len(),
        1
    );
    reader
        .query_one("SELECT * FROM presence.presence_cursor()", &[])
        .unwrap();

    let seen = reader.query("SELECT * FROM presence.user_sessions", &[]);
    assert!(seen.is_err() || seen.unwrap().is_empty());
    assert_denied(reader.execute("SELECT presence.heartbeat($1)", &[&session.id]));
    assert_denied(reader.execute("SELECT presence.heartbeat_by_token($1)", &[&session.token]));
    assert_denied(reader.execute("UPDATE presence.user_presence SET is_online = false", &[]));
    assert_denied(reader.execute("DELETE FROM presence.presence_changes", &[]));
}

#[test]
fn a_holder_has_the_three_functions_by_token_and_nothing_else() {
    let database = Cluster::shared().database();
    let user = Uuid::new_v4();
    let session = database.connect().start(user);
    let role = database.holder();
    let mut holder = database.connect_as(&role);
    assert_eq!(holder.beat_by_token(&session.token), "ok");
    let release = "SELECT presence.release_session_by_token($1, '1 h')";
    assert!(holder.query_one(release, &[&session.token]).unwrap().get::<_, bool>(0));
    assert_denied(holder.execute("SELECT presence.heartbeat($1)", &[&session.id]));
    assert_denied(holder.execute("SELECT presence.is_online($1)", &[&user]));
    assert_denied(holder.execute("SELECT presence.start_session()", &[]));
    assert_denied(holder.query("SELECT * FROM presence.user_sessions", &[]));
    let end = "SELECT presence.end_session_by_token($1)";
    assert!(holder.query_one(end, &[&session.token]).unwrap().get::<_, bool>(0));
    assert!(!database.connect().is_online(user));
    // A holder has nothing but the token: it beats no ended session, whatever it is answered.
    assert_ne!(holder.beat_by_token(&session.token), "ok");
}

#[test]
fn supabases_roles_get_their_privileges_and_no_more() {
    let cluster = Cluster::private(&[]);
    let mut postgres = cluster.connect("postgres");
    postgres
        .batch_execute(
            "CREATE ROLE anon LOGIN; CREATE ROLE authenticated LOGIN; CREATE ROLE service_role LOGIN BYPASSRLS",
        )
        .unwrap();
    let database = cluster.database_with(Install::None);
    database.run(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
         ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;
         ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;
         CREATE EXTENSION pg_presence",
    );
    let (mut anon, mut user, mut service) = (
        database.connect_as("anon"),
        database.connect_as("authenticated"),
        database.connect_as("service_role"),
    );

    let me = Uuid::new_v4();
    user.act_for(me);
    let row = user
        .query_one("SELECT session_id, session_token FROM start_session()", &[])
        .unwrap();
    let (session, token): (Uuid, String) = (row.get(0), row.get(1));
    let beat = "SELECT heartbeat_by_token($1)";
    assert_eq!(anon.query_one(beat, &[&token]).unwrap().get::<_, &str>(0), "ok");
    assert_eq!(
        user.query_one("SELECT heartbeat($1)", &[&session])
            .unwrap()
            .get::<_, &str>(0),
        "ok"
    );
    assert_eq!(
        user.query_one("SELECT online_count()", &[]).unwrap().get::<_, i64>(0),
        1
    );
    let other = Uuid::new_v4();
    service
        .execute("SELECT start_session(user_id => $1)", &[&other])
        .unwrap();
    assert!(
        user.query_one("SELECT is_online($1)", &[&other])
            .unwrap()
            .get::<_, bool>(0)
    );

    assert_denied(anon.execute("SELECT heartbeat($1)", &[&session]));
    assert_denied(anon.execute("SELECT online_count()", &[]));
    for client in [&mut anon, &mut user] {
        for table in [
            "user_sessions",
            "user_presence",
            "presence_changes",
            "_feed_state",
            "declared_statuses",
        ] {
            assert_denied(client.batch_execute(&format!("TRUNCATE {table}")));
            assert_denied(client.batch_execute(&format!("DELETE FROM {table}")));
            assert_denied(client.batch_execute(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")));
            client.batch_execute("ROLLBACK").unwrap();
        }
        assert_denied(client.execute("SELECT forget_user($1)", &[&me]));
    }
    let health = "SELECT string_agg(check_name || ': ' || detail, ', ') FROM presence_health() WHERE NOT ok";
    wait_until("every check is ok, once the worker is there", || {
        let unwell = service.query_one(health, &[]).unwrap();
        unwell.get::<_, Option<&str>>(0).is_none()
    });
}
