//! sqlsmith: whole queries at random, in which the extension's functions, tables and columns turn up anywhere.

use std::{
    process::{Command, Stdio},
    thread,
};

use pg_presence_test::{Cluster, Database, figure, soak};
use uuid::Uuid;

/// What is looked for in the log.
#[derive(Default)]
struct Found {
    /// How often the extension is named.
    reached: usize,
    /// The functions of errors that come from it: their LOCATION is in a Rust file.
    internal_errors: Vec<String>,
    crashes: Vec<String>,
}

fn look(log: impl Iterator<Item = String>) -> Found {
    let mut found = Found::default();
    let mut internal = false;
    for line in log {
        found.reached += line.matches("presence.").count();
        if line.contains(" ERROR:  ") {
            internal = line.contains("ERROR:  XX");
        }
        if internal && line.contains("LOCATION:") && line.contains(".rs:") {
            found.internal_errors.push(line);
        } else if SIGNS.iter().any(|sign| line.contains(sign)) {
            found.crashes.push(line);
        }
    }
    found
}

/// Of a crash.
const SIGNS: [&str; 4] = ["panicked", "PANIC", "was terminated by signal", "TRAP"];

/// Has sqlsmith ask so many queries as this role.
fn smith(database: &Database, role: &str, queries: usize, seed: u32) {
    let target = format!(
        "host={} user={role} dbname={}",
        database.cluster.socket_directory().display(),
        database.name
    );
    let done = Command::new("sqlsmith")
        .arg(format!("--target={target}"))
        .arg(format!("--max-queries={queries}"))
        .arg(format!("--seed={seed}"))
        .arg("--exclude-catalog")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .expect("sqlsmith, which pg_test/bin/setup tests installs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {said}", done.status);
}

#[test]
fn no_query_makes_the_extension_fail() {
    let cluster = Cluster::own(&[
        ("log_error_verbosity", "verbose"),
        ("log_min_error_statement", "log"),
        ("log_statement", "all"),
    ]);
    let database = cluster.database();
    let worker = database.worker();
    let queries = if soak() { 500_000 } else { 4_000 };
    let (client, service) = (database.client(), database.service());
    database.run(&format!(
        "SELECT presence.grant_reader('{client}'), presence.grant_holder('{client}')"
    ));
    for role in [&client, &service] {
        // sqlsmith knows no identity; the role's own setting gives it one, and ends its endless joins.
        database.run(&format!(
            "ALTER ROLE {role} SET presence.user_id = '{}'; ALTER ROLE {role} SET statement_timeout = '2s'",
            Uuid::new_v4()
        ));
    }
    thread::scope(|scope| {
        for (role, seed) in [&client, &service].into_iter().zip(std::process::id()..) {
            let database = &database;
            scope.spawn(move || smith(database, role, queries, seed));
        }
    });
    let found = look(cluster.log_lines());
    figure(&format!(
        "{} queries of sqlsmith, which name the extension {} times",
        queries * 2,
        found.reached
    ));
    assert!(found.reached > queries, "it has found the extension");
    assert_eq!(found.internal_errors, [""; 0]);
    assert_eq!(found.crashes, [""; 0]);
    database.assert_served();
    assert_eq!(database.worker(), worker, "the worker has lived through it");
}
