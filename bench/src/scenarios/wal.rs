//! What heartbeats leave behind: WAL, transaction ids and dead tuples.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    env::Env,
    ids,
    interleave::Client,
    random::Random,
    results::Results,
    server::Server,
    summary::{Summary, count},
};

/// Seconds between flushes in a quick and in a full run: 90 s, compressed thirty and ten times.
const FLUSH_INTERVALS: (u64, u64) = (3, 9);
/// A heartbeat every 10 s and a flush every 90 s.
const BEATS_PER_FLUSH: u64 = 9;
/// Seconds without any WAL that precede the heartbeats, in a quick and in a full run.
const QUIET: (u64, u64) = (2, 16);
const MANY: &str = "SELECT presence.heartbeat_many($1)";
const XID: &str = "SELECT txid_snapshot_xmax(txid_current_snapshot())::float8";
const DEAD: &str = "SELECT sum(n_tup_upd + n_tup_del)::float8 FROM pg_stat_user_tables WHERE schemaname = 'presence'";

pub fn run(env: &mut Env) -> Results {
    let scale = &env.scale;
    let sessions = scale.pick(5_000, 20_000);
    // Autovacuum would write at random moments.
    let mut server = Server::new(sessions, &[("autovacuum", "off")]);
    server.load(sessions);
    let mut results = Results::new("wal", "WAL, transaction ids and dead tuples of heartbeats");

    let beats = scale.pick(100_000, 1_000_000);
    let mut client = server.client(
        "bench_service",
        "",
        "SELECT presence.heartbeat($1)",
        Some(ids::random_id),
    );
    let counters = || [server.wal_position(), server.value(XID), server.value(DEAD)];
    // PostgreSQL writes WAL of its own: the first reader of a catalog page prunes it, and a snapshot of running
    // transactions is logged up to 15 s after anything else.
    let mut random = Random::new(1);
    client.call(&mut random);
    counters();
    let wanted = Duration::from_secs(scale.pick(QUIET.0, QUIET.1));
    let (began, mut quiet, mut last) = (Instant::now(), Instant::now(), server.wal_position());
    while quiet.elapsed() < wanted && began.elapsed() < 3 * wanted {
        sleep(Duration::from_secs(1));
        let now = server.wal_position();
        if now != last {
            (quiet, last) = (Instant::now(), now);
        }
    }
    let before = counters();
    for _ in 0..beats {
        client.call(&mut random);
    }
    // Backends report statistics at most once a second.
    sleep(Duration::from_millis(1500));
    let after = counters();
    let figures = [
        ("WAL", "bytes", "wal"),
        ("transaction ids", "", "xids"),
        ("dead tuples", "", "dead_tuples"),
    ];
    for (n, (what, unit, key)) in figures.iter().enumerate() {
        results
            .figure(
                format!("{what} of {} between flushes", count(beats, "heartbeat")),
                unit,
                Summary::once(after[n] - before[n]),
            )
            .for_budget(key);
    }

    // The first flush and the first update of each row write whole pages, and are not counted.
    let interval = Duration::from_secs(scale.pick(FLUSH_INTERVALS.0, FLUSH_INTERVALS.1));
    let seconds = format!("{}s", interval.as_secs());
    server.cluster.configure(&[("presence.flush_interval", &seconds)]);
    server.restart();
    let mut connection = server.connect("bench_service");
    connection.prepare(MANY);
    let per_flush = |connection: &mut _| {
        let began = Instant::now();
        let before = server.wal_position();
        for beat in 0..BEATS_PER_FLUSH {
            server.execute_for_all(connection);
            let next = began + interval * (beat as u32 + 1) / BEATS_PER_FLUSH as u32;
            sleep(next.saturating_duration_since(Instant::now()));
        }
        (server.wal_position() - before) / (sessions * BEATS_PER_FLUSH) as f64
    };
    per_flush(&mut connection);
    let ours: Vec<f64> = (0..scale.pick(1, 3)).map(|_| per_flush(&mut connection)).collect();

    server.load_baseline("baseline", "");
    // As much WAL as with synchronous_commit on, in less time.
    server.run("CHECKPOINT");
    let mut connection = server.connect("bench_service");
    connection.run("SET synchronous_commit = off");
    connection.prepare("UPDATE baseline.user_sessions SET last_activity = now() WHERE id = $1");
    let mut pass = || {
        let before = server.wal_position();
        for session in 0..sessions {
            connection.execute(Some(&ids::id(session)));
        }
        (server.wal_position() - before) / sessions as f64
    };
    pass();
    let baseline = Summary::of((0..3).map(|_| pass()));
    results.figure(
        "WAL per heartbeat, flushes included",
        "bytes",
        Summary::of(ours.clone()),
    );
    results.figure("WAL per baseline UPDATE", "bytes", baseline);
    results
        .figure(
            "WAL with flushes, a heartbeat every 10 s ÷ baseline UPDATE",
            "×",
            Summary::of(ours.iter().map(|ours| ours / baseline.median)),
        )
        .for_budget("wal_with_flushes");
    results.turns = json!({ "bytes_per_heartbeat": ours, "baseline": baseline });
    results
}
