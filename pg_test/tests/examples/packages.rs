//! The packages clients/python and clients/rust, as they are installed. Their programs are in pg_test/clients, and an
//! example of the Rust package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use pg_presence_test::{Cluster, Database, Install, Presence, tools, wait_until};
use serde_json::Value;
use uuid::Uuid;

use crate::disconnect::disconnect;
use crate::proxy::{Cut, Proxy};
use crate::running::Running;
use crate::{run, served, with_connection};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Returns Python with the package, which has to be installed as it is in the clone.
pub fn python() -> Command {
    static IS_CURRENT: OnceLock<()> = OnceLock::new();
    let environment = tools().join("python");
    IS_CURRENT.get_or_init(|| {
        let source = Path::new(ROOT).join("clients/python/src/pg_presence");
        let libraries = fs::read_dir(environment.join("lib")).expect("pg_test/bin/setup tests makes it");
        let library: PathBuf = libraries.map(|entry| entry.unwrap().path()).next().expect("a library");
        for file in fs::read_dir(source)
            .unwrap()
            .map(|file| file.unwrap().path())
            .filter(|path| path.is_file())
        {
            let installed = library
                .join("site-packages/pg_presence")
                .join(file.file_name().unwrap());
            let installed = fs::read(installed).unwrap_or_default();
            assert!(
                installed == fs::read(&file).unwrap(),
                "{file:?} is new: run pg_test/bin/setup tests"
            );
        }
    });
    let mut python = Command::new(environment.join("bin/python"));
    // Nothing is written into the clone.
    python.arg("-B").current_dir(ROOT);
    python
}

/// Runs a tool of Python over what it is to check, and asserts that it finds nothing.
fn assert_finds_nothing(arguments: &[&str]) {
    let mut tool = python();
    let done = tool.arg("-m").args(arguments).output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{arguments:?}\n{stdout}{stderr}");
}

#[test]
fn the_core_of_the_python_package_keeps_its_promises() {
    assert_finds_nothing(&["unittest", "discover", "clients/python/tests"]);
}

#[test]
fn type_checkers_see_the_types_of_the_python_package() {
    assert_finds_nothing(&[
        "mypy",
        "--strict",
        "--python-version",
        "3.10",
        "--cache-dir",
        "/dev/null",
        "-p",
        "pg_presence",
    ]);
}

#[test]
fn python_is_formatted_and_ruff_finds_nothing() {
    let places = ["clients/python", "examples/clients/python", "pg_test/clients"];
    let options = ["--no-cache", "--config", "clients/python/pyproject.toml"];
    assert_finds_nothing(&[["ruff", "check"].as_slice(), &options, &places].concat());
    assert_finds_nothing(&[["ruff", "format", "--check"].as_slice(), &options, &places].concat());
}

#[test]
fn the_packages_have_the_version_of_the_extension() {
    let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).expect(path);
    let version_in = |path: &str| {
        let text = read(path);
        let version = text.lines().find_map(|line| line.strip_prefix("version = "));
        version.expect(path).trim_matches('"').to_owned()
    };
    let version = version_in("Cargo.toml");
    assert_eq!(version_in("clients/rust/Cargo.toml"), version);
    assert_eq!(version_in("clients/python/pyproject.toml"), version);
    let package: Value = serde_json::from_str(&read("clients/js/package.json")).unwrap();
    assert_eq!(package["version"], *version);
}

/// Runs one of the promises of pg_test/clients/promises.py.
fn keeps(promise: &str) {
    let database = served();
    // Python warns of what is left open.
    let mut program = python();
    program.args(["-W", "default::ResourceWarning", "pg_test/clients/promises.py", promise]);
    let output = run(&database, "postgres", &mut program);
    assert!(output.is_empty(), "{output:?}");
}

macro_rules! promises {
    ($($name:ident: $promise:literal,)*) => {$(
        #[test]
        fn $name() {
            keeps($promise);
        }
    )*};
}

promises! {
    the_installed_python_package_is_the_version_of_the_extension: "is_the_version_of_the_extension",
    a_follower_in_python_knows_who_is_there: "knows_who_is_there",
    a_follower_in_python_tells_the_users_own_id: "tells_the_users_own_id",
    an_iteration_in_python_goes_on_after_a_break: "goes_on_after_a_break",
    a_follower_in_python_closes_while_another_thread_waits: "closes_while_another_thread_waits",
    a_follower_in_python_closes_its_connection_when_the_block_ends: "closes_when_the_block_ends",
    a_follower_in_python_uses_the_connection_it_is_given: "connects_as_it_is_told",
    a_follower_in_python_says_what_reconnecting_does_not_mend: "says_what_reconnecting_does_not_mend",
    an_async_follower_loses_nothing_to_cancellation: "loses_nothing_to_cancellation",
    an_async_follower_closes_while_another_task_waits: "closes_while_another_task_waits",
    an_async_follower_is_cancelled_while_it_waits: "is_cancelled_while_it_waits",
}

/// A program that prints `change SEQ USER STATUS`, `live USER...` with those who are online, and `stale REASON`.
type Program = fn() -> Command;

fn sync_python() -> Command {
    let mut python = python();
    python.args(["pg_test/clients/follow.py", "sync"]);
    python
}

fn async_python() -> Command {
    let mut python = python();
    python.args(["pg_test/clients/follow.py", "async"]);
    python
}

fn rust() -> Command {
    let cargo = |verb| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            verb,
            "--locked",
            "--quiet",
            "--package",
            "pg-presence-client",
            "--example",
            "follow",
        ]);
        cargo.current_dir(ROOT);
        cargo
    };
    let built = cargo("build").status().expect("cargo");
    assert!(built.success(), "the example does not build");
    let mut follow = cargo("run");
    follow.arg("--");
    follow
}

/// Starts a program and waits until it follows the feed.
fn start(database: &Database, role: &str, program: &mut Command) -> Running {
    let running = Running::new(with_connection(database, role, program));
    running.wait_for(|line| line.starts_with("live"));
    running
}

fn changes_in(output: &[String]) -> Vec<String> {
    let changes = output.iter().filter_map(|line| line.strip_prefix("change "));
    changes.map(str::to_owned).collect()
}

/// The program is disconnected again and again, and tells what the feed has: each change once, in order.
fn misses_and_repeats_nothing(program: Program) {
    let database = served();
    let role = database.service();
    let running = start(&database, &role, &mut program());
    let mut service = database.connect();
    for _ in 0..5 {
        let user = Uuid::new_v4();
        let session = service.start(user);
        service.wait_for_written(user, true);
        disconnect(&database, &role, || {
            service.end(session.id);
            service.start(Uuid::new_v4());
            service.wait_for_written(user, false);
        });
        let back = Uuid::new_v4();
        service.start(back);
        running.wait_for(|line| line.contains(&back.to_string()));
    }
    let sql = "SELECT concat_ws(' ', seq, user_id, status) FROM presence.presence_changes ORDER BY seq";
    let feed: Vec<String> = service.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(feed.len(), 20);
    wait_until("all changes", || changes_in(&running.output()).len() >= feed.len());
    assert_eq!(changes_in(&running.output()), feed);
}

#[test]
fn a_follower_in_python_misses_and_repeats_nothing() {
    misses_and_repeats_nothing(sync_python);
}

#[test]
fn an_async_follower_misses_and_repeats_nothing() {
    misses_and_repeats_nothing(async_python);
}

#[test]
fn a_follower_in_rust_misses_and_repeats_nothing() {
    misses_and_repeats_nothing(rust);
}

/// While the program is disconnected, the numbering of the feed starts anew: it knows who is there nevertheless. Returns
/// what it has told from then on, and who has left and come in between.
fn starts_over(program: Program) -> (Vec<String>, Uuid, Uuid) {
    let database = served();
    let role = database.service();
    let mut service = database.connect();
    let [stays, leaves, comes]: [Uuid; 3] = std::array::from_fn(|_| Uuid::new_v4());
    service.start(stays);
    let session = service.start(leaves);
    for user in [stays, leaves] {
        service.wait_for_written(user, true);
    }
    let running = start(&database, &role, &mut program());
    let mut known = 0;
    disconnect(&database, &role, || {
        known = running.output().len();
        let (epoch, _) = database.cursor();
        database.run("SELECT presence.renew_epoch()");
        service.end(session.id);
        service.wait_for_written(leaves, false);
        service.start(comes);
        service.wait_for_written(comes, true);
        wait_until("the new epoch", || database.cursor().0 != epoch);
    });
    let mut online = [stays.to_string(), comes.to_string()];
    online.sort();
    let live = format!("live {}", online.join(" "));
    running.wait_for(|line| line == live);
    (running.output().split_off(known), leaves, comes)
}

fn tells_only_what_is_different(program: Program) {
    let (output, leaves, comes) = starts_over(program);
    let changes: Vec<String> = changes_in(&output)
        .iter()
        .map(|change| change.split_once(' ').expect("a number").1.to_owned())
        .collect();
    assert_eq!(changes, [format!("{leaves} inactive"), format!("{comes} active")]);
}

#[test]
fn a_follower_in_python_tells_what_is_different_in_a_new_epoch() {
    tells_only_what_is_different(sync_python);
}

#[test]
fn an_async_follower_tells_what_is_different_in_a_new_epoch() {
    tells_only_what_is_different(async_python);
}

#[test]
fn a_follower_in_rust_takes_a_snapshot_in_a_new_epoch() {
    let (output, _, _) = starts_over(rust);
    assert!(output.iter().any(|line| line == "snapshot 3"), "{output:?}");
    assert!(changes_in(&output).is_empty(), "{output:?}");
}

fn follows_in_another_schema(program: Program) {
    let database = Cluster::shared().database_with(Install::Public);
    database.wait_until_served();
    let running = start(&database, "postgres", program().arg("public"));
    let mut service = database.connect();
    let mut arrives = || {
        let user = Uuid::new_v4();
        let start = "SELECT session_id FROM public.start_session(user_id => $1)";
        service.query_one(start, &[&user]).unwrap();
        running.wait_for(|line| line.ends_with(&format!("{user} active")));
    };
    arrives();
    // The feed is read where a notification makes no sense.
    database.run("NOTIFY presence, 'nonsense'");
    arrives();
}

#[test]
fn a_follower_in_python_follows_in_another_schema() {
    follows_in_another_schema(sync_python);
}

#[test]
fn an_async_follower_follows_in_another_schema() {
    follows_in_another_schema(async_python);
}

#[test]
fn a_follower_in_rust_follows_in_another_schema() {
    follows_in_another_schema(rust);
}

/// Starts a program that connects through a proxy.
fn start_behind(proxy: &Proxy, database: &Database, program: &mut Command) -> Running {
    let role = database.service();
    let url = format!(
        "host=127.0.0.1 port={} user={role} dbname={}",
        proxy.port, database.name
    );
    Running::new(
        with_connection(database, &role, program)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", proxy.port.to_string())
            .env("DATABASE_URL", url),
    )
}

/// A server, or a proxy in front of it, accepts the connection and then says nothing.
fn gives_up_a_server_that_hangs(program: Program) {
    let database = served();
    let proxy = Proxy::new(database.cluster);
    proxy.cut(Cut::Everything);
    let running = start_behind(&proxy, &database, &mut program());
    running.wait_for(|line| line.starts_with("stale ") && (line.contains("timeout expired") || line.ends_with("10s")));
    proxy.cut(Cut::Nothing);
    running.wait_for(|line| line == "live");
}

#[test]
fn a_follower_in_python_gives_up_a_server_that_hangs() {
    gives_up_a_server_that_hangs(sync_python);
}

#[test]
fn an_async_follower_gives_up_a_server_that_hangs() {
    gives_up_a_server_that_hangs(async_python);
}

#[test]
fn a_follower_in_rust_gives_up_a_server_that_hangs() {
    gives_up_a_server_that_hangs(rust);
}

/// The connection is cut silently, and so are new ones on which it listens until it has noticed.
fn notices_a_silent_cut(program: Program) {
    let database = served();
    let proxy = Proxy::new(database.cluster);
    let running = start_behind(&proxy, &database, &mut program());
    running.wait_for(|line| line == "live");
    proxy.cut(Cut::Listeners);
    let user = Uuid::new_v4();
    let mut service = database.connect();
    service.start(user);
    service.wait_for_written(user, true);
    running.wait_for(|line| line == "stale the server has not answered within 10 s" || line.ends_with("within 10s"));
    proxy.cut(Cut::Nothing);
    running.wait_for(|line| line == format!("live {user}"));
    assert_eq!(changes_in(&running.output()), [format!("1 {user} active")]);
}

#[test]
fn a_follower_in_python_notices_a_silent_cut() {
    notices_a_silent_cut(sync_python);
}

#[test]
fn an_async_follower_notices_a_silent_cut() {
    notices_a_silent_cut(async_python);
}

#[test]
fn a_follower_in_rust_notices_a_silent_cut() {
    notices_a_silent_cut(rust);
}
