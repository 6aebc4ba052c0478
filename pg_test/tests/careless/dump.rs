//! The data dumped, and put back.

use std::{
    io::Write,
    process::{Output, Stdio},
};

use crate::place::Place;

/// Returns a dump of the data, or what pg_dump says.
pub fn dump(place: &Place, disable_triggers: bool) -> Result<String, String> {
    let names = place.names();
    let mut dump = place.cluster.program("pg_dump", &names.database);
    dump.args(["--data-only", "--no-owner"]);
    if disable_triggers {
        dump.arg("--disable-triggers");
    }
    let output = dump.output().expect("pg_dump");
    succeeded(&output)?;
    Ok(String::from_utf8(output.stdout).expect("UTF-8"))
}

/// Replaces the data by those of a dump, or returns what psql says.
pub fn restore(place: &Place, script: &str) -> Result<(), String> {
    let truncate = place.fill("TRUNCATE {user_sessions}, {user_presence}, {_feed_state}", 0);
    let names = place.names();
    let mut psql = place.cluster.program("psql", &names.database);
    psql.args([
        "--no-psqlrc",
        "--quiet",
        "--single-transaction",
        "--set=ON_ERROR_STOP=1",
    ])
    .stdin(Stdio::piped())
    .stdout(Stdio::null())
    .stderr(Stdio::piped());
    let mut psql = psql.spawn().expect("psql");
    let mut input = psql.stdin.take().expect("a pipe");
    // It stops reading at the first error.
    let _ = input.write_all(format!("{truncate};\n{script}").as_bytes());
    drop(input);
    succeeded(&psql.wait_with_output().expect("psql"))
}

fn succeeded(output: &Output) -> Result<(), String> {
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
