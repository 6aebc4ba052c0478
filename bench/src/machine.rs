//! What it all ran on.

use std::{fs, process::Command};

use serde_json::{Value, json};

/// The machine and the versions; the peers' versions come from their servers.
pub fn describe(peers: &[String]) -> Value {
    json!({
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field("/proc/meminfo", "MemTotal"),
        "system": said("uname", &["-sr"]),
        "distribution": release(),
        "postgresql": said("pg_config", &["--version"]),
        "rust": said("rustc", &["--version"]),
        "peers": peers,
        "load_average_before": first_word("/proc/loadavg"),
        "commit": said("git", &["describe", "--always", "--dirty"]),
        "date": said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
    })
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':'))
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

fn release() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

fn first_word(file: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
