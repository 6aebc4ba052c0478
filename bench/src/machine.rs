//! The machine and the versions that a run used.

use std::{fs, process::Command};

use serde_json::{Value, json};

/// Describes the machine and the software; the Redis servers report their versions themselves.
pub fn describe(redis_versions: &[String]) -> Value {
    json!({
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field("/proc/meminfo", "MemTotal"),
        "system": output_of("uname", &["-sr"]),
        "distribution": distribution(),
        "postgresql": output_of("pg_config", &["--version"]),
        "rust": output_of("rustc", &["--version"]),
        "redis": redis_versions,
        "load_average_before": first_word("/proc/loadavg"),
        "commit": output_of("git", &["describe", "--always", "--dirty"]),
        "date": output_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
    })
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':'))
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

fn distribution() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

fn first_word(file: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
