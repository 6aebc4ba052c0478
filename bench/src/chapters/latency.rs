//! From a change to the clients that listen.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::load::named;
use crate::{
    audience::Diary,
    chapter::{Chapter, Chart, Kind},
    ids,
    numbers::{Spread, quantile},
    pace::pace,
    stage::Stage,
    venue::Venue,
};

/// Settings that users have, not those of the big server.
const DEFAULTS: &[(&str, &str)] = &[
    ("presence.active_timeout", "5min"),
    ("presence.flush_interval", "90s"),
];
/// Users who are there already, as on a server in use.
const KNOWN: u64 = 10_000;
/// Most connections that make changes.
const MAKERS: u64 = 4;
/// Beyond, one call makes several changes: commits wait for the disk.
const CALLS_PER_SECOND: u64 = 1000;
/// Listeners that note what they hear; with more, the noting itself would be in the way.
const NOTING: u64 = 10;

struct System {
    name: &'static str,
    channel: &'static str,
    /// Makes changes of users who are new: an array of their ids.
    sql: &'static str,
}

const SYSTEMS: [System; 2] = [
    System {
        name: "pg_presence",
        channel: "presence",
        sql: "SELECT presence.start_sessions($1)",
    },
    System {
        name: "the seed's trigger",
        channel: "seed_notify",
        sql: "INSERT INTO seed_notify.user_sessions (user_id, auth_id, session_token)
              SELECT u, u, gen_random_uuid() FROM unnest($1::uuid[]) u",
    },
];

/// What one system did at one rate.
struct Cell {
    latencies: Vec<f64>,
    per_second: f64,
    /// Of what was to be told, what was.
    told: f64,
}

pub fn run(venue: &mut Venue) -> Chapter {
    let scale = venue.scale.clone();
    let rates: &[u64] = scale.pick(&[10, 1000], &[10, 100, 1000, 5000]);
    let audiences: &[u64] = scale.pick(&[1, 10], &[1, 10, 100]);
    let mut stage = Stage::new(1_000_000, DEFAULTS);
    stage.load(KNOWN);
    stage.load_peers();

    let mut chapter = Chapter::new("latency", "From a change to its listeners, ms");
    let mut raw = Vec::new();
    let mut users = KNOWN;
    let mut charted = vec![Vec::new(); 4];
    for &listeners in audiences {
        for &rate in rates {
            for (number, system) in SYSTEMS.iter().enumerate() {
                let seconds = scale.pick(1.5, if rate < 100 { 8.0 } else { 3.0 });
                let cell = measure(&stage, system, rate, listeners, seconds, &mut users);
                let label = format!("{}, {rate} changes/s, {listeners} listeners", system.name);
                raw.push(record(&cell, system, rate, listeners));
                if cell.latencies.is_empty() {
                    continue;
                }
                let (p50, p99) = (
                    quantile(&cell.latencies, 0.5),
                    quantile(&cell.latencies, 0.99),
                );
                chapter.figure(format!("{label}: median"), "ms", Spread::once(p50));
                chapter.figure(format!("{label}: p99"), "ms", Spread::once(p99));
                if cell.told < 0.999 || cell.per_second < 0.95 * rate as f64 {
                    chapter.figure(
                        format!("{label}: changes made"),
                        "/s",
                        Spread::once(cell.per_second),
                    );
                    chapter.figure(
                        format!("{label}: share told in time"),
                        "",
                        Spread::once(cell.told),
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
            let cell = measure(&stage, &SYSTEMS[0], 1000, 1, 1.5, &mut users);
            quantile(&cell.latencies, 0.99)
        })
        .collect();
    chapter
        .figure(
            "pg_presence, 1000 changes/s, 1 listener: p99 of each 1.5 s",
            "ms",
            Spread::of(p99s),
        )
        .meets("latency");
    chapter.charts.push(Chart {
        name: "latency".into(),
        title: "From a change to 10 listeners".into(),
        x: "changes per second".into(),
        y: "ms".into(),
        kind: Kind::Lines(named(
            &[
                "pg_presence, median",
                "pg_presence, p99",
                "the seed's trigger, median",
                "the seed's trigger, p99",
            ],
            charted,
        )),
    });
    chapter.raw = raw.into();
    chapter
}

fn record(cell: &Cell, system: &System, rate: u64, listeners: u64) -> Value {
    let quantiles = [0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0];
    let ms = quantiles.map(|share| {
        let known = !cell.latencies.is_empty();
        (share, known.then(|| quantile(&cell.latencies, share)))
    });
    json!({
        "system": system.name,
        "changes_per_second": rate,
        "listeners": listeners,
        "made_per_second": cell.per_second,
        "told": cell.told,
        "quantiles_ms": ms,
    })
}

fn measure(
    stage: &Stage,
    system: &System,
    rate: u64,
    listeners: u64,
    seconds: f64,
    users: &mut u64,
) -> Cell {
    let batch = rate.div_ceil(CALLS_PER_SECOND);
    let makers = MAKERS.min(rate.div_ceil(100));
    let next = AtomicU64::new(*users);
    let most = *users + (rate as f64 * seconds) as u64 + makers * batch + 1;
    let diary = Diary::new(most);
    let stop = AtomicBool::new(false);
    let mut per_second = 0.0;
    let mut expected = 0;
    thread::scope(|scope| {
        for listener in 0..listeners {
            let mut wire = stage.wire("bench_service");
            wire.run(&format!("LISTEN {}", system.channel));
            let (diary, stop) = (&diary, &stop);
            scope.spawn(move || diary.listen(wire, stop, listener >= NOTING));
        }
        let began = Instant::now();
        let threads: Vec<_> = (0..makers)
            .map(|_| {
                let mut wire = stage.wire("bench_service");
                wire.prepare(system.sql);
                let (diary, next) = (&diary, &next);
                scope.spawn(move || {
                    let mut array = Vec::new();
                    let calls = rate as f64 / batch as f64 / makers as f64;
                    pace(
                        calls,
                        |now| now.as_secs_f64() < seconds,
                        || {
                            let first = next.fetch_add(batch, Ordering::Relaxed);
                            let numbers: Vec<u64> = (first..first + batch).collect();
                            array.clear();
                            ids::array(&numbers, &mut array);
                            for number in numbers {
                                diary.send(number);
                            }
                            wire.execute(Some(&array));
                        },
                    )
                })
            })
            .collect();
        let calls: u64 = threads
            .into_iter()
            .map(|thread| thread.join().expect("the maker of changes"))
            .sum();
        per_second = (calls * batch) as f64 / began.elapsed().as_secs_f64();
        expected = calls * batch * listeners.min(NOTING);
        // What is not told after some seconds is too late to be counted.
        let patience = Instant::now();
        while diary.told.load(Ordering::Relaxed) < expected && patience.elapsed().as_secs() < 5 {
            thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
    });
    *users = most;
    let told = diary.told.load(Ordering::Relaxed) as f64 / expected as f64;
    Cell {
        latencies: diary.latencies(),
        per_second,
        told,
    }
}
