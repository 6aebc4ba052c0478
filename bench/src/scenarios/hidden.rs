//! What hidden users cost everybody else: two servers, on one of which one of ten users is hidden.

use serde_json::json;

use super::heartbeat::{HEARTBEAT, HEARTBEAT_SQL, SELECT_1};
use crate::{
    burst::{self, Burst, Rate},
    env::Env,
    ids::random_id,
    interleave::{Outcome, Variant, interleave},
    results::Results,
    scale::Scale,
    server::Server,
    sql_client::Parameter,
    summary::{Summary, count},
};

/// What the two servers are called.
const SIDES: [&str; 2] = ["10 % hidden", "nobody hidden"];

type Call = (&'static str, &'static str, Option<Parameter>);

const OF_ONE: [Call; 5] = [
    // Differs by what the servers have of the machine, and not by who is hidden.
    (SELECT_1, "SELECT 1", None),
    (HEARTBEAT, HEARTBEAT_SQL, Some(random_id)),
    ("is_online", "SELECT presence.is_online($1)", Some(random_id)),
    ("user_status", "SELECT presence.user_status($1)", Some(random_id)),
    ("last_seen", "SELECT presence.last_seen($1)", Some(random_id)),
];

const OF_ALL: [Call; 2] = [
    ("online_count()", "SELECT presence.online_count()", None),
    (
        "count(*) of online_users()",
        "SELECT count(*) FROM presence.online_users()",
        None,
    ),
];

/// Users of whom nothing is known, and who may be hidden for all that is known.
const STARTS: [Burst; 2] = [
    Burst {
        name: "start_session",
        connections: 4,
        batch: 1,
        sql: "SELECT presence.start_session(user_id => $1)",
        parameters: burst::one_id,
    },
    Burst {
        name: "start_sessions of 100",
        connections: 4,
        batch: 100,
        sql: "SELECT presence.start_sessions($1)",
        parameters: burst::ids,
    },
];

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let (rounds, users_per_turn) = scale.pick((2, 500), (10, 4000));
    let sessions = scale.pick(10_000, 100_000);
    let servers = SIDES.map(|_| {
        let mut server = Server::new(sessions + (rounds + 1) * users_per_turn * STARTS.len() as u64, &[]);
        server.load(sessions);
        server
    });
    servers[0].hide_a_tenth();
    let online: i64 = servers[0].value("SELECT presence.online_count()");
    assert_eq!(online as u64, sessions - sessions / 10, "users who are shown");

    let of_one = beside(&servers, &scale, &OF_ONE, scale.connections, scale.rounds / 2);
    let of_all = beside(&servers, &scale, &OF_ALL, 1, 2 * scale.few_rounds);
    let restarts: Vec<[f64; 2]> = (0..2 * scale.long_rounds)
        .map(|_| [0, 1].map(|side: usize| servers[side].restart().as_secs_f64()))
        .collect();
    let starts = start(&servers, rounds, users_per_turn);

    let title = format!("One of ten users is hidden, {}", count(sessions, "session"));
    let mut results = Results::new("hidden", &title);
    add(&mut results, &of_one, &OF_ONE);
    add(&mut results, &of_all, &OF_ALL);
    for (burst, rates) in STARTS.iter().zip(&starts) {
        let names = SIDES.map(|side| variant(burst.name, side));
        for (name, rates) in names.iter().zip(rates) {
            results.bursts(name, rates);
        }
        results.burst_ratio((&names[0], &rates[0]), (&names[1], &rates[1]));
    }
    for (at, side) in SIDES.iter().enumerate() {
        let seconds = restarts.iter().map(|restart| restart[at]);
        results.figure(format!("restart, {side}: complete"), "s", Summary::of(seconds));
    }
    results.figure(
        format!("restart, {} ÷ {}", SIDES[0], SIDES[1]),
        "×",
        Summary::of(restarts.iter().map(|[hidden, none]| hidden / none)),
    );
    results.turns = json!({
        "of_one": of_one.turns(), "of_all": of_all.turns(), "starts": starts, "restart_s": restarts,
    });
    results
}

/// Starts sessions of new users on both servers in turn. Returns the rates of each way, by server.
fn start(servers: &[Server; 2], rounds: u64, users_per_turn: u64) -> [[Vec<Rate>; 2]; 2] {
    let mut all: [[Vec<Rate>; 2]; 2] = Default::default();
    let mut users = servers[0].sessions;
    // The first round is not counted.
    for round in 0..=rounds {
        for (burst, rates) in STARTS.iter().zip(&mut all) {
            for turn in 0..SIDES.len() {
                let side = (turn + round as usize) % SIDES.len();
                let rate = burst.run(&servers[side], users..users + users_per_turn);
                servers[side].wait_until_written();
                if round > 0 {
                    rates[side].push(rate);
                }
            }
            users += users_per_turn;
        }
    }
    all
}

fn variant(call: &str, side: &str) -> String {
    format!("{call}, {side}")
}

/// Makes these calls on both servers.
fn beside(servers: &[Server; 2], scale: &Scale, calls: &[Call], connections: u64, rounds: u64) -> Outcome {
    let mut variants = Vec::new();
    for (name, sql, parameter) in calls {
        for (server, side) in servers.iter().zip(SIDES) {
            variants.push(Variant::new(&variant(name, side), connections, |_| {
                server.client("bench_service", "", sql, *parameter)
            }));
        }
    }
    interleave(scale, &mut variants, rounds)
}

fn add(results: &mut Results, outcome: &Outcome, calls: &[Call]) {
    for (name, ..) in calls {
        let [hidden, none] = SIDES.map(|side| variant(name, side));
        results.rates(outcome, &[&hidden, &none]);
        results.ratio(outcome, &hidden, &none, None);
    }
}
