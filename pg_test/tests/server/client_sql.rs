//! What a client may do to rows with plain SQL.

use pg_presence_test::{Cluster, DENIED, Presence, assert_denied, assert_refused, error_text};
use postgres::error::SqlState;
use uuid::Uuid;

use crate::hours::Server;

#[test]
fn a_client_sees_and_touches_its_own_rows_only() {
    let database = Cluster::shared().database();
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let mut client = database.client_for(me);
    let mine = client.start_own();
    let foreign = database.connect().start(other);

    let rows = client.query("SELECT * FROM presence.user_sessions", &[]).unwrap();
    assert_eq!(
        rows.iter().map(|row| row.get::<_, Uuid>("id")).collect::<Vec<_>>(),
        [mine.id]
    );
    let update = "UPDATE presence.user_sessions SET is_active = false WHERE id = $1";
    assert_eq!(client.execute(update, &[&foreign.id]).unwrap(), 0);
    assert_eq!(
        client
            .execute("UPDATE presence.user_sessions SET metadata = '{\"a\": 1}'", &[])
            .unwrap(),
        1
    );
    assert!(database.connect().is_online(other));
}

#[test]
fn a_client_learns_nothing_from_a_primary_key_or_a_digest() {
    let database = Cluster::shared().database();
    let me = Uuid::new_v4();
    let mut client = database.client_for(me);
    let mut service = database.connect();
    let foreign = service.start(Uuid::new_v4());
    let digest: String = service
        .query_one(
            "SELECT session_token FROM presence.user_sessions WHERE id = $1",
            &[&foreign.id],
        )
        .unwrap()
        .get(0);

    // The id is always a new one, so a taken id does not conflict.
    let insert = "INSERT INTO presence.user_sessions (id, user_id, auth_id) VALUES ($1, $2, $2) RETURNING id";
    let id: Uuid = client.query_one(insert, &[&foreign.id, &me]).unwrap().get(0);
    assert_ne!(id, foreign.id);
    // A digest is a token like any other, so it is digested and collides with nothing.
    let insert = "INSERT INTO presence.user_sessions (session_token, user_id, auth_id) VALUES ($1, $2, $2)
                  RETURNING session_token";
    match client.query_one(insert, &[&digest, &me]) {
        Ok(row) => assert_ne!(row.get::<_, String>(0), digest),
        Err(error) => assert_ne!(error.code(), Some(&SqlState::UNIQUE_VIOLATION), "{error:?}"),
    }
    // The token itself is the secret; whoever has it still learns nothing about the row.
    for token in [foreign.token.as_str(), "a token of my own with many bytes"] {
        if let Err(error) = client.query_one(insert, &[&token, &me]) {
            let error = error.as_db_error().unwrap();
            assert!(!error_text(error).contains("sha256:"), "{error:?}");
        }
    }
}

#[test]
fn a_client_may_insert_a_session_by_plain_sql() {
    let database = Cluster::shared().database();
    let me = Uuid::new_v4();
    let mut client = database.client_for(me);
    let wanted = Uuid::new_v4();
    let sql = "INSERT INTO presence.user_sessions
                   (id, user_id, auth_id, session_token, is_active, last_activity, created_at, expires_at, ended_at)
               VALUES ($1, $2, $2, 'clients may make their own tokens', true, 'infinity', '-infinity', 'infinity', NULL)
               RETURNING *, last_activity BETWEEN now() AND clock_timestamp() AND created_at BETWEEN now() AND clock_timestamp(),
                   expires_at <= clock_timestamp() + '7 d'::interval";
    let row = client.query_one(sql, &[&wanted, &me]).unwrap();
    let id: Uuid = row.get("id");
    assert_ne!(id, wanted, "the id is always a new one");
    assert!(row.get::<_, bool>(row.len() - 2), "times are the server's");
    assert!(row.get::<_, bool>(row.len() - 1), "expires_at is capped");
    assert!(row.get::<_, String>("session_token").starts_with("sha256:"));
    assert_eq!(client.beat(id), "ok");
    assert_eq!(
        database.connect().beat_by_token("clients may make their own tokens"),
        "ok"
    );
    assert!(database.connect().is_online(me));

    let other = Uuid::new_v4();
    for (user, auth) in [(other, me), (me, other), (other, other)] {
        let insert = "INSERT INTO presence.user_sessions (user_id, auth_id) VALUES ($1, $2)";
        assert_denied(client.execute(insert, &[&user, &auth]));
    }
    assert!(!database.connect().is_online(other));
}

#[test]
fn saving_every_column_as_an_orm_does_works() {
    let database = Cluster::shared().database();
    let mut client = database.client_for(Uuid::new_v4());
    let session = client.start_own();
    let sql = "UPDATE presence.user_sessions SET id = id, user_id = user_id, auth_id = auth_id,
                   session_token = session_token, is_active = is_active, last_activity = last_activity,
                   created_at = created_at, expires_at = expires_at, metadata = '{\"saved\": true}',
                   ended_at = ended_at, user_key = user_key
               WHERE id = $1 RETURNING *";
    assert_eq!(client.query(sql, &[&session.id]).unwrap().len(), 1);
    assert_eq!(client.beat(session.id), "ok");
}

#[test]
fn a_protected_value_that_differs_is_refused() {
    let database = Cluster::shared().database();
    let me = Uuid::new_v4();
    let mut client = database.client_for(me);
    let session = client.start_own();
    for change in [
        "id = gen_random_uuid()",
        "user_id = gen_random_uuid()",
        "auth_id = gen_random_uuid()",
        "session_token = 'sha256:' || repeat('0', 64)",
        "created_at = created_at - interval '1 s'",
        "expires_at = expires_at + interval '1 s'",
        "ended_at = now()",
        "user_key = 'somebody'",
    ] {
        let sql = format!("UPDATE presence.user_sessions SET {change} WHERE id = $1");
        assert_refused(client.execute(&sql, &[&session.id]), DENIED);
    }
    assert_eq!(client.beat(session.id), "ok");
    let sql = "UPDATE presence.user_sessions SET last_activity = 'infinity' WHERE id = $1 RETURNING last_activity <= clock_timestamp()";
    assert!(
        client.query_one(sql, &[&session.id]).unwrap().get::<_, bool>(0),
        "last_activity becomes now"
    );
}

#[test]
fn a_client_cannot_revive_an_ended_session() {
    let database = Cluster::shared().database();
    let me = Uuid::new_v4();
    let mut client = database.client_for(me);
    let session = client.start_own();
    let sql = "UPDATE presence.user_sessions SET is_active = false WHERE id = $1";
    client.execute(sql, &[&session.id]).unwrap();
    assert!(!client.is_online(me));
    for change in [
        "is_active = true",
        "last_activity = now()",
        "is_active = true, ended_at = NULL",
    ] {
        // Refused or without effect: either is fine.
        let _ = client.execute(
            &format!("UPDATE presence.user_sessions SET {change} WHERE id = $1"),
            &[&session.id],
        );
        assert!(!client.is_online(me), "{change}");
        assert_eq!(client.beat(session.id), "ended", "{change}");
    }
    let sql = "SELECT presence.start_session(session_token => $1)";
    assert_refused(client.execute(sql, &[&session.token]), DENIED);
    assert!(!client.is_online(me));
}

#[test]
fn a_client_can_neither_delete_nor_lock_nor_truncate() {
    let database = Cluster::shared().database();
    let mut client = database.client_for(Uuid::new_v4());
    client.start_own();
    for table in [
        "user_sessions",
        "user_presence",
        "presence_changes",
        "_feed_state",
        "declared_statuses",
    ] {
        assert_denied(client.batch_execute(&format!("DELETE FROM presence.{table}")));
        assert_denied(client.batch_execute(&format!("TRUNCATE presence.{table}")));
        for mode in ["ACCESS EXCLUSIVE", "EXCLUSIVE", "SHARE ROW EXCLUSIVE", "SHARE"] {
            assert_denied(client.batch_execute(&format!("BEGIN; LOCK TABLE presence.{table} IN {mode} MODE")));
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
    for sql in [
        "ALTER TABLE presence.user_sessions DISABLE TRIGGER ALL",
        "CREATE TRIGGER t BEFORE INSERT ON presence.user_sessions EXECUTE FUNCTION presence._capture()",
        "SET session_replication_role = replica",
        "SELECT presence.grant_service(current_user::regrole)",
    ] {
        assert_denied(client.batch_execute(sql));
    }
}

#[test]
fn a_clients_sessions_are_limited() {
    let cluster = Cluster::private(&[("presence.max_sessions_per_user", "3")]);
    let database = cluster.database();
    let me = Uuid::new_v4();
    let mut client = database.client_for(me);
    let sessions: Vec<_> = (0..3).map(|_| client.start_own()).collect();
    let limit = &SqlState::CONFIGURATION_LIMIT_EXCEEDED;
    assert_refused(client.execute("SELECT presence.start_session()", &[]), limit);
    let insert = "INSERT INTO presence.user_sessions (user_id, auth_id) VALUES ($1, $1)";
    assert_refused(client.execute(insert, &[&me]), limit);
    let many = "INSERT INTO presence.user_sessions (user_id, auth_id) SELECT $1, $1 FROM generate_series(1, 10)";
    assert_refused(client.execute(many, &[&me]), limit);
    // The same token is the same session, at the limit too.
    let again = "SELECT session_id FROM presence.start_session(session_token => $1)";
    assert_eq!(
        client
            .query_one(again, &[&sessions[0].token])
            .unwrap()
            .get::<_, Uuid>(0),
        sessions[0].id
    );
    client.end(sessions[0].id);
    client.start_own();
    database.connect().start(me);
}

#[test]
fn a_clients_open_transaction_delays_nobody_else() {
    let server = Server::new("2h");
    let database = server.cluster.database();
    let mut listener = database.listen();
    let me = Uuid::new_v4();
    let mut client = database.client_for(me);
    let session = client.start_own();
    listener.wait_for(me, &["active"]);
    client.batch_execute("BEGIN").unwrap();
    let sql = "UPDATE presence.user_sessions SET metadata = '{\"lock\": 1}' WHERE id = $1";
    client.execute(sql, &[&session.id]).unwrap();

    let mut service = database.connect();
    let user = Uuid::new_v4();
    let other = service.start(user);
    listener.wait_for(user, &["active"]);
    server.pass(3);
    listener.wait_for(user, &["active", "inactive"]);
    assert_eq!(service.beat(other.id), "ok");
    listener.wait_for(user, &["active", "inactive", "active"]);
    // The client's own timeout is notified too; only its row has to wait.
    listener.wait_for(me, &["active", "inactive"]);
    client.batch_execute("ROLLBACK").unwrap();
}

#[test]
fn rights_do_not_depend_on_row_level_security_being_on() {
    let database = Cluster::shared().database();
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let foreign = database.connect().start(other);
    database.run("ALTER TABLE presence.user_sessions DISABLE ROW LEVEL SECURITY");
    let mut client = database.client_for(me);
    assert!(
        !client
            .query_one("SELECT presence.is_service()", &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    assert_eq!(client.beat(foreign.id), "unknown");
    assert!(!client.end(foreign.id));
    assert_refused(
        client.execute("SELECT presence.start_session(user_id => $1)", &[&other]),
        DENIED,
    );
}

#[test]
fn a_search_path_full_of_traps_changes_nothing() {
    let database = Cluster::shared().database();
    let me = Uuid::new_v4();
    let role = database.client();
    database.run(&format!(
        "CREATE SCHEMA evil AUTHORIZATION {role}; GRANT USAGE ON SCHEMA evil TO {role}"
    ));
    let mut client = database.connect_as(&role);
    client
        .batch_execute(
            "CREATE TABLE evil.user_sessions (LIKE presence.user_sessions);
             CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'infinity'::timestamptz $$;
             CREATE FUNCTION evil.is_service() RETURNS bool LANGUAGE sql AS 'SELECT true';
             CREATE FUNCTION evil.eq(uuid, uuid) RETURNS bool LANGUAGE sql AS 'SELECT true';
             CREATE OPERATOR evil.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = evil.eq);
             SET search_path = evil, pg_catalog, presence",
        )
        .unwrap();
    client.act_for(me);
    let session = client.start_own();
    assert_eq!(client.beat(session.id), "ok");
    let foreign = database.connect().start(Uuid::new_v4());
    assert_eq!(client.beat(foreign.id), "unknown");
    assert!(!client.end(foreign.id));
    let visible: i64 = client
        .query_one("SELECT count(*) FROM presence.user_sessions", &[])
        .unwrap()
        .get(0);
    assert_eq!(visible, 1);
    let sql = "SELECT created_at < 'infinity' FROM presence.user_sessions";
    assert!(client.query_one(sql, &[]).unwrap().get::<_, bool>(0));
    assert!(client.end(session.id));
}

const UPSERT: &str =
    "INSERT INTO presence.user_sessions (id, user_id, auth_id, session_token, metadata, is_active, last_activity)
     VALUES ($1, $2, $2, coalesce($3::text, encode(sha256(random()::text::bytea), 'hex')), $4::text::jsonb, $5, now())
     ON CONFLICT (id) DO UPDATE SET metadata = excluded.metadata, is_active = excluded.is_active,
         last_activity = excluded.last_activity RETURNING id";

#[test]
fn an_upsert_with_the_id_of_an_own_session_merges_with_it() {
    let database = Cluster::shared().database();
    let user = Uuid::new_v4();
    let mut client = database.client_for(user);
    let session = client.start_own();
    let no_token = None::<&str>;
    for metadata in [r#"{"a": 1}"#, r#"{"a": 2}"#] {
        let row = client
            .query_one(UPSERT, &[&session.id, &user, &no_token, &metadata, &true])
            .unwrap();
        assert_eq!(row.get::<_, Uuid>(0), session.id);
    }
    let sql = "SELECT count(*), min(metadata::text) FROM presence.user_sessions";
    let row = client.query_one(sql, &[]).unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1)), (1, r#"{"a": 2}"#));
    assert_eq!(database.connect().beat_by_token(&session.token), "ok");

    // As a logout, and then not brought back.
    client
        .query_one(UPSERT, &[&session.id, &user, &no_token, &"{}", &false])
        .unwrap();
    assert_eq!(client.beat(session.id), "ended");
    client
        .query_one(UPSERT, &[&session.id, &user, &no_token, &"{}", &true])
        .unwrap();
    assert_eq!(client.beat(session.id), "ended");
}

#[test]
fn an_upsert_of_a_whole_row_merges_with_it() {
    let database = Cluster::shared().database();
    let user = Uuid::new_v4();
    let mut client = database.client_for(user);
    let session = client.start_own();
    let columns = "id, user_id, auth_id, session_token, is_active, last_activity, created_at, expires_at, metadata,
                   ended_at, user_key";
    let set: Vec<String> = columns
        .split(',')
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    let upsert = format!(
        "INSERT INTO presence.user_sessions ({columns}) SELECT {columns} FROM presence.user_sessions
         ON CONFLICT (id) DO UPDATE SET {}",
        set.join(", ")
    );
    client.batch_execute(&upsert).unwrap();
    assert_eq!(database.connect().beat_by_token(&session.token), "ok");
    client.end(session.id);
    client.batch_execute(&upsert).unwrap();
    assert_eq!(database.connect().beat_by_token(&session.token), "ended");
    let count: i64 = client
        .query_one("SELECT count(*) FROM presence.user_sessions", &[])
        .unwrap()
        .get(0);
    assert_eq!(count, 1);
}

#[test]
fn an_upsert_with_the_id_of_a_foreign_session_starts_another() {
    let database = Cluster::shared().database();
    let (user, other) = (Uuid::new_v4(), Uuid::new_v4());
    let foreign = database.connect().start(other);
    let mut client = database.client_for(user);
    let row = client
        .query_one(UPSERT, &[&foreign.id, &user, &Some(&foreign.token[..]), &"{}", &true])
        .map(|row| row.get::<_, Uuid>(0));
    // The token is another session's, the id is not even looked at.
    assert!(row.is_err());
    let row = client
        .query_one(UPSERT, &[&foreign.id, &user, &None::<&str>, &"{}", &true])
        .unwrap();
    assert_ne!(row.get::<_, Uuid>(0), foreign.id);
    assert!(database.connect().is_online(other));
}

#[test]
fn sessions_that_a_user_has_ended_cost_nothing() {
    let database = Cluster::shared().database();
    let (user, other) = (Uuid::new_v4(), Uuid::new_v4());
    // How many rows a transaction of the user reads that starts a session and looks the user up.
    let rows_read = |user: Uuid| -> i64 {
        let mut client = database.client_for(user);
        let session = client.start_own();
        client.end(session.id);
        let mut transaction = client.transaction().unwrap();
        transaction
            .batch_execute("SELECT presence.last_seen(presence.presence_user_id()), presence.start_session()")
            .unwrap();
        let sql = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'user_sessions'";
        let rows = transaction.query_one(sql, &[]).unwrap().get(0);
        transaction.commit().unwrap();
        rows
    };
    let none = rows_read(other);
    database.run(&format!(
        "INSERT INTO presence.user_sessions (user_id, created_at, last_activity, ended_at)
         SELECT '{user}', at, at, at FROM generate_series(now() - interval '1 h', now(), '1 s') at"
    ));
    let mut client = database.client_for(user);
    for _ in 0..150 {
        let session = client.start_own();
        assert!(client.end(session.id));
    }
    let sql = "SELECT count(*) FROM presence.user_sessions WHERE ended_at IS NOT NULL";
    let kept: i64 = client.query_one(sql, &[]).unwrap().get(0);
    assert!((700..=1000).contains(&kept), "{kept}");
    let some = (0..5).map(|_| rows_read(user)).min().unwrap();
    assert!(some <= none + 10, "{some} rows, {none} for a new user");
}
