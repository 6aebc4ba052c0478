//! Latency from a change to the clients that LISTEN.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    chart::{Chart, Plot},
    env::Env,
    ids,
    listeners::Log,
    pace::pace,
    results::Results,
    server::Server,
    summary::{Summary, count, quantile},
};

/// The extension's defaults, unlike on the large server.
const DEFAULTS: &[(&str, &str)] = &[("presence.active_timeout", "5min"), ("presence.flush_interval", "90s")];
/// Users that exist before, as on a server in use.
const EXISTING: u64 = 10_000;
/// Maximum number of connections that make changes.
const WRITERS: u64 = 4;
/// Above this rate a call makes several changes, because commits wait for the disk.
const CALLS_PER_SECOND: u64 = 1000;
/// Maximum number of listeners that record what they receive; more would slow down the measurement.
const RECORDING: u64 = 10;

struct System {
    name: &'static str,
    channel: &'static str,
    /// Starts sessions of new users, whose ids are in an array.
    sql: &'static str,
}

const SYSTEMS: [System; 2] = [
    System {
        name: "pg_presence",
        channel: "presence",
        sql: "SELECT presence.start_sessions($1)",
    },
    System {
        name: "baseline trigger",
        channel: "baseline_notify",
        sql: "INSERT INTO baseline_notify.user_sessions (user_id, auth_id, session_token)
              SELECT u, u, gen_random_uuid() FROM unnest($1::uuid[]) u",
    },
];

/// What one system achieved at one rate.
struct Sample {
    latencies: Vec<f64>,
    per_second: f64,
    /// Share of the notifications that were received in time.
    received: f64,
}

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let rates: &[u64] = scale.pick(&[10, 1000], &[10, 100, 1000, 5000]);
    let listener_counts: &[u64] = scale.pick(&[1, 10], &[1, 10, 100]);
    let mut server = Server::new(1_000_000, DEFAULTS);
    server.load(EXISTING);
    server.load_alternatives();

    let mut results = Results::new("latency", "Latency from a change to its listeners");
    let mut all = Vec::new();
    let mut users = EXISTING;
    let mut charted = vec![Vec::new(); 4];
    for &listeners in listener_counts {
        for &rate in rates {
            for (number, system) in SYSTEMS.iter().enumerate() {
                let seconds = scale.pick(1.5, if rate < 100 { 8.0 } else { 3.0 });
                let sample = measure(&server, system, rate, listeners, seconds, &mut users);
                let label = format!("{}, {rate} changes/s, {}", system.name, count(listeners, "listener"));
                all.push(turn(&sample, system, rate, listeners));
                if sample.latencies.is_empty() {
                    continue;
                }
                let (p50, p99) = (quantile(&sample.latencies, 0.5), quantile(&sample.latencies, 0.99));
                results.figure(format!("{label}: median"), "ms", Summary::once(p50));
                results.figure(format!("{label}: p99"), "ms", Summary::once(p99));
                if sample.received < 0.999 || sample.per_second < 0.95 * rate as f64 {
                    results.figure(format!("{label}: changes made"), "/s", Summary::once(sample.per_second));
                    results.figure(
                        format!("{label}: share received in time"),
                        "",
                        Summary::once(sample.received),
                    );
                }
                if listeners == 10 {
                    charted[number * 2].push((rate as f64, p50));
                    charted[number * 2 + 1].push((rate as f64, p99));
                }
            }
        }
    }
    let p99s: Vec<f64> = (0..scale.few_rounds)
        .map(|_| {
            let sample = measure(&server, &SYSTEMS[0], 1000, 1, 1.5, &mut users);
            quantile(&sample.latencies, 0.99)
        })
        .collect();
    results
        .figure(
            "pg_presence, 1000 changes/s, 1 listener: p99 within 1.5 s",
            "ms",
            Summary::of(p99s),
        )
        .for_budget("latency");
    results.charts.push(Chart {
        name: "latency".into(),
        title: "Latency from a change to 10 listeners".into(),
        x: "changes per second".into(),
        y: "ms".into(),
        plot: Plot::lines(
            &[
                "pg_presence, median",
                "pg_presence, p99",
                "baseline trigger, median",
                "baseline trigger, p99",
            ],
            charted,
        ),
    });
    results.turns = all.into();
    results
}

fn turn(sample: &Sample, system: &System, rate: u64, listeners: u64) -> Value {
    let quantiles = [0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0];
    let ms = quantiles.map(|share| {
        let known = !sample.latencies.is_empty();
        (share, known.then(|| quantile(&sample.latencies, share)))
    });
    json!({
        "system": system.name,
        "changes_per_second": rate,
        "listeners": listeners,
        "made_per_second": sample.per_second,
        "received": sample.received,
        "quantiles_ms": ms,
    })
}

fn measure(server: &Server, system: &System, rate: u64, listeners: u64, seconds: f64, users: &mut u64) -> Sample {
    let batch = rate.div_ceil(CALLS_PER_SECOND);
    let writers = WRITERS.min(rate.div_ceil(100));
    let next = AtomicU64::new(*users);
    let end = *users + (rate as f64 * seconds) as u64 + writers * batch + 1;
    let log = Log::new(end);
    let stop = AtomicBool::new(false);
    let mut per_second = 0.0;
    let mut expected = 0;
    thread::scope(|scope| {
        for listener in 0..listeners {
            let mut connection = server.connect("bench_service");
            connection.run(&format!("LISTEN {}", system.channel));
            let (log, stop) = (&log, &stop);
            scope.spawn(move || log.listen(connection, stop, listener < RECORDING));
        }
        let began = Instant::now();
        let threads: Vec<_> = (0..writers)
            .map(|_| {
                let mut connection = server.connect("bench_service");
                connection.prepare(system.sql);
                let (log, next) = (&log, &next);
                scope.spawn(move || {
                    let mut array = Vec::new();
                    let calls = rate as f64 / batch as f64 / writers as f64;
                    pace(
                        calls,
                        |now| now.as_secs_f64() < seconds,
                        || {
                            let first = next.fetch_add(batch, Ordering::Relaxed);
                            let numbers: Vec<u64> = (first..first + batch).collect();
                            array.clear();
                            ids::array(&numbers, &mut array);
                            for number in numbers {
                                log.record_sent(number);
                            }
                            connection.execute(Some(&array));
                        },
                    )
                })
            })
            .collect();
        let calls: u64 = threads.into_iter().map(|thread| thread.join().expect("a writer")).sum();
        per_second = (calls * batch) as f64 / began.elapsed().as_secs_f64();
        expected = calls * batch * listeners.min(RECORDING);
        // A notification that takes longer than this does not count.
        let waiting = Instant::now();
        while log.received.load(Ordering::Relaxed) < expected && waiting.elapsed().as_secs() < 5 {
            thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
    });
    *users = end;
    let received = log.received.load(Ordering::Relaxed) as f64 / expected as f64;
    Sample {
        latencies: log.latencies(),
        per_second,
        received,
    }
}
