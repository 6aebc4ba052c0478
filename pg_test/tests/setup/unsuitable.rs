//! What cannot work is told in one sentence, before anything is fetched or installed.

use std::net::TcpListener;

use crate::Machine;

const SETUP: &str = "pg_test/bin/setup";

/// Returns a machine that lacks a compiler, so that set-up would install something.
fn machine() -> Machine {
    let machine = Machine::new().without("clang");
    machine.packaged_server(15, "15.18");
    machine.headers(15);
    machine
}

#[test]
fn a_machine_that_lacks_only_clang_gets_it() {
    assert_eq!(machine().run(SETUP, &[]).installed(), ["clang"]);
}

#[test]
fn a_pg_config_that_cannot_be_used_is_named() {
    let machine = machine();
    let path = |name: &str| machine.path(name).to_str().unwrap().to_owned();
    machine.write("not_executable", "");
    machine.script("no_version", "echo usage");
    let old = machine.server(14, "14.19");
    let newer = machine.server(19, "19devel");
    let client = machine.server(16, "16.10");
    std::fs::remove_file(client.with_file_name("postgres")).unwrap();
    for (config, words) in [
        (path("nowhere"), "does not exist"),
        (path("not_executable"), "is not an executable program"),
        (path("no_version"), "does not print the version of a PostgreSQL"),
        (old.to_str().unwrap().to_owned(), "is of PostgreSQL 14"),
        (newer.to_str().unwrap().to_owned(), "is of PostgreSQL 19"),
        (client.to_str().unwrap().to_owned(), "without a server"),
    ] {
        let done = machine.run(SETUP, &[("PG_CONFIG", &config)]);
        done.assert_refused_at_once(&[&config, words, "name the pg_config of PostgreSQL 15 to 18"]);
    }
}

#[test]
fn a_server_without_headers_that_no_package_has_installed_is_named() {
    let machine = machine();
    let config = machine.server(17, "17.6");
    let done = machine.run(SETUP, &[("PG_CONFIG", config.to_str().unwrap())]);
    done.assert_refused_at_once(&["without headers", "install those of the server, or set PG_CONFIG"]);
}

#[test]
fn an_installed_server_that_is_too_old_is_left_and_named() {
    let machine = Machine::new();
    machine.packaged_server(14, "14.19");
    machine.headers(14);
    machine
        .run(SETUP, &[])
        .assert_refused_at_once(&["PostgreSQL 14 is installed here", "install one of 15 to 18 beside it"]);
}

#[test]
fn an_old_or_missing_rust_is_named_with_the_version_that_is_needed() {
    let machine = machine();
    let needed = env!("CARGO_PKG_RUST_VERSION");
    machine.rust("1.94.1");
    machine
        .run(SETUP, &[])
        .assert_refused_at_once(&["Rust 1.94.1 is too old", needed, "rustup update"]);
    machine.rust("1.200.0");
    assert!(machine.run(SETUP, &[]).succeeded);
    machine.program("rustc", "echo 'error: no toolchain' >&2; exit 1");
    machine
        .run(SETUP, &[])
        .assert_refused_at_once(&["rustc does not run", needed, "rustup toolchain install"]);
    let machine = machine.without("cargo");
    machine
        .run(SETUP, &[])
        .assert_refused_at_once(&["Rust is missing", needed, "https://rustup.rs"]);
}

#[test]
fn a_user_without_sudo_is_told_what_root_has_to_run() {
    let machine = Machine::new().without("clang").without("sudo");
    machine.packaged_server(15, "15.18");
    machine.run(SETUP, &[]).assert_refused_at_once(&[
        "needs root or sudo",
        "apt-get install --no-install-recommends clang postgresql-server-dev-15=15.18-0+deb12u1",
    ]);
}

#[test]
fn a_user_without_sudo_needs_none_where_nothing_is_missing() {
    let machine = Machine::new().without("sudo");
    machine.server(15, "15.18");
    machine.headers(15);
    let config = machine.path("usr/lib/postgresql/15/bin/pg_config");
    for purpose in ["demo", "install"] {
        let done = machine.run(
            &format!("{SETUP} {purpose}"),
            &[("PG_CONFIG", config.to_str().unwrap())],
        );
        assert!(done.succeeded, "{}", done.output);
    }
}

#[test]
fn a_user_without_sudo_is_told_of_directories_that_are_not_writable_before_the_build() {
    let machine = Machine::new().without("sudo");
    let config = machine.server(15, "15.18");
    machine.headers(15);
    let directory = machine.path("usr/lib/postgresql/15/lib");
    // Not there, as root could write everywhere.
    std::fs::remove_dir(&directory).unwrap();
    machine
        .run(&format!("{SETUP} install"), &[("PG_CONFIG", config.to_str().unwrap())])
        .assert_refused_at_once(&[directory.to_str().unwrap(), "is not writable", "run this as root"]);
}

#[test]
fn without_apt_the_missing_packages_are_named() {
    let machine = machine().without("apt-get");
    machine
        .run(SETUP, &[])
        .assert_refused_at_once(&["no apt-get here", "clang"]);
}

#[test]
fn a_port_of_the_demo_that_is_taken_or_none_is_named() {
    let machine = machine();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let demo = |port: &str| machine.run(&format!("{SETUP} demo"), &[("PORT", port)]);
    demo(&port).assert_refused_at_once(&[&format!("port {port} is in use"), "set PORT to another one"]);
    for port in ["http", "70000", "-1"] {
        demo(port).assert_refused_at_once(&[&format!("PORT={port} is not a port number")]);
    }
    drop(taken);
    assert!(demo(&port).succeeded);
}
