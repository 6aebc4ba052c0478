//! One heartbeat, by id, by token and under JWT claims, beside `SELECT 1`, the least that a statement can cost.

use crate::{
    env::Env,
    ids::{CLAIMS, random_id, random_token},
    interleave::{Variant, interleave},
    random::Random,
    results::Results,
    server::Server,
    sql_client::Parameter,
};

pub const SELECT_1: &str = "SELECT 1";
pub const HEARTBEAT: &str = "heartbeat";
pub const HEARTBEAT_SQL: &str = "SELECT presence.heartbeat($1)";

struct Statement {
    name: &'static str,
    role: &'static str,
    /// Run once per connection.
    setup: &'static str,
    sql: &'static str,
    parameter: Option<Parameter>,
}

const STATEMENTS: &[Statement] = &[
    Statement {
        name: SELECT_1,
        role: "bench_service",
        setup: "",
        sql: "SELECT 1",
        parameter: None,
    },
    Statement {
        name: "an empty Rust function",
        role: "bench_service",
        setup: "",
        sql: "SELECT benches.nothing($1)",
        parameter: Some(random_id),
    },
    Statement {
        name: HEARTBEAT,
        role: "bench_service",
        setup: "",
        sql: HEARTBEAT_SQL,
        parameter: Some(random_id),
    },
    Statement {
        name: "heartbeat by token",
        role: "bench_holder",
        setup: "",
        sql: "SELECT presence.heartbeat_by_token($1)",
        parameter: Some(random_token),
    },
    Statement {
        name: "SELECT 1 under claims",
        role: "bench_client",
        setup: CLAIMS,
        sql: "SELECT 1",
        parameter: None,
    },
    Statement {
        name: "heartbeat under claims",
        role: "bench_client",
        setup: CLAIMS,
        sql: HEARTBEAT_SQL,
        parameter: Some(random_id),
    },
];

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let server = env.server();
    server.run(
        "GRANT USAGE ON SCHEMA benches TO bench_service;
         GRANT EXECUTE ON FUNCTION benches.nothing(uuid) TO bench_service",
    );
    let mut variants: Vec<Variant> = STATEMENTS
        .iter()
        .map(|statement| variant(server, scale.connections, statement))
        .collect();
    // More rounds than elsewhere, because the differences are smaller.
    let outcome = interleave(&scale, &mut variants, 4 * scale.rounds);
    let mut results = Results::new("heartbeat", "One heartbeat beside SELECT 1");
    let names: Vec<&str> = STATEMENTS.iter().map(|statement| statement.name).collect();
    results.rates(&outcome, &names);
    results.ratio(&outcome, HEARTBEAT, SELECT_1, Some("heartbeat"));
    results.ratio(
        &outcome,
        "heartbeat under claims",
        "SELECT 1 under claims",
        Some("claims"),
    );
    results.ratio(&outcome, "heartbeat by token", SELECT_1, None);
    results.ratio(&outcome, HEARTBEAT, "an empty Rust function", None);
    results.ratio(&outcome, "an empty Rust function", SELECT_1, None);
    results.turns = outcome.turns();
    results
}

fn variant(server: &Server, connections: u64, statement: &Statement) -> Variant {
    let Statement {
        name,
        role,
        setup,
        sql,
        parameter,
    } = *statement;
    Variant::new(name, connections, |number| {
        let mut client = server.client(role, setup, sql, parameter);
        if name.starts_with(HEARTBEAT) {
            // A refused heartbeat would be cheaper.
            let answer = client.query(&mut Random::new(number));
            assert_eq!(answer, "ok", "{name}");
        }
        client
    })
}
