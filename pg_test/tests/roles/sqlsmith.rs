//! sqlsmith: whole queries at random, in which the extension's functions, tables and columns turn up anywhere.

use std::process::{Command, Stdio};

use pg_presence_test::{Cluster, figure, soak};
use uuid::Uuid;

/// The functions of the log's errors that come from the extension: their LOCATION is in a Rust file.
fn our_internal_errors(log: &str) -> Vec<&str> {
    let mut internal = false;
    log.lines()
        .filter(|line| {
            if line.contains(" ERROR:  ") {
                internal = line.contains("ERROR:  XX");
            }
            internal && line.contains("LOCATION:") && line.contains(".rs:")
        })
        .collect()
}

#[test]
fn no_query_makes_the_extension_fail() {
    let cluster = Cluster::own(&[
        ("log_error_verbosity", "verbose"),
        ("log_min_error_statement", "log"),
        ("statement_timeout", "2s"),
        ("log_statement", "all"),
    ]);
    let database = cluster.database();
    let worker = database.worker();
    let queries = if soak() { 500_000 } else { 4_000 };
    let (client, service) = (database.client(), database.service());
    database.run(&format!(
        "SELECT presence.grant_reader('{client}'), presence.grant_holder('{client}')"
    ));
    for role in [client, service] {
        // sqlsmith knows no identity; the role's own setting gives it one.
        database.run(&format!(
            "ALTER ROLE {role} SET presence.user_id = '{}'",
            Uuid::new_v4()
        ));
        let target = format!(
            "host={} user={role} dbname={}",
            cluster.socket_directory().display(),
            database.name
        );
        let done = Command::new("sqlsmith")
            .arg(format!("--target={target}"))
            .arg(format!("--max-queries={queries}"))
            .arg(format!("--seed={}", std::process::id()))
            .arg("--exclude-catalog")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .expect("sqlsmith, which pg_test/bin/setup tests installs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{}: {said}", done.status);
    }
    let log = cluster.log();
    let reached = log.matches("presence.").count();
    figure(&format!(
        "{} queries of sqlsmith, which name the extension {reached} times",
        queries * 2
    ));
    assert!(reached > queries, "it has found the extension");
    assert_eq!(our_internal_errors(&log), [""; 0]);
    for sign in ["panicked", "PANIC", "was terminated by signal", "TRAP"] {
        assert!(!log.contains(sign), "the log has {sign}");
    }
    database.assert_served();
    assert_eq!(database.worker(), worker, "the worker has lived through it");
}
