//! What an UPDATE of `user_sessions` by plain SQL means: a beat, an end, or neither.

use pg_presence_test::{Cluster, Presence, assert_refused};
use postgres::error::SqlState;
use postgres::{Client, Row};
use uuid::Uuid;

const STATE: &str = "SELECT is_active, ended_at IS NULL FROM presence.user_sessions WHERE id = $1";

/// Returns `is_active`, and whether the session has not ended.
pub fn state(client: &mut Client, session: Uuid) -> (bool, bool) {
    let row = client.query_one(STATE, &[&session]).unwrap();
    (row.get(0), row.get(1))
}

/// Inserts a session that has timed out, as a service may, and returns its id.
fn timed_out(client: &mut Client, user: Uuid) -> Uuid {
    let sql = "INSERT INTO presence.user_sessions (user_id, is_active, last_activity, created_at)
               VALUES ($1, false, now() - interval '1 hour', now() - interval '2 hours') RETURNING id";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

/// Returns the assignments of a program that saves a whole row, with these two values.
fn save(is_active: &str, last_activity: &str) -> String {
    format!(
        "user_id = user_id, auth_id = auth_id, session_token = session_token, is_active = {is_active},
         last_activity = {last_activity}, created_at = created_at, expires_at = expires_at,
         metadata = '{{\"saved\": true}}'"
    )
}

#[test]
fn activity_never_goes_backwards() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4()).id;
    let sql = "SELECT last_activity::text FROM presence.user_sessions WHERE id = $1";
    let mut read = || -> String { service.query_one(sql, &[&session]).unwrap().get(0) };
    let before = read();
    let mut other = database.connect();
    other.update_session("last_activity = now() - interval '1 day'", session);
    assert_eq!(read(), before);
}

#[test]
fn an_update_of_last_activity_resumes_a_session_that_timed_out() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for change in [
        "last_activity = now()",
        "is_active = true",
        "is_active = true, last_activity = now()",
    ] {
        let user = Uuid::new_v4();
        let session = timed_out(&mut service, user);
        assert!(!service.is_online(user));
        service.update_session(change, session);
        assert_eq!(state(&mut service, session), (true, true), "{change}");
        assert!(service.is_online(user), "{change}");
    }
}

#[test]
fn setting_is_active_to_false_ends_a_session_for_good() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for change in ["is_active = false", "is_active = false, last_activity = now()"] {
        let user = Uuid::new_v4();
        for session in [service.start(user).id, timed_out(&mut service, user)] {
            service.update_session(change, session);
            assert_eq!(state(&mut service, session), (false, false), "{change}");
            assert_eq!(service.beat(session), "ended");
            service.update_session("is_active = true, last_activity = now()", session);
            assert_eq!(service.beat(session), "ended", "the same SQL does not resume it");
        }
        assert!(!service.is_online(user));
    }
}

#[test]
fn an_update_of_metadata_is_neither_beat_nor_end() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = timed_out(&mut service, user);
    service.update_session("metadata = '{\"page\": 2}'", session);
    assert_eq!(state(&mut service, session), (false, true));
    assert!(!service.is_online(user));
}

#[test]
fn saving_a_stale_copy_of_a_row_changes_only_what_was_meant() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();

    let silent = timed_out(&mut service, user);
    // Read while active, written back after its timeout.
    service.update_session(&save("true", "last_activity - interval '1 s'"), silent);
    assert_eq!(state(&mut service, silent), (false, true));
    // Read after its timeout: false is the old value, not a logout.
    service.update_session(&save("false", "last_activity"), silent);
    assert_eq!(state(&mut service, silent), (false, true));
    assert!(!service.is_online(user));

    let live = service.start(user).id;
    service.update_session(&save("is_active", "last_activity - interval '1 s'"), live);
    assert_eq!(state(&mut service, live), (true, true));
    // Read before its end.
    let ended = service.start(user).id;
    service.end(ended);
    service.update_session(&format!("{}, ended_at = NULL", save("true", "now()")), ended);
    assert_eq!(state(&mut service, ended), (false, false));
    // Here it is a logout.
    service.update_session(&save("false", "last_activity"), live);
    assert_eq!(state(&mut service, live), (false, false));
}

#[test]
fn a_client_that_keeps_milliseconds_can_save_a_whole_row() {
    let database = Cluster::shared().database();
    let mut client = database.connect_as(&database.client());
    client.act_for(Uuid::new_v4());
    let session = client.start_own().id;
    client.update_session(
        "created_at = date_trunc('milliseconds', created_at), expires_at = date_trunc('milliseconds', expires_at),
         last_activity = date_trunc('milliseconds', last_activity), metadata = '{\"saved\": true}'",
        session,
    );
    assert_eq!(client.beat(session), "ok");
}

#[test]
fn a_client_ends_and_beats_by_plain_sql() {
    let database = Cluster::shared().database();
    let me = Uuid::new_v4();
    let mut client = database.connect_as(&database.client());
    client.act_for(me);
    let mut insert = || -> Row {
        let sql = "INSERT INTO presence.user_sessions (user_id, session_token)
                   VALUES ($1, 'a token that the client makes ' || gen_random_uuid()) RETURNING id";
        client.query_one(sql, &[&me]).unwrap()
    };
    let (first, second): (Uuid, Uuid) = (insert().get(0), insert().get(0));
    client.update_session("last_activity = '1999-01-01'", first);
    let sql = "SELECT last_activity > now() - interval '1 minute' FROM presence.user_sessions WHERE id = $1";
    assert!(client.query_one(sql, &[&first]).unwrap().get::<_, bool>(0));
    client.update_session("is_active = false", first);
    assert!(client.is_online(me), "another session is left");
    client.update_session("is_active = false", second);
    assert!(!client.is_online(me));
}

#[test]
fn a_users_key_and_id_stay_consistent() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4()).id;
    let sql = "SELECT user_id = presence.presence_id(user_key), user_key FROM presence.user_sessions WHERE id = $1";
    service.update_session("user_key = 'ana'", session);
    let row = service.query_one(sql, &[&session]).unwrap();
    assert_eq!((row.get(0), row.get::<_, Option<&str>>(1)), (Some(true), Some("ana")));
    service.update_session("user_id = presence.presence_id(42)", session);
    let row = service.query_one(sql, &[&session]).unwrap();
    assert_eq!((row.get(0), row.get::<_, Option<&str>>(1)), (Some(true), Some("42")));
    let sql = "UPDATE presence.user_sessions SET user_id = gen_random_uuid(), user_key = 'bo' WHERE id = $1";
    assert_refused(service.execute(sql, &[&session]), &SqlState::INVALID_PARAMETER_VALUE);
}
