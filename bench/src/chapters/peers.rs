//! One heartbeat at a time, beside what one would write without the extension.

use super::heartbeat::{BEAT, HEARTBEAT, SELECT};
use crate::{
    chapter::{Chapter, Chart, Kind},
    contest::{Contender, contest},
    ids::{any_id, thousand_ids},
    redis::Does,
    venue::Venue,
    wire::Parameter,
};

pub const SEED: &str = "the seed's UPDATE";

const ASYNC: &str = "SET synchronous_commit = off";
pub const UPDATE: &str = "UPDATE seed.user_sessions SET last_activity = now() WHERE id = $1";
const UPSERT: &str = "INSERT INTO plain.presence VALUES ($1, $1, now(), plain.minute())
    ON CONFLICT (session_id) DO UPDATE SET last_seen = excluded.last_seen, minute = excluded.minute";

/// Name, what is run once per connection, and the statement.
const ROWS: &[(&str, &str, &str)] = &[
    (HEARTBEAT, "", BEAT),
    (SEED, "", UPDATE),
    ("the seed's UPDATE, synchronous_commit off", ASYNC, UPDATE),
    (
        "the seed's UPDATE, unlogged",
        "",
        "UPDATE seed_unlogged.user_sessions SET last_activity = now() WHERE id = $1",
    ),
    (
        "the seed's UPDATE with NOTIFY",
        "",
        "UPDATE seed_notify.user_sessions SET last_activity = now() WHERE id = $1",
    ),
    ("the best plain upsert", "", UPSERT),
    (
        "the best plain upsert, synchronous_commit off",
        ASYNC,
        UPSERT,
    ),
    ("as Zulip does", "", "SELECT zulip.beat($1, '0 s')"),
    (
        "as Zulip does, synchronous_commit off",
        ASYNC,
        "SELECT zulip.beat($1, '0 s')",
    ),
    (
        "as Zulip does, where it need not write",
        "",
        "SELECT zulip.beat($1, '1 day')",
    ),
];

pub fn run(venue: &mut Venue) -> Chapter {
    let scale = venue.scale.clone();
    let (stage, redis) = venue.with_peers();
    let service = |name, before, sql, parameter| {
        Contender::new(name, scale.connections, |_| {
            stage.statement("bench_service", before, sql, parameter)
        })
    };
    let mut contenders = vec![service(SELECT, "", "SELECT 1", None)];
    for (name, before, sql) in ROWS {
        contenders.push(service(name, before, sql, Some(any_id as Parameter)));
    }
    contenders.push(service(
        "heartbeat_many of 1,000",
        "",
        "SELECT presence.heartbeat_many($1)",
        Some(thousand_ids as Parameter),
    ));
    for redis in redis {
        for (does, what) in [(Does::Add, "ZADD"), (Does::Expire, "SET EX")] {
            for pipelined in [1, 100] {
                let mut name = format!("{} {what}", redis.name);
                if pipelined > 1 {
                    name += ", pipelined by 100";
                }
                let line = |_| redis.line(does, pipelined).among(stage.sessions);
                contenders.push(Contender::new(&name, scale.connections, line));
            }
        }
    }
    let names: Vec<String> = contenders.iter().map(|one| one.name.clone()).collect();
    let outcome = contest(&scale, &mut contenders, scale.few_rounds * 2);

    let mut chapter = Chapter::new("peers", "One heartbeat beside the peers'");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    chapter.speeds(&outcome, &names);
    for name in &names[2..] {
        chapter.ratio(&outcome, HEARTBEAT, name, None);
    }
    chapter.ratio(&outcome, SELECT, SEED, None);
    // Of a round's ratios to the UPDATE, heartbeat's and SELECT 1's, the UPDATE cancels out.
    chapter.ratio(&outcome, HEARTBEAT, SELECT, Some("ceiling"));
    chapter.charts.push(Chart {
        name: "peers".into(),
        title: format!("Heartbeats from {} connections", scale.connections),
        x: String::new(),
        y: "per second".into(),
        kind: Kind::Bars(
            names
                .iter()
                .map(|name| ((*name).to_owned(), outcome.per_second(name).median))
                .collect(),
        ),
    });
    chapter.raw = outcome.raw();
    chapter
}
