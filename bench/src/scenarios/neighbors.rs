//! What the worker of an empty database costs beside a database with all the sessions, and alone on its server.

use std::{thread, time::Duration};

use pg_presence_test::wait_until;
use serde_json::json;

use crate::{
    env::Env,
    interleave::cpu_us,
    results::Results,
    server::Server,
    summary::{Summary, count},
};

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let turn = Duration::from_secs(scale.pick(1, 4));
    let server = env.server();
    let neighbor = server.cluster.database();
    neighbor.wait_until_served();
    // Room for as many sessions, of which there are none.
    let empty = Server::new(scale.sessions, &[]);
    let worker = "SELECT worker_pid FROM presence.presence_stats";
    wait_until("the worker of the empty server", || {
        empty.value::<Option<i32>>(worker).is_some()
    });
    let alone: i32 = empty.value(worker);
    let beside = neighbor.worker();

    // Both at the same time, so that whatever else the machine does is in both. The first round is not counted.
    let turns: Vec<[f64; 2]> = (0..=scale.few_rounds)
        .map(|_| {
            let before = [beside, alone].map(cpu_us);
            thread::sleep(turn);
            let after = [beside, alone].map(cpu_us);
            [after[0] - before[0], after[1] - before[1]].map(|us| us / 1000.0 / turn.as_secs_f64())
        })
        .skip(1)
        .collect();
    let mut results = Results::new("neighbors", "Databases that share a server");
    let full = count(server.sessions, "session");
    for (at, label) in [
        format!("worker of an empty database, {full} in another: CPU per second"),
        "the same, alone on its server".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        results.figure(label, "ms", Summary::of(turns.iter().map(|turn| turn[at])));
    }
    results
        .figure(
            format!("worker of an empty database, {full} in another ÷ alone"),
            "×",
            Summary::of(turns.iter().map(|[beside, alone]| beside / alone)),
        )
        .for_budget("neighbors");
    results.turns = json!({ "worker_ms_per_s": turns });
    server.run(&format!("DROP DATABASE {} WITH (FORCE)", neighbor.name));
    results
}
