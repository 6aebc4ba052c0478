//! What browsers say, and what is told of it.

use pg_presence_test::{Presence, wait_until, wait_until_equal};
use serde_json::json;
use uuid::Uuid;

use super::browser::Browser;
use super::{Gateway, RELEASED, STARTED, database, let_pass};
use crate::hours::{Server, feed, wait_for_feed};
use crate::served;

#[test]
fn a_socket_that_comes_back_within_the_grace_is_no_change_and_one_that_does_not_is_released() {
    let server = Server::new("5h");
    let database = database(&server);
    let mut client = database.connect();
    let gateway = Gateway::start(&database);
    let observer = Browser::observe(&gateway);
    let [ana, ben, cleo] = ["ana", "ben", "cleo"].map(|user| Browser::log_in(&gateway, user));
    let [(ana_id, token), (ben_id, _), (cleo_id, _)] = [&ana, &ben, &cleo].map(Browser::session);
    for user in [ana_id, ben_id, cleo_id] {
        wait_for_feed(&mut client, user, STARTED);
    }
    // One closes as a browser does, another without a word.
    ana.close();
    gateway.wait_until_called(&database, "release_sessions");
    let ana = Browser::resume(&gateway, &token);
    assert_eq!(ana.session(), (ana_id, token));
    gateway.wait_until_called(&database, "heartbeat_many");
    drop(ben);
    gateway.wait_until_called(&database, "release_sessions");
    assert_eq!(feed(&mut client, ben_id), STARTED);
    server.pass(2);
    wait_for_feed(&mut client, ben_id, RELEASED);
    let_pass(&server, &database, 6);
    for user in [ana_id, cleo_id] {
        assert_eq!(feed(&mut client, user), STARTED);
    }
    wait_until_equal(
        "what the observer is told",
        &vec!["active".to_owned(), "inactive".to_owned()],
        || observer.statuses_of(ben_id),
    );
    assert_eq!(observer.statuses_of(ana_id), ["active"]);
    assert!(ana.is_open() && cleo.is_open());
}

#[test]
fn a_socket_that_closes_after_the_next_page_has_opened_one_releases_nothing() {
    let server = Server::new("5h");
    let database = database(&server);
    let mut client = database.connect();
    let gateway = Gateway::start(&database);
    let (old, ben) = (Browser::log_in(&gateway, "ana"), Browser::log_in(&gateway, "ben"));
    let ((ana_id, token), (ben_id, _)) = (old.session(), ben.session());
    let new = Browser::resume(&gateway, &token);
    new.session();
    old.close();
    // Later than what the first did.
    ben.close();
    gateway.wait_until_called(&database, "release_sessions");
    let_pass(&server, &database, 6);
    assert_eq!(feed(&mut client, ana_id), STARTED);
    assert_eq!(feed(&mut client, ben_id), RELEASED);
}

#[test]
fn a_session_that_is_resumed_after_the_grace_is_there_again() {
    let server = Server::new("5h");
    let database = database(&server);
    let mut client = database.connect();
    let gateway = Gateway::start(&database);
    let ana = Browser::log_in(&gateway, "ana");
    let (user, token) = ana.session();
    wait_for_feed(&mut client, user, STARTED);
    ana.close();
    gateway.wait_until_called(&database, "release_sessions");
    server.pass(2);
    wait_for_feed(&mut client, user, RELEASED);
    let ana = Browser::resume(&gateway, &token);
    assert_eq!(ana.session(), (user, token));
    let resumed = format!("{RELEASED}; resumed: inactive, active");
    wait_for_feed(&mut client, user, &resumed);
    let_pass(&server, &database, 6);
    assert_eq!(feed(&mut client, user), resumed);
}

#[test]
fn who_says_idle_is_shown_as_idle_until_somebody_is_active() {
    let server = Server::new("5h");
    let database = database(&server);
    let mut client = database.connect();
    let gateway = Gateway::start(&database);
    let ana = Browser::log_in(&gateway, "ana");
    let (user, token) = ana.session();
    wait_for_feed(&mut client, user, STARTED);
    let follower = Browser::log_in(&gateway, "ben");
    follower.session();
    follower.say(&json!({ "follow": [user, Uuid::new_v4()] }));
    let online = follower.wait_for("who is online", |message| message["users"].as_array().cloned());
    assert!(online.len() <= 1, "{online:?}");
    let idle = format!("{STARTED}; idle: active, idle");

    ana.say(&json!("idle"));
    gateway.wait_until_called(&database, "heartbeat_idle");
    server.pass(2);
    wait_for_feed(&mut client, user, &idle);
    // A page that is loaded again, and that nobody is at, is still idle.
    let reloaded = Browser::greet(&gateway, &json!({ "token": token, "idle": true }));
    reloaded.session();
    ana.close();
    let_pass(&server, &database, 6);
    assert_eq!(feed(&mut client, user), idle);
    reloaded.say(&json!("active"));
    wait_for_feed(&mut client, user, &format!("{idle}; returned: idle, active"));
    wait_until("the follower to be told", || {
        let statuses = follower.statuses_of(user);
        statuses.ends_with(&["idle".to_owned(), "active".to_owned()])
    });
    // It follows nobody else.
    assert!(follower.changes().iter().all(|(of, _)| *of == user));
}

#[test]
fn bye_ends_the_session_and_its_token_is_refused() {
    let database = served();
    let mut client = database.connect();
    let gateway = Gateway::start(&database);
    let ana = Browser::log_in(&gateway, "ana");
    let (user, token) = ana.session();
    wait_for_feed(&mut client, user, STARTED);
    ana.say(&json!("bye"));
    assert_eq!(ana.closed(), Some(1000));
    wait_for_feed(&mut client, user, &format!("{STARTED}; ended: active, inactive"));
    assert_eq!(Browser::resume(&gateway, &token).closed(), Some(4001));
    let unknown = "a token that nobody has".replace(' ', "-");
    assert_eq!(Browser::resume(&gateway, &unknown).closed(), Some(4001));
}

#[test]
fn a_browser_whose_session_has_ended_elsewhere_is_told_to_start_anew() {
    let database = served();
    let mut client = database.connect();
    let gateway = Gateway::start(&database);
    let ana = Browser::log_in(&gateway, "ana");
    let (user, token) = ana.session();
    let sql = "SELECT presence.end_user_sessions($1)";
    assert_eq!(client.query_one(sql, &[&user]).unwrap().get::<_, i32>(0), 1);
    assert!(!client.is_online(user));
    ana.say(&json!("idle"));
    assert_eq!(ana.closed(), Some(4001));
    assert_eq!(Browser::resume(&gateway, &token).closed(), Some(4001));
}
