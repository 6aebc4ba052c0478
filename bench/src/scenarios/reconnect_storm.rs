//! A deploy: all clients connect again, to gateways that know their tokens, and bind their sessions.

use serde_json::json;

use crate::{
    burst::{self, Burst, Rate},
    env::Env,
    ids::{ID, TOKEN},
    results::Results,
    server::Server,
    summary::{Summary, count},
};

/// Gateways, each of which has 100 clients in a call.
const fn gateways(name: &'static str, sql: &'static str, parameters: burst::Parameters) -> Burst<'static> {
    Burst {
        name,
        connections: 4,
        batch: 100,
        sql,
        parameters,
    }
}

/// All of them for sessions that there are.
const METHODS: [Burst; 4] = [
    gateways(
        "start_sessions of 100 by token",
        "SELECT presence.start_sessions(user_ids => $1, session_tokens => $2)",
        burst::ids_and_tokens,
    ),
    // The grace is long enough for the next burst.
    gateways(
        "the same, and bind_sessions",
        "SELECT presence.bind_sessions(
             (SELECT array_agg(session_id) FROM presence.start_sessions(user_ids => $1, session_tokens => $2)), '1 h')",
        burst::ids_and_tokens,
    ),
    gateways(
        "bind_sessions of 100 by id",
        "SELECT presence.bind_sessions($1, '1 h')",
        burst::ids,
    ),
    gateways(
        "baseline upsert of 100 by token, with NOTIFY",
        "INSERT INTO baseline_notify.user_sessions (user_id, auth_id, session_token)
         SELECT u, u, t FROM unnest($1::uuid[], $2::text[]) AS s (u, t)
         ON CONFLICT (session_token) DO UPDATE SET is_active = true, last_activity = now()",
        burst::ids_and_tokens,
    ),
];
/// That of one's own.
const BASELINE: usize = METHODS.len() - 1;

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let sessions = scale.pick(5_000, 100_000);
    let mut server = Server::new(sessions, &[]);
    server.load(sessions);
    server.load_alternatives();
    // A refused token would be cheaper.
    let resumed: i64 = server.value(&format!(
        "SELECT count(r.session_id) FROM (SELECT array_agg({ID}) AS ids, array_agg({TOKEN}) AS tokens
           FROM generate_series(0, 99) n) s, presence.start_sessions(user_ids => ids, session_tokens => tokens) r"
    ));
    assert_eq!(resumed, 100, "sessions resumed by token");
    let mut rates: [Vec<Rate>; METHODS.len()] = Default::default();
    for round in 0..scale.pick(2, 5) {
        for turn in 0..METHODS.len() {
            // Each round starts with a different one.
            let number = (turn + round) % METHODS.len();
            rates[number].push(METHODS[number].run(&server, 0..sessions));
            server.wait_until_written();
        }
    }
    let mut results = Results::new("reconnect_storm", "All clients connect again");
    for (method, rates) in METHODS.iter().zip(&rates) {
        results.bursts(method.name, rates);
        results.figure(
            format!("{}: {}", method.name, count(sessions, "session")),
            "s",
            Summary::of(rates.iter().map(|rate| sessions as f64 / rate.per_second)),
        );
    }
    for (method, ours) in METHODS.iter().zip(&rates).take(BASELINE) {
        results.burst_ratio((method.name, ours), (METHODS[BASELINE].name, &rates[BASELINE]));
    }
    results.turns = json!({ "bursts": rates });
    results
}
