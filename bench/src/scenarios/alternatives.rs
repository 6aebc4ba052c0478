//! One heartbeat at a time, beside what one would use without the extension.

use super::heartbeat::{HEARTBEAT, HEARTBEAT_SQL, SELECT_1};
use crate::{
    chart::{Chart, Plot},
    env::Env,
    ids::{random_1000_ids, random_id},
    interleave::{Variant, interleave},
    redis::Operation,
    results::Results,
    sql_client::Parameter,
};

pub const BASELINE: &str = "baseline UPDATE";

const ASYNC: &str = "SET synchronous_commit = off";
pub const BASELINE_SQL: &str = "UPDATE baseline.user_sessions SET last_activity = now() WHERE id = $1";
const UPSERT: &str = "INSERT INTO tuned.presence VALUES ($1, $1, now(), tuned.minute())
    ON CONFLICT (session_id) DO UPDATE SET last_seen = excluded.last_seen, minute = excluded.minute";

/// Name, what is run once per connection, and the statement.
const STATEMENTS: &[(&str, &str, &str)] = &[
    (HEARTBEAT, "", HEARTBEAT_SQL),
    (BASELINE, "", BASELINE_SQL),
    ("baseline UPDATE, synchronous_commit off", ASYNC, BASELINE_SQL),
    (
        "baseline UPDATE, unlogged",
        "",
        "UPDATE baseline_unlogged.user_sessions SET last_activity = now() WHERE id = $1",
    ),
    (
        "baseline UPDATE with NOTIFY",
        "",
        "UPDATE baseline_notify.user_sessions SET last_activity = now() WHERE id = $1",
    ),
    ("tuned upsert", "", UPSERT),
    ("tuned upsert, synchronous_commit off", ASYNC, UPSERT),
    ("Zulip's scheme", "", "SELECT zulip.heartbeat($1, '0 s')"),
    (
        "Zulip's scheme, synchronous_commit off",
        ASYNC,
        "SELECT zulip.heartbeat($1, '0 s')",
    ),
    (
        "Zulip's scheme, no write due",
        "",
        "SELECT zulip.heartbeat($1, '1 day')",
    ),
];

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let (server, redis) = env.with_alternatives();
    let service = |name, setup, sql, parameter| {
        Variant::new(name, scale.connections, |_| {
            server.client("bench_service", setup, sql, parameter)
        })
    };
    let mut variants = vec![service(SELECT_1, "", "SELECT 1", None)];
    for (name, setup, sql) in STATEMENTS {
        variants.push(service(name, setup, sql, Some(random_id as Parameter)));
    }
    variants.push(service(
        "heartbeat_many of 1,000",
        "",
        "SELECT presence.heartbeat_many($1)",
        Some(random_1000_ids as Parameter),
    ));
    for redis in redis {
        for (operation, what) in [(Operation::Add, "ZADD"), (Operation::Expire, "SET EX")] {
            for pipelined in [1, 100] {
                let mut name = format!("{} {what}", redis.name);
                if pipelined > 1 {
                    name += ", pipelined by 100";
                }
                let client = |_| redis.client(operation, pipelined).among(server.sessions);
                variants.push(Variant::new(&name, scale.connections, client));
            }
        }
    }
    let names: Vec<String> = variants.iter().map(|variant| variant.name.clone()).collect();
    let outcome = interleave(&scale, &mut variants, scale.few_rounds * 2);

    let mut results = Results::new("alternatives", "One heartbeat beside the alternatives");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    results.rates(&outcome, &names);
    for name in &names[2..] {
        results.ratio(&outcome, HEARTBEAT, name, None);
    }
    results.ratio(&outcome, SELECT_1, BASELINE, None);
    // In the quotient of a round's two ratios to the UPDATE, the UPDATE cancels out.
    results.ratio(&outcome, HEARTBEAT, SELECT_1, Some("ceiling"));
    results.charts.push(Chart {
        name: "alternatives".into(),
        title: format!("Heartbeats per second from {} connections", scale.connections),
        x: String::new(),
        y: "per second".into(),
        plot: Plot::Bars(
            names
                .iter()
                .map(|name| ((*name).to_owned(), outcome.per_second(name).median))
                .collect(),
        ),
    });
    results.turns = outcome.turns();
    results
}
