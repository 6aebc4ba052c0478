//! Whoever is foreign, slow, or says what makes no sense costs others nothing.

use pg_presence_test::{Cluster, wait_until};
use serde_json::{Value, json};

use super::Gateway;
use super::browser::Browser;
use crate::served;

#[test]
fn pages_of_other_origins_are_refused() {
    let database = served();
    let gateway = Gateway::start(&database);
    let own = format!("http://{}", gateway.address);
    assert!(Browser::open(&gateway, &own).is_ok());
    for origin in ["https://evil.example", "null", &format!("{own}.evil.example")] {
        assert_eq!(Browser::open(&gateway, origin).err(), Some(403), "{origin}");
    }
    let gateway = Gateway::start_with(&database, &[("ORIGINS", "https://a.example https://b.example")]);
    assert!(Browser::open(&gateway, "https://b.example").is_ok());
    let own = format!("http://{}", gateway.address);
    assert_eq!(Browser::open(&gateway, &own).err(), Some(403));
}

#[test]
fn more_sockets_than_there_may_be_are_refused() {
    let database = served();
    let gateway = Gateway::start_with(&database, &[("MAX_SOCKETS", "2")]);
    let open = || Browser::open(&gateway, &format!("http://{}", gateway.address));
    // One that says nothing for ten seconds would lose its place.
    let [first, second] = ["ana", "ben"].map(|user| Browser::log_in(&gateway, user));
    for browser in [&first, &second] {
        browser.session();
    }
    assert_eq!(open().err(), Some(503));
    drop(first);
    wait_until("a place", || open().is_ok());
}

#[test]
fn what_makes_no_sense_closes_the_socket_and_costs_others_nothing() {
    let database = served();
    let gateway = Gateway::start(&database);
    let ana = Browser::log_in(&gateway, "ana");
    ana.session();
    let hellos: [Value; 8] = [
        json!("active"),
        json!({}),
        json!({ "user": "" }),
        json!({ "user": "a\0b" }),
        json!({ "user": "x".repeat(513) }),
        json!({ "token": "short" }),
        json!({ "token": "a token that is not of ASCII: é, and long enough" }),
        json!({ "user": 42 }),
    ];
    let browsers = hellos.map(|hello| (Browser::greet(&gateway, &hello), hello));
    for (browser, hello) in browsers {
        assert_eq!(browser.closed(), Some(1008), "{hello}");
    }
    // What is not read may cost the farewell, too.
    let long = Browser::greet(&gateway, &json!({ "user": "x".repeat(100_000) }));
    assert!(matches!(long.closed(), Some(1008) | None));
    for request in [
        json!("nonsense"),
        json!({ "follow": ["nobody"] }),
        json!({ "user": "ana" }),
    ] {
        let browser = Browser::log_in(&gateway, "ben");
        browser.session();
        browser.say(&request);
        assert_eq!(browser.closed(), Some(1008), "{request}");
    }
    Browser::log_in(&gateway, "dana").session();
    assert!(ana.is_open());
}

#[test]
fn a_browser_that_does_not_read_is_dropped_and_nobody_waits_for_it() {
    let database = served();
    let gateway = Gateway::start(&database);
    let crowd: Vec<_> = (0..200)
        .map(|number| Browser::log_in(&gateway, &format!("user {number}")))
        .collect();
    for browser in &crowd {
        browser.session();
    }
    let slow = Browser::observe(&gateway);
    slow.stop_reading();
    // Each is answered with everybody who is online.
    for _ in 0..1000 {
        slow.say(&json!({ "follow": null }));
    }
    let quick = Browser::observe(&gateway);
    let late_browser = Browser::log_in(&gateway, "late");
    let (late, _) = late_browser.session();
    quick.wait_for("the late user", |message| {
        let changes = message["changed"].as_array()?;
        changes
            .iter()
            .any(|change| change["user_id"] == late.to_string())
            .then_some(())
    });
    wait_until("the slow browser to be dropped", || !slow.can_send());
    assert!(crowd.iter().all(Browser::is_open) && quick.is_open());
}

#[test]
fn sessions_that_memory_has_no_room_for_are_kept_by_heartbeats() {
    let settings = [
        ("presence.max_sessions", "64"),
        ("presence.active_timeout", "5h"),
        ("presence.heartbeat_interval", "1s"),
        ("presence.flush_interval", "1s"),
    ];
    let cluster = Cluster::private(&settings);
    let database = cluster.database();
    let mut client = database.connect();
    let gateway = Gateway::start(&database);
    let crowd: Vec<_> = (0..200)
        .map(|number| Browser::log_in(&gateway, &format!("user {number}")))
        .collect();
    for browser in &crowd {
        browser.session();
    }
    let sql = "SELECT clock_timestamp()::text";
    let now: String = client.query_one(sql, &[]).unwrap().get(0);
    wait_until("an activity of each", || {
        let sql = "SELECT count(*) FROM presence.user_sessions WHERE last_activity > $1::text::timestamptz";
        client.query_one(sql, &[&now]).unwrap().get::<_, i64>(0) == 200
    });
    assert!(crowd.iter().all(Browser::is_open));
}

#[test]
fn a_user_whom_the_database_refuses_is_turned_away_and_costs_others_nothing() {
    let database = served();
    database.run(
        "ALTER TABLE presence.user_sessions ADD CONSTRAINT no_mallory CHECK (user_key IS DISTINCT FROM 'mallory')",
    );
    let gateway = Gateway::start(&database);
    let ana = Browser::log_in(&gateway, "ana");
    let (_, token) = ana.session();
    // In one call, if they come within its pause.
    let users = ["ben", "mallory", "cleo", "dana"].map(|user| Browser::log_in(&gateway, user));
    let resumed = Browser::resume(&gateway, &token);
    assert_eq!(users[1].closed(), Some(1011));
    for browser in [&users[0], &users[2], &users[3], &resumed] {
        browser.session();
    }
    assert!(ana.is_open());
}
