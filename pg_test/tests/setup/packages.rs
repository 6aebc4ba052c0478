//! Which packages are installed, and which are never touched.

use std::path::Path;
use std::process::Command;

use crate::{Machine, line_of};

const SETUP: &str = "pg_test/bin/setup";

#[test]
fn where_nothing_is_missing_nothing_is_done_or_said() {
    let machine = Machine::new();
    machine.packaged_server(15, "15.18");
    machine.headers(15);
    let done = machine.run(SETUP, &[]);
    assert!(done.succeeded);
    assert_eq!((done.output.as_str(), done.calls.as_slice()), ("", [].as_slice()));
}

#[test]
fn where_only_the_headers_are_missing_only_they_are_installed_in_the_servers_version() {
    let machine = Machine::new();
    let config = machine.packaged_server(15, "15.18");
    machine.package("libpq5", "15.18-0+deb12u1");
    let config = config.to_str().unwrap();
    for environment in [&[][..], &[("PG_CONFIG", config)]] {
        let done = machine.run(SETUP, environment);
        assert!(done.succeeded, "{}", done.output);
        assert_eq!(
            done.installed(),
            ["postgresql-server-dev-15=15.18-0+deb12u1", "libpq-dev=15.18-0+deb12u1"]
        );
        std::fs::remove_dir_all(machine.path("usr/include")).unwrap();
    }
}

#[test]
fn packages_that_are_there_are_not_upgraded_and_no_service_is_restarted_besides() {
    let machine = Machine::new();
    machine.packaged_server(15, "15.18");
    machine.program("sudo", "printf 'sudo %s\\n' \"$*\" >>\"$MACHINE/calls\"");
    let done = machine.run(SETUP, &[]);
    let install = done
        .calls
        .iter()
        .find(|call| call.contains(" install "))
        .expect("a call");
    for option in ["--no-upgrade", "--no-install-recommends", "NEEDRESTART_SUSPEND=1"] {
        assert!(install.contains(option), "{install}");
    }
}

#[test]
fn what_is_installed_is_said_in_one_line_before() {
    let machine = Machine::new().without("clang").without("cc");
    machine.packaged_server(15, "15.18");
    let done = machine.run(SETUP, &[]);
    let said = line_of(
        &done,
        "Installing gcc libc6-dev clang postgresql-server-dev-15=15.18-0+deb12u1",
    );
    assert!(said < line_of(&done, "(apt-get -y -q install"), "{}", done.output);
}

#[test]
fn a_running_server_decides_else_the_newest() {
    let machine = Machine::new();
    let running = machine.packaged_server(15, "15.18").with_file_name("postgres");
    machine.packaged_server(17, "17.6");
    let headers = |major: u32| {
        let done = machine.run(SETUP, &[]);
        std::fs::remove_dir_all(machine.path("usr/include")).unwrap();
        assert!(
            done.installed()[0].starts_with(&format!("postgresql-server-dev-{major}=")),
            "{:?}",
            done.calls
        );
    };
    headers(17);
    let mut server = Command::new(running).spawn().unwrap();
    headers(15);
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn where_the_headers_would_upgrade_the_server_a_copy_in_the_cache_serves() {
    for simulated in [
        "echo 'Inst libpq5 [15.18-0+deb12u1] (15.20-0+deb12u1 Debian:12 [amd64])'",
        "echo 'Inst postgresql-15 [15.18-0+deb12u1] (15.20-0+deb12u1 Debian:12 [amd64])'",
        "echo 'Remv postgresql-15 [15.18-0+deb12u1]'",
        "echo 'E: Version 15.18-0+deb12u1 for postgresql-server-dev-15 was not found' >&2; exit 100",
    ] {
        let machine = Machine::new();
        machine.packaged_server(15, "15.18");
        machine.script("simulate", simulated);
        let done = machine.run(SETUP, &[]);
        assert!(done.succeeded, "{}", done.output);
        assert!(done.installed().is_empty(), "{:?}", done.calls);
        line_of(&done, "are not to be had without an upgrade");
        assert!(machine.path("cache/pg_presence/servers/15/complete").exists());
        // From now on nothing is missing.
        let again = machine.run(SETUP, &[]);
        assert_eq!((again.output.as_str(), again.calls.as_slice()), ("", [].as_slice()));
    }
}

#[test]
fn other_packages_that_would_upgrade_or_remove_a_server_are_refused() {
    for (simulated, named) in [
        (
            "Inst postgresql-15 [15.18-0+deb12u1] (15.20-0+deb12u1 Debian:12 [amd64])",
            "postgresql-15",
        ),
        ("Remv someones-program [1.0]", "someones-program"),
    ] {
        let machine = Machine::new().without("clang");
        machine.packaged_server(15, "15.18");
        machine.headers(15);
        machine.script("simulate", &format!("echo '{simulated}'"));
        let done = machine.run(SETUP, &[]);
        assert!(!done.succeeded);
        assert!(done.installed().is_empty(), "{:?}", done.calls);
        let said = done.output.lines().last().unwrap();
        assert!(
            said.contains("to install clang would upgrade or remove") && said.contains(named),
            "{said}"
        );
    }
}

#[test]
fn where_there_is_no_postgresql_the_distributions_is_installed_without_a_cluster() {
    let machine = Machine::new();
    let done = machine.run(SETUP, &[]);
    assert_eq!(done.installed(), ["postgresql-15", "postgresql-server-dev-15"]);
    let off = "/etc/postgresql-common/createcluster.d/pg_presence.conf";
    let calls: Vec<_> = done.calls.iter().map(String::as_str).collect();
    let position = |call: &str| {
        calls
            .iter()
            .position(|found| found.starts_with(call))
            .unwrap_or_else(|| panic!("{call}: {calls:?}"))
    };
    let install = position("apt-get -y -q install");
    assert!(
        position(&format!("sudo tee {off}")) < install && install < position(&format!("sudo rm -f {off}")),
        "{calls:?}"
    );
    assert!(!Path::new(off).exists());
}

#[test]
fn only_what_the_chosen_suites_need_is_installed() {
    let machine = Machine::new();
    machine.packaged_server(15, "15.18");
    machine.headers(15);
    let chosen = |suite| {
        machine
            .run(&format!("{SETUP} tests"), &[("SUITE", suite)])
            .installed()
            .join(" ")
    };
    assert_eq!(chosen("unit server"), "");
    let browser = chosen("browser");
    for package in ["chromium", "nodejs", "npm"] {
        assert!(browser.contains(package), "{browser}");
    }
    assert!(!browser.contains("sqlsmith"), "{browser}");
    let all = machine.run(&format!("{SETUP} tests"), &[]).installed().join(" ");
    assert!(all.contains("chromium") && all.contains("sqlsmith"), "{all}");
}

#[test]
fn a_server_that_no_package_has_installed_gets_none_beside_it() {
    let machine = Machine::new();
    let config = machine.server(15, "15.18");
    machine.headers(15);
    let environment = [("SUITE", "roles"), ("PG_CONFIG", config.to_str().unwrap())];
    let installed = machine
        .run(&format!("{SETUP} tests"), &environment)
        .installed()
        .join(" ");
    assert!(
        installed.contains("sqlsmith") && !installed.contains("postgresql"),
        "{installed}"
    );
    machine.package("postgresql-15", "15.18-0+deb12u1");
    let installed = machine
        .run(&format!("{SETUP} tests"), &environment)
        .installed()
        .join(" ");
    assert!(installed.contains("postgresql-15-wal2json"), "{installed}");
}

#[test]
fn where_versions_are_fetched_the_installed_server_gets_no_headers() {
    let machine = Machine::new();
    machine.packaged_server(15, "15.18");
    let done = machine.run(&format!("{SETUP} tests"), &[("VERSIONS", "17"), ("SUITE", "unit")]);
    let postgres: Vec<_> = done
        .installed()
        .into_iter()
        .filter(|package| package.starts_with("postgresql"))
        .map(String::from)
        .collect();
    assert!(postgres.is_empty(), "{postgres:?}");
}

#[test]
fn cargo_pgrx_is_built_without_openssl_whose_headers_a_machine_may_lack() {
    let machine = Machine::new();
    machine.packaged_server(15, "15.18");
    machine.headers(15);
    machine.program("cargo", r#"[ "$1" != install ] || echo "cargo $*" >>"$MACHINE/calls""#);
    let done = machine.run(SETUP, &[]);
    let [call] = &done.calls[..] else {
        panic!("one call: {:?}", done.calls)
    };
    assert!(
        call.contains(" cargo-pgrx@=") && call.contains(" --no-default-features "),
        "{call}"
    );
}
