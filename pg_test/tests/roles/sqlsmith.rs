//! sqlsmith: random queries with the extension's functions, tables and columns in any place.

use std::{
    process::{Command, Stdio},
    thread,
};

use pg_presence_test::{Cluster, Database, Presence, report, times};
use uuid::Uuid;

/// What is counted in the log.
#[derive(Default)]
struct Found {
    /// How often queries name the extension.
    reached: usize,
    /// How many statements failed.
    failed: usize,
    /// The LOCATION lines of internal errors that come from a Rust file.
    internal_errors: Vec<String>,
    crashes: Vec<String>,
}

fn scan(log: impl Iterator<Item = String>) -> Found {
    let mut found = Found::default();
    let mut internal = false;
    for line in log {
        found.reached += line.matches("presence.").count();
        if line.contains(" ERROR:  ") {
            found.failed += 1;
            internal = line.contains("ERROR:  XX");
        }
        if internal && line.contains("LOCATION:") && line.contains(".rs:") {
            found.internal_errors.push(line);
        } else if CRASH_SIGNS.iter().any(|sign| line.contains(sign)) {
            found.crashes.push(line);
        }
    }
    found
}

/// Log messages that indicate a crash.
const CRASH_SIGNS: [&str; 4] = ["panicked", "PANIC: ", "was terminated by signal", "TRAP: "];

/// Runs this many queries of sqlsmith as a role.
fn run_sqlsmith(database: &Database, role: &str, queries: usize, seed: u32) {
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
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {stderr}", done.status);
}

/// What sqlsmith sees of PostgreSQL's catalogs: a random part of the functions on the types that the extension uses, so that
/// the extension's own are not lost among them. With all functions most queries would fail in the parser, as sqlsmith takes
/// pseudo-types for types of values.
///
/// The first `pg_proc` on its path is a copy in which the extension's set-returning functions appear as ordinary ones, as
/// sqlsmith omits set-returning functions. It reads `pg_operator` by its qualified name, so range operators, and array
/// operators other than comparisons, are deleted from this server; nothing here needs them.
const CATALOG: &str = "
    CREATE SCHEMA smith;
    CREATE MATERIALIZED VIEW smith.pg_proc AS
        SELECT oid, pronamespace, proname, prorettype, prokind, proargtypes,
               proretset AND pronamespace <> 'presence'::regnamespace AS proretset
          FROM pg_catalog.pg_proc
         WHERE pronamespace = 'presence'::regnamespace
            OR provolatile <> 'v' AND random() < 0.2 AND prorettype || proargtypes::oid[] <@ ARRAY['uuid', 'text', 'bool',
               'int4', 'int8', 'float8', 'timestamptz', 'interval', 'jsonb', 'record']::regtype[]::oid[];
    SET allow_system_table_mods = on;
    DELETE FROM pg_catalog.pg_operator
     WHERE ARRAY[oprleft, oprright] && ARRAY['anyrange', 'anymultirange']::regtype[]::oid[]
        OR 'anyarray'::regtype IN (oprleft, oprright) AND oprname NOT IN ('=', '<>', '<', '<=', '>', '>=');
    GRANT USAGE ON SCHEMA smith TO public;
    GRANT SELECT ON smith.pg_proc TO public";

#[test]
fn no_query_makes_the_extension_fail() {
    let cluster = Cluster::private(&[
        ("log_error_verbosity", "verbose"),
        ("log_min_error_statement", "log"),
        ("log_statement", "all"),
        ("track_functions", "all"),
    ]);
    let database = cluster.database();
    let worker = database.worker();
    let queries = times(4_000, 500_000) as usize;
    let (client, service) = (database.client(), database.service());
    database.run(&format!(
        "SELECT presence.grant_reader('{client}'), presence.grant_holder('{client}')"
    ));
    database.run(CATALOG);
    let mut presence = database.connect();
    for role in [&client, &service] {
        // sqlsmith sets no identity, so the role's settings do, and cancel its endless joins.
        let user = Uuid::new_v4();
        database.run(&format!(
            "ALTER ROLE {role} SET presence.user_id = '{user}'; ALTER ROLE {role} SET statement_timeout = '2s';
             ALTER ROLE {role} SET search_path = smith, pg_catalog"
        ));
        presence.start(user);
        presence.start(Uuid::new_v4());
    }
    thread::scope(|scope| {
        for (role, seed) in [&client, &service].into_iter().zip(std::process::id()..) {
            let database = &database;
            scope.spawn(move || run_sqlsmith(database, role, queries, seed));
        }
    });
    let found = scan(cluster.log_lines());
    let sql = "SELECT funcname::text, calls FROM pg_stat_user_functions WHERE schemaname = 'presence' AND calls > 0";
    let called = presence.query(sql, &[]).unwrap();
    let calls: i64 = called.iter().map(|row| row.get::<_, i64>(1)).sum();
    report(&format!(
        "{} queries of sqlsmith, {} of them failed, with {calls} calls of {} functions; they name the extension {} times",
        queries * 2,
        found.failed,
        called.len(),
        found.reached
    ));
    assert!(found.reached > queries, "the queries do not reach the extension");
    assert_eq!(found.internal_errors, [""; 0]);
    assert_eq!(found.crashes, [""; 0]);
    database.assert_served();
    assert_eq!(database.worker(), worker, "the worker has survived");
}
