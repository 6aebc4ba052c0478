//! Many heartbeats in one call, as a gateway sends them.

use crate::{
    chapter::Chapter,
    contest::{Contender, Line, contest},
    ids::thousand_ids,
    numbers::Spread,
    random::Random,
    redis::Does,
    venue::Venue,
    wire::Statement,
};

const MANY: &str = "heartbeat_many of 1,000";
const INSIDE: &str = "heartbeat_many of 1,000, ids built in the server";

/// A hundred arrays of a thousand ids, which nobody has to take apart or to uncompress.
const BUILT: &str = "
    DROP SCHEMA IF EXISTS batch CASCADE;
    CREATE SCHEMA batch;
    CREATE TABLE batch.thousands (ids uuid[]);
    ALTER TABLE batch.thousands ALTER ids SET STORAGE EXTERNAL;
    WITH chosen AS (
        -- Fewer sessions than that come more than once.
        SELECT id, row_number() OVER (ORDER BY random()) - 1 AS n
          FROM presence.user_sessions, generate_series(1, greatest(1, 100000 / {sessions}))
    )
    INSERT INTO batch.thousands SELECT array_agg(id) FROM chosen WHERE n < 100000 GROUP BY n / 1000;
    GRANT USAGE ON SCHEMA batch TO bench_service;
    GRANT SELECT ON batch.thousands TO bench_service";

/// Beats a hundred times for a thousand ids.
const BEAT_INSIDE: &str = "SELECT count(presence.heartbeat_many(ids)) FROM batch.thousands";

pub fn run(venue: &mut Venue) -> Chapter {
    let scale = venue.scale.clone();
    let (stage, redis) = venue.with_peers();
    stage.run(&BUILT.replace("{sessions}", &stage.sessions.to_string()));
    let service = |name, sql, parameter| {
        Contender::new(name, 1, |_| {
            stage.statement("bench_service", "", sql, Some(parameter))
        })
    };
    let mut contenders = vec![
        service(MANY, "SELECT presence.heartbeat_many($1)", thousand_ids),
        Contender::new(INSIDE, 1, |_| Repeated {
            statement: stage.statement("bench_service", "", BEAT_INSIDE, None),
        }),
        service(
            "the best plain UPDATE by unnest of 1,000",
            "UPDATE plain.presence p SET last_seen = now(), minute = plain.minute()
               FROM unnest($1::uuid[]) u(id) WHERE p.session_id = u.id",
            thousand_ids,
        ),
        service(
            "the seed's UPDATE by unnest of 1,000",
            "UPDATE seed.user_sessions s SET last_activity = now()
               FROM unnest($1::uuid[]) u(id) WHERE s.id = u.id",
            thousand_ids,
        ),
    ];
    for redis in redis {
        let name = format!("{} ZADD, pipelined by 100", redis.name);
        contenders.push(Contender::new(&name, 1, |_| {
            redis.line(Does::Add, 100).among(stage.sessions)
        }));
    }
    let names: Vec<String> = contenders.iter().map(|one| one.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let outcome = contest(&scale, &mut contenders, scale.few_rounds * 2);

    let mut chapter = Chapter::new("batch", "Many heartbeats at a time, one connection");
    chapter.speeds(&outcome, &names);
    // What one core does, if it does nothing else.
    for (name, row) in [(MANY, "many"), (INSIDE, "many_inside")] {
        let per_core = outcome.each(name, |score| 1e6 / score.cpu_us);
        chapter
            .figure(format!("{name}, per core"), "/s", Spread::of(per_core))
            .meets(row);
    }
    for name in &names[2..] {
        let is_redis = name.starts_with("Redis");
        chapter.ratio(&outcome, MANY, name, is_redis.then_some("redis"));
    }
    chapter.raw = outcome.raw();
    chapter
}

/// A statement that beats a hundred thousand times.
struct Repeated {
    statement: Statement,
}

impl Line for Repeated {
    fn once(&mut self, random: &mut Random) -> u64 {
        self.statement.once(random);
        100_000
    }

    fn pid(&self) -> i32 {
        self.statement.pid()
    }
}
