//! This build of the extension beside another one, on two servers in one run: what a change has made of heartbeats and reads.

use std::path::Path;

use super::heartbeat::{HEARTBEAT_SQL, SELECT_1};
use crate::{
    env::Env,
    ids::{CLAIMS, random_id, random_token},
    interleave::{Variant, interleave},
    results::Results,
    server::Server,
    sql_client::Parameter,
    summary::count,
};

/// Name, role, what is run once per connection, the statement and its parameter.
type Call = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Option<Parameter>,
);

const CALLS: [Call; 6] = [
    // Differs by what the servers have of the machine, and not by the build.
    (SELECT_1, "bench_service", "", "SELECT 1", None),
    ("heartbeat", "bench_service", "", HEARTBEAT_SQL, Some(random_id)),
    (
        "heartbeat by token",
        "bench_holder",
        "",
        "SELECT presence.heartbeat_by_token($1)",
        Some(random_token),
    ),
    (
        "heartbeat under claims",
        "bench_client",
        CLAIMS,
        HEARTBEAT_SQL,
        Some(random_id),
    ),
    (
        "is_online",
        "bench_service",
        "",
        "SELECT presence.is_online($1)",
        Some(random_id),
    ),
    (
        "user_status",
        "bench_service",
        "",
        "SELECT presence.user_status($1)",
        Some(random_id),
    ),
];

/// Measures beside the build whose programs are in this directory.
pub fn run(env: &mut Env, programs: &Path) -> Results {
    let scale = env.scale.clone();
    let mut before = Server::of_build(programs, scale.sessions);
    before.load(scale.sessions);
    let now = env.server();
    let mut variants = Vec::new();
    for (name, role, setup, sql, parameter) in CALLS {
        for (server, build) in [(&before, "before"), (&*now, "now")] {
            variants.push(Variant::new(&format!("{name}, {build}"), scale.connections, |_| {
                server.client(role, setup, sql, parameter)
            }));
        }
    }
    let outcome = interleave(&scale, &mut variants, 2 * scale.rounds);
    let title = format!("Before a change and now, {}", count(scale.sessions, "session"));
    let mut results = Results::new("before", &title);
    for (name, ..) in CALLS {
        for build in ["before", "now"] {
            results.rates(&outcome, &[&format!("{name}, {build}")]);
        }
    }
    for (name, ..) in CALLS {
        results.ratio(&outcome, &format!("{name}, now"), &format!("{name}, before"), None);
    }
    for build in ["before", "now"] {
        let (heartbeat, nothing) = (format!("heartbeat, {build}"), format!("{SELECT_1}, {build}"));
        results.ratio(&outcome, &heartbeat, &nothing, None);
    }
    results.turns = outcome.turns();
    results
}
