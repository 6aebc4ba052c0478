//! All clients log in at once.

use std::time::Instant;

use serde_json::json;

use crate::{
    burst::{self, Burst},
    env::Env,
    results::Results,
    server::Server,
    summary::Summary,
};

/// Clients that log in concurrently, as many as a connection pool admits.
const CLIENTS: u64 = 32;
/// Gateways, each of which logs in 100 users per call.
const GATEWAYS: u64 = 4;

const METHODS: [Burst; 4] = [
    Burst {
        name: "start_session",
        connections: CLIENTS,
        batch: 1,
        sql: "SELECT presence.start_session(user_id => $1)",
        parameters: burst::one_id,
    },
    Burst {
        name: "baseline INSERT with NOTIFY",
        connections: CLIENTS,
        batch: 1,
        sql: "INSERT INTO baseline_notify.user_sessions (user_id, auth_id, session_token)
              VALUES ($1, $1, gen_random_uuid())",
        parameters: burst::one_id,
    },
    Burst {
        name: "start_sessions of 100",
        connections: GATEWAYS,
        batch: 100,
        sql: "SELECT presence.start_sessions($1)",
        parameters: burst::ids,
    },
    Burst {
        name: "baseline INSERT of 100 with NOTIFY",
        connections: GATEWAYS,
        batch: 100,
        sql: "INSERT INTO baseline_notify.user_sessions (user_id, auth_id, session_token)
              SELECT u, u, gen_random_uuid() FROM unnest($1::uuid[]) u",
        parameters: burst::ids,
    },
];

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let (rounds, users_per_turn) = scale.pick((2, 1_000), (5, 20_000));
    let mut server = Server::new(
        rounds * users_per_turn * 3 + 1000,
        &[("presence.flush_interval", "90s")],
    );
    server.load(1);
    server.load_alternatives();
    let mut users = 1000;
    let mut per_second = vec![Vec::new(); METHODS.len()];
    let mut until_notified = Vec::new();
    for round in 0..rounds {
        for turn in 0..METHODS.len() {
            // Each round starts with a different method.
            let number = (turn + round as usize) % METHODS.len();
            let began = Instant::now();
            METHODS[number].run(&server, users..users + users_per_turn);
            users += users_per_turn;
            per_second[number].push(users_per_turn as f64 / began.elapsed().as_secs_f64());
            server.wait_until_written();
            if number == 0 {
                until_notified.push(users_per_turn as f64 / began.elapsed().as_secs_f64());
            }
        }
    }
    let mut results = Results::new("login_storm", "All clients log in at once");
    for (method, rates) in METHODS.iter().zip(&per_second) {
        let summary = Summary::of(rates.iter().copied());
        results.figure(format!("{}: sessions", method.name), "/s", summary);
        let seconds = Summary::of(rates.iter().map(|rate| 100_000.0 / rate));
        results.figure(format!("{}: 100,000 sessions", method.name), "s", seconds);
    }
    results.figure(
        "start_session: sessions, until the last is written and notified",
        "/s",
        Summary::of(until_notified),
    );
    for (numerator, denominator) in [(0, 1), (2, 3)] {
        let ratios = per_second[numerator].iter().zip(&per_second[denominator]);
        results.figure(
            format!("{} ÷ {}", METHODS[numerator].name, METHODS[denominator].name),
            "×",
            Summary::of(ratios.map(|(numerator, denominator)| numerator / denominator)),
        );
    }
    results.turns = json!({ "per_second": per_second });
    results
}
