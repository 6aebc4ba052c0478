//! PostgreSQL's own benchmark.

use crate::stage::Stage;

/// What a run has come to.
pub struct Said {
    /// Transactions per second over all of it, if it ran any.
    pub per_second: Option<f64>,
    /// The same of each second, where `-P 1` asks for that.
    pub each_second: Vec<f64>,
}

/// Runs it in a database of the stage's server.
pub fn run(stage: &Stage, database: &str, arguments: &[&str]) -> Said {
    let done = stage
        .cluster
        .program("pgbench", database)
        .args(arguments)
        .output()
        .expect("pgbench");
    let complained = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "pgbench: {complained}");
    let said = String::from_utf8_lossy(&done.stdout);
    let tps = said.lines().find_map(|line| line.strip_prefix("tps = "));
    Said {
        per_second: tps.and_then(|tps| tps.split_whitespace().next()?.parse().ok()),
        // progress: 1.0 s, 466.8 tps, lat ...
        each_second: complained
            .lines()
            .filter(|line| line.starts_with("progress: "))
            .filter_map(|line| line.split(", ").nth(1)?.strip_suffix(" tps")?.parse().ok())
            .collect(),
    }
}
