//! Statuses that users and services declare: what shows, and when it ends.
//!
//! Where time matters, the clock of the server is moved by hours, so that nothing depends on how long a step takes.

use pg_presence_test::{Cluster, Presence, wait_until_equal};
use postgres::Client;
use uuid::Uuid;

use crate::hours::{Server, wait_for_feed};

/// Declares as the source `manual`, with the arguments as SQL.
pub fn declare(client: &mut Client, user: Uuid, arguments: &str) {
    let sql = format!("SELECT presence.set_status({arguments}, user_id => '{user}')");
    client
        .batch_execute(&sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

pub fn clear(client: &mut Client, user: Uuid) -> bool {
    let sql = "SELECT presence.clear_status(user_id => $1)";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

/// Returns what every function shows of a user, in one line: status, text and emoji, and whether it expires. The user asked
/// is among others, so that who is asked for first matters to nobody.
pub fn shown(client: &mut Client, user: Uuid) -> String {
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

/// SQL for what shows of a user, by the columns that readers and the table have in common.
const IN_WORDS: &str =
    "concat_ws(' ', status, status_text, emoji, CASE WHEN status_expires_at IS NOT NULL THEN 'expires' END)";

/// Waits until readers show something that does not follow from this connection's own calls. Asks one function, as the change may
/// come between two.
pub fn wait_for_shown(client: &mut Client, user: Uuid, expected: &str) {
    let sql = format!("SELECT {IN_WORDS} FROM presence.presence_of(ARRAY[$1::uuid])");
    wait_until_equal("what is shown", &expected.to_owned(), || {
        client.query_one(&sql, &[&user]).unwrap().get(0)
    });
    assert_eq!(shown(client, user), expected);
}

/// Returns the same as it was last written.
pub fn written(client: &mut Client, user: Uuid) -> String {
    let sql = format!(
        "SELECT {IN_WORDS} FROM presence.user_presence WHERE user_id = $1 AND is_online = (status <> 'inactive')"
    );
    let row = client.query_opt(&sql, &[&user]).unwrap();
    row.map_or("nothing".to_owned(), |row| row.get(0))
}

/// The reason, the previous status, the status and the announcement of a text of each of a user's changes, in one line.
pub fn feed(client: &mut Client, user: Uuid) -> String {
    let sql = "SELECT coalesce(string_agg(format('%s: %s, %s%s', reason, previous, status,
                   CASE WHEN details THEN ' +' END), '; ' ORDER BY seq), '')
               FROM presence.presence_changes WHERE user_id = $1";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

/// Waits until what is shown was written, and checks both.
pub fn assert_shown(client: &mut Client, user: Uuid, expected: &str) {
    assert_eq!(shown(client, user), expected);
    wait_until_equal("what is written", &expected.to_owned(), || written(client, user));
    assert_eq!(shown(client, user), expected);
}

/// Starts a session, and waits until that is written.
pub fn online(client: &mut Client) -> Uuid {
    let user = Uuid::new_v4();
    client.start(user);
    client.wait_for_written(user, true);
    user
}

pub fn count(client: &mut Client, user: Uuid) -> i64 {
    let sql = "SELECT count(*) FROM presence.declared_statuses WHERE user_id = $1";
    client.query_one(sql, &[&user]).unwrap().get(0)
}

#[test]
fn what_is_declared_shows_of_who_is_there_and_of_nobody_else() {
    let server = Server::new("1d");
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
    let server = Server::new("1d");
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
fn a_text_of_a_user_whose_sessions_have_all_ended_is_told() {
    let database = Cluster::shared().database();
    let mut service = database.connect();
    let users = [Uuid::new_v4(), Uuid::new_v4()];
    // Imported: nobody has seen the users online.
    let sql = "INSERT INTO presence.user_sessions (user_id, is_active, last_activity, ended_at)
               SELECT u, false, now() - interval '1 h', now() - interval '1 h' FROM unnest($1::uuid[]) u";
    service.execute(sql, &[&&users[..]]).unwrap();
    // One is compared with all others, one is looked at alone.
    let worker = database.pause_worker();
    let sql = format!(
        "TRUNCATE presence.declared_statuses;
         SELECT presence.set_status(status_text => 'back on Monday', user_id => '{}')",
        users[0]
    );
    service.batch_execute(&sql).unwrap();
    worker.resume();
    assert_shown(&mut service, users[0], "inactive back on Monday");
    database.wait_until_served();
    declare(&mut service, users[1], "status_text => 'back on Monday'");
    for user in users {
        assert_shown(&mut service, user, "inactive back on Monday");
        assert_eq!(feed(&mut service, user), "declared: inactive, inactive +");
    }
    let sql = "SELECT count(*) FROM presence.user_presence JOIN presence.presence_changes USING (user_id, last_seen)
               WHERE last_seen < now() - interval '59 min'";
    assert_eq!(
        service.query_one(sql, &[]).unwrap().get::<_, i64>(0),
        2,
        "last seen an hour ago"
    );
    service.assert_no_gaps();
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
    let server = Server::new("1d");
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
    let server = Server::new("1d");
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
    let server = Server::new("1d");
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
fn what_a_commit_declares_is_told_with_what_it_makes_of_the_sessions() {
    let database = Cluster::shared().database();
    database.wait_until_served();
    let mut service = database.connect();
    // Where it is not so, the worker has to look in between.
    let users: Vec<Uuid> = (0..100).map(|_| Uuid::new_v4()).collect();
    for user in &users {
        let session = Uuid::new_v4();
        service
            .batch_execute(&format!(
                "BEGIN;
                 INSERT INTO presence.user_sessions (id, user_id, is_active, last_activity)
                     VALUES ('{session}', '{user}', false, now() - interval '2 h');
                 SELECT presence.set_status('busy', 'Writing', user_id => '{user}');
                 SELECT presence.bind_sessions(ARRAY['{session}'::uuid]);
                 COMMIT"
            ))
            .unwrap();
    }
    for user in users {
        wait_for_feed(&mut service, user, "resumed: inactive, busy");
    }
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
