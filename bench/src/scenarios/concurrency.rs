//! Concurrent heartbeats: from more and more connections, and more and more of them for the same session.

use super::{
    alternatives::{BASELINE, BASELINE_SQL},
    heartbeat::{HEARTBEAT, HEARTBEAT_SQL, SELECT_1},
};
use crate::{
    chart::{Chart, Plot},
    env::Env,
    ids,
    interleave::{Measure, Variant, interleave},
    random::Random,
    results::Results,
    sql_client::Parameter,
    summary::count,
};

const CONNECTIONS: &[u64] = &[1, 2, 4, 8, 16, 32, 64];

/// Share of the heartbeats that are for one session, as text and in per cent, and the parameter that chooses so.
const SHARES: &[(&str, f64, Parameter)] = &[
    ("1 %", 1.0, hot::<1>),
    ("10 %", 10.0, hot::<10>),
    ("50 %", 50.0, hot::<50>),
    ("100 %", 100.0, hot::<100>),
];

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let rounds = scale.pick(1, 5);
    let (server, _) = env.with_alternatives();
    let mut results = Results::new("concurrency", "Concurrent heartbeats");
    let service = |name: &str, connections, sql, parameter| {
        Variant::new(name, connections, |_| {
            server.client("bench_service", "", sql, parameter)
        })
    };
    let mut turns = Vec::new();
    let mut lines = vec![Vec::new(); 3];
    for &connections in CONNECTIONS {
        let any = Some(ids::random_id as Parameter);
        let mut variants = [
            service(SELECT_1, connections, "SELECT 1", None),
            service(HEARTBEAT, connections, HEARTBEAT_SQL, any),
            service(BASELINE, connections, BASELINE_SQL, any),
        ];
        let outcome = interleave(&scale, &mut variants, rounds);
        for (line, name) in lines.iter_mut().zip([SELECT_1, HEARTBEAT, BASELINE]) {
            line.push((connections as f64, outcome.per_second(name).median));
        }
        results.figure(
            format!("{HEARTBEAT} ÷ {SELECT_1}, {}", count(connections, "connection")),
            "×",
            outcome.ratio(Measure::Clock, HEARTBEAT, SELECT_1),
        );
        results.figure(
            format!("{HEARTBEAT} ÷ {BASELINE}, {}", count(connections, "connection")),
            "×",
            outcome.ratio(Measure::Clock, HEARTBEAT, BASELINE),
        );
        turns.push(outcome.turns());
    }
    results.charts.push(Chart {
        name: "connections".into(),
        title: "Heartbeats per second by number of connections".into(),
        x: "connections".into(),
        y: "per second".into(),
        plot: Plot::lines(&[SELECT_1, HEARTBEAT, BASELINE], lines),
    });

    let mut lines = vec![Vec::new(); 2];
    for &(share, per_cent, parameter) in SHARES {
        let connections = scale.connections;
        let mut variants = [
            service(HEARTBEAT, connections, HEARTBEAT_SQL, Some(parameter)),
            service(BASELINE, connections, BASELINE_SQL, Some(parameter)),
        ];
        let outcome = interleave(&scale, &mut variants, rounds);
        for (line, name) in lines.iter_mut().zip([HEARTBEAT, BASELINE]) {
            line.push((per_cent, outcome.per_second(name).median));
            let label = format!("{name}, {share} of them for one session");
            results.figure(label, "/s", outcome.per_second(name));
        }
        turns.push(outcome.turns());
    }
    results.charts.push(Chart {
        name: "hot_session".into(),
        title: "Heartbeats per second by share for one session".into(),
        x: "per cent of the heartbeats".into(),
        y: "per second".into(),
        plot: Plot::lines(&[HEARTBEAT, BASELINE], lines),
    });
    results.turns = turns.into();
    results
}

/// Parameter: the id of session 0 with a probability of `PER_CENT`, else of a random one.
fn hot<const PER_CENT: u64>(random: &mut Random, sessions: u64, out: &mut Vec<u8>) -> u64 {
    let other = random.below(sessions);
    let is_hot = random.below(100) < PER_CENT;
    out.extend_from_slice(&ids::id(if is_hot { 0 } else { other }));
    1
}
