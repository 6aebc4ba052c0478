//! What heartbeats leave behind: WAL, transaction ids, dead tuples.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    chapter::Chapter, contest::Line, ids, numbers::Spread, random::Random, stage::Stage,
    venue::Venue,
};

/// Seconds between flushes, in a quick run and a full one: time is compressed thirty and ten times.
const FLUSHES: (u64, u64) = (3, 9);
/// A beat every ten seconds and a flush every ninety.
const BEATS_PER_FLUSH: u64 = 9;
/// For how many seconds nothing has to be written before the beats, in a quick run and a full one.
const QUIET: (u64, u64) = (2, 16);
const MANY: &str = "SELECT presence.heartbeat_many($1)";
const XID: &str = "SELECT txid_snapshot_xmax(txid_current_snapshot())::float8";
const DEAD: &str = "SELECT sum(n_tup_upd + n_tup_del)::float8 FROM pg_stat_user_tables WHERE schemaname = 'presence'";

pub fn run(venue: &mut Venue) -> Chapter {
    let scale = &venue.scale;
    let sessions = scale.pick(5_000, 20_000);
    // What PostgreSQL's own vacuum and analyze write falls into somebody's turn by chance.
    let mut stage = Stage::new(sessions, &[("autovacuum", "off")]);
    stage.load(sessions);
    let mut chapter = Chapter::new("wal", "What heartbeats leave behind");

    let beats = scale.pick(100_000, 1_000_000);
    let mut line = stage.statement(
        "bench_service",
        "",
        "SELECT presence.heartbeat($1)",
        Some(ids::any_id),
    );
    let left = || [stage.wal(), stage.ask(XID), stage.ask(DEAD)];
    // Whoever reads a page of the catalog first prunes it, which is WAL of PostgreSQL's own; so is a note of running
    // transactions, up to 15 s after the last of anything else.
    let mut random = Random::new(1);
    line.once(&mut random);
    left();
    let wanted = Duration::from_secs(scale.pick(QUIET.0, QUIET.1));
    let (began, mut quiet, mut last) = (Instant::now(), Instant::now(), stage.wal());
    while quiet.elapsed() < wanted && began.elapsed() < 3 * wanted {
        sleep(Duration::from_secs(1));
        let now = stage.wal();
        if now != last {
            (quiet, last) = (Instant::now(), now);
        }
    }
    let before = left();
    for _ in 0..beats {
        line.once(&mut random);
    }
    // Statistics are told at most once a second.
    sleep(Duration::from_millis(1500));
    let after = left();
    let of = [
        ("WAL", "bytes", "wal"),
        ("transaction ids", "", "xids"),
        ("dead tuples", "", "dead"),
    ];
    for (n, (what, unit, row)) in of.iter().enumerate() {
        chapter
            .figure(
                format!("{what} of {beats} beats between flushes"),
                unit,
                Spread::once(after[n] - before[n]),
            )
            .meets(row);
    }

    // The flush that comes first, and the first update of each row, write whole pages; not counted.
    let interval = Duration::from_secs(scale.pick(FLUSHES.0, FLUSHES.1));
    let seconds = format!("{}s", interval.as_secs());
    stage
        .cluster
        .configure(&[("presence.flush_interval", &seconds)]);
    stage.restart();
    let mut wire = stage.wire("bench_service");
    wire.prepare(MANY);
    let per_flush = |wire: &mut _| {
        let began = Instant::now();
        let before = stage.wal();
        for beat in 0..BEATS_PER_FLUSH {
            stage.for_all(wire);
            let next = began + interval * (beat as u32 + 1) / BEATS_PER_FLUSH as u32;
            sleep(next.saturating_duration_since(Instant::now()));
        }
        (stage.wal() - before) / (sessions * BEATS_PER_FLUSH) as f64
    };
    per_flush(&mut wire);
    let ours: Vec<f64> = (0..scale.pick(1, 3))
        .map(|_| per_flush(&mut wire))
        .collect();

    stage.load_seed("seed", "");
    // The same WAL as with synchronous_commit on, in less time.
    stage.run("CHECKPOINT");
    let mut wire = stage.wire("bench_service");
    wire.run("SET synchronous_commit = off");
    wire.prepare("UPDATE seed.user_sessions SET last_activity = now() WHERE id = $1");
    let mut pass = || {
        let before = stage.wal();
        for session in 0..sessions {
            wire.execute(Some(&ids::id(session)));
        }
        (stage.wal() - before) / sessions as f64
    };
    pass();
    let seeds = Spread::of((0..3).map(|_| pass()));
    chapter.figure(
        "WAL of a beat, flushes included",
        "bytes",
        Spread::of(ours.clone()),
    );
    chapter.figure("WAL of the seed's UPDATE", "bytes", seeds);
    chapter
        .figure(
            "WAL with flushes, a beat every 10 s ÷ the seed's",
            "×",
            Spread::of(ours.iter().map(|ours| ours / seeds.median)),
        )
        .meets("wal_flushed");
    chapter.raw = json!({ "bytes_per_beat": ours, "seed": seeds });
    chapter
}
