//! How the worker's activity delays heartbeats, and how long it takes to write and notify that all sessions timed out.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use pg_presence_test::wait_until;
use serde_json::{Value, json};

use super::heartbeat::HEARTBEAT_SQL;
use crate::{
    connection::Connection,
    env::Env,
    ids,
    pace::pace,
    random::Random,
    results::Results,
    server::Server,
    summary::{Summary, count, quantile},
};

/// Short enough for the worker to have flushed before the next turn.
const FLUSH_INTERVAL: &str = "2s";
/// Sessions whose heartbeats are measured: few enough for their own flush to be negligible.
const MEASURED: u64 = 100;
/// Sessions that get a heartbeat to keep the worker busy flushing.
const FLUSHED: u64 = 100_000;
/// Logins per second while the worker is busy.
const CHANGES_PER_SECOND: f64 = 50.0;

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let mut results = Results::new("worker", "The worker");
    let server = env.server();
    let restarts: Vec<f64> = (0..scale.long_rounds).map(|_| server.restart().as_secs_f64()).collect();
    let sessions = server.sessions;
    results
        .figure(
            format!("restart with {}: complete", count(sessions, "session")),
            "s",
            Summary::of(restarts.iter().copied()),
        )
        .for_budget("restart");

    // More rounds than elsewhere: three busy processes share the cores, and few heartbeats decide the p99.
    let (idle, busy) = latencies(server, 3 * scale.few_rounds, scale.turn * 4);
    let p99 = |latencies: &Vec<f64>| quantile(latencies, 0.99);
    results.figure("heartbeat p99, worker idle", "µs", Summary::of(idle.iter().map(p99)));
    results.figure("heartbeat p99, worker busy", "µs", Summary::of(busy.iter().map(p99)));
    let ratios = busy.iter().zip(&idle);
    results
        .figure(
            "heartbeat p99 while the worker is busy ÷ while it is idle",
            "×",
            Summary::of(ratios.map(|(busy, idle)| p99(busy) / p99(idle))),
        )
        .for_budget("worker");

    // The default.
    server.cluster.configure(&[("presence.flush_interval", "90s")]);
    server.restart();
    let timeouts: Vec<MassTimeout> = (0..scale.long_rounds).map(|_| mass_timeout(server)).collect();
    let mut figure = |label: &str, unit, of: fn(&MassTimeout) -> f64| {
        results.figure(label, unit, Summary::of(timeouts.iter().map(of)));
    };
    figure("online_count() after the timeout", "ms", |timeout| {
        timeout.reader * 1000.0
    });
    figure("first change notified", "s", |timeout| timeout.first);
    results
        .figure(
            format!(
                "{} time out at once: all written and notified",
                count(sessions, "session")
            ),
            "s",
            Summary::of(timeouts.iter().map(|timeout| timeout.all)),
        )
        .for_budget("mass_timeout");
    let resumed = Summary::of(timeouts.iter().map(|timeout| timeout.resumed));
    results.figure("all of them resumed: all written and notified", "s", resumed);
    results.turns = json!({
        "restart_s": restarts,
        "mass_timeout_s": timeouts.iter().map(|timeout| timeout.all).collect::<Vec<_>>(),
        "resumed_s": timeouts.iter().map(|timeout| timeout.resumed).collect::<Vec<_>>(),
        "idle_p99_us": idle.iter().map(p99).collect::<Vec<_>>(),
        "busy_p99_us": busy.iter().map(p99).collect::<Vec<_>>(),
    });
    results
}

/// Returns the sorted latencies of one connection's heartbeats in microseconds, for each turn with the worker idle and
/// for each with it busy.
fn latencies(server: &Server, rounds: u64, turn: Duration) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    server.cluster.configure(&[("presence.flush_interval", FLUSH_INTERVAL)]);
    server.restart();
    let mut connection = server.connect("bench_service");
    connection.prepare(HEARTBEAT_SQL);
    let mut all = server.connect("bench_service");
    all.prepare("SELECT presence.heartbeat_many($1)");
    let mut random = Random::new(7);
    let mut turns = (Vec::new(), Vec::new());
    let mut users = server.sessions;
    for _ in 0..rounds {
        wait_until("an idle worker", || {
            server.value("SELECT unwritten_users = 0 AND oldest_unflushed_ms IS NULL FROM presence.presence_stats")
        });
        turns.0.push(turn_latencies(&mut connection, &mut random, turn));
        // About a second of flushing; the logins below are changes to write and notify.
        server.execute_for(&mut all, MEASURED..server.sessions.min(FLUSHED));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut connection = server.connect("bench_service");
                connection.prepare("SELECT presence.start_sessions($1)");
                let mut array = Vec::new();
                let goes_on = |_| !stop.load(Ordering::Relaxed);
                pace(CHANGES_PER_SECOND, goes_on, || {
                    array.clear();
                    ids::array(&[users], &mut array);
                    users += 1;
                    connection.execute(Some(&array));
                });
            });
            thread::sleep(Duration::from_millis(100));
            turns.1.push(turn_latencies(&mut connection, &mut random, turn));
            stop.store(true, Ordering::Relaxed);
        });
    }
    turns
}

fn turn_latencies(connection: &mut Connection, random: &mut Random, turn: Duration) -> Vec<f64> {
    let mut latencies = Vec::new();
    let began = Instant::now();
    while began.elapsed() < turn {
        let id = ids::id(random.below(MEASURED));
        let sent = Instant::now();
        connection.execute(Some(&id));
        latencies.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// What happens when all sessions time out at once and then resume; times in seconds.
struct MassTimeout {
    /// How long the first correct count takes.
    reader: f64,
    /// From the timeout until the first and until the last change is notified.
    first: f64,
    all: f64,
    /// From the next heartbeats until the last change is notified.
    resumed: f64,
}

/// Lets all sessions time out at once, and resumes them.
fn mass_timeout(server: &Server) -> MassTimeout {
    const GRACE: Duration = Duration::from_secs(3);
    server.wait_until_written();
    let mut listener = server.connect("bench_service");
    listener.run("LISTEN presence");
    let online: i64 = server.value("SELECT presence.online_count()");
    let seq: i64 = server.value("SELECT seq FROM presence.presence_cursor()");
    let mut connection = server.connect("bench_service");
    connection.prepare("SELECT presence.release_sessions($1, '3 s')");
    let timeout = Instant::now() + GRACE;
    server.execute_for_all(&mut connection);
    let mut reader = server.superuser();
    thread::sleep(timeout.saturating_duration_since(Instant::now()));
    // The last sessions were released a moment after the first.
    let mut took = Duration::ZERO;
    wait_until("readers to count the timed-out users as offline", || {
        let began = Instant::now();
        let row = reader.query_one("SELECT presence.online_count()", &[]);
        took = began.elapsed();
        let online_now: i64 = row.expect("a number").get(0);
        // Sessions started while the worker was busy have not been released.
        online_now <= online - server.sessions as i64
    });
    let first = notified(&mut listener, seq + 1, timeout);
    let all = notified(&mut listener, seq + server.sessions as i64, timeout);
    let mut connection = server.connect("bench_service");
    connection.prepare("SELECT presence.heartbeat_many($1)");
    let resume = Instant::now();
    server.execute_for_all(&mut connection);
    let resumed = notified(&mut listener, seq + 2 * server.sessions as i64, resume);
    MassTimeout {
        reader: took.as_secs_f64(),
        first,
        all,
        resumed,
    }
}

/// Waits for the notification of a change; returns how many seconds after `since` it arrived.
pub fn notified(listener: &mut Connection, seq: i64, since: Instant) -> f64 {
    let began = Instant::now();
    loop {
        for payload in &listener.payloads {
            let message: Value = serde_json::from_str(payload).expect("JSON");
            if message["seq"].as_i64().is_some_and(|last| last >= seq) {
                return since.elapsed().as_secs_f64();
            }
        }
        listener.payloads.clear();
        assert!(began.elapsed() < TIMEOUT, "change {seq} was not notified");
        listener.wait_for_notifications(Duration::from_millis(100));
    }
}

/// Generous, for slow machines.
const TIMEOUT: Duration = Duration::from_secs(300);
