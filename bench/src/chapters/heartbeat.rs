//! One heartbeat, beside `SELECT 1`: the least that a statement can cost. By id, by token and under JWT claims.

use crate::{
    chapter::Chapter,
    contest::{Contender, contest},
    ids::{CLAIMS, any_id, any_token},
    random::Random,
    stage::Stage,
    venue::Venue,
    wire::Parameter,
};

pub const SELECT: &str = "SELECT 1";
pub const HEARTBEAT: &str = "heartbeat";

/// Name, role, what is run once per connection, the statement, and its parameter.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Option<Parameter>,
);

pub const BEAT: &str = "SELECT presence.heartbeat($1)";

const ROWS: &[Row] = &[
    (SELECT, "bench_service", "", "SELECT 1", None),
    (
        "an empty Rust function",
        "bench_service",
        "",
        "SELECT benches.nothing($1)",
        Some(any_id),
    ),
    (HEARTBEAT, "bench_service", "", BEAT, Some(any_id)),
    (
        "heartbeat by token",
        "bench_holder",
        "",
        "SELECT presence.heartbeat_by_token($1)",
        Some(any_token),
    ),
    (
        "SELECT 1 under claims",
        "bench_client",
        CLAIMS,
        "SELECT 1",
        None,
    ),
    (
        "heartbeat under claims",
        "bench_client",
        CLAIMS,
        BEAT,
        Some(any_id),
    ),
];

pub fn run(venue: &mut Venue) -> Chapter {
    let scale = venue.scale.clone();
    let stage = venue.stage();
    stage.run(
        "GRANT USAGE ON SCHEMA benches TO bench_service;
         GRANT EXECUTE ON FUNCTION benches.nothing(uuid) TO bench_service",
    );
    let mut contenders: Vec<Contender> = ROWS
        .iter()
        .map(|row| contender(stage, scale.connections, row))
        .collect();
    // More than elsewhere: what is compared here differs by less than the rounds of other chapters tell apart.
    let outcome = contest(&scale, &mut contenders, 4 * scale.rounds);
    let mut chapter = Chapter::new("heartbeat", "One heartbeat beside SELECT 1");
    let names: Vec<&str> = ROWS.iter().map(|row| row.0).collect();
    chapter.speeds(&outcome, &names);
    chapter.ratio(&outcome, HEARTBEAT, SELECT, Some("heartbeat"));
    chapter.ratio(
        &outcome,
        "heartbeat under claims",
        "SELECT 1 under claims",
        Some("claims"),
    );
    chapter.ratio(&outcome, "heartbeat by token", SELECT, None);
    chapter.ratio(&outcome, HEARTBEAT, "an empty Rust function", None);
    chapter.ratio(&outcome, "an empty Rust function", SELECT, None);
    chapter.raw = outcome.raw();
    chapter
}

fn contender(stage: &Stage, connections: u64, row: &Row) -> Contender {
    let (name, role, before, sql, parameter) = *row;
    Contender::new(name, connections, |number| {
        let mut statement = stage.statement(role, before, sql, parameter);
        if name.starts_with(HEARTBEAT) {
            // A beat that is refused would be cheaper.
            let answer = statement.answer(&mut Random::new(number));
            assert_eq!(answer, "ok", "{name}");
        }
        statement
    })
}
