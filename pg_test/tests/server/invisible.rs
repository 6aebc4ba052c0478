//! Users who are hidden: to others they have signed out, and nothing that they do is seen, then or later. That they cannot be
//! told from users who have is what [`crate::twins`] is about.

use pg_presence_test::{
    Cluster, Presence, Shutdown, assert_denied, assert_refused, error_text, wait_for, wait_until, wait_until_equal,
};
use postgres::{Client, NoTls, error::SqlState};
use uuid::Uuid;

use crate::{
    declared::{assert_shown, declare, online, shown, wait_for_shown, written},
    hours::{HOUR, Server, feed, wait_for_feed},
};

/// Hides a user, or shows it again, with the arguments as SQL.
fn set_invisible(client: &mut Client, user: Uuid, arguments: &str) {
    let sql = format!("SELECT presence.set_invisible({arguments}, user_id => '{user}')");
    client
        .batch_execute(&sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// What a user is, what is shown of it, whether it is hidden, and how many live sessions it has.
fn own(client: &mut Client, user: Uuid) -> String {
    let sql = "SELECT concat_ws(' ', status, 'shown', shown, CASE WHEN is_invisible THEN 'invisible' END, status_text,
                   session_count) FROM presence.own_presence($1)";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

fn last_seen(client: &mut Client, user: Uuid) -> Option<String> {
    let sql = "SELECT presence.last_seen($1)::text";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

#[test]
fn who_hides_has_ended_all_sessions_and_nothing_else_is_told_until_they_start_again() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user).id;
    service.wait_for_written(user, true);
    let seen = last_seen(&mut service, user);
    let mut client = database.client_for(user);
    server.pass(1);
    client.execute("SELECT presence.set_invisible(true)", &[]).unwrap();
    assert_eq!(shown(&mut service, user), "inactive");
    assert_eq!(shown(&mut service, user), "inactive", "to itself");
    assert_eq!(own(&mut client, user), "active shown inactive invisible 1");
    wait_for_feed(&mut service, user, "started: inactive, active; ended: active, inactive");
    server.pass(1);
    assert_eq!(client.beat(session), "ok");
    let other = client.start_own().id;
    assert_eq!(own(&mut client, user), "active shown inactive invisible 2");
    assert!(client.end(other));
    // Again, which changes nothing.
    client.execute("SELECT presence.set_invisible(true)", &[]).unwrap();
    for _ in 0..2 {
        online(&mut service);
    }
    assert_eq!(shown(&mut service, user), "inactive");
    assert_eq!(last_seen(&mut service, user), seen);
    let expected = "started: inactive, active; ended: active, inactive";
    assert_eq!(feed(&mut service, user), expected);
    client.execute("SELECT presence.set_invisible(false)", &[]).unwrap();
    assert_shown(&mut service, user, "active");
    assert_eq!(own(&mut client, user), "active shown active 1");
    wait_for_feed(&mut service, user, &format!("{expected}; started: inactive, active"));
    client.execute("SELECT presence.set_invisible(false)", &[]).unwrap();
    service.assert_no_gaps();
}

#[test]
fn activity_while_hidden_is_not_seen_after_it_either() {
    let server = Server::new("5h");
    let database = server.cluster.database();
    let mut service = database.connect();
    let (ends, silent, returns) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let sessions = [ends, silent, returns].map(|user| service.start(user).id);
    let seen = [ends, silent, returns].map(|user| {
        service.wait_for_written(user, true);
        last_seen(&mut service, user)
    });
    server.pass(1);
    for user in [ends, silent, returns] {
        set_invisible(&mut service, user, "true, expires_in => '6 h'");
    }
    server.pass(1);
    for session in sessions {
        assert_eq!(service.beat(session), "ok");
    }
    // It is written, too, as the table of sessions is the truth.
    let lasts = "SELECT count(*) FROM presence.user_sessions WHERE last_activity > created_at + '1 h'";
    wait_until_equal("the flush", &3, || {
        service.query_one(lasts, &[]).unwrap().get::<_, i64>(0)
    });
    assert!(service.end(sessions[0]));
    set_invisible(&mut service, ends, "false");
    for _ in 0..3 {
        server.pass(1);
        assert_eq!(service.beat(sessions[2]), "ok");
    }
    server.pass(3);
    for (user, seen) in [ends, silent].iter().zip(&seen) {
        assert_shown(&mut service, *user, "inactive");
        assert_eq!(last_seen(&mut service, *user), *seen);
    }
    // Who is still there is seen from that moment on.
    assert_shown(&mut service, returns, "active");
    assert_ne!(last_seen(&mut service, returns), seen[2]);
    assert!(service.end(sessions[2]));
    assert_shown(&mut service, returns, "inactive");
    assert_ne!(last_seen(&mut service, returns), seen[2]);
    // Nor after a restart, or when the sessions are gone. A session of which the table does not have that it has timed out is
    // live for a grace after it.
    let active = "SELECT count(*) FROM presence.user_sessions WHERE is_active";
    wait_until_equal("the sessions that are over to be written", &0, || {
        service.query_one(active, &[]).unwrap().get::<_, i64>(0)
    });
    server.cluster.restart(Shutdown::Fast);
    let mut service = database.connect();
    for (user, seen) in [ends, silent].iter().zip(&seen) {
        assert_eq!(last_seen(&mut service, *user), *seen);
    }
    service.batch_execute("DELETE FROM presence.user_sessions").unwrap();
    for (user, seen) in [ends, silent].iter().zip(&seen) {
        assert_eq!(last_seen(&mut service, *user), *seen);
    }
}

#[test]
fn a_row_that_has_hidden_a_user_is_kept_as_long_as_a_session_has_what_it_hid() {
    let server = Server::with(&[("presence.active_timeout", "1h"), ("presence.retention", "30s")]);
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    set_invisible(&mut service, user, "true, expires_in => '1 h'");
    declare(&mut service, user, "'busy', expires_in => '1 h'");
    let rows = "SELECT coalesce(string_agg(source, ' ' ORDER BY source), '') FROM presence.declared_statuses";
    let rows = |client: &mut Client| client.query_one(rows, &[]).unwrap().get::<_, String>(0);
    // A session that retention may not delete, as somebody's table refers to it.
    service
        .batch_execute(
            "CREATE TABLE kept (session uuid REFERENCES presence.user_sessions);
             INSERT INTO kept SELECT id FROM presence.user_sessions",
        )
        .unwrap();
    server.pass(4);
    wait_until_equal("the rows that are left", &"visibility".to_owned(), || {
        rows(&mut service)
    });
    service
        .batch_execute("DROP TABLE kept; DELETE FROM presence.user_sessions")
        .unwrap();
    wait_until_equal("the rows that are left", &String::new(), || rows(&mut service));
}

#[test]
fn who_is_hidden_stays_hidden_over_a_crash_that_nobody_has_told_it_before() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    let (seen, worker) = (last_seen(&mut service, user), database.pause_worker());
    set_invisible(&mut service, user, "true");
    assert_eq!(shown(&mut service, user), "inactive");
    worker.kill();
    wait_until("every connection is closed", || {
        service.simple_query("SELECT 1").is_err()
    });
    let config = server.cluster.config(&database.name, "postgres");
    let mut service = wait_for("the server accepts connections", || config.connect(NoTls).ok());
    assert_eq!(shown(&mut service, user), "inactive");
    wait_for_feed(
        &mut service,
        user,
        "started: inactive, active; recovered: active, inactive",
    );
    assert_eq!(last_seen(&mut service, user), seen);
    set_invisible(&mut service, user, "false");
    assert_shown(&mut service, user, "active");
}

#[test]
fn hiding_ends_when_it_expires_with_and_without_a_worker() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    set_invisible(&mut service, user, "true, expires_in => '2 h'");
    assert_shown(&mut service, user, "inactive");
    server.pass(1);
    assert_eq!(shown(&mut service, user), "inactive");
    let worker = database.pause_worker();
    server.pass(2);
    assert_eq!(shown(&mut service, user), "active");
    assert_eq!(written(&mut service, user), "inactive");
    worker.resume();
    assert_shown(&mut service, user, "active");
    let expected = "started: inactive, active; ended: active, inactive; started: inactive, active";
    wait_for_feed(&mut service, user, expected);
}

#[test]
fn a_text_shows_of_who_is_hidden_as_of_who_is_absent() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    set_invisible(&mut service, user, "true");
    declare(&mut service, user, "'busy', 'back on Monday'");
    assert_shown(&mut service, user, "inactive back on Monday");
    assert_eq!(
        own(&mut service, user),
        "busy shown inactive invisible back on Monday 1"
    );
}

#[test]
fn users_hide_themselves_only_where_that_is_allowed() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let (own_wish, moderated) = (online(&mut service), online(&mut service));
    let mut client = database.client_for(own_wish);
    client.execute("SELECT presence.set_invisible(true)", &[]).unwrap();
    set_invisible(&mut service, moderated, "true");
    assert_shown(&mut service, own_wish, "inactive");
    server.cluster.set("presence.allow_invisible", "off");
    wait_for_shown(&mut service, own_wish, "active");
    assert_shown(&mut service, own_wish, "active");
    assert_shown(&mut service, moderated, "inactive");
    let error = client.execute("SELECT presence.set_invisible(true)", &[]).unwrap_err();
    let text = error_text(error.as_db_error().unwrap());
    assert!(text.contains("users are not allowed to hide themselves"), "{text}");
    set_invisible(&mut service, own_wish, "true");
    assert_shown(&mut service, own_wish, "inactive");
    server.cluster.set("presence.allow_invisible", "on");
    // What a service has hidden only a service shows again.
    let error = client.execute("SELECT presence.set_invisible(false)", &[]).unwrap_err();
    let text = error_text(error.as_db_error().unwrap());
    assert!(text.contains("permission denied to show the user again"), "{text}");
    client.execute("SELECT presence.set_invisible(true)", &[]).unwrap();
    assert_denied(client.execute("SELECT presence.set_invisible(false)", &[]));
    set_invisible(&mut service, own_wish, "false");
    assert_shown(&mut service, own_wish, "active");
}

#[test]
fn nobody_hides_another_user_or_sees_whether_one_is_hidden() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (me, other) = (online(&mut service), online(&mut service));
    let mut client = database.client_for(me);
    let mut reader = database.connect_as(&database.reader());
    for call in [
        "set_invisible(true, user_id => $1)",
        "set_invisible(false, user_id => $1)",
        "own_presence($1)",
    ] {
        let sql = format!("SELECT presence.{call}");
        assert_denied(client.execute(&sql, &[&other]));
        assert_denied(reader.execute(&sql, &[&other]));
    }
    set_invisible(&mut service, other, "true");
    assert_denied(client.execute("SELECT presence.own_presence($1)", &[&other]));
    let rows = client.query("SELECT FROM presence.declared_statuses", &[]).unwrap();
    assert_eq!(rows.len(), 0);
}

#[test]
fn nonsense_about_visibility_is_refused_by_functions_and_by_plain_sql() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    for (call, code) in [
        ("set_invisible(NULL, user_id => $1)", SqlState::INVALID_PARAMETER_VALUE),
        ("set_invisible(true, '0', $1)", SqlState::INVALID_PARAMETER_VALUE),
        ("set_invisible(true, '11 years', $1)", SqlState::INVALID_PARAMETER_VALUE),
        ("set_invisible(false, '1 h', $1)", SqlState::INVALID_PARAMETER_VALUE),
        (
            "set_status('invisible', user_id => $1)",
            SqlState::INVALID_PARAMETER_VALUE,
        ),
        (
            "set_status('busy', source => 'visibility', user_id => $1)",
            SqlState::INVALID_PARAMETER_VALUE,
        ),
        (
            "set_status('invisible', source => 'visibility', user_id => $1)",
            SqlState::INVALID_PARAMETER_VALUE,
        ),
        ("clear_status('visibility', $1)", SqlState::INVALID_PARAMETER_VALUE),
    ] {
        assert_refused(service.execute(&format!("SELECT presence.{call}"), &[&user]), &code);
    }
    for missing in ["set_invisible(true)", "own_presence()"] {
        let sql = format!("SELECT presence.{missing}");
        assert_refused(service.execute(&sql, &[]), &SqlState::INVALID_PARAMETER_VALUE);
    }
    for (values, code) in [
        (
            "'visibility', 'busy', NULL, false, NULL",
            SqlState::INVALID_PARAMETER_VALUE,
        ),
        (
            "'visibility', NULL, 'text', false, NULL",
            SqlState::INVALID_PARAMETER_VALUE,
        ),
        (
            "'visibility', 'invisible', 'text', false, NULL",
            SqlState::INVALID_PARAMETER_VALUE,
        ),
        (
            "'manual', 'invisible', NULL, false, NULL",
            SqlState::INVALID_PARAMETER_VALUE,
        ),
        ("'manual', 'busy', NULL, true, NULL", SqlState::CHECK_VIOLATION),
        ("'manual', 'busy', NULL, false, now()", SqlState::CHECK_VIOLATION),
    ] {
        let sql = format!(
            "INSERT INTO presence.declared_statuses (user_id, source, status, status_text, by_user, last_seen)
             VALUES ('{user}', {values})"
        );
        assert_refused(service.batch_execute(&sql), &code);
    }
    assert_shown(&mut service, user, "active");
}

#[test]
fn services_hide_with_plain_sql_as_with_the_function() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (one, two) = (online(&mut service), online(&mut service));
    let seen = last_seen(&mut service, one);
    service
        .execute(
            "INSERT INTO presence.declared_statuses (user_id, source, status)
             SELECT u, 'visibility', 'invisible' FROM unnest($1::uuid[]) u",
            &[&[one, two].as_slice()],
        )
        .unwrap();
    for user in [one, two] {
        assert_shown(&mut service, user, "inactive");
    }
    assert_eq!(last_seen(&mut service, one), seen);
    service
        .execute("DELETE FROM presence.declared_statuses WHERE user_id = $1", &[&one])
        .unwrap();
    service
        .execute(
            "UPDATE presence.declared_statuses SET expires_at = clock_timestamp() WHERE user_id = $1",
            &[&two],
        )
        .unwrap();
    for user in [one, two] {
        assert_shown(&mut service, user, "active");
        wait_for_feed(
            &mut service,
            user,
            "started: inactive, active; ended: active, inactive; started: inactive, active",
        );
    }
    // Nobody else does anything after this, so the last word is what shows.
    service
        .execute("SELECT presence.set_invisible(true, user_id => $1)", &[&one])
        .unwrap();
    service.batch_execute("TRUNCATE presence.declared_statuses").unwrap();
    assert_shown(&mut service, one, "active");
}

#[test]
fn who_is_hidden_stays_so_while_others_have_locked_the_table() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let (mut service, mut lock) = (database.connect(), database.connect());
    let user = online(&mut service);
    let leaving = [(); 2].map(|()| {
        let user = Uuid::new_v4();
        let session = service.start(user).id;
        service.wait_for_written(user, true);
        (user, session)
    });
    set_invisible(&mut service, user, "true");
    assert_shown(&mut service, user, "inactive");
    let told = feed(&mut service, user);
    let seen = last_seen(&mut service, user);
    let mut locked = lock.transaction().unwrap();
    locked.batch_execute("LOCK TABLE presence.declared_statuses").unwrap();
    server.pass(1);
    let other = service.start(user).id;
    assert_eq!(service.beat(other), "ok");
    // The worker tells of those who go, as those who come may be hidden.
    for (n, (leaving, session)) in leaving.into_iter().enumerate() {
        assert!(service.end(session));
        service.wait_for_written(leaving, false);
        assert_eq!(shown(&mut service, user), "inactive");
        assert_eq!(last_seen(&mut service, user), seen);
        assert_eq!(service.online_count(), 1 - n as i64);
        let sql = "SELECT users_online + live_sessions FROM presence.presence_stats";
        assert_eq!(service.query_one(sql, &[]).unwrap().get::<_, i64>(0), 2 - 2 * n as i64);
    }
    let late = Uuid::new_v4();
    service.start(late);
    locked.rollback().unwrap();
    assert_shown(&mut service, late, "active");
    assert_shown(&mut service, user, "inactive");
    assert_eq!(feed(&mut service, user), told);
}

#[test]
fn who_is_hidden_is_so_with_more_sessions_than_memory_has_room_for() {
    let cluster = Cluster::private(&[("presence.max_sessions", "64")]);
    let database = cluster.database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..100).map(|_| Uuid::new_v4()).collect();
    service
        .execute("SELECT presence.start_sessions($1)", &[&users])
        .unwrap();
    service
        .execute(
            "SELECT presence.set_invisible(true, user_id => u) FROM unnest($1::uuid[]) u",
            &[&&users[..90]],
        )
        .unwrap();
    assert_eq!(service.online_count(), 10);
    for (n, user) in users.iter().enumerate().step_by(9) {
        assert_eq!(service.is_online(*user), n >= 90);
    }
    let mut expected = users[90..].to_vec();
    expected.sort();
    assert_eq!(service.online_users(), expected);
    let sql = "SELECT count(*) FROM presence.user_presence WHERE is_online";
    wait_until_equal("who is written as online", &10, || {
        service.query_one(sql, &[]).unwrap().get::<_, i64>(0)
    });
}

#[test]
fn a_standby_hides_who_is_hidden_also_once_it_is_promoted() {
    let server = Server::new("1d");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    let seen = last_seen(&mut service, user);
    set_invisible(&mut service, user, "true, expires_in => '2 h'");
    let standby = server.cluster.standby();
    let mut there = standby.connect(&database.name);
    wait_for_shown(&mut there, user, "inactive");
    assert_eq!(last_seen(&mut there, user), seen);
    assert_eq!(there.online_count(), 0);
    assert_eq!(own(&mut there, user), "active shown inactive invisible 1");
    let error = there.batch_execute(&format!("SELECT presence.set_invisible(false, user_id => '{user}')"));
    assert_refused(error, &SqlState::READ_ONLY_SQL_TRANSACTION);
    server.cluster.stop(Shutdown::Immediate);
    there.execute("SELECT pg_promote()", &[]).unwrap();
    let sql = "SELECT NOT pg_is_in_recovery()";
    wait_until("the promotion", || there.query_one(sql, &[]).unwrap().get(0));
    assert_shown(&mut there, user, "inactive");
    standby.set_clock("clock", 3 * HOUR);
    assert_shown(&mut there, user, "active");
}

#[test]
fn who_is_hidden_for_longer_than_users_are_kept_is_forgotten_as_one_who_is_absent() {
    let settings = [
        ("presence.active_timeout", "1d"),
        ("presence.retention", "30s"),
        ("presence.user_retention", "30s"),
    ];
    let server = Server::with(&settings);
    let database = server.cluster.database();
    let mut service = database.connect();
    let (hides, stays) = (online(&mut service), online(&mut service));
    set_invisible(&mut service, hides, "true");
    assert_shown(&mut service, hides, "inactive");
    assert!(last_seen(&mut service, hides).is_some());
    // By SQL's own clock, too, which changes are dated by.
    server.pass(2);
    let age = "UPDATE presence.user_presence SET changed_at = changed_at - '1 h'::interval";
    wait_until("the user to be forgotten", || {
        service.batch_execute(age).unwrap();
        service.written(hides).is_none()
    });
    assert_eq!(last_seen(&mut service, hides), None);
    assert!(last_seen(&mut service, stays).is_some());
    // What it does, and declares, is that of a stranger.
    service.start(hides);
    declare(&mut service, hides, "'busy', 'back soon'");
    for _ in 0..2 {
        online(&mut service);
    }
    assert_eq!(service.written(hides), None);
    assert_eq!(own(&mut service, hides), "busy shown inactive invisible back soon 2");
    set_invisible(&mut service, hides, "false");
    assert_shown(&mut service, hides, "busy back soon");
}

#[test]
fn hiding_that_is_rolled_back_has_hidden_nobody() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    let mut transaction = service.transaction().unwrap();
    let sql = "SELECT presence.set_invisible(true, user_id => $1)";
    transaction.execute(sql, &[&user]).unwrap();
    transaction.rollback().unwrap();
    assert_shown(&mut service, user, "active");
    assert_eq!(feed(&mut service, user), "started: inactive, active");
}
