//! What the worker's work costs those who beat, and what it takes to write and tell that everybody is gone.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use pg_presence_test::wait_until;
use serde_json::{Value, json};

use super::heartbeat::BEAT;
use crate::{
    chapter::Chapter,
    ids,
    numbers::{Spread, quantile},
    pace::pace,
    random::Random,
    stage::Stage,
    venue::Venue,
    wire::Wire,
};

/// So short that the worker has flushed before the next turn.
const FLUSH: &str = "2s";
/// Sessions whose beats are measured: so few that their own flush is no work.
const BEATEN: u64 = 100;
/// Sessions that are beaten for the worker to have work.
const FLUSHED: u64 = 100_000;
/// Logins while the worker is busy.
const CHANGES_PER_SECOND: f64 = 50.0;

pub fn run(venue: &mut Venue) -> Chapter {
    let scale = venue.scale.clone();
    let mut chapter = Chapter::new("worker", "The worker at work");
    let stage = venue.stage();
    let restarts: Vec<f64> = (0..scale.long_rounds)
        .map(|_| stage.restart().as_secs_f64())
        .collect();
    let sessions = stage.sessions;
    chapter
        .figure(
            format!("restart with {sessions} sessions: complete"),
            "s",
            Spread::of(restarts.iter().copied()),
        )
        .meets("restart");
    chapter
        .figure(
            "shared memory per session",
            "bytes",
            Spread::once(stage.memory_per_session()),
        )
        .meets("memory");

    // More than elsewhere: three busy processes share what cores there are, and the rare beat that waits is what counts.
    let (idle, busy) = beats(stage, 3 * scale.few_rounds, scale.turn * 4);
    let p99 = |latencies: &Vec<f64>| quantile(latencies, 0.99);
    chapter.figure(
        "beat p99, worker idle",
        "µs",
        Spread::of(idle.iter().map(p99)),
    );
    chapter.figure(
        "beat p99, worker busy",
        "µs",
        Spread::of(busy.iter().map(p99)),
    );
    let ratios = busy.iter().zip(&idle);
    chapter
        .figure(
            "beat p99 while the worker works ÷ while it is idle",
            "×",
            Spread::of(ratios.map(|(busy, idle)| p99(busy) / p99(idle))),
        )
        .meets("worker");

    // As users have it.
    stage
        .cluster
        .configure(&[("presence.flush_interval", "90s")]);
    stage.restart();
    let silences: Vec<Silence> = (0..scale.long_rounds).map(|_| silence(stage)).collect();
    let mut figure = |label: &str, unit, of: fn(&Silence) -> f64| {
        chapter.figure(label, unit, Spread::of(silences.iter().map(of)));
    };
    figure("online_count() right after", "ms", |silence| {
        silence.reader * 1000.0
    });
    figure("first change told", "s", |silence| silence.first);
    chapter
        .figure(
            format!("{sessions} sessions silent at once: written and told"),
            "s",
            Spread::of(silences.iter().map(|silence| silence.all)),
        )
        .meets("silence");
    let resumed = Spread::of(silences.iter().map(|silence| silence.resumed));
    chapter.figure("all of them back: written and told", "s", resumed);
    chapter.raw = json!({
        "restart_s": restarts,
        "silence_s": silences.iter().map(|silence| silence.all).collect::<Vec<_>>(),
        "resumed_s": silences.iter().map(|silence| silence.resumed).collect::<Vec<_>>(),
        "idle_p99_us": idle.iter().map(p99).collect::<Vec<_>>(),
        "busy_p99_us": busy.iter().map(p99).collect::<Vec<_>>(),
    });
    chapter
}

/// Latencies of one connection's beats in microseconds, sorted, turn by turn: with the worker idle, and with it busy.
fn beats(stage: &Stage, rounds: u64, turn: Duration) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    stage
        .cluster
        .configure(&[("presence.flush_interval", FLUSH)]);
    stage.restart();
    let mut wire = stage.wire("bench_service");
    wire.prepare(BEAT);
    let mut all = stage.wire("bench_service");
    all.prepare("SELECT presence.heartbeat_many($1)");
    let mut random = Random::new(7);
    let mut turns = (Vec::new(), Vec::new());
    let mut users = stage.sessions;
    for _ in 0..rounds {
        wait_until("an idle worker", || {
            stage.ask(
                "SELECT unwritten_users = 0 AND oldest_unflushed_ms IS NULL FROM presence.presence_stats",
            )
        });
        turns.0.push(beat(&mut wire, &mut random, turn));
        // Now there is a second's work of flushing, and there are changes to be told.
        stage.for_some(&mut all, BEATEN..stage.sessions.min(FLUSHED));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut wire = stage.wire("bench_service");
                wire.prepare("SELECT presence.start_sessions($1)");
                let mut array = Vec::new();
                let goes_on = |_| !stop.load(Ordering::Relaxed);
                pace(CHANGES_PER_SECOND, goes_on, || {
                    array.clear();
                    ids::array(&[users], &mut array);
                    users += 1;
                    wire.execute(Some(&array));
                });
            });
            thread::sleep(Duration::from_millis(100));
            turns.1.push(beat(&mut wire, &mut random, turn));
            stop.store(true, Ordering::Relaxed);
        });
    }
    turns
}

fn beat(wire: &mut Wire, random: &mut Random, turn: Duration) -> Vec<f64> {
    let mut latencies = Vec::new();
    let began = Instant::now();
    while began.elapsed() < turn {
        let id = ids::id(random.below(BEATEN));
        let sent = Instant::now();
        wire.execute(Some(&id));
        latencies.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// How everybody's silence went, in seconds.
struct Silence {
    /// The first count after it.
    reader: f64,
    /// Until the first change was told, and the last.
    first: f64,
    all: f64,
    /// From everybody's next beat to the last change told.
    resumed: f64,
}

/// All sessions fall silent at once, and come back.
fn silence(stage: &Stage) -> Silence {
    const GRACE: Duration = Duration::from_secs(3);
    stage.wait_until_written();
    let mut listener = stage.wire("bench_service");
    listener.run("LISTEN presence");
    let online: i64 = stage.ask("SELECT presence.online_count()");
    let seq: i64 = stage.ask("SELECT seq FROM presence.presence_cursor()");
    let mut wire = stage.wire("bench_service");
    wire.prepare("SELECT presence.release_sessions($1, '3 s')");
    let silent = Instant::now() + GRACE;
    stage.for_all(&mut wire);
    let mut reader = stage.client();
    thread::sleep(silent.saturating_duration_since(Instant::now()));
    // The last were released a moment after the first.
    let mut took = Duration::ZERO;
    wait_until("readers to see nobody", || {
        let began = Instant::now();
        let row = reader.query_one("SELECT presence.online_count()", &[]);
        took = began.elapsed();
        let online_now: i64 = row.expect("a number").get(0);
        // Those who started while the worker was measured are not ours to release.
        online_now <= online - stage.sessions as i64
    });
    let first = told(&mut listener, seq + 1, silent);
    let all = told(&mut listener, seq + stage.sessions as i64, silent);
    let mut wire = stage.wire("bench_service");
    wire.prepare("SELECT presence.heartbeat_many($1)");
    let back = Instant::now();
    stage.for_all(&mut wire);
    let resumed = told(&mut listener, seq + 2 * stage.sessions as i64, back);
    Silence {
        reader: took.as_secs_f64(),
        first,
        all,
        resumed,
    }
}

/// Listens until told of a change; returns how long that was after `since`, in seconds.
fn told(listener: &mut Wire, seq: i64, since: Instant) -> f64 {
    let began = Instant::now();
    loop {
        for payload in &listener.payloads {
            let message: Value = serde_json::from_str(payload).expect("JSON");
            if message["seq"].as_i64().is_some_and(|told| told >= seq) {
                return since.elapsed().as_secs_f64();
            }
        }
        listener.payloads.clear();
        assert!(began.elapsed() < PATIENCE, "change {seq} is not told");
        listener.listen(Duration::from_millis(100));
    }
}

/// A slow machine is no reason to fail.
const PATIENCE: Duration = Duration::from_secs(300);
