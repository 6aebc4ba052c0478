//! Statuses that users and services declare: what shows, when it ends, and who may declare what.
//!
//! Where time matters, the clock of the server is moved by hours, so that nothing depends on how long a step takes.

use std::cell::Cell;

use pg_presence_test::{
    Cluster, Database, Presence, Shutdown, assert_denied, assert_refused, wait_until, wait_until_equal,
};
use postgres::{Client, error::SqlState};
use uuid::Uuid;

const HOUR: i64 = 3_600_000_000;

/// A server whose clock is some hours ahead, with sessions that are idle after one hour and never time out.
struct Server {
    cluster: Cluster,
    hours: Cell<i64>,
}

impl Server {
    fn new() -> Server {
        // SQL's own clock, by which changes are dated, stays behind.
        let settings = [
            ("presence.active_timeout", "1d"),
            ("presence.idle_timeout", "1h"),
            ("presence.feed_retention", "3650d"),
        ];
        Server {
            cluster: Cluster::private(&settings),
            hours: Cell::new(0),
        }
    }

    fn pass(&self, hours: i64) {
        self.hours.set(self.hours.get() + hours);
        self.cluster.set_clock("clock", self.hours.get() * HOUR);
    }
}

/// Declares as the source `manual`, with the arguments as SQL.
fn declare(client: &mut Client, user: Uuid, arguments: &str) {
    let sql = format!("SELECT presence.set_status({arguments}, user_id => '{user}')");
    client
        .batch_execute(&sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn clear(client: &mut Client, user: Uuid) -> bool {
    let sql = "SELECT presence.clear_status(user_id => $1)";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

/// Returns what every function shows of a user, in one line: status, text and emoji, and whether it expires. The user asked
/// is among others, so that who is asked for first matters to nobody.
fn shown(client: &mut Client, user: Uuid) -> String {
    let sql = "WITH asked AS (
                   SELECT * FROM presence.presence_of(ARRAY[gen_random_uuid(), $1::uuid, gen_random_uuid()])
                   WHERE user_id = $1
               )
               SELECT concat_ws(' ', a.status, a.status_text, a.emoji, CASE WHEN a.status_expires_at IS NOT NULL THEN 'expires' END),
                   a.status = presence.user_status($1) AND a.is_online = presence.is_online($1)
                   AND a.is_online = (a.status <> 'inactive') AND a.is_online = (o.user_id IS NOT NULL)
                   AND (o.user_id IS NULL OR (o.status, o.status_text, o.emoji, o.status_expires_at)
                        IS NOT DISTINCT FROM (a.status, a.status_text, a.emoji, a.status_expires_at))
               FROM asked a LEFT JOIN presence.online_users() o USING (user_id)";
    let row = client.query_one(sql, &[&user]).unwrap();
    let found = row.get(0);
    assert!(row.get::<_, bool>(1), "not everything says that {user} is {found}");
    found
}

/// Returns the same as it was last written.
fn written(client: &mut Client, user: Uuid) -> String {
    let sql =
        "SELECT concat_ws(' ', status, status_text, emoji, CASE WHEN status_expires_at IS NOT NULL THEN 'expires' END)
               FROM presence.user_presence WHERE user_id = $1 AND is_online = (status <> 'inactive')";
    let row = client.query_opt(sql, &[&user]).unwrap();
    row.map_or("nothing".to_owned(), |row| row.get(0))
}

/// The reason, the previous status, the status and the announcement of a text of each of a user's changes, in one line.
fn feed(client: &mut Client, user: Uuid) -> String {
    let sql = "SELECT coalesce(string_agg(format('%s: %s, %s%s', reason, previous, status,
                   CASE WHEN details THEN ' +' END), '; ' ORDER BY seq), '')
               FROM presence.presence_changes WHERE user_id = $1";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

/// Waits until what is shown was written, and checks both.
fn assert_shown(client: &mut Client, user: Uuid, expected: &str) {
    assert_eq!(shown(client, user), expected);
    wait_until_equal("what is written", &expected.to_owned(), || written(client, user));
    assert_eq!(shown(client, user), expected);
}

/// Starts a session, and waits until that is written.
fn online(client: &mut Client) -> Uuid {
    let user = Uuid::new_v4();
    client.start(user);
    client.wait_for_written(user, true);
    user
}

fn count(client: &mut Client, user: Uuid) -> i64 {
    let sql = "SELECT count(*) FROM presence.declared_statuses WHERE user_id = $1";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

#[test]
fn what_is_declared_shows_of_who_is_there_and_of_nobody_else() {
    let server = Server::new();
    let database = server.cluster.database();
    let mut service = database.connect();
    // What the sessions make of the user, by how many hours ago somebody was there, and what is declared.
    let users: Vec<(&str, &str, Uuid, Uuid)> = ["active", "idle", "inactive"]
        .iter()
        .flat_map(|&by_sessions| ["", "available", "busy", "dnd", "away"].map(|word| (by_sessions, word)))
        .map(|(by_sessions, word)| {
            let user = Uuid::new_v4();
            (by_sessions, word, user, service.start(user).id)
        })
        .collect();
    for &(by_sessions, _, user, session) in &users {
        service.wait_for_written(user, true);
        match by_sessions {
            "idle" => assert_eq!(service.beat_idle(session), "ok"),
            "inactive" => assert!(service.end(session)),
            _ => {}
        }
    }
    server.pass(2);
    for &(by_sessions, word, user, _) in &users {
        assert_shown(&mut service, user, by_sessions);
        if !word.is_empty() {
            declare(&mut service, user, &format!("'{word}'"));
        }
    }
    let expected = |by_sessions: &str, word: &str| {
        match (by_sessions, word) {
            ("inactive", _) => "inactive",
            (_, "busy" | "dnd") => "busy",
            (_, "away") => "idle",
            (other, _) => other,
        }
        .to_owned()
    };
    for &(by_sessions, word, user, _) in &users {
        assert_shown(&mut service, user, &expected(by_sessions, word));
    }
    assert_eq!(service.online_count(), 10);
    // Since when nobody has been there is kept under any declaration.
    let sql = "SELECT p.idle_since IS NOT NULL, w.idle_since IS NOT NULL FROM presence.presence_of(ARRAY[$1::uuid]) p
               JOIN presence.user_presence w USING (user_id)";
    for &(by_sessions, word, user, _) in &users {
        let row = service.query_one(sql, &[&user]).unwrap();
        let is_idle = by_sessions == "idle";
        assert_eq!((row.get(0), row.get(1)), (is_idle, is_idle), "{by_sessions} {word}");
    }
    for &(by_sessions, word, user, _) in &users {
        assert_eq!(clear(&mut service, user), !word.is_empty());
        assert_shown(&mut service, user, by_sessions);
    }
    service.assert_no_gaps();
}

#[test]
fn every_edge_between_sessions_and_declarations_is_told_with_its_reason() {
    let server = Server::new();
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    let mut expected = "started: inactive, active".to_owned();
    let mut then = |service: &mut Client, change: &str, now: &str| {
        if !change.is_empty() {
            expected = format!("{expected}; {change}");
        }
        assert_shown(service, user, now);
        wait_until_equal("the feed", &expected, || feed(service, user));
    };
    then(&mut service, "", "active");
    declare(&mut service, user, "'busy'");
    then(&mut service, "declared: active, busy", "busy");
    // Nobody is there any more: that does not show.
    assert_eq!(service.beat_idle(session.id), "ok");
    server.pass(2);
    then(&mut service, "", "busy");
    declare(&mut service, user, "'away'");
    then(&mut service, "declared: busy, idle", "idle");
    assert!(clear(&mut service, user));
    then(&mut service, "", "idle");
    assert_eq!(service.beat(session.id), "ok");
    then(&mut service, "returned: idle, active", "active");
    declare(&mut service, user, "'away'");
    then(&mut service, "declared: active, idle", "idle");
    assert!(clear(&mut service, user));
    then(&mut service, "declared: idle, active", "active");
    assert_eq!(service.beat_idle(session.id), "ok");
    server.pass(2);
    then(&mut service, "idle: active, idle", "idle");
    declare(&mut service, user, "'busy'");
    then(&mut service, "declared: idle, busy", "busy");
    assert!(service.end(session.id));
    then(&mut service, "ended: busy, inactive", "inactive");
    service.start(user);
    then(&mut service, "started: inactive, busy", "busy");
    service.assert_no_gaps();
}

#[test]
fn a_text_alone_is_a_change_and_is_announced_but_never_sent() {
    let database = Cluster::shared().database();
    let (mut service, mut listener) = (database.connect(), database.listen());
    let user = online(&mut service);
    declare(&mut service, user, "status_text => 'at lunch', emoji => '🍜'");
    assert_shown(&mut service, user, "active at lunch 🍜");
    declare(&mut service, user, "status_text => 'at lunch, as ever', emoji => '🍜'");
    assert_shown(&mut service, user, "active at lunch, as ever 🍜");
    // The same again is nothing new.
    declare(&mut service, user, "status_text => 'at lunch, as ever', emoji => '🍜'");
    assert!(clear(&mut service, user));
    assert_shown(&mut service, user, "active");
    let expected = "started: inactive, active; declared: active, active +; declared: active, active +; \
                    declared: active, active";
    assert_eq!(feed(&mut service, user), expected);
    listener.wait_for(user, &["active", "active", "active", "active"]);
    let details: Vec<bool> = listener.changes.iter().map(|change| change.details).collect();
    assert_eq!(details, [false, true, true, false]);
    assert!(!listener.payloads.iter().any(|payload| payload.contains("lunch")));
    service.assert_no_gaps();
}

#[test]
fn a_text_shows_while_its_user_is_offline() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let session = service.start(user);
    service.wait_for_written(user, true);
    assert!(service.end(session.id));
    declare(&mut service, user, "'busy', 'back on Monday', expires_in => '1 h'");
    assert_shown(&mut service, user, "inactive back on Monday expires");
    assert!(clear(&mut service, user));
    assert_shown(&mut service, user, "inactive");
    let seen = service
        .query_one("SELECT presence.last_seen($1) IS NOT NULL", &[&user])
        .unwrap();
    assert!(seen.get::<_, bool>(0));
}

#[test]
fn a_declaration_alone_writes_nothing_of_a_user_who_was_never_seen() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (stranger, user) = (Uuid::new_v4(), online(&mut service));
    declare(&mut service, stranger, "'busy', 'on leave'");
    declare(&mut service, user, "'busy'");
    assert_shown(&mut service, user, "busy");
    assert_eq!(written(&mut service, stranger), "nothing");
    assert_eq!(feed(&mut service, stranger), "");
    assert_eq!(shown(&mut service, stranger), "inactive on leave");
    // Once it comes, everything is told.
    service.start(stranger);
    assert_shown(&mut service, stranger, "busy on leave");
    assert_eq!(feed(&mut service, stranger), "started: inactive, busy +");
}

#[test]
fn the_users_own_word_decides_and_the_text_that_was_set_last_shows() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    declare(&mut service, user, "'busy', 'in a meeting', source => 'calendar'");
    assert_shown(&mut service, user, "busy in a meeting");
    declare(&mut service, user, "'away', source => 'telephone'");
    assert_shown(&mut service, user, "idle in a meeting");
    declare(&mut service, user, "'available'");
    assert_shown(&mut service, user, "active in a meeting");
    declare(&mut service, user, "'busy', source => 'zoom'");
    declare(&mut service, user, "'available', emoji => '!'");
    declare(&mut service, user, "'away', source => 'telephone', emoji => '?'");
    assert_shown(&mut service, user, "active ?");
    declare(&mut service, user, "status_text => 'call me', source => 'text'");
    assert_shown(&mut service, user, "active call me");
    assert!(clear(&mut service, user));
    assert_shown(&mut service, user, "idle call me");
}

#[test]
fn to_say_the_same_again_does_not_make_it_the_last() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    let set_at = |service: &mut Client, arguments: &str| -> String {
        let sql = format!("SELECT set_at::text FROM presence.set_status({arguments}, user_id => '{user}')");
        service.query_one(&sql, &[]).unwrap().get(0)
    };
    let first = set_at(&mut service, "'busy', source => 'a'");
    declare(&mut service, user, "'away', source => 'b'");
    assert_eq!(
        set_at(&mut service, "'busy', source => 'a', expires_in => '1 h'"),
        first
    );
    assert_eq!(set_at(&mut service, "'dnd', source => 'a'"), first);
    assert_shown(&mut service, user, "idle");
    assert_ne!(set_at(&mut service, "'busy', '!', source => 'a'"), first);
    assert_shown(&mut service, user, "busy !");
    // Plain SQL, as well.
    service
        .batch_execute("UPDATE presence.declared_statuses SET status = status WHERE source = 'b'")
        .unwrap();
    assert_shown(&mut service, user, "busy !");
    service
        .batch_execute("UPDATE presence.declared_statuses SET status_text = '?' WHERE source = 'b'")
        .unwrap();
    assert_shown(&mut service, user, "idle ?");
}

#[test]
fn an_expiry_is_read_at_once_also_without_the_worker_and_then_told() {
    let server = Server::new();
    let database = server.cluster.database();
    let (mut service, mut listener) = (database.connect(), database.listen());
    let user = online(&mut service);
    declare(&mut service, user, "'away', 'until tomorrow', source => 'calendar'");
    assert_shown(&mut service, user, "idle until tomorrow");
    declare(&mut service, user, "'busy', 'in a meeting', expires_in => '2 h'");
    assert_shown(&mut service, user, "busy in a meeting expires");
    server.pass(1);
    assert_eq!(shown(&mut service, user), "busy in a meeting expires");
    let worker = database.pause_worker();
    server.pass(2);
    assert_eq!(shown(&mut service, user), "idle until tomorrow");
    assert_eq!(written(&mut service, user), "busy in a meeting expires");
    worker.resume();
    assert_shown(&mut service, user, "idle until tomorrow");
    // It is valid again as soon as it is declared again.
    declare(&mut service, user, "'busy', 'in a meeting', expires_in => '1 h'");
    assert_shown(&mut service, user, "busy in a meeting expires");
    server.pass(2);
    assert_shown(&mut service, user, "idle until tomorrow");
    listener.wait_for(user, &["active", "idle", "busy", "idle", "busy", "idle"]);
    service.assert_no_gaps();
}

#[test]
fn what_is_declared_while_an_expiry_is_about_to_be_told_is_told_in_its_place() {
    let server = Server::new();
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    declare(&mut service, user, "'busy', expires_in => '1 h'");
    assert_shown(&mut service, user, "busy expires");
    let worker = database.pause_worker_at("taken");
    server.pass(2);
    worker.wait_until_reached();
    declare(&mut service, user, "'away', 'on my way'");
    worker.resume();
    assert_shown(&mut service, user, "idle on my way");
    let expected = "started: inactive, active; declared: active, busy; declared: busy, idle +";
    assert_eq!(feed(&mut service, user), expected);
}

#[test]
fn the_expiry_of_an_absent_users_text_is_told_and_one_of_many_misses_nobody() {
    let server = Server::new();
    let database = server.cluster.database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..300).map(|_| Uuid::new_v4()).collect();
    let sessions: Vec<Uuid> = users.iter().map(|user| service.start(*user).id).collect();
    let sql = "SELECT presence.set_status('busy', 'gone', expires_in => $2::text::interval, user_id => u) FROM unnest($1::uuid[]) u";
    service.execute(sql, &[&&users[..150], &"2 h"]).unwrap();
    service.execute(sql, &[&&users[150..], &"5 h"]).unwrap();
    for session in &sessions[..100] {
        assert!(service.end(*session));
    }
    let count =
        "SELECT count(*) FROM presence.user_presence WHERE status_text = 'gone' AND status_expires_at IS NOT NULL";
    let with_text = |service: &mut Client| service.query_one(count, &[]).unwrap().get::<_, i64>(0);
    wait_until_equal("all to be written", &300, || with_text(&mut service));
    server.pass(3);
    wait_until_equal("the first to expire", &150, || with_text(&mut service));
    server.pass(3);
    wait_until_equal("the rest to expire", &0, || with_text(&mut service));
    let busy = "SELECT count(*) FROM presence.user_presence WHERE status = 'busy'";
    assert_eq!(service.query_one(busy, &[]).unwrap().get::<_, i64>(0), 0);
    service.assert_no_gaps();
}

#[test]
fn what_is_rolled_back_is_told_to_nobody() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (user, other) = (online(&mut service), online(&mut service));
    let mut transaction = service.transaction().unwrap();
    let sql = "SELECT presence.set_status('busy', user_id => $1)";
    transaction.execute(sql, &[&user]).unwrap();
    let mut savepoint = transaction.transaction().unwrap();
    savepoint.execute(sql, &[&other]).unwrap();
    savepoint.rollback().unwrap();
    assert_eq!(database.connect().user_status(user), "active");
    transaction.commit().unwrap();
    assert_shown(&mut service, user, "busy");
    let mut transaction = service.transaction().unwrap();
    transaction.execute(sql, &[&other]).unwrap();
    transaction.rollback().unwrap();
    let last = online(&mut service);
    declare(&mut service, last, "'busy'");
    assert_shown(&mut service, last, "busy");
    assert_shown(&mut service, other, "active");
    assert_eq!(feed(&mut service, other), "started: inactive, active");
}

#[test]
fn services_declare_with_plain_sql_and_copy_as_with_the_functions() {
    let database = Cluster::shared().database();
    let mut service = database.connect_as(&database.service());
    let users: Vec<Uuid> = (0..3).map(|_| online(&mut service)).collect();
    let row = "INSERT INTO presence.declared_statuses (user_id, source, status, status_text, emoji)
               VALUES ($1, 'calendar', 'dnd', '', '🎧')";
    service.execute(row, &[&users[0]]).unwrap();
    assert_shown(&mut service, users[0], "busy 🎧");
    // A role that row-level security applies to cannot copy rows into a table.
    let mut owner = database.connect();
    let mut copy = owner
        .copy_in("COPY presence.declared_statuses (user_id, status, expires_at) FROM STDIN")
        .unwrap();
    let rows = format!("{}\tbusy\tinfinity\n{}\taway\t2000-01-01\n", users[1], users[2]);
    std::io::Write::write_all(&mut copy, rows.as_bytes()).unwrap();
    copy.finish().unwrap();
    assert_shown(&mut service, users[1], "busy expires");
    assert_eq!(shown(&mut service, users[2]), "active");
    // To another user, and to another word.
    let sql = "UPDATE presence.declared_statuses SET user_id = $1, status = 'away' WHERE user_id = $2";
    service.execute(sql, &[&users[2], &users[0]]).unwrap();
    assert_shown(&mut service, users[0], "active");
    assert_shown(&mut service, users[2], "idle 🎧");
    let sql = "DELETE FROM presence.declared_statuses WHERE user_id = $1";
    service.execute(sql, &[&users[2]]).unwrap();
    assert_shown(&mut service, users[2], "active");
    owner.batch_execute("TRUNCATE presence.declared_statuses").unwrap();
    assert_shown(&mut owner, users[1], "active");
    owner.assert_no_gaps();
}

#[test]
fn a_commit_of_more_users_than_memory_has_room_for_misses_nobody() {
    let cluster = Cluster::private(&[("presence.max_sessions", "64")]);
    let database = cluster.database();
    let mut service = database.connect();
    let users: Vec<Uuid> = (0..50).map(|_| online(&mut service)).collect();
    let sql = "INSERT INTO presence.declared_statuses (user_id, status, status_text)
               SELECT gen_random_uuid(), 'busy', 'all' FROM generate_series(1, $2)
               UNION ALL SELECT u, 'busy', 'all' FROM unnest($1::uuid[]) u";
    service.execute(sql, &[&users, &20_000_i32]).unwrap();
    for user in &users {
        assert_shown(&mut service, *user, "busy all");
    }
    service
        .execute(
            "UPDATE presence.declared_statuses SET status = 'away' WHERE random() < 0.2 OR user_id = ANY ($1)",
            &[&users],
        )
        .unwrap();
    for user in &users {
        assert_shown(&mut service, *user, "idle all");
    }
    // Those who were never seen have taken no room for good.
    online(&mut service);
    service.assert_no_gaps();
}

#[test]
fn clients_declare_for_themselves_and_see_their_own_rows() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let (me, other) = (online(&mut service), online(&mut service));
    let mut client = database.client_for(me);
    declare(&mut service, other, "'busy'");
    let row = client
        .query_one(
            "SELECT user_id, source, status, status_text FROM presence.set_status('busy', 'writing')",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, Uuid>(0), me);
    assert_eq!(row.get::<_, &str>(1), "manual");
    assert_eq!((row.get::<_, &str>(2), row.get::<_, &str>(3)), ("busy", "writing"));
    client
        .execute(
            "SELECT presence.set_status(status_text => 'still', source => 'text', user_id => $1)",
            &[&me],
        )
        .unwrap();
    assert_shown(&mut service, me, "busy still");
    assert_eq!(client.user_status(me), "busy");
    declare(&mut service, me, "'away', source => 'calendar'");
    let rows = client
        .query("SELECT user_id FROM presence.declared_statuses", &[])
        .unwrap();
    assert!(rows.len() == 3 && rows.iter().all(|row| row.get::<_, Uuid>(0) == me));

    for call in [
        format!("set_status('busy', user_id => '{other}')"),
        format!("clear_status(user_id => '{other}')"),
        "set_status('busy', source => 'calendar')".to_owned(),
        "clear_status('calendar')".to_owned(),
        "set_status('busy', source => 'visibility')".to_owned(),
    ] {
        assert_denied(client.batch_execute(&format!("SELECT presence.{call}")));
    }
    for statement in [
        "INSERT INTO presence.declared_statuses (status) VALUES ('busy')",
        "UPDATE presence.declared_statuses SET status = 'away'",
        "DELETE FROM presence.declared_statuses",
        "TRUNCATE presence.declared_statuses",
        "SELECT FROM presence.declared_statuses FOR UPDATE",
        "BEGIN; LOCK TABLE presence.declared_statuses IN ROW EXCLUSIVE MODE",
    ] {
        assert_denied(client.batch_execute(statement));
    }
    client.batch_execute("ROLLBACK").unwrap();
    assert!(
        client
            .query_one("SELECT presence.clear_status()", &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    assert!(
        !client
            .query_one("SELECT presence.clear_status()", &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    client.claim("");
    assert_denied(client.batch_execute("SELECT presence.set_status('busy')"));
    assert_eq!(
        client
            .query("SELECT FROM presence.declared_statuses", &[])
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn a_reader_sees_statuses_and_not_who_declares_them() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    declare(&mut service, user, "'busy', 'writing', source => 'calendar'");
    let mut reader = database.connect_as(&database.reader());
    assert_shown(&mut reader, user, "busy writing");
    assert_denied(reader.batch_execute("SELECT FROM presence.declared_statuses"));
    assert_denied(reader.batch_execute("SELECT presence.set_status('busy')"));
    let mut nobody = database.connect_as(&database.role("nobody"));
    assert_denied(nobody.batch_execute("SELECT presence.clear_status()"));
}

#[test]
fn a_service_names_the_user() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    for call in ["set_status('busy')", "clear_status()"] {
        assert_refused(
            service.batch_execute(&format!("SELECT presence.{call}")),
            &SqlState::INVALID_PARAMETER_VALUE,
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_functions_and_by_plain_sql() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let (long_text, long_emoji) = ("é".repeat(141), "e".repeat(65));
    for arguments in [
        "'invisible'".to_owned(),
        "'Busy'".to_owned(),
        "''".to_owned(),
        "NULL".to_owned(),
        "NULL, '', ''".to_owned(),
        format!("'busy', '{long_text}'"),
        format!("'busy', emoji => '{long_emoji}'"),
        "'busy', source => ''".to_owned(),
        format!("'busy', source => '{}'", "s".repeat(64)),
        "'busy', source => 'visibility'".to_owned(),
        "'busy', expires_in => '0'".to_owned(),
        "'busy', expires_in => '-1 s'".to_owned(),
        "'busy', expires_in => '11 years'".to_owned(),
    ] {
        let sql = format!("SELECT presence.set_status({arguments}, user_id => '{user}')");
        assert_refused(service.batch_execute(&sql), &SqlState::INVALID_PARAMETER_VALUE);
    }
    for (columns, values) in [
        ("status", "'invisible'".to_owned()),
        ("status", "NULL".to_owned()),
        ("status_text", format!("'{long_text}'")),
        ("emoji", format!("'{long_emoji}'")),
        ("status, source", "'busy', 'visibility'".to_owned()),
    ] {
        let sql = format!("INSERT INTO presence.declared_statuses (user_id, {columns}) VALUES ('{user}', {values})");
        assert_refused(service.batch_execute(&sql), &SqlState::INVALID_PARAMETER_VALUE);
        // Where the trigger does not fire, the table's own constraints are left.
        if !values.contains("visibility") {
            let replica = format!("SET LOCAL session_replication_role = replica; {sql}");
            let mut transaction = service.transaction().unwrap();
            let refused = transaction.batch_execute(&replica).unwrap_err();
            assert_eq!(refused.code(), Some(&SqlState::CHECK_VIOLATION), "{sql}");
        }
    }
    let (text, emoji) = ("é".repeat(140), "e".repeat(64));
    declare(
        &mut service,
        user,
        &format!("'away', '{text}', '{emoji}', '10 years', '{}'", "s".repeat(63)),
    );
    assert_eq!(count(&mut service, user), 1);
}

#[test]
fn there_are_at_most_sixteen_sources_of_a_user_and_those_that_have_expired_make_way() {
    let server = Server::new();
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    let many = |count: u32| {
        format!(
            "INSERT INTO presence.declared_statuses (user_id, source, status)
             SELECT '{user}', 's' || n, 'busy' FROM generate_series(1, {count}) n"
        )
    };
    let full = SqlState::CONFIGURATION_LIMIT_EXCEEDED;
    assert_refused(service.batch_execute(&many(17)), &full);
    assert_eq!(count(&mut service, user), 0);
    service.batch_execute(&many(15)).unwrap();
    declare(&mut service, user, "'away', expires_in => '1 h'");
    // Each may say something else.
    declare(&mut service, user, "'away', 'again', expires_in => '1 h'");
    declare(&mut service, user, "'away', source => 's7'");
    let another = format!("SELECT presence.set_status('busy', source => 'another', user_id => '{user}')");
    assert_refused(service.batch_execute(&another), &full);
    let moved = format!(
        "INSERT INTO presence.declared_statuses (user_id, status) VALUES (gen_random_uuid(), 'busy');
         UPDATE presence.declared_statuses SET user_id = '{user}', source = 'moved' WHERE user_id <> '{user}'"
    );
    assert_refused(service.batch_execute(&moved), &full);
    server.pass(2);
    service.batch_execute(&another).unwrap();
    assert_refused(service.batch_execute(&another.replace("another", "one more")), &full);
    assert_eq!(count(&mut service, user), 16);
}

#[test]
fn transactions_that_add_to_the_same_user_count_each_others_rows() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let fifteen = format!(
        "INSERT INTO presence.declared_statuses (user_id, source, status)
         SELECT '{user}', 's' || n, 'busy' FROM generate_series(1, 15) n"
    );
    service.batch_execute(&fifteen).unwrap();
    let mut first = service.transaction().unwrap();
    let sql = "SELECT presence.set_status('busy', source => $2, user_id => $1)";
    first.execute(sql, &[&user, &"a"]).unwrap();
    let mut other = database.connect();
    let second = std::thread::spawn(move || other.execute(sql, &[&user, &"b"]));
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'object'
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut observer = database.connect();
    wait_until("the second to wait", || {
        observer.query_one(waits, &[]).unwrap().get::<_, i64>(0) == 1
    });
    first.commit().unwrap();
    assert_refused(second.join().unwrap(), &SqlState::CONFIGURATION_LIMIT_EXCEEDED);
    assert_eq!(count(&mut service, user), 16);
}

#[test]
fn what_is_declared_outlives_a_restart_and_a_crash() {
    let server = Server::new();
    let database = server.cluster.database();
    let mut service = database.connect();
    let (busy, gone) = (online(&mut service), online(&mut service));
    declare(&mut service, busy, "'busy', 'writing'");
    declare(&mut service, gone, "'busy', expires_in => '3 h'");
    for user in [busy, gone] {
        wait_until("the worker to write it", || {
            written(&mut service, user).starts_with("busy")
        });
    }
    let feeds = [busy, gone].map(|user| feed(&mut service, user));
    for how in [Shutdown::Fast, Shutdown::Kill] {
        server.cluster.restart(how);
        let mut service = database.connect();
        assert_eq!(shown(&mut service, busy), "busy writing", "{how:?}");
        assert_eq!(shown(&mut service, gone), "busy expires", "{how:?}");
        database.assert_served();
        assert_eq!([busy, gone].map(|user| feed(&mut service, user)), feeds, "{how:?}");
    }
    // It expires while the server is down: that is told by the comparison at the start.
    server.cluster.stop(Shutdown::Fast);
    server.pass(4);
    server.cluster.start();
    let mut service = database.connect();
    assert_eq!(shown(&mut service, gone), "active");
    assert_shown(&mut service, gone, "active");
    assert_shown(&mut service, busy, "busy writing");
}

#[test]
fn a_standby_shows_what_is_declared_and_tells_it_when_promoted() {
    let server = Server::new();
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    declare(&mut service, user, "'busy', 'writing', expires_in => '2 h'");
    assert_shown(&mut service, user, "busy writing expires");
    let standby = server.cluster.standby();
    let mut there = standby.connect(&database.name);
    wait_until("the standby to catch up", || {
        shown(&mut there, user) == "busy writing expires"
    });
    let error = there.batch_execute(&format!("SELECT presence.set_status('away', user_id => '{user}')"));
    assert_refused(error, &SqlState::READ_ONLY_SQL_TRANSACTION);
    standby.set_clock("clock", 3 * HOUR);
    assert_eq!(shown(&mut there, user), "active");
    server.cluster.stop(Shutdown::Immediate);
    there.execute("SELECT pg_promote()", &[]).unwrap();
    let sql = "SELECT NOT pg_is_in_recovery()";
    wait_until("the promotion", || there.query_one(sql, &[]).unwrap().get(0));
    assert_shown(&mut there, user, "active");
    declare(&mut there, user, "'away'");
    assert_shown(&mut there, user, "idle");
}

#[test]
fn a_forgotten_user_has_declared_nothing() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    declare(&mut service, user, "'busy', 'a secret', source => 'calendar'");
    assert_shown(&mut service, user, "busy a secret");
    let forget = "SELECT presence.forget_user($1)";
    assert!(service.query_one(forget, &[&user]).unwrap().get::<_, bool>(0));
    assert_eq!(shown(&mut service, user), "inactive");
    assert_eq!(count(&mut service, user), 0);
    let traces = "SELECT (SELECT count(*) FROM presence.presence_changes WHERE details OR user_id = $1)
                      + (SELECT count(*) FROM presence.user_presence WHERE user_id = $1)";
    assert_eq!(service.query_one(traces, &[&user]).unwrap().get::<_, i64>(0), 0);
    // One of whom only this was known.
    let stranger = Uuid::new_v4();
    declare(&mut service, stranger, "'busy'");
    assert!(service.query_one(forget, &[&stranger]).unwrap().get::<_, bool>(0));
    assert!(!service.query_one(forget, &[&stranger]).unwrap().get::<_, bool>(0));
}

#[test]
fn a_prepared_transaction_cannot_declare_anything() {
    let cluster = Cluster::private(&[("max_prepared_transactions", "2")]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = Uuid::new_v4();
    for statement in [
        format!("SELECT presence.set_status('busy', user_id => '{user}')"),
        format!("INSERT INTO presence.declared_statuses (user_id, status) VALUES ('{user}', 'busy')"),
        "TRUNCATE presence.declared_statuses".to_owned(),
    ] {
        let sql = format!("BEGIN; {statement}; PREPARE TRANSACTION 'p'");
        assert_refused(service.batch_execute(&sql), &SqlState::FEATURE_NOT_SUPPORTED);
        let _ = service.batch_execute("ROLLBACK");
    }
}

#[test]
fn where_nothing_is_declared_readers_leave_the_table_alone() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    let mut lock = database.connect();
    let mut reader = database.connect();
    reader.batch_execute("SET lock_timeout = '10ms'").unwrap();
    // It is known to be empty soon after the start, and again after what was declared is taken back.
    for round in 0..2 {
        wait_until("readers to leave the table alone", || {
            // The worker gets in between.
            online(&mut service);
            let mut locked = lock.transaction().unwrap();
            locked.batch_execute("LOCK TABLE presence.declared_statuses").unwrap();
            reader.execute("SELECT presence.user_status($1)", &[&user]).is_ok()
        });
        let mut locked = lock.transaction().unwrap();
        locked.batch_execute("LOCK TABLE presence.declared_statuses").unwrap();
        assert_eq!(shown(&mut reader, user), "active");
        locked.rollback().unwrap();
        if round == 0 {
            declare(&mut service, user, "'busy'");
            assert_eq!(shown(&mut reader, user), "busy");
            assert!(clear(&mut service, user));
        }
    }
}

#[test]
fn a_declaration_that_is_not_committed_when_the_worker_finds_the_table_empty_shows_at_its_commit() {
    let database = Cluster::shared().database();
    let (mut service, mut observer) = (database.connect(), database.connect());
    let user = online(&mut service);
    let mut transaction = service.transaction().unwrap();
    let sql = "SELECT presence.set_status('busy', user_id => $1)";
    transaction.execute(sql, &[&user]).unwrap();
    // A worker that starts looks at once.
    let worker = database.worker();
    observer.execute("SELECT pg_terminate_backend($1)", &[&worker]).unwrap();
    database.new_worker(worker);
    database.wait_until_served();
    for _ in 0..3 {
        online(&mut observer);
    }
    assert_eq!(observer.user_status(user), "active");
    transaction.commit().unwrap();
    assert_eq!(observer.user_status(user), "busy");
    assert_shown(&mut observer, user, "busy");
}

#[test]
fn what_is_set_last_shows_also_where_the_clock_was_set_back() {
    let cluster = Cluster::private(&[("presence.active_timeout", "1d")]);
    let database = cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    let set_clock = |hours: i64| cluster.set_clock("clock_step", hours * HOUR);
    declare(&mut service, user, "'busy', expires_in => '1 h', source => 'a'");
    assert_shown(&mut service, user, "busy expires");
    set_clock(2);
    assert_shown(&mut service, user, "active");
    declare(&mut service, user, "'away', 'b', source => 'b'");
    assert_shown(&mut service, user, "idle b");
    set_clock(0);
    // What had expired is valid again, and was set before.
    assert_shown(&mut service, user, "idle b");
    declare(&mut service, user, "'busy', 'c', source => 'c'");
    assert_shown(&mut service, user, "busy c");
    declare(&mut service, user, "'away', 'a', source => 'a'");
    assert_shown(&mut service, user, "idle a");
    service
        .batch_execute("DELETE FROM presence.declared_statuses WHERE source <> 'c'")
        .unwrap();
    assert_shown(&mut service, user, "busy c");
}

#[test]
fn rows_that_expired_long_ago_are_deleted() {
    let server = Server::new();
    server.cluster.set("presence.retention", "30 s");
    let database = server.cluster.database();
    let mut service = database.connect();
    let user = online(&mut service);
    declare(&mut service, user, "'busy', expires_in => '1 h'");
    declare(&mut service, user, "'away', source => 'calendar'");
    server.pass(2);
    wait_until_equal("the expired row to go", &1, || count(&mut service, user));
    assert_shown(&mut service, user, "idle");
}

/// Has the worker of a database notice what others have done to the table.
fn is_ok(database: &Database, check: &str) -> bool {
    let sql = "SELECT ok FROM presence.presence_health() WHERE check_name = $1";
    database.connect().query_one(sql, &[&check]).unwrap().get(0)
}

#[test]
fn what_was_written_past_the_triggers_shows_once_they_are_enabled_again() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let user = online(&mut service);
    service
        .batch_execute(&format!(
            "BEGIN;
             ALTER TABLE presence.declared_statuses DISABLE TRIGGER ALL;
             INSERT INTO presence.declared_statuses (user_id, status) VALUES ('{user}', 'busy');
             ALTER TABLE presence.declared_statuses ENABLE TRIGGER ALL;
             COMMIT"
        ))
        .unwrap();
    assert!(!is_ok(&database, "triggers"));
    wait_until_equal("what is written", &"busy".to_owned(), || written(&mut service, user));
    assert_eq!(shown(&mut service, user), "busy");
}
