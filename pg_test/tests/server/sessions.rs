//! Starting, beating and ending sessions, as a service.

use pg_presence_test::{Cluster, Presence, assert_refused};
use postgres::error::SqlState;
use uuid::Uuid;

const INVALID: &SqlState = &SqlState::INVALID_PARAMETER_VALUE;

#[test]
fn a_login_makes_a_user_active_and_a_logout_inactive() {
    let database = Cluster::shared().database();
    let (mut service, mut reader) = (database.connect(), database.connect());
    let user = Uuid::new_v4();
    assert_eq!(reader.user_status(user), "inactive");

    let session = service.start(user);
    assert!(reader.is_online(user));
    assert_eq!(reader.user_status(user), "active");
    assert_eq!(reader.online_users(), [user]);
    assert_eq!(reader.online_count(), 1);

    assert!(service.end(session.id));
    assert!(!reader.is_online(user));
    assert_eq!(reader.user_status(user), "inactive");
    assert!(reader.online_users().is_empty());
    assert_eq!(reader.online_count(), 0);
}

#[test]
fn a_login_returns_token_intervals_and_times() {
    let database = Cluster::shared().database();
    let sql = "SELECT *, expires_at - server_time BETWEEN '7 d'::interval - '1 min'::interval AND '7 d'::interval,
                      server_time BETWEEN now() - '1 min'::interval AND clock_timestamp() + '1 s'::interval
               FROM presence.start_session(user_id => $1)";
    let row = database.connect().query_one(sql, &[&Uuid::new_v4()]).unwrap();
    let names: Vec<&str> = row.columns().iter().map(|column| column.name()).take(6).collect();
    assert_eq!(
        names,
        [
            "session_id",
            "session_token",
            "expires_at",
            "heartbeat_ms",
            "timeout_ms",
            "server_time"
        ]
    );
    assert_eq!(row.get::<_, i32>("heartbeat_ms"), 120_000);
    assert_eq!(row.get::<_, i32>("timeout_ms"), 300_000);
    assert!(row.get::<_, bool>(6) && row.get::<_, bool>(7));
}

#[test]
fn a_token_is_43_url_safe_characters_and_stored_as_its_digest() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4());
    assert_eq!(session.token.len(), 43);
    assert!(
        session
            .token
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    );
    let sql = "SELECT session_token = 'sha256:' || encode(sha256($2::text::bytea), 'hex'),
                      session_token = presence.token_digest($2)
               FROM presence.user_sessions WHERE id = $1";
    let row = service.query_one(sql, &[&session.id, &session.token]).unwrap();
    assert!(row.get::<_, bool>(0) && row.get::<_, bool>(1));
}

#[test]
fn two_sessions_of_one_user_count_as_one_user() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let (one, two) = (service.start(user), service.start(user));
    assert_ne!(one.id, two.id);
    assert_eq!(service.online_count(), 1);
    let sql = "SELECT session_count::bigint FROM presence.presence_of(ARRAY[$1::uuid])";
    assert_eq!(service.query_one(sql, &[&user]).unwrap().get::<_, i64>(0), 2);

    service.end(one.id);
    assert!(service.is_online(user));
    assert_eq!(service.query_one(sql, &[&user]).unwrap().get::<_, i64>(0), 1);
    service.end(two.id);
    assert!(!service.is_online(user));
}

#[test]
fn a_beat_returns_whether_it_counted() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4());
    assert_eq!(service.beat(session.id), "ok");
    assert_eq!(service.beat_by_token(&session.token), "ok");
    assert_eq!(service.beat(Uuid::new_v4()), "unknown");
    assert_eq!(service.beat_by_token("a token that nobody was ever given"), "unknown");
    service.end(session.id);
    assert_eq!(service.beat(session.id), "ended");
    assert_eq!(service.beat(session.id), "ended");
}

#[test]
fn a_beat_moves_last_seen() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    let sql = "SELECT presence.last_seen($1) > $2::text::timestamptz, presence.last_seen($1)::text";
    let first: String = service.query_one(sql, &[&user, &"-infinity"]).unwrap().get(1);
    service.batch_execute("SELECT pg_sleep(0.002)").unwrap();
    service.beat(session.id);
    assert!(service.query_one(sql, &[&user, &first]).unwrap().get::<_, bool>(0));
}

#[test]
fn heartbeat_many_returns_the_sessions_that_did_not_count() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (live, ended) = (service.start(Uuid::new_v4()), service.start(Uuid::new_v4()));
    service.end(ended.id);
    let stranger = Uuid::new_v4();
    let sql = "SELECT presence.heartbeat_many($1)";
    let mut beat = |ids: &[Option<Uuid>]| -> Vec<Uuid> {
        let mut missed: Vec<Uuid> = service.query_one(sql, &[&ids]).unwrap().get(0);
        missed.sort();
        missed.dedup();
        missed
    };
    assert!(beat(&[]).is_empty());
    assert!(beat(&[Some(live.id), None, Some(live.id)]).is_empty());
    let mut missed = [ended.id, stranger];
    missed.sort();
    assert_eq!(beat(&[Some(ended.id), Some(live.id), Some(stranger)]), missed);
}

#[test]
fn a_session_ends_once() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4());
    assert!(service.end(session.id));
    assert!(!service.end(session.id));
    assert!(!service.end(Uuid::new_v4()));
    let sql = "SELECT is_active, ended_at IS NOT NULL FROM presence.user_sessions WHERE id = $1";
    let row = service.query_one(sql, &[&session.id]).unwrap();
    assert!(!row.get::<_, bool>(0) && row.get::<_, bool>(1));
}

#[test]
fn a_token_ends_its_session() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    let sql = "SELECT presence.end_session_by_token($1)";
    let mut end = |token: &str| -> bool { service.query_one(sql, &[&token]).unwrap().get(0) };
    assert!(!end("a token that nobody was ever given"));
    assert!(!end("weak"));
    assert!(end(&session.token));
    assert!(!end(&session.token));
    assert!(!service.is_online(user));
}

#[test]
fn many_sessions_end_together() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let ids: Vec<Uuid> = (0..5).map(|_| service.start(user).id).collect();
    let sql = "SELECT presence.end_sessions($1)";
    let ids_and_null = [Some(ids[0]), None, Some(ids[1]), Some(ids[0]), Some(Uuid::new_v4())];
    assert_eq!(
        service.query_one(sql, &[&&ids_and_null[..]]).unwrap().get::<_, i32>(0),
        2
    );
    assert!(service.is_online(user));

    let sql = "SELECT presence.end_user_sessions($1)";
    assert_eq!(service.query_one(sql, &[&user]).unwrap().get::<_, i32>(0), 3);
    assert_eq!(service.query_one(sql, &[&user]).unwrap().get::<_, i32>(0), 0);
    assert!(!service.is_online(user));
}

#[test]
fn a_service_must_name_the_user_to_sign_out() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    assert_refused(service.execute("SELECT presence.end_user_sessions()", &[]), INVALID);
    assert_refused(service.execute("SELECT presence.start_session()", &[]), INVALID);
}

#[test]
fn many_sessions_start_together_in_order() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
    let sql =
        "SELECT user_id, session_id FROM presence.start_sessions($1, metadata => ARRAY['{\"gateway\": 7}'::jsonb])";
    let rows = service.query(sql, &[&users]).unwrap();
    let answered: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(answered, users);
    for row in &rows {
        assert_eq!(service.beat(row.get(1)), "ok");
    }
    let mut online = service.online_users();
    online.sort();
    let mut expected = users.clone();
    expected.sort();
    assert_eq!(online, expected);
}

#[test]
fn the_same_token_is_the_same_session() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let token = "a page's own secret of enough bytes";
    let sql = "SELECT session_id, expires_at::text, session_token
               FROM presence.start_session(user_id => $1, session_token => $2)";
    let first = service.query_one(sql, &[&user, &token]).unwrap();
    let again = service.query_one(sql, &[&user, &token]).unwrap();
    assert_eq!(first.get::<_, Uuid>(0), again.get::<_, Uuid>(0));
    assert_eq!(first.get::<_, &str>(1), again.get::<_, &str>(1));
    assert_eq!(service.beat_by_token(token), "ok");
    let count = "SELECT count(*) FROM presence.user_sessions";
    assert_eq!(service.query_one(count, &[]).unwrap().get::<_, i64>(0), 1);
}

#[test]
fn a_weak_token_is_refused() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let sql = "SELECT presence.start_session(user_id => $1, session_token => $2)";
    for token in ["", "short", &"x".repeat(21), &"x".repeat(513)] {
        assert_refused(service.execute(sql, &[&Uuid::new_v4(), &token]), INVALID);
        assert_eq!(service.beat_by_token(token), "unknown");
    }
    for token in ["x".repeat(22), "y".repeat(512)] {
        service.execute(sql, &[&Uuid::new_v4(), &token]).unwrap();
        assert_eq!(service.beat_by_token(&token), "ok");
    }
}

#[test]
fn a_new_token_replaces_the_old_at_commit() {
    let database = Cluster::shared().database();
    let (mut service, mut holder) = (database.connect(), database.connect());
    let session = service.start(Uuid::new_v4());
    let sql = "SELECT presence.rotate_session_token($1)";

    let mut transaction = service.transaction().unwrap();
    let _: String = transaction.query_one(sql, &[&session.id]).unwrap().get(0);
    assert_eq!(holder.beat_by_token(&session.token), "ok");
    transaction.rollback().unwrap();
    assert_eq!(holder.beat_by_token(&session.token), "ok");

    let token: String = service.query_one(sql, &[&session.id]).unwrap().get(0);
    assert_eq!(token.len(), 43);
    assert_eq!(holder.beat_by_token(&session.token), "unknown");
    assert_eq!(holder.beat_by_token(&token), "ok");
    assert_eq!(holder.beat(session.id), "ok");
}

#[test]
fn a_lifetime_is_the_sessions_end() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let sql = "SELECT expires_at - server_time BETWEEN '59 min' AND '1 h'
               FROM presence.start_session(user_id => $1, lifetime => '1 h')";
    assert!(service.query_one(sql, &[&Uuid::new_v4()]).unwrap().get::<_, bool>(0));
    for lifetime in ["0", "-1 s", "-1 month"] {
        let sql = "SELECT presence.start_session(user_id => $1, lifetime => $2::text::interval)";
        assert_refused(service.execute(sql, &[&Uuid::new_v4(), &lifetime]), INVALID);
    }
}

#[test]
fn metadata_is_an_object_of_at_most_8_kb() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let sql = "SELECT presence.start_session(user_id => $1, metadata => $2::text::jsonb)";
    for metadata in [
        "[]",
        "1",
        "\"text\"",
        "null",
        "true",
        &format!("{{\"a\": \"{}\"}}", "x".repeat(9000)),
    ] {
        assert_refused(service.execute(sql, &[&Uuid::new_v4(), &metadata]), INVALID);
    }
    service
        .execute(sql, &[&Uuid::new_v4(), &r#"{"device": "phone"}"#])
        .unwrap();
    let sql = "SELECT metadata->>'device' FROM presence.user_sessions";
    assert_eq!(service.query_one(sql, &[]).unwrap().get::<_, &str>(0), "phone");
}
