//! Heartbeats of clients that nobody is at, beside those of others, and what it costs to go from one to the other.

use super::heartbeat::{HEARTBEAT, HEARTBEAT_SQL, SELECT_1};
use crate::{
    env::Env,
    ids::{id, token},
    interleave::{Variant, interleave},
    random::Random,
    results::Results,
    server::Server,
    sql_client::Parameter,
};

const IDLE: &str = "heartbeat_idle";
const BY_TOKEN: &str = "heartbeat by token";
const IDLE_BY_TOKEN: &str = "heartbeat_idle by token";
const TWICE: &str = "two heartbeats in a statement";
const THERE_AND_BACK: &str = "heartbeat and heartbeat_idle in a statement";

/// Name, role, the statement, and the parameter: who is at the session of a heartbeat stays there, and nobody is at that of
/// a heartbeat_idle, so that each is a steady one.
const CALLS: [(&str, &str, &str, Option<Parameter>); 7] = [
    (SELECT_1, "bench_service", "SELECT 1", None),
    (HEARTBEAT, "bench_service", HEARTBEAT_SQL, Some(attended)),
    (
        IDLE,
        "bench_service",
        "SELECT presence.heartbeat_idle($1)",
        Some(unattended),
    ),
    (
        BY_TOKEN,
        "bench_holder",
        "SELECT presence.heartbeat_by_token($1)",
        Some(token_of_attended),
    ),
    (
        IDLE_BY_TOKEN,
        "bench_holder",
        "SELECT presence.heartbeat_idle_by_token($1)",
        Some(token_of_unattended),
    ),
    (
        TWICE,
        "bench_service",
        "SELECT presence.heartbeat($1), presence.heartbeat($1)",
        Some(attended),
    ),
    // After the first, somebody is at the session, and after the second nobody.
    (
        THERE_AND_BACK,
        "bench_service",
        "SELECT presence.heartbeat($1), presence.heartbeat_idle($1)",
        Some(alternating),
    ),
];

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let sessions = scale.pick(10_000, 100_000);
    // Nobody becomes idle meanwhile, which the worker would write.
    let mut server = Server::new(sessions, &[("presence.idle_timeout", "1d")]);
    server.load(sessions);
    server.run(&format!(
        "SELECT count(presence.heartbeat_idle(id)) FROM (SELECT id FROM presence.user_sessions ORDER BY id OFFSET {}) s",
        sessions / 2
    ));
    let mut variants: Vec<Variant> = CALLS
        .iter()
        .map(|(name, role, sql, parameter)| {
            Variant::new(name, scale.connections, |number| {
                let mut client = server.client(role, "", sql, *parameter);
                let answer = client.query(&mut Random::new(number));
                assert_eq!(answer, if *name == SELECT_1 { "\0\0\0\u{1}" } else { "ok" }, "{name}");
                client
            })
        })
        .collect();
    let outcome = interleave(&scale, &mut variants, scale.rounds);
    let mut results = Results::new("idle", "Heartbeats of idle clients");
    results.rates(&outcome, &CALLS.map(|(name, ..)| name));
    results.ratio(&outcome, IDLE, HEARTBEAT, None);
    results.ratio(&outcome, IDLE, SELECT_1, None);
    results.ratio(&outcome, IDLE_BY_TOKEN, BY_TOKEN, None);
    results.ratio(&outcome, THERE_AND_BACK, TWICE, None);
    results.turns = outcome.turns();
    results
}

/// Parameter: a session of the first quarter.
fn attended(random: &mut Random, sessions: u64, out: &mut Vec<u8>) -> u64 {
    write_id(random.below(sessions / 4), out)
}

/// Parameter: a session of the second quarter.
fn alternating(random: &mut Random, sessions: u64, out: &mut Vec<u8>) -> u64 {
    write_id(sessions / 4 + random.below(sessions / 4), out)
}

/// Parameter: a session of the third quarter.
fn unattended(random: &mut Random, sessions: u64, out: &mut Vec<u8>) -> u64 {
    write_id(sessions / 2 + random.below(sessions / 4), out)
}

fn write_id(number: u64, out: &mut Vec<u8>) -> u64 {
    out.extend_from_slice(&id(number));
    1
}

/// Parameter: the token of a session of the first quarter.
fn token_of_attended(random: &mut Random, sessions: u64, out: &mut Vec<u8>) -> u64 {
    out.extend_from_slice(token(random.below(sessions / 4)).as_bytes());
    1
}

/// Parameter: the token of a session of the third quarter.
fn token_of_unattended(random: &mut Random, sessions: u64, out: &mut Vec<u8>) -> u64 {
    out.extend_from_slice(token(sessions / 2 + random.below(sessions / 4)).as_bytes());
    1
}
