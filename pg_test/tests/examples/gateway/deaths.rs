//! Gateways that die or are replaced, and databases that go away: nobody flickers.

use pg_presence_test::{Database, Presence, Shutdown, times, wait_until, wait_until_equal};
use serde_json::json;
use uuid::Uuid;

use super::browser::Browser;
use super::{Gateway, RELEASED, STARTED, assert_feeds, database, let_pass, wait_for_feeds};
use crate::hours::Server;

/// Users who have logged in, each with a browser and a token.
struct Crowd {
    browsers: Vec<Browser>,
    users: Vec<Uuid>,
    tokens: Vec<String>,
}

impl Crowd {
    fn log_in(database: &Database, gateway: &Gateway, count: u32) -> Crowd {
        let browsers: Vec<_> = (0..count)
            .map(|number| Browser::log_in(gateway, &format!("user {number}")))
            .collect();
        let (users, tokens): (Vec<_>, Vec<_>) = browsers.iter().map(Browser::session).unzip();
        wait_for_feeds(&mut database.connect(), &users, STARTED);
        Crowd {
            browsers,
            users,
            tokens,
        }
    }
}

/// Has browsers say that nobody is there, and waits until the database has been told of all of them.
fn say_idle(database: &Database, gateway: &Gateway, browsers: &[Browser]) {
    for browser in browsers {
        browser.say(&json!("idle"));
        browser.say(&json!({ "follow": [] }));
    }
    for browser in browsers {
        browser.wait_for("an answer to the second", |message| message.get("users").cloned());
    }
    // What is released later is told later, or last in the same batch.
    let last = Browser::log_in(gateway, "last");
    last.session();
    last.close();
    gateway.wait_until_called(database, "release_sessions");
}

/// Opens a socket for each token, and waits until all are bound.
fn resume(gateway: &Gateway, tokens: &[String]) -> Vec<Browser> {
    let browsers: Vec<_> = tokens.iter().map(|token| Browser::resume(gateway, token)).collect();
    for browser in &browsers {
        browser.session();
    }
    browsers
}

#[test]
fn users_of_a_gateway_that_is_killed_are_inactive_once_after_the_grace_unless_they_reconnect() {
    let server = Server::new("5h");
    let database = database(&server);
    let mut client = database.connect();
    let (old, new) = (Gateway::start(&database), Gateway::start(&database));
    let observer = Browser::observe(&new);
    let crowd = Crowd::log_in(&database, &old, times(1000, 1000));
    let half = crowd.users.len() / 2;
    let (stay, leave) = crowd.users.split_at(half);
    let of_crowd = |(user, _): &(Uuid, String)| crowd.users.contains(user);
    wait_until("the observer to know all", || {
        observer.changes().into_iter().filter(of_crowd).count() == crowd.users.len()
    });
    let known = observer.changes().len();

    old.kill(&database);
    let back = resume(&new, &crowd.tokens[..half]);
    assert_feeds(&mut client, &crowd.users, STARTED);
    server.pass(2);
    wait_for_feeds(&mut client, leave, RELEASED);
    let_pass(&server, &database, 6);
    assert_feeds(&mut client, stay, STARTED);
    assert_feeds(&mut client, leave, RELEASED);
    // And the stranger of let_pass, twice.
    wait_until("the observer to be told", || {
        observer.changes().len() >= known + leave.len() + 2
    });
    let told = observer.changes().split_off(known);
    assert!(told.iter().all(|(user, _)| !stay.contains(user)));
    let mut inactive: Vec<Uuid> = told
        .into_iter()
        .map(|(user, _)| user)
        .filter(|user| leave.contains(user))
        .collect();
    inactive.sort();
    let mut expected = leave.to_vec();
    expected.sort();
    assert!(inactive == expected, "{} of {}", inactive.len(), expected.len());
    assert!(back.iter().all(Browser::is_open));
}

#[test]
fn nobody_flickers_when_sockets_move_to_a_new_gateway_before_the_old_one_stops() {
    let server = Server::new("5h");
    let database = database(&server);
    let mut client = database.connect();
    let old = Gateway::start(&database);
    let crowd = Crowd::log_in(&database, &old, 30);
    say_idle(&database, &old, &crowd.browsers[..10]);
    server.pass(2);
    let idle = format!("{STARTED}; idle: active, idle");
    wait_for_feeds(&mut client, &crowd.users[..10], &idle);

    // A deploy: twenty have moved on their own, nobody at ten of them; ten do when they are told, half of these never.
    let new = Gateway::start(&database);
    let mut back: Vec<_> = crowd.tokens[..10]
        .iter()
        .map(|token| Browser::greet(&new, &json!({ "token": token, "idle": true })))
        .collect();
    back.iter().for_each(|browser| drop(browser.session()));
    back.extend(resume(&new, &crowd.tokens[10..20]));
    old.running.signal("TERM");
    for browser in &crowd.browsers {
        assert_eq!(browser.closed(), Some(1001));
    }
    old.wait_until_disconnected(&database);
    old.running.end();
    back.extend(resume(&new, &crowd.tokens[20..25]));

    let_pass(&server, &database, 6);
    assert_feeds(&mut client, &crowd.users[..10], &idle);
    assert_feeds(&mut client, &crowd.users[10..25], STARTED);
    assert_feeds(&mut client, &crowd.users[25..], RELEASED);
    assert!(back.iter().all(Browser::is_open));
}

#[test]
fn a_page_that_stays_keeps_the_session_that_another_with_the_same_token_has_left_on_another_gateway() {
    let server = Server::new("5h");
    let database = database(&server);
    let mut client = database.connect();
    // The first binds again every second.
    let (first, second) = (
        Gateway::start_with(&database, &[("GRACE", "3")]),
        Gateway::start(&database),
    );
    let ana = Browser::log_in(&first, "ana");
    let (user, token) = ana.session();
    wait_for_feeds(&mut client, &[user], STARTED);
    let duplicate = Browser::resume(&second, &token);
    duplicate.session();
    duplicate.close();
    second.wait_until_called(&database, "release_sessions");
    let now: String = client.query_one("SELECT clock_timestamp()::text", &[]).unwrap().get(0);
    wait_until("the first to have bound it again", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND query_start > $2::text::timestamptz
                   AND (query ~ 'heartbeat_many' OR query ~ 'bind_sessions' AND state = 'idle')";
        client.query_one(sql, &[&first.role, &now]).unwrap().get::<_, i64>(0) == 1
    });
    let_pass(&server, &database, 6);
    assert_feeds(&mut client, &[user], STARTED);
    assert!(ana.is_open());
}

/// Whatever ends the connections of the gateway, it binds its sessions again, and goes on.
fn nobody_flickers_when(disconnect: impl FnOnce(&Database, &Gateway)) {
    let server = Server::new("5h");
    let database = database(&server);
    let gateway = Gateway::start(&database);
    let observer = Browser::observe(&gateway);
    let crowd = Crowd::log_in(&database, &gateway, 30);
    say_idle(&database, &gateway, &crowd.browsers[..10]);
    server.pass(2);
    let idle = format!("{STARTED}; idle: active, idle");
    wait_for_feeds(&mut database.connect(), &crowd.users[..10], &idle);

    disconnect(&database, &gateway);
    gateway
        .running
        .wait_for(|line| line == "connected: 31 sessions are bound");
    database.wait_until_served();
    let_pass(&server, &database, 6);
    let mut client = database.connect();
    assert_feeds(&mut client, &crowd.users[..10], &idle);
    assert_feeds(&mut client, &crowd.users[10..], STARTED);
    assert!(crowd.browsers.iter().all(Browser::is_open));

    // It still listens, and the feed goes on.
    let late = Browser::log_in(&gateway, "late");
    let (late, _) = late.session();
    wait_until_equal("the observer to be told", &vec!["active".to_owned()], || {
        observer.statuses_of(late)
    });
    let idle = ["active", "idle"].map(str::to_owned);
    assert!(crowd.users[..10].iter().all(|user| observer.statuses_of(*user) == idle));
    assert!(
        crowd.users[10..]
            .iter()
            .all(|user| observer.statuses_of(*user) == idle[..1])
    );
}

#[test]
fn nobody_flickers_when_the_connections_of_the_gateway_are_terminated() {
    nobody_flickers_when(|database, gateway| {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
        let terminated: i64 = database.connect().query_one(sql, &[&gateway.role]).unwrap().get(0);
        assert_eq!(terminated, 2, "one that binds, and one that follows");
    });
}

#[test]
fn nobody_flickers_when_the_database_restarts() {
    nobody_flickers_when(|database, _| database.cluster.restart(Shutdown::Fast));
}

#[test]
fn what_happens_while_the_gateway_is_disconnected_is_made_up_for() {
    let server = Server::new("5h");
    let database = database(&server);
    let mut client = database.connect();
    let gateway = Gateway::start(&database);
    let observer = Browser::observe(&gateway);
    let crowd = Crowd::log_in(&database, &gateway, 3);
    let [ended, closed, stays] = crowd.browsers.try_into().ok().expect("three");
    // Two come while a call of the gateway waits that will get no answer.
    let mut blocker = database.connect();
    let mut transaction = blocker.transaction().unwrap();
    transaction.batch_execute("LOCK TABLE presence.user_sessions").unwrap();
    let late = Browser::log_in(&gateway, "late");
    let second = Browser::resume(&gateway, &crowd.tokens[2]);
    wait_until("a call that waits", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'";
        client.query_one(sql, &[&gateway.role]).unwrap().get::<_, i64>(0) >= 1
    });
    database.run(&format!("ALTER ROLE {} NOLOGIN", gateway.role));
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
    client.query_one(sql, &[&gateway.role]).unwrap();
    gateway.wait_until_disconnected(&database);
    transaction.commit().unwrap();
    let sql = "SELECT presence.end_user_sessions($1)";
    client.query_one(sql, &[&crowd.users[0]]).unwrap();
    closed.close();
    database.run(&format!("ALTER ROLE {} LOGIN", gateway.role));

    assert_eq!(ended.closed(), Some(4001));
    assert_eq!(second.session(), (crowd.users[2], crowd.tokens[2].clone()));
    let (late_id, _) = late.session();
    let_pass(&server, &database, 6);
    assert_feeds(
        &mut client,
        &crowd.users[..1],
        &format!("{STARTED}; ended: active, inactive"),
    );
    assert_feeds(&mut client, &crowd.users[1..2], RELEASED);
    assert_feeds(&mut client, &[crowd.users[2], late_id], STARTED);
    let inactive = vec!["active".to_owned(), "inactive".to_owned()];
    for user in &crowd.users[..2] {
        wait_until_equal("the observer to be told", &inactive, || observer.statuses_of(*user));
    }
    assert!(stays.is_open() && second.is_open() && client.is_online(crowd.users[2]));
}
