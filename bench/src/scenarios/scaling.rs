//! How costs scale with the number of sessions, from a thousand to ten million.

use std::time::{Duration, Instant};

use super::{
    alternatives::{BASELINE, BASELINE_SQL},
    heartbeat::{HEARTBEAT, HEARTBEAT_SQL, SELECT_1},
};
use crate::{
    chart::{Chart, Plot},
    env::Env,
    ids::random_id,
    interleave::{Variant, interleave},
    progress,
    results::Results,
    server::Server,
    summary::{Summary, count},
};

const SWEEP: &str = "sweep";
const IS_ONLINE: &str = "is_online";
const ONLINE_USERS: &str = "count(*) of online_users()";
/// The baseline table is not loaded beyond: that would take minutes, and its UPDATE hardly changes.
const BASELINE_UP_TO: u64 = 1_000_000;
/// How long it may take to load one size.
const LOAD_TIMEOUT: Duration = Duration::from_secs(1200);

pub fn run(env: &mut Env) -> Results {
    env.stop_server();
    let scale = env.scale.clone();
    let sizes: &[u64] = scale.pick(
        &[1_000, 10_000, 50_000],
        &[1_000, 10_000, 100_000, 1_000_000, 10_000_000],
    );
    let mut server = Server::new(sizes[0], &[]);
    server.run(
        "GRANT USAGE ON SCHEMA benches TO bench_service;
         GRANT EXECUTE ON FUNCTION benches.sweep_once() TO bench_service",
    );
    let mut results = Results::new("scaling", "By number of sessions");
    let names = [SELECT_1, HEARTBEAT, IS_ONLINE, BASELINE];
    let (mut rates, mut reads) = (vec![Vec::new(); 4], vec![Vec::new(); 2]);
    let mut turns = Vec::new();
    let mut loading = Duration::ZERO;
    for &sessions in sizes {
        // Each size is ten times the last.
        if loading * 10 > LOAD_TIMEOUT {
            progress(&format!(
                "skipping {} and more, which would take too long to load",
                count(sessions, "session")
            ));
            break;
        }
        let began = Instant::now();
        let capacity = (sessions + 100).to_string();
        server.cluster.configure(&[("presence.max_sessions", &capacity)]);
        let took = server.load(sessions);
        loading = began.elapsed();
        let mut of = |what: &str, unit, summary| {
            results.figure(format!("{what}, {}", count(sessions, "session")), unit, summary);
        };
        of(
            "shared memory per session",
            "bytes",
            Summary::once(server.memory_per_session()),
        );
        of("all in memory after a restart", "s", Summary::once(took.as_secs_f64()));
        if sessions <= BASELINE_UP_TO {
            server.run("DROP SCHEMA IF EXISTS baseline CASCADE");
            server.load_baseline("baseline", "");
        }
        let any = |name: &str, sql| {
            Variant::new(name, scale.connections, |_| {
                server.client("bench_service", "", sql, Some(random_id))
            })
        };
        let alone = |name: &str, sql| Variant::new(name, 1, |_| server.client("bench_service", "", sql, None));
        let mut variants = vec![
            alone(SWEEP, "SELECT benches.sweep_once()"),
            alone(ONLINE_USERS, "SELECT count(*) FROM presence.online_users()"),
            Variant::new(SELECT_1, scale.connections, |_| {
                server.client("bench_service", "", "SELECT 1", None)
            }),
            any(HEARTBEAT, HEARTBEAT_SQL),
            any(IS_ONLINE, "SELECT presence.is_online($1)"),
        ];
        if sessions <= BASELINE_UP_TO {
            variants.push(any(BASELINE, BASELINE_SQL));
        }
        let outcome = interleave(&scale, &mut variants, scale.pick(1, 5));
        for (line, name) in rates.iter_mut().zip(names) {
            if name != BASELINE || sessions <= BASELINE_UP_TO {
                line.push((sessions as f64, outcome.per_second(name).median));
                of(name, "/s", outcome.per_second(name));
            }
        }
        for (line, name) in reads.iter_mut().zip([SWEEP, ONLINE_USERS]) {
            let ms = Summary::of(outcome.each(name, |turn| turn.cpu_us / 1000.0));
            line.push((sessions as f64, ms.median));
            of(name, "ms", ms);
        }
        turns.push(outcome.turns());
    }
    for (name, title, y, names, lines) in [
        (
            "scaling",
            "Calls per second by number of sessions",
            "per second",
            &names[..],
            rates,
        ),
        (
            "scaling_reads",
            "Time to read all sessions, by their number",
            "ms",
            &[SWEEP, ONLINE_USERS],
            reads,
        ),
    ] {
        results.charts.push(Chart {
            name: name.into(),
            title: title.into(),
            x: "sessions".into(),
            y: y.into(),
            plot: Plot::lines(names, lines),
        });
    }
    results.turns = turns.into();
    results
}
