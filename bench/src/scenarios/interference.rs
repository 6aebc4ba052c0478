//! How much heartbeats slow down unrelated work on the same server.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use serde_json::json;

use super::{alternatives::BASELINE_SQL, heartbeat::HEARTBEAT_SQL};
use crate::{
    env::Env,
    ids::{random_1000_ids, random_id},
    interleave::Client,
    pace::pace,
    random::Random,
    results::Results,
    server::Server,
    sql_client::Parameter,
    summary::Summary,
};

const PER_SECOND: u64 = 20_000;
const DATABASE: &str = "unrelated";

/// Heartbeats that run beside the unrelated work.
struct Load {
    name: &'static str,
    sql: &'static str,
    parameter: Parameter,
    /// Heartbeats per call.
    batch: u64,
}

const LOADS: [Load; 3] = [
    Load {
        name: "heartbeat",
        sql: HEARTBEAT_SQL,
        parameter: random_id,
        batch: 1,
    },
    Load {
        name: "heartbeat_many of 1,000",
        sql: "SELECT presence.heartbeat_many($1)",
        parameter: random_1000_ids,
        batch: 1000,
    },
    Load {
        name: "baseline UPDATE",
        sql: BASELINE_SQL,
        parameter: random_id,
        batch: 1,
    },
];

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let seconds = scale.pick(1, 3);
    let rounds = scale.pick(1, 5);
    let (server, _) = env.with_alternatives();
    server.run(&format!("CREATE DATABASE {DATABASE}"));
    pgbench(server, &["-i", "-q", "-s", "10"]);
    let time = format!("-T{seconds}");
    let arguments = [&time, "-c2", "-n", "-Mprepared"];

    let mut alone = Vec::new();
    let mut losses = vec![Vec::new(); LOADS.len()];
    let mut achieved = vec![Vec::new(); LOADS.len()];
    for _ in 0..rounds {
        let undisturbed = pgbench(server, &arguments);
        alone.push(undisturbed);
        for (number, load) in LOADS.iter().enumerate() {
            let (disturbed, per_second) = during(server, load, || pgbench(server, &arguments));
            losses[number].push(100.0 * (1.0 - disturbed / undisturbed));
            achieved[number].push(per_second);
        }
    }
    let mut results = Results::new(
        "interference",
        "An unrelated pgbench beside 20,000 heartbeats per second",
    );
    results.figure("pgbench alone", "transactions/s", Summary::of(alone.iter().copied()));
    for (number, load) in LOADS.iter().enumerate() {
        results.figure(
            format!("{}: pgbench loses", load.name),
            "%",
            Summary::of(losses[number].iter().copied()),
        );
        results.figure(
            format!("{}: achieved", load.name),
            "heartbeats/s",
            Summary::of(achieved[number].iter().copied()),
        );
    }
    results.turns = json!({ "alone": alone, "lost_per_cent": losses, "heartbeats_per_second": achieved });
    results
}

/// Runs pgbench in its database; returns transactions per second, zero if it reports none.
fn pgbench(server: &Server, arguments: &[&str]) -> f64 {
    let done = server
        .cluster
        .program("pgbench", DATABASE)
        .args(arguments)
        .output()
        .expect("pgbench");
    assert!(
        done.status.success(),
        "pgbench: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let report = String::from_utf8_lossy(&done.stdout).into_owned();
    let tps = report.lines().find_map(|line| line.strip_prefix("tps = "));
    tps.and_then(|tps| tps.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

/// Runs `work` during a load; returns its result and the heartbeats per second that were achieved.
fn during<T>(server: &Server, load: &Load, work: impl FnOnce() -> T) -> (T, f64) {
    const CONNECTIONS: u64 = 4;
    let (stop, beats) = (AtomicBool::new(false), AtomicU64::new(0));
    let calls = (PER_SECOND / load.batch / CONNECTIONS) as f64;
    thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let (stop, beats) = (&stop, &beats);
            let mut client = server.client("bench_service", "", load.sql, Some(load.parameter));
            scope.spawn(move || {
                let mut random = Random::new(number);
                let goes_on = |_| !stop.load(Ordering::Relaxed);
                pace(calls, goes_on, || {
                    beats.fetch_add(client.call(&mut random), Ordering::Relaxed);
                });
            });
        }
        let began = Instant::now();
        let outcome = work();
        let per_second = beats.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        (outcome, per_second)
    })
}
