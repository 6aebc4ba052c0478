//! Many heartbeats in one call, as a gateway makes them.

use crate::{
    env::Env,
    ids::random_1000_ids,
    interleave::{Client, Variant, interleave},
    random::Random,
    redis::Operation,
    results::Results,
    sql_client::SqlClient,
    summary::Summary,
};

const MANY: &str = "heartbeat_many of 1,000";
const IN_SERVER: &str = "heartbeat_many of 1,000, ids built in the server";

/// A hundred arrays of 1,000 ids, stored uncompressed.
const ARRAYS: &str = "
    DROP SCHEMA IF EXISTS batch CASCADE;
    CREATE SCHEMA batch;
    CREATE TABLE batch.arrays (ids uuid[]);
    ALTER TABLE batch.arrays ALTER ids SET STORAGE EXTERNAL;
    WITH chosen AS (
        -- With fewer than 100,000 sessions, each is chosen more than once.
        SELECT id, row_number() OVER (ORDER BY random()) - 1 AS n
          FROM presence.user_sessions, generate_series(1, greatest(1, 100000 / {sessions}))
    )
    INSERT INTO batch.arrays SELECT array_agg(id) FROM chosen WHERE n < 100000 GROUP BY n / 1000;
    GRANT USAGE ON SCHEMA batch TO bench_service;
    GRANT SELECT ON batch.arrays TO bench_service";

/// A hundred calls of 1,000 ids.
const IN_SERVER_SQL: &str = "SELECT count(presence.heartbeat_many(ids)) FROM batch.arrays";

pub fn run(env: &mut Env) -> Results {
    let scale = env.scale.clone();
    let (server, redis) = env.with_alternatives();
    server.run(&ARRAYS.replace("{sessions}", &server.sessions.to_string()));
    let service =
        |name, sql, parameter| Variant::new(name, 1, |_| server.client("bench_service", "", sql, Some(parameter)));
    let mut variants = vec![
        service(MANY, "SELECT presence.heartbeat_many($1)", random_1000_ids),
        Variant::new(IN_SERVER, 1, |_| InServer {
            client: server.client("bench_service", "", IN_SERVER_SQL, None),
        }),
        service(
            "tuned UPDATE by unnest of 1,000",
            "UPDATE tuned.presence p SET last_seen = now(), minute = tuned.minute()
               FROM unnest($1::uuid[]) u(id) WHERE p.session_id = u.id",
            random_1000_ids,
        ),
        service(
            "baseline UPDATE by unnest of 1,000",
            "UPDATE baseline.user_sessions s SET last_activity = now()
               FROM unnest($1::uuid[]) u(id) WHERE s.id = u.id",
            random_1000_ids,
        ),
    ];
    for redis in redis {
        let name = format!("{} ZADD, pipelined by 100", redis.name);
        variants.push(Variant::new(&name, 1, |_| {
            redis.client(Operation::Add, 100).among(server.sessions)
        }));
    }
    let names: Vec<String> = variants.iter().map(|variant| variant.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let outcome = interleave(&scale, &mut variants, scale.few_rounds * 2);

    let mut results = Results::new("batch", "Many heartbeats per call, one connection");
    results.rates(&outcome, &names);
    // The rate of a core that does nothing else.
    for (name, key) in [(MANY, "batch"), (IN_SERVER, "batch_in_server")] {
        let per_core = outcome.each(name, |turn| 1e6 / turn.cpu_us);
        results
            .figure(format!("{name}, per core"), "/s", Summary::of(per_core))
            .for_budget(key);
    }
    for name in &names[2..] {
        let is_redis = name.starts_with("Redis");
        results.ratio(&outcome, MANY, name, is_redis.then_some("redis"));
    }
    results.turns = outcome.turns();
    results
}

/// A client whose statement is 100,000 heartbeats.
struct InServer {
    client: SqlClient,
}

impl Client for InServer {
    fn call(&mut self, random: &mut Random) -> u64 {
        self.client.call(random);
        100_000
    }

    fn pid(&self) -> i32 {
        self.client.pid()
    }
}
