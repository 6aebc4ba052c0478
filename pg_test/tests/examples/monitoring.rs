//! examples/monitoring, with the exporter of the distribution.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use pg_presence_test::{Cluster, Database, Presence, installed, wait_for, wait_until, wait_until_equal};
use serde_json::Value;
use uuid::Uuid;

const MONITORING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/monitoring");
const PAGE: &str = include_str!("../../../docs/monitoring.md");
const DASHBOARD: &str = include_str!("../../../examples/monitoring/dashboard.json");

/// postgres_exporter with queries.yaml, stopped when dropped.
struct Exporter {
    process: Child,
    address: String,
}

impl Exporter {
    fn new(database: &Database, role: &str) -> Exporter {
        // Somebody else may take the port before the exporter does.
        wait_for("the exporter starts", || {
            let address = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .to_string();
            let source = format!(
                "host={} user={role} dbname={} sslmode=disable",
                database.cluster.socket_directory().display(),
                database.name
            );
            let process = Command::new(installed("prometheus-postgres-exporter"))
                .arg(format!("--web.listen-address={address}"))
                .arg(format!("--extend.query-path={MONITORING}/queries.yaml"))
                .args(["--disable-default-metrics", "--disable-settings-metrics"])
                .env("DATA_SOURCE_NAME", source)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut exporter = Exporter { process, address };
            let mut has_exited = false;
            wait_until("the exporter listens or exits", || {
                has_exited = exporter.process.try_wait().unwrap().is_some();
                has_exited || TcpStream::connect(&exporter.address).is_ok()
            });
            (!has_exited).then_some(exporter)
        })
    }

    /// Returns what Prometheus would scrape.
    fn scrape(&self) -> String {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.0 200"), "{answer}");
        assert!(body.contains("\npg_exporter_last_scrape_error 0\n"), "{body}");
        body.to_owned()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts the exporter as a role that may monitor, and no more.
fn exporter(database: &Database) -> Exporter {
    database.wait_until_served();
    let monitor = database.role("monitor");
    database.run(&format!("GRANT pg_monitor TO {monitor}"));
    Exporter::new(database, &monitor)
}

/// Returns the type of each of our metrics.
fn types(metrics: &str) -> BTreeMap<&str, &str> {
    metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter(|(name, _)| name.starts_with("pg_presence_"))
        .collect()
}

/// Returns the value of a metric that has one label, the database.
fn value(metrics: &str, name: &str, database: &str) -> f64 {
    let label = format!("datname=\"{database}\"");
    let line = metrics
        .lines()
        .find(|line| line.starts_with(&format!("{name}{{")) && line.contains(&label));
    let line = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn the_exporter_has_the_metrics_of_presence_metrics() {
    let database = Cluster::shared().database();
    let exporter = exporter(&database);
    let mut service = database.connect();
    let session = service.start(Uuid::new_v4()).id;
    service.beat(session);
    let mut own = || -> String {
        let row = service.query_one("SELECT presence.presence_metrics()", &[]);
        row.unwrap().get(0)
    };
    let names = [
        "live_sessions",
        "users_online",
        "beats_total",
        "worker_running",
        "failed_health_checks",
    ];
    let values = |metrics: &str| names.map(|name| value(metrics, &format!("pg_presence_{name}"), &database.name));
    // On a machine that is busy, the worker may be late when it is asked.
    wait_until_equal("the values", &[[1.0, 1.0, 1.0, 1.0, 0.0]; 2], || {
        [values(&exporter.scrape()), values(&own())]
    });
    let (scraped, own) = (exporter.scrape(), own());
    // OpenMetrics names the family, which for a counter is without `_total`.
    let expected: BTreeMap<String, &str> = types(&own)
        .into_iter()
        .map(|(name, kind)| (format!("{name}{}", if kind == "counter" { "_total" } else { "" }), kind))
        .collect();
    let found: BTreeMap<String, &str> = types(&scraped)
        .into_iter()
        .map(|(name, kind)| (name.to_owned(), kind))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn the_exporter_describes_metrics_as_presence_metrics_does() {
    let database = Cluster::shared().database();
    let scraped = exporter(&database).scrape();
    let own: String = database
        .connect()
        .query_one("SELECT presence.presence_metrics()", &[])
        .unwrap()
        .get(0);
    let help = |metrics: &str| -> BTreeSet<String> {
        let lines = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP pg_presence_"));
        lines.map(|line| line.replacen("_total ", " ", 1)).collect()
    };
    assert_eq!(help(&scraped), help(&own));
}

/// Returns the names of metrics in a query.
fn metrics_in(query: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = query.split(|c| !is_name(c));
    words.filter(|word| word.starts_with("pg_presence_")).collect()
}

#[test]
fn the_exporter_has_every_metric_that_the_dashboard_and_the_page_name() {
    let database = Cluster::shared().database();
    let scraped = exporter(&database).scrape();
    let types = types(&scraped);
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let queries: Vec<&str> = targets
        .map(|target| target["expr"].as_str().unwrap())
        .chain(
            variables
                .iter()
                .filter_map(|variable| variable["query"]["query"].as_str()),
        )
        .collect();
    assert!(queries.len() > 20, "{queries:?}");
    for query in queries {
        let metrics = metrics_in(query);
        assert!(!metrics.is_empty(), "{query}");
        for metric in metrics {
            let kind = types.get(metric).unwrap_or_else(|| panic!("no {metric}: {query}"));
            // The rate of a gauge, and the value of a counter, mean nothing.
            assert_eq!(*kind == "counter", query.contains("rate("), "{query}");
            value(&scraped, metric, &database.name);
        }
    }
    for metric in metrics_in(PAGE) {
        assert!(types.contains_key(metric), "docs/monitoring.md names {metric}");
    }
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids of panels are unique");
}
