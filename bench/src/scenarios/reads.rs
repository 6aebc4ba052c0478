//! Reads: which sessions are due, whether a user is online, and how many of a users table are.

use super::heartbeat::SELECT_1;
use crate::{
    env::Env,
    ids::{ID, random_id},
    interleave::{Variant, interleave},
    redis::Operation,
    results::Results,
    summary::{Summary, count},
};

const SWEEP: &str = "sweep, no session due";
const COUNT: &str = "count(*) of users WHERE is_online(id)";
const JOIN: &str = "baseline join";
/// One user's status, which is asked for beside [`SELECT_1`].
const OF_ONE: [(&str, &str); 3] = [
    ("is_online", "SELECT presence.is_online($1)"),
    ("user_status", "SELECT presence.user_status($1)"),
    ("last_seen", "SELECT presence.last_seen($1)"),
];

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let (server, redis) = env.with_alternatives();
    server.run(&format!(
        "CREATE TABLE IF NOT EXISTS public.users AS
         SELECT {ID} AS id, 'user ' || n AS name FROM generate_series(0, {} - 1) n;
         ANALYZE public.users;
         GRANT SELECT ON public.users TO bench_service;
         GRANT USAGE ON SCHEMA benches TO bench_service;
         GRANT EXECUTE ON FUNCTION benches.sweep_once() TO bench_service",
        server.sessions
    ));
    let statement = |name, sql| Variant::new(name, 1, |_| server.client("bench_service", "", sql, None));
    let for_any = |name, sql| Variant::new(name, 1, |_| server.client("bench_service", "", sql, Some(random_id)));
    let mut fast = vec![
        statement(SWEEP, "SELECT benches.sweep_once()"),
        statement(
            "tuned sweep, by the index on the minute",
            "SELECT count(*) FROM tuned.presence WHERE minute < tuned.minute() - 1440",
        ),
        statement(
            "baseline sweep",
            "SELECT count(*) FROM baseline.user_sessions
              WHERE is_active AND last_activity < now() - interval '1 day'",
        ),
        statement(SELECT_1, "SELECT 1"),
        for_any(
            "baseline query for one user",
            "SELECT EXISTS (SELECT FROM baseline.user_sessions s WHERE s.user_id = $1 AND s.is_active
                            AND s.last_activity > now() - interval '1 day')",
        ),
    ];
    fast.extend(OF_ONE.map(|(name, sql)| for_any(name, sql)));
    for redis in redis {
        fast.push(Variant::new(
            &format!("{} ZRANGEBYSCORE, no session due", redis.name),
            1,
            |_| redis.client(Operation::Sweep, 1).among(server.sessions),
        ));
    }
    let names: Vec<String> = fast.iter().map(|variant| variant.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let outcome = interleave(&scale, &mut fast, scale.few_rounds);

    let mut results = Results::new("reads", "Reads, one connection");
    results.rates(&outcome, &names);
    let ms = outcome.each(SWEEP, |turn| turn.cpu_us / 1000.0);
    results
        .figure(
            format!("sweep of {}, no session due", count(server.sessions, "session")),
            "ms",
            Summary::of(ms),
        )
        .for_budget("sweep");
    for (name, _) in OF_ONE {
        results.ratio(&outcome, name, SELECT_1, None);
    }
    results.ratio(&outcome, "is_online", "baseline query for one user", None);

    let mut slow = vec![
        statement(COUNT, "SELECT count(*) FROM public.users WHERE presence.is_online(id)"),
        statement(
            JOIN,
            "SELECT count(*) FROM public.users u WHERE EXISTS (
                 SELECT FROM baseline.user_sessions s WHERE s.user_id = u.id AND s.is_active
                    AND s.last_activity > now() - interval '1 day')",
        ),
        statement(
            "join with user_presence",
            "SELECT count(*) FROM public.users u JOIN presence.user_presence p ON p.user_id = u.id
              WHERE p.is_online",
        ),
        statement(
            "count(*) of online_users()",
            "SELECT count(*) FROM presence.online_users()",
        ),
        statement("online_count()", "SELECT presence.online_count()"),
    ];
    let names: Vec<String> = slow.iter().map(|variant| variant.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let outcome_of_slow = interleave(&scale, &mut slow, scale.few_rounds);
    results.rates(&outcome_of_slow, &names);
    results.ratio(&outcome_of_slow, COUNT, JOIN, Some("count"));
    results.turns = serde_json::json!([outcome.turns(), outcome_of_slow.turns()]);
    results
}
