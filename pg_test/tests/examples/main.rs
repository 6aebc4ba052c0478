//! The programs of examples/clients, run unchanged: they exit once the feed has reported their own logout, so that they
//! exit at all shows that their loop works. The modules are about the other examples.

mod dashboard;
mod disconnect;
mod docker;
mod frameworks;
mod gateway;
#[path = "../server/hours.rs"]
mod hours;
mod monitoring;
mod packages;
mod proxy;
mod running;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use pg_presence_test::{Cluster, Database, Install, tools};
use serde_json::Value;

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/clients");

/// Builds the program of a package that is named as this, and returns where it is.
fn executable(package: &str) -> String {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--quiet", "--package", package])
        .args(["--bin", package, "--message-format", "json"])
        .current_dir(CLIENTS)
        .output()
        .expect("cargo");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let messages = String::from_utf8(built.stdout).expect("UTF-8");
    let artifacts = messages.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    artifacts
        .filter_map(|artifact: Value| artifact["executable"].as_str().map(str::to_owned))
        .next_back()
        .expect("the program")
}

/// Makes a program connect to the database as this role.
fn with_connection<'p>(database: &Database, role: &str, program: &'p mut Command) -> &'p mut Command {
    let socket = database.cluster.socket_directory();
    let url = format!("host={} user={role} dbname={}", socket.display(), database.name);
    program
        .env("PGHOST", socket)
        .env("PGUSER", role)
        .env("PGDATABASE", &database.name)
        .env("DATABASE_URL", url)
}

/// Runs a program as a role of the database and returns its output, line by line.
fn run(database: &Database, role: &str, program: &mut Command) -> Vec<String> {
    let done = with_connection(database, role, program)
        .output()
        .unwrap_or_else(|error| panic!("{program:?}: {error}"));
    lines(program, &done)
}

fn node() -> Command {
    let dir = copy("node");
    symlink(tools().join("node/node_modules"), dir.join("node_modules")).unwrap();
    let mut node = Command::new("node");
    node.arg(dir.join("presence.mjs"));
    node
}

fn python() -> Command {
    let mut python = packages::python();
    python.arg(Path::new(CLIENTS).join("python/presence.py"));
    python
}

fn rust() -> Command {
    let cargo = |verb| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([verb, "--locked", "--quiet", "--package", "pg_presence_example"]);
        cargo.current_dir(CLIENTS);
        cargo
    };
    // Built before the program is timed.
    let built = cargo("build").status().expect("cargo");
    assert!(built.success(), "the example does not build");
    cargo("run")
}

fn lines(program: &Command, done: &Output) -> Vec<String> {
    let stdout = String::from_utf8_lossy(&done.stdout);
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program:?}: {}\n{stdout}{stderr}", done.status);
    assert_eq!(stderr, "", "{program:?}");
    stdout.lines().map(str::to_owned).collect()
}

/// Asserts the output of a program that beats until its own login is notified, and then logs out.
fn assert_output(lines: &[String], user: &str) {
    let statuses: Vec<_> = lines.iter().filter(|line| line.starts_with("status: ")).collect();
    assert_eq!(statuses, ["status: active", "status: inactive"], "{lines:?}");
    for expected in ["heartbeat: ok", &format!("{user}: online"), "nobody: offline"] {
        assert!(lines.iter().any(|line| line == expected), "{expected}: {lines:?}");
    }
}

#[test]
fn psql_runs_its_script_and_shows_the_changes() {
    let database = served();
    let service = database.service();
    let mut psql = database.cluster.program("psql", &database.name);
    let output = run(
        &database,
        &service,
        psql.args(["-XAtq", "-f"]).arg(copy("psql").join("presence.sql")),
    );
    let output: Vec<_> = output.iter().filter(|line| !line.starts_with("Asynchronous")).collect();
    assert_eq!(
        output,
        [
            "ok",
            "psql|t",
            "nobody|f",
            "t",
            "1|psql|active|started",
            "2|psql|inactive|ended"
        ]
    );
}

/// Runs a program and asserts its output.
fn assert_runs(name: &str, mut program: Command) {
    let database = served();
    let output = run(&database, &database.service(), &mut program);
    assert_output(&output, name);
}

#[test]
fn node_starts_beats_follows_and_leaves() {
    assert_runs("node", node());
}

#[test]
fn python_starts_beats_follows_and_leaves() {
    assert_runs("python", python());
}

#[test]
fn rust_starts_beats_follows_and_leaves() {
    assert_runs("rust", rust());
}

#[test]
fn rust_without_a_connection_string_says_what_to_set() {
    let done = rust().env_remove("DATABASE_URL").output().expect("cargo");
    assert!(!done.status.success());
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(stderr.contains("DATABASE_URL is not set"), "{stderr}");
}

#[test]
fn the_sql_that_postgrest_makes_of_supabase_js_works() {
    // On a private server, as roles belong to the whole server.
    let cluster = Cluster::private(&[]);
    let database = cluster.database_with(Install::None);
    let dir = set_up_for_postgrest(&database);
    let mut psql = cluster.program("psql", &database.name);
    let output = run(
        &database,
        "authenticator",
        psql.args(["-XAtq", "-f"]).arg(dir.join("presence.sql")),
    );
    let [beat, me, nobody, released, ended] = &output[..] else {
        panic!("{output:?}");
    };
    assert_eq!([beat, released, ended], ["ok", "t", "t"]);
    assert_eq!(me, "5d1f5c1e-6a4e-4f0e-9a43-0d3c7c2c6a11|active|1");
    assert_eq!(nobody, "00000000-0000-4000-8000-000000000000|inactive|0");
}

/// Installs the extension with roles.sql; returns the directory of a copy of the example.
fn set_up_for_postgrest(database: &Database) -> PathBuf {
    let dir = copy("supabase");
    let mut setup = database.cluster.program("psql", &database.name);
    setup
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(dir.join("roles.sql"));
    run(database, "postgres", &mut setup);
    database.wait_until_served();
    dir
}

/// Returns a database whose worker has started, so that the wakeup it sends at its start is past.
fn served() -> Database<'static> {
    let database = Cluster::shared().database();
    database.wait_until_served();
    database
}

/// Copies an example's directory to where the servers' user can read it.
fn copy(client: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let name = format!("{client}{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let dir = Cluster::shared().socket_directory().join(name);
    fs::create_dir(&dir).unwrap();
    for file in fs::read_dir(Path::new(CLIENTS).join(client)).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), dir.join(file.file_name())).unwrap();
        }
    }
    dir
}
