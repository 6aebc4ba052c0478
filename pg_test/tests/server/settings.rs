//! The settings: defaults, bounds, who may change them, and what is refused.

use pg_presence_test::{Cluster, Presence, assert_refused, wait_until};
use postgres::error::SqlState;
use uuid::Uuid;

/// Name, default, unit, minimum, maximum, context.
const SETTINGS: [(&str, &str, &str, &str, &str, &str); 20] = [
    ("active_timeout", "300", "s", "1", "86400", "sighup"),
    ("allow_invisible", "on", "", "", "", "sighup"),
    ("channel", "presence", "", "", "", "sighup"),
    ("claim", "sub", "", "", "", "superuser"),
    ("claim_format", "uuid", "", "", "", "superuser"),
    ("fast_heartbeat", "on", "", "", "", "superuser"),
    ("feed_retention", "3600", "s", "1", "315532800", "sighup"),
    ("flush_interval", "90", "s", "1", "3600", "sighup"),
    ("heartbeat_interval", "120", "s", "1", "86400", "sighup"),
    ("idle_timeout", "300", "s", "0", "86400", "sighup"),
    ("max_sessions", "100000", "", "64", "50000000", "postmaster"),
    ("max_sessions_per_user", "1000", "", "1", "1000000", "sighup"),
    ("notify_interval", "2", "ms", "0", "60000", "sighup"),
    ("notify_max", "1000", "", "1", "100000", "sighup"),
    ("notify_payload", "changes", "", "", "", "sighup"),
    ("retention", "86400", "s", "1", "315532800", "sighup"),
    ("session_lifetime", "604800", "s", "1", "315532800", "sighup"),
    ("user_id", "", "", "", "", "user"),
    ("user_id_function", "", "", "", "", "superuser"),
    ("user_retention", "0", "s", "0", "315532800", "sighup"),
];

#[test]
fn every_setting_is_as_documented() {
    let rows = Cluster::shared()
        .connect("postgres")
        .query(
            "SELECT substr(name, 10), boot_val, coalesce(unit, ''), coalesce(min_val, ''),
                    coalesce(max_val, ''), context
               FROM pg_settings WHERE starts_with(name, 'presence.') ORDER BY name",
            &[],
        )
        .unwrap();
    let found: Vec<[String; 6]> = rows
        .iter()
        .map(|row| std::array::from_fn(|column| row.get(column)))
        .collect();
    let documented = SETTINGS.map(|(a, b, c, d, e, f)| [a, b, c, d, e, f].map(str::to_owned));
    assert_eq!(found, documented);
}

#[test]
fn every_setting_is_described() {
    let undescribed: i64 = Cluster::shared()
        .connect("postgres")
        .query_one(
            "SELECT count(*) FROM pg_settings WHERE starts_with(name, 'presence.')
                AND NOT (short_desc ~ '^[A-Z].*\\.$' AND extra_desc ~ '.*\\.$')",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(undescribed, 0);
}

#[test]
fn an_invalid_value_is_refused_when_it_is_set() {
    let mut client = Cluster::shared().connect("postgres");
    let long = "x".repeat(64);
    let longer = "x".repeat(256);
    for (name, value) in [
        ("user_id", "me"),
        ("user_id", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1"),
        ("claim", ""),
        ("claim", &longer),
        ("claim_format", "bigint"),
    ] {
        let sql = format!("SET presence.{name} = '{value}'");
        assert_refused(client.batch_execute(&sql), &SqlState::INVALID_PARAMETER_VALUE);
    }
    for (name, value) in [("channel", ""), ("channel", &long), ("notify_payload", "on")] {
        let sql = format!("ALTER SYSTEM SET presence.{name} = '{value}'");
        assert_refused(client.batch_execute(&sql), &SqlState::INVALID_PARAMETER_VALUE);
    }
}

#[test]
fn an_identity_may_be_written_in_either_case_or_emptied() {
    let mut client = Cluster::shared().connect("postgres");
    for id in [
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "",
    ] {
        client.batch_execute(&format!("SET presence.user_id = '{id}'")).unwrap();
    }
}

#[test]
fn a_misspelt_setting_is_refused() {
    let mut client = Cluster::shared().connect("postgres");
    let error = client.batch_execute("SET presence.activetimeout = '1min'");
    assert!(error.is_err());
}

#[test]
fn only_a_superuser_chooses_the_claim() {
    let mut client = Cluster::shared().connect("postgres");
    client.batch_execute("SET ROLE pg_monitor").unwrap();
    for (name, value) in [
        ("claim", "role"),
        ("claim_format", "text"),
        ("user_id_function", "public.f"),
    ] {
        let refusal = client.batch_execute(&format!("SET presence.{name} = '{value}'"));
        assert_eq!(refusal.unwrap_err().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    }
    client
        .batch_execute("SET presence.user_id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'")
        .unwrap();
}

#[test]
fn without_preload_the_settings_are_ignored_and_the_connection_survives() {
    let cluster = Cluster::private(&[
        ("shared_preload_libraries", ""),
        ("presence.max_sessions", "1000"),
        ("presence.active_timeout", "never"),
    ]);
    let mut client = cluster.connect("postgres");
    let error = assert_refused(
        client.batch_execute("CREATE EXTENSION pg_presence"),
        &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
    );
    assert!(error.hint().unwrap().contains("shared_preload_libraries"));
    let logged = cluster.log().len();
    client.batch_execute("LOAD 'pg_presence'").unwrap();
    client.query_one("SELECT 1", &[]).unwrap();
    let log = cluster.log().split_off(logged);
    assert!(!log.contains("presence"), "{log}");
}

#[test]
fn every_setting_takes_its_bounds_by_a_reload_while_the_worker_serves() {
    let cluster = Cluster::private(&[]);
    let database = cluster.database();
    database.wait_until_served();
    let mut service = database.connect();
    let worker = |client: &mut postgres::Client| -> Option<i32> {
        let sql = "SELECT worker_pid FROM presence.presence_stats";
        client.query_one(sql, &[]).unwrap().get(0)
    };
    let first = worker(&mut service);
    for (name, default, _, least, most, context) in SETTINGS {
        if context != "sighup" {
            continue;
        }
        let ends = match name {
            "channel" => ["other", "Straße"],
            "notify_payload" => ["wakeup", "off"],
            "allow_invisible" => ["off", "on"],
            // Long enough for the slowest machine to read the session while it is live.
            "active_timeout" | "session_lifetime" => ["60", most],
            _ => [least, most],
        };
        for value in ends.into_iter().chain([default]) {
            cluster.set(&format!("presence.{name}"), value);
            let user = Uuid::new_v4();
            let session = service.start(user);
            assert_eq!(service.beat(session.id), "ok", "{name} = {value}");
            assert!(service.is_online(user), "{name} = {value}");
            assert!(service.end(session.id), "{name} = {value}");
            // Timed out or ended: either way the worker writes that the user is offline.
            wait_until("the worker has written", || {
                let sql = "SELECT unwritten_users = 0 FROM presence.presence_stats";
                service.query_one(sql, &[]).unwrap().get(0)
            });
            assert!(!service.is_online(user), "{name} = {value}");
        }
    }
    assert_eq!(worker(&mut service), first, "the worker was replaced");
}

#[test]
fn a_shorter_flush_interval_takes_effect_with_the_reload() {
    let cluster = Cluster::private(&[("presence.flush_interval", "1h")]);
    let database = cluster.database();
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4());
    let flushed = "SELECT last_flush_at IS NOT NULL FROM presence.presence_stats";
    wait_until("the first flush", || {
        service.query_one(flushed, &[]).unwrap().get::<_, Option<bool>>(0) == Some(true)
    });
    cluster.set("presence.flush_interval", "1s");
    let sql = "SELECT last_activity > created_at FROM presence.user_sessions WHERE id = $1";
    wait_until("a beat to be flushed", || {
        service.beat(session.id);
        service.query_one(sql, &[&session.id]).unwrap().get(0)
    });
}
