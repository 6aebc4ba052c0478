//! presence_metrics(), as Prometheus' own parser reads it.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use pg_presence_test::{Cluster, Database, Presence, assert_denied, patience, tools, wait_for, wait_until_equal};
use postgres::Client;
use serde::Deserialize;
use uuid::Uuid;

/// Parses strictly, and raises an error for anything that the format does not allow.
const PARSE: &str = r#"
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = text_string_to_metric_families(sys.stdin.read())
print(json.dumps([{
    "name": family.name, "type": family.type, "unit": family.unit, "help": family.documentation,
    "samples": [{"name": sample.name, "labels": sample.labels, "value": sample.value} for sample in family.samples],
} for family in families]))
"#;

#[derive(Debug, Deserialize)]
struct Family {
    name: String,
    r#type: String,
    unit: String,
    help: String,
    samples: Vec<Sample>,
}

#[derive(Debug, Deserialize)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

fn text(client: &mut Client) -> String {
    client
        .query_one("SELECT presence.presence_metrics()", &[])
        .unwrap()
        .get(0)
}

fn parse(text: &str) -> Vec<Family> {
    let mut python = Command::new(tools().join("frameworks/python/bin/python"))
        .args(["-c", PARSE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("what pg_test/bin/setup tests installs");
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let parsed = python.wait_with_output().unwrap();
    assert!(parsed.status.success(), "not OpenMetrics:\n{text}");
    serde_json::from_slice(&parsed.stdout).unwrap()
}

/// Returns the value of each metric that has one.
fn values(client: &mut Client) -> BTreeMap<String, f64> {
    let families = parse(&text(client));
    let samples = families.into_iter().flat_map(|family| family.samples);
    samples.map(|sample| (sample.name, sample.value)).collect()
}

/// Returns a database whose worker has started.
fn served(cluster: &Cluster) -> Database<'_> {
    let database = cluster.database();
    database.wait_until_served();
    database
}

#[test]
fn metrics_are_valid_openmetrics_without_a_label_per_user() {
    let database = served(Cluster::shared());
    let mut service = database.connect();
    let user = Uuid::new_v4();
    let key = "somebody who must not be named";
    let session = service.start(user);
    service
        .execute("SELECT presence.start_session(user_key => $1)", &[&key])
        .unwrap();
    let text = text(&mut service);
    for secret in [&user.to_string(), key, &session.id.to_string(), &session.token] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    let families = parse(&text);
    assert!(families.len() > 25, "{families:?}");
    for family in &families {
        assert!(family.name.starts_with("pg_presence_"), "{family:?}");
        assert!(["counter", "gauge"].contains(&&*family.r#type), "{family:?}");
        assert!(
            family.name.ends_with(&family.unit) && !family.help.is_empty(),
            "{family:?}"
        );
        // What has never happened has no sample.
        assert!(
            family.samples.len() == 1 || family.name.ends_with("_timestamp_seconds"),
            "{family:?}"
        );
        for sample in &family.samples {
            let labels: Vec<_> = sample.labels.iter().collect();
            assert_eq!(labels, [(&"datname".to_owned(), &database.name)]);
            assert_eq!(
                sample.name.ends_with("_total"),
                family.r#type == "counter",
                "{family:?}"
            );
        }
    }
}

#[test]
fn a_database_of_any_name_is_labeled() {
    let database = served(Cluster::shared());
    let name = "a \"quoted\" \\n, \\ and\na line {x=\"y\"}";
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    // The worker notices and disconnects.
    database
        .cluster
        .change_database(&format!("ALTER DATABASE {} RENAME TO {quoted}", database.name));
    let mut client = database.cluster.connect(name);
    let families = parse(&text(&mut client));
    drop(client);
    database
        .cluster
        .change_database(&format!("ALTER DATABASE {quoted} RENAME TO {}", database.name));
    let labels: Vec<_> = families
        .iter()
        .flat_map(|family| &family.samples)
        .map(|sample| &*sample.labels["datname"])
        .collect();
    assert!(
        !labels.is_empty() && labels.iter().all(|label| *label == name),
        "{labels:?}"
    );
}

#[test]
fn the_metrics_follow_what_happens() {
    let database = served(Cluster::shared());
    let mut service = database.connect();
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let session = service.start(one).id;
    service.start(one);
    let ended = service.start(two).id;
    service.beat(session);
    service.beat(session);
    service.beat(Uuid::new_v4());
    service.end(ended);
    // One number after the other becomes what it has to be.
    let expected = [
        ("live_sessions", 2.0),
        ("known_sessions", 2.0),
        ("users_online", 1.0),
        ("beats_total", 2.0),
        ("rejected_beats_total", 1.0),
        ("overflowed_total", 0.0),
        ("in_overflow", 0.0),
        ("complete", 1.0),
        ("worker_running", 1.0),
        ("oldest_unwritten_seconds", 0.0),
        ("unwritten_users", 0.0),
        ("set_aside", 0.0),
        ("failed_health_checks", 0.0),
    ];
    let values = wait_for("every value", || {
        let values = values(&mut service);
        let is_right = |(name, value): &(&str, f64)| values[&format!("pg_presence_{name}")] == *value;
        let is_told = values["pg_presence_changes_total"] >= 1.0 && values["pg_presence_notifications_total"] >= 1.0;
        (is_told && expected.iter().all(is_right)).then_some(values)
    });
    let value = |name: &str| values[&format!("pg_presence_{name}")];
    assert!(value("slots") >= 100_000.0 && value("slots_used") >= 2.0, "{values:?}");
    let sql = "SELECT extract(epoch FROM s.worker_started_at)::float8, extract(epoch FROM now())::float8,
                      coalesce(s.last_error, '')
                 FROM presence.presence_stats s";
    let row = service.query_one(sql, &[]).unwrap();
    let (started, now, last_error): (f64, f64, String) = (row.get(0), row.get(1), row.get(2));
    assert!(
        (value("worker_started_timestamp_seconds") - started).abs() < 1e-3,
        "{values:?}"
    );
    assert!(value("last_tick_timestamp_seconds") >= started && value("last_tick_timestamp_seconds") <= now);
    // A statement that has taken too long on a busy machine is tried again.
    assert!(
        !values.contains_key("pg_presence_last_error_timestamp_seconds") || last_error.starts_with("57014"),
        "{last_error}: {values:?}"
    );

    database.run("ALTER TABLE presence.user_sessions DISABLE ROW LEVEL SECURITY");
    wait_until_equal(
        "failed checks",
        &1.0,
        || self::values(&mut service)["pg_presence_failed_health_checks"],
    );
}

#[test]
fn only_services_and_monitors_may_read_the_metrics() {
    let database = served(Cluster::shared());
    let monitor = database.role("monitor");
    database.run(&format!(
        "GRANT pg_monitor TO {monitor}; REVOKE USAGE ON SCHEMA presence FROM {monitor}"
    ));
    for role in [database.service(), monitor] {
        assert!(!values(&mut database.connect_as(&role)).is_empty());
    }
    let others = [
        database.role("nobody"),
        database.client(),
        database.reader(),
        database.holder(),
    ];
    for role in others {
        let metrics = "SELECT presence.presence_metrics()";
        assert_denied(database.connect_as(&role).batch_execute(metrics));
        // EXECUTE alone, as a careless GRANT gives it, is not enough.
        database.run(&format!("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA presence TO {role}"));
        assert_denied(database.connect_as(&role).batch_execute(metrics));
    }
}

#[test]
fn locked_tables_do_not_hold_up_the_metrics() {
    let database = served(Cluster::shared());
    let mut client = database.connect();
    let mut locker = database.connect();
    locker
        .batch_execute(
            "BEGIN;
             LOCK TABLE presence.user_sessions, presence.user_presence, presence.presence_changes, presence._feed_state,
                        presence.declared_statuses, presence.presence_stats IN ACCESS EXCLUSIVE MODE",
        )
        .unwrap();
    let patience = format!("SET statement_timeout = '{} s'", patience().as_secs());
    client.batch_execute(&patience).unwrap();
    let values = values(&mut client);
    assert_eq!(values["pg_presence_live_sessions"], 0.0);
    locker.batch_execute("ROLLBACK").unwrap();
}

#[test]
fn without_a_worker_the_metrics_are_answered_and_say_so() {
    // One slot, which the launcher takes.
    let cluster = Cluster::private(&[("max_worker_processes", "1")]);
    let database = cluster.database();
    let mut client = database.connect();
    client.start(Uuid::new_v4());
    let values = values(&mut client);
    assert_eq!(values["pg_presence_worker_running"], 0.0);
    assert_eq!(values["pg_presence_live_sessions"], 1.0);
    assert!(values["pg_presence_failed_health_checks"] >= 1.0, "{values:?}");
    assert!(
        !values.contains_key("pg_presence_last_tick_timestamp_seconds"),
        "{values:?}"
    );
}

#[test]
fn a_standby_answers_with_its_metrics() {
    let primary = Cluster::private(&[]);
    let database = served(&primary);
    let standby = primary.standby();
    let mut client = standby.connect(&database.name);
    wait_until_equal(
        "failed checks",
        &0.0,
        || values(&mut client)["pg_presence_failed_health_checks"],
    );
    assert_eq!(values(&mut client)["pg_presence_worker_running"], 0.0);
}

#[test]
fn in_a_schema_of_another_name_the_metrics_are_the_same() {
    let database = served(Cluster::shared());
    database.run("ALTER SCHEMA presence RENAME TO \"Who's \\ here\"");
    let mut client = database.connect();
    client.batch_execute("SET standard_conforming_strings = off").unwrap();
    let sql = "SELECT \"Who's \\ here\".presence_metrics()";
    let text: String = client.query_one(sql, &[]).unwrap().get(0);
    assert!(parse(&text).len() > 25, "{text}");
}
