//! What somebody else's work on the same server loses while heartbeats come in.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use serde_json::json;

use super::{heartbeat::BEAT, peers::UPDATE};
use crate::{
    chapter::Chapter,
    contest::Line,
    ids::{any_id, thousand_ids},
    numbers::Spread,
    pace::pace,
    random::Random,
    stage::Stage,
    venue::Venue,
    wire::Parameter,
};

const PER_SECOND: u64 = 20_000;
const DATABASE: &str = "somebody_elses";

/// What comes in meanwhile.
struct Beats {
    name: &'static str,
    sql: &'static str,
    parameter: Parameter,
    /// How many beats a call is.
    batch: u64,
}

const BEATS: [Beats; 3] = [
    Beats {
        name: "heartbeats",
        sql: BEAT,
        parameter: any_id,
        batch: 1,
    },
    Beats {
        name: "heartbeat_many of 1,000",
        sql: "SELECT presence.heartbeat_many($1)",
        parameter: thousand_ids,
        batch: 1000,
    },
    Beats {
        name: "the seed's UPDATEs",
        sql: UPDATE,
        parameter: any_id,
        batch: 1,
    },
];

pub fn run(venue: &mut Venue) -> Chapter {
    let scale = venue.scale.clone();
    let seconds = scale.pick(1, 3);
    let rounds = scale.pick(1, 5);
    let (stage, _) = venue.with_peers();
    stage.run(&format!("CREATE DATABASE {DATABASE}"));
    pgbench(stage, &["-i", "-q", "-s", "10"]);
    let time = format!("-T{seconds}");
    let turn = [&time, "-c2", "-n", "-Mprepared"];

    let mut alone = Vec::new();
    let mut losses = vec![Vec::new(); BEATS.len()];
    let mut achieved = vec![Vec::new(); BEATS.len()];
    for _ in 0..rounds {
        let undisturbed = pgbench(stage, &turn);
        alone.push(undisturbed);
        for (number, beats) in BEATS.iter().enumerate() {
            let (disturbed, per_second) = while_beating(stage, beats, || pgbench(stage, &turn));
            losses[number].push(100.0 * (1.0 - disturbed / undisturbed));
            achieved[number].push(per_second);
        }
    }
    let mut chapter = Chapter::new(
        "bystander",
        "An unrelated pgbench while 20,000 beats a second come in",
    );
    chapter.figure(
        "pgbench alone",
        "transactions/s",
        Spread::of(alone.iter().copied()),
    );
    for (number, beats) in BEATS.iter().enumerate() {
        chapter.figure(
            format!("{}: pgbench loses", beats.name),
            "%",
            Spread::of(losses[number].iter().copied()),
        );
        chapter.figure(
            format!("{}: achieved", beats.name),
            "beats/s",
            Spread::of(achieved[number].iter().copied()),
        );
    }
    chapter.raw = json!({ "alone": alone, "lost_per_cent": losses, "beats_per_second": achieved });
    chapter
}

/// Runs pgbench in its database; returns transactions per second, if it says any.
fn pgbench(stage: &Stage, arguments: &[&str]) -> f64 {
    let done = stage
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
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let tps = said.lines().find_map(|line| line.strip_prefix("tps = "));
    tps.and_then(|tps| tps.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

/// Does something while beats come in; returns what it did, and how many beats a second there were.
fn while_beating<T>(stage: &Stage, beats: &Beats, something: impl FnOnce() -> T) -> (T, f64) {
    const CONNECTIONS: u64 = 4;
    let (stop, did) = (AtomicBool::new(false), AtomicU64::new(0));
    let calls = (PER_SECOND / beats.batch / CONNECTIONS) as f64;
    thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let (stop, did) = (&stop, &did);
            let mut line = stage.statement("bench_service", "", beats.sql, Some(beats.parameter));
            scope.spawn(move || {
                let mut random = Random::new(number);
                let goes_on = |_| !stop.load(Ordering::Relaxed);
                pace(calls, goes_on, || {
                    did.fetch_add(line.once(&mut random), Ordering::Relaxed);
                });
            });
        }
        let began = Instant::now();
        let outcome = something();
        let per_second = did.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        (outcome, per_second)
    })
}
