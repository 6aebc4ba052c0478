//! Looking: who is due, who is online, and how many of a users table.

use crate::{
    chapter::Chapter,
    contest::{Contender, contest},
    ids::{ID, any_id},
    numbers::Spread,
    redis::Does,
    venue::Venue,
};

const SWEEP: &str = "a sweep that finds nobody due";
const COUNT: &str = "count(*) of users WHERE is_online(id)";
const JOIN: &str = "the seed's join";

pub fn run(venue: &mut Venue) -> Chapter {
    let scale = venue.scale.clone();
    let (stage, redis) = venue.with_peers();
    stage.run(&format!(
        "CREATE TABLE IF NOT EXISTS public.users AS
         SELECT {ID} AS id, 'user ' || n AS name FROM generate_series(0, {} - 1) n;
         ANALYZE public.users;
         GRANT SELECT ON public.users TO bench_service;
         GRANT USAGE ON SCHEMA benches TO bench_service;
         GRANT EXECUTE ON FUNCTION benches.sweep_once() TO bench_service",
        stage.sessions
    ));
    let statement =
        |name, sql| Contender::new(name, 1, |_| stage.statement("bench_service", "", sql, None));
    let for_any = |name, sql| {
        Contender::new(name, 1, |_| {
            stage.statement("bench_service", "", sql, Some(any_id))
        })
    };
    let mut quick = vec![
        statement(SWEEP, "SELECT benches.sweep_once()"),
        statement(
            "the best plain sweep, by its index on the minute",
            "SELECT count(*) FROM plain.presence WHERE minute < plain.minute() - 1440",
        ),
        statement(
            "the seed's sweep",
            "SELECT count(*) FROM seed.user_sessions
              WHERE is_active AND last_activity < now() - interval '1 day'",
        ),
        for_any("is_online", "SELECT presence.is_online($1)"),
        for_any(
            "the seed's query for one user",
            "SELECT EXISTS (SELECT FROM seed.user_sessions s WHERE s.user_id = $1 AND s.is_active
                            AND s.last_activity > now() - interval '1 day')",
        ),
    ];
    for redis in redis {
        quick.push(Contender::new(
            &format!("{} ZRANGEBYSCORE that finds nobody", redis.name),
            1,
            |_| redis.line(Does::Sweep, 1).among(stage.sessions),
        ));
    }
    let names: Vec<String> = quick.iter().map(|one| one.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let outcome = contest(&scale, &mut quick, scale.few_rounds);

    let mut chapter = Chapter::new("look", "Looking, one connection");
    chapter.speeds(&outcome, &names);
    let ms = outcome.each(SWEEP, |score| score.cpu_us / 1000.0);
    chapter
        .figure(
            format!("{SWEEP} among {} sessions", stage.sessions),
            "ms",
            Spread::of(ms),
        )
        .meets("sweep");
    chapter.ratio(&outcome, "is_online", "the seed's query for one user", None);

    let mut slow = vec![
        statement(
            COUNT,
            "SELECT count(*) FROM public.users WHERE presence.is_online(id)",
        ),
        statement(
            JOIN,
            "SELECT count(*) FROM public.users u WHERE EXISTS (
                 SELECT FROM seed.user_sessions s WHERE s.user_id = u.id AND s.is_active
                    AND s.last_activity > now() - interval '1 day')",
        ),
        statement(
            "join of user_presence",
            "SELECT count(*) FROM public.users u JOIN presence.user_presence p ON p.user_id = u.id
              WHERE p.is_online",
        ),
        statement(
            "count(*) of online_users()",
            "SELECT count(*) FROM presence.online_users()",
        ),
        statement("online_count()", "SELECT presence.online_count()"),
    ];
    let names: Vec<String> = slow.iter().map(|one| one.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let outcome_of_counts = contest(&scale, &mut slow, scale.few_rounds);
    chapter.speeds(&outcome_of_counts, &names);
    chapter.ratio(&outcome_of_counts, COUNT, JOIN, Some("count"));
    chapter.raw = serde_json::json!([outcome.raw(), outcome_of_counts.raw()]);
    chapter
}
