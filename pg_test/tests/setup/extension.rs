//! What is installed into the user's PostgreSQL, and removed from it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Machine;

const INSTALL: &str = "pg_test/bin/install";
const UNINSTALL: &str = "pg_test/bin/uninstall";

/// Returns every file below the server's directories for extensions and libraries.
fn files(machine: &Machine) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories: Vec<PathBuf> = vec![machine.path("usr/lib/postgresql/15/lib"), machine.path("usr/share")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Returns a machine whose server has an extension of somebody else's.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.packaged_server(15, "15.18");
    machine.headers(15);
    machine.write("usr/lib/postgresql/15/lib/pg_other.so", "");
    machine.write("usr/share/postgresql/15/extension/pg_other.control", "");
    machine
}

#[test]
fn what_install_puts_into_a_server_uninstall_removes_and_nothing_else() {
    let machine = machine();
    let before = files(&machine);
    let done = machine.run(INSTALL, &[]);
    assert!(done.succeeded, "{}", done.output);
    let mut expected = before.clone();
    expected.extend(["pg_presence.control", "pg_presence--0.1.0.sql", "pg_presence.so"].map(String::from));
    expected.sort();
    assert_eq!(files(&machine), expected);
    let done = machine.run(UNINSTALL, &[]);
    assert!(done.succeeded, "{}", done.output);
    assert_eq!(files(&machine), before);
}

#[test]
fn uninstall_says_what_remains() {
    let machine = machine();
    assert!(machine.run(INSTALL, &[]).succeeded);
    let said = machine.run(UNINSTALL, &[]).output;
    for words in [
        "shared_preload_libraries",
        "does not start again",
        "calls fail",
        "DROP EXTENSION pg_presence",
        "pg_presence.so",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let again = machine.run(UNINSTALL, &[]);
    assert!(
        again.succeeded && again.output.contains("There is no pg_presence"),
        "{}",
        again.output
    );
}

#[test]
fn the_files_of_a_package_are_that_packages() {
    let machine = machine();
    let library = machine.path("usr/lib/postgresql/15/lib/pg_presence.so");
    fs::write(&library, "packaged").unwrap();
    machine.owner(&library, "postgresql-15-pg-presence");
    for script in [INSTALL, UNINSTALL] {
        machine
            .run(script, &[])
            .assert_refused_at_once(&["apt-get remove postgresql-15-pg-presence"]);
    }
    assert_eq!(fs::read_to_string(&library).unwrap(), "packaged");
}

#[test]
fn a_server_without_headers_gets_what_was_built_for_the_copy_of_its_version() {
    let machine = Machine::new();
    machine.packaged_server(15, "15.18");
    machine.script("simulate", "exit 100");
    assert!(machine.run("pg_test/bin/setup", &[]).succeeded);
    let done = machine.run(INSTALL, &[]);
    assert!(done.succeeded, "{}", done.output);
    let copy = machine.path("cache/pg_presence/servers/15/usr/lib/postgresql/15/bin/pg_config");
    assert!(done.calls[0].contains(copy.to_str().unwrap()), "{:?}", done.calls);
    assert!(
        done.output.contains("Installed for PostgreSQL 15.18"),
        "{}",
        done.output
    );
    assert!(files(&machine).contains(&"pg_presence.so".to_owned()));
    assert!(!Path::new(&copy.with_file_name("../lib/pg_presence.so")).exists());
}

#[test]
fn a_library_that_a_running_server_has_loaded_is_replaced_and_not_written_to() {
    let machine = machine();
    let library = machine.path("usr/lib/postgresql/15/lib/pg_presence.so");
    fs::write(&library, "loaded").unwrap();
    let loaded = fs::File::open(&library).unwrap();
    assert!(machine.run(INSTALL, &[]).succeeded);
    assert_eq!(std::io::read_to_string(loaded).unwrap(), "loaded");
    assert_eq!(fs::read_to_string(&library).unwrap(), "");
}
