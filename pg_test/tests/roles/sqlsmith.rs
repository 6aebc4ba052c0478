//! sqlsmith: whole queries at random, in which the extension's functions, tables and columns turn up anywhere.

use std::{
    process::{Command, Stdio},
    thread,
};

use pg_presence_test::{Cluster, Database, Presence, figure, soak};
use uuid::Uuid;

/// What is looked for in the log.
#[derive(Default)]
struct Found {
    /// How often the extension is named.
    reached: usize,
    /// How many statements were refused.
    refused: usize,
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
            found.refused += 1;
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
const SIGNS: [&str; 4] = ["panicked", "PANIC: ", "was terminated by signal", "TRAP: "];

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

/// What sqlsmith shall see of PostgreSQL's catalogs: each time some other functions that have to do with the types used
/// here, so that ours are not lost among them. Of all the rest it understands too little: it takes a pseudo-type for one
/// that a value can have, and most of its queries then end in the parser.
///
/// The first `pg_proc` on its path is a copy, in which those of our functions that return sets look like others: it
/// would leave them out. For `pg_operator` it asks by its full name, so operators of ranges, and those of arrays that
/// do not compare, are gone from this server; nothing here needs them.
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
    let cluster = Cluster::own(&[
        ("log_error_verbosity", "verbose"),
        ("log_min_error_statement", "log"),
        ("log_statement", "all"),
        ("track_functions", "all"),
    ]);
    let database = cluster.database();
    let worker = database.worker();
    let queries = if soak() { 500_000 } else { 4_000 };
    let (client, service) = (database.client(), database.service());
    database.run(&format!(
        "SELECT presence.grant_reader('{client}'), presence.grant_holder('{client}')"
    ));
    database.run(CATALOG);
    let mut presence = database.connect();
    for role in [&client, &service] {
        // sqlsmith knows no identity; the role's own setting gives it one, and ends its endless joins.
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
            scope.spawn(move || smith(database, role, queries, seed));
        }
    });
    let found = look(cluster.log_lines());
    let sql = "SELECT funcname::text, calls FROM pg_stat_user_functions WHERE schemaname = 'presence' AND calls > 0";
    let called = presence.query(sql, &[]).unwrap();
    let calls: i64 = called.iter().map(|row| row.get::<_, i64>(1)).sum();
    figure(&format!(
        "{} queries of sqlsmith, {} of them refused, with {calls} calls of {} functions; they name the extension {} times",
        queries * 2,
        found.refused,
        called.len(),
        found.reached
    ));
    assert!(found.reached > queries, "it has found the extension");
    assert_eq!(found.internal_errors, [""; 0]);
    assert_eq!(found.crashes, [""; 0]);
    database.assert_served();
    assert_eq!(database.worker(), worker, "the worker has lived through it");
}
