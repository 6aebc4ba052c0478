//! `make bench`: a heartbeat beside `SELECT 1`, and beside the UPDATE it replaces.
//!
//! One server with default durability, four connections, a million live sessions. The contenders take turns; a ratio
//! is that of one round, and what is printed is the middle of all rounds with the lowest and the highest.

mod contest;
mod wire;

use std::time::{Duration, Instant};

use contest::{Arena, Contender, Score, spread};
use pg_presence_test::{Cluster, Install};
use postgres::Client;
use serde_json::Value;

const CONTENDERS: &[Contender] = &[
    Contender {
        name: "SELECT 1",
        role: "bench_service",
        before: "",
        statement: "SELECT 1",
        takes_id: false,
    },
    Contender {
        name: "heartbeat, service",
        role: "bench_service",
        before: "",
        statement: "SELECT presence.heartbeat($1)",
        takes_id: true,
    },
    Contender {
        name: "SELECT 1, with claims",
        role: "bench_client",
        before: CLAIMS,
        statement: "SELECT 1",
        takes_id: false,
    },
    Contender {
        name: "heartbeat, with claims",
        role: "bench_client",
        before: CLAIMS,
        statement: "SELECT presence.heartbeat($1)",
        takes_id: true,
    },
    Contender {
        name: "the seed's UPDATE",
        role: "bench_service",
        before: "",
        statement: "UPDATE seed.user_sessions SET last_activity = now() WHERE id = $1",
        takes_id: true,
    },
];

/// What a hosted PostgREST sends with every request, as far as it matters here.
const CLAIMS: &str = r#"SET request.jwt.claims = '{"aud":"authenticated","exp":1795450000,"iat":1795446400,"iss":"https://example.org/auth/v1","sub":"00000000-0000-4000-8000-00000000beef","email":"someone@example.org","phone":"","app_metadata":{"provider":"email","providers":["email"]},"user_metadata":{"name":"Someone"},"role":"authenticated","aal":"aal1","session_id":"00000000-0000-4000-8000-000000000001"}'"#;

/// The table, indexes and policy of the application that pg_presence grew out of.
const SEED: &str = "
    CREATE SCHEMA seed;
    CREATE TABLE seed.user_sessions (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        user_id uuid NOT NULL,
        auth_id uuid NOT NULL,
        session_token text NOT NULL UNIQUE,
        is_active boolean NOT NULL DEFAULT true,
        last_activity timestamptz NOT NULL DEFAULT now(),
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL DEFAULT now() + interval '7 days'
    );
    CREATE INDEX ON seed.user_sessions (user_id);
    CREATE INDEX ON seed.user_sessions (last_activity);
    GRANT USAGE ON SCHEMA seed TO bench_service;
    GRANT SELECT, UPDATE ON seed.user_sessions TO bench_service";

fn main() {
    let quick = std::env::var("QUICK").is_ok_and(|value| value != "0");
    let (sessions, rounds, turn) = if quick {
        (100_000, 5, 1)
    } else {
        (1_000_000u64, 7, 3)
    };
    let room = (sessions + sessions / 10).to_string();
    let cluster = Cluster::own(&[
        ("presence.max_sessions", &room),
        ("fsync", "on"),
        ("shared_buffers", "1GB"),
        ("max_wal_size", "8GB"),
        // Clients keep their sessions alive by chance only; nobody is to time out meanwhile.
        ("presence.active_timeout", "1h"),
        ("presence.flush_interval", "1h"),
    ]);
    let database = cluster.database_with(Install::Presence);
    say(&format!(
        "loading {sessions} sessions twice: ours and the seed's"
    ));
    database.run(
        "CREATE ROLE bench_service LOGIN; CREATE ROLE bench_client LOGIN;
         SELECT presence.grant_service('bench_service'), presence.grant_client('bench_client')",
    );
    database.run(SEED);
    let ids = "('00000000-0000-4000-8' || lpad(to_hex(n), 15, '0'))::uuid";
    let beef = "'00000000-0000-4000-8000-00000000beef'::uuid";
    let began = Instant::now();
    database.run(&format!(
        "INSERT INTO presence.user_sessions (id, user_id, auth_id)
         SELECT {ids}, {ids}, {beef} FROM generate_series(0, {sessions} - 1) n"
    ));
    say(&format!("ours took {:.1} s", began.elapsed().as_secs_f64()));
    database.run(&format!(
        "INSERT INTO seed.user_sessions (id, user_id, auth_id, session_token)
         SELECT {ids}, {ids}, {beef}, n FROM generate_series(0, {sessions} - 1) n"
    ));
    // What follows the loading is not what is measured: a million users who are new have to be written and told.
    let mut client = database.connect();
    pg_presence_test::wait_until("the worker to be done with the logins", || {
        let sql = "SELECT unwritten_users = 0 FROM presence.presence_stats";
        client.query_one(sql, &[]).expect("statistics").get(0)
    });
    database.run("VACUUM ANALYZE");
    database.run("CHECKPOINT");

    let arena = Arena {
        socket: cluster.data().with_file_name(".s.PGSQL.5432"),
        database: database.name.clone(),
        connections: 4,
        sessions,
        turn: Duration::from_secs(turn),
    };
    let mut scores: Vec<Vec<Score>> = vec![Vec::new(); CONTENDERS.len()];
    for round in 0..rounds {
        say(&format!("round {} of {rounds}", round + 1));
        // Every other round runs backwards, so that nobody always has the same neighbour.
        let mut order: Vec<usize> = (0..CONTENDERS.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for number in order {
            scores[number].push(arena.turn(&CONTENDERS[number], round));
        }
    }
    report(&scores);
    inside(&mut cluster.connect(&database.name));
}

/// What takes too little to be measured from a client, measured in the server.
fn inside(client: &mut Client) {
    println!(
        "\n{:<26}{:>16}{:>18}",
        "inside the server", "middle, ns", "95% within"
    );
    for name in [
        "heartbeat",
        "heartbeat_of_a_client",
        "heartbeat_many",
        "is_online",
        "sweep",
    ] {
        let run = format!("SELECT benches.__pgrx_bench_run_{name}(NULL)::text");
        let found: String = client.query_one(&run, &[]).expect("the benchmark").get(0);
        let found: Value = serde_json::from_str(&found).expect("JSON");
        let estimates = found["estimates"].as_array().expect("estimates");
        let median = estimates
            .iter()
            .find(|estimate| estimate["estimate_kind"] == "median")
            .expect("a median");
        let number = |field: &str| median[field].as_f64().expect("a number");
        println!(
            "{name:<26}{:>16.0}{:>12.0} – {:.0}",
            number("point_estimate_ns"),
            number("ci_lower_bound_ns"),
            number("ci_upper_bound_ns")
        );
    }
}

fn say(text: &str) {
    eprintln!("{text}");
}

fn report(scores: &[Vec<Score>]) {
    println!("\n{:<26}{:>12}{:>16}", "", "per second", "server CPU, µs");
    for (contender, scores) in CONTENDERS.iter().zip(scores) {
        let speed = spread(scores.iter().map(|score| score.per_second).collect());
        let cpu = spread(scores.iter().map(|score| score.cpu_us).collect());
        println!("{:<26}{:>12.0}{:>16.2}", contender.name, speed.0, cpu.0);
    }
    println!("\n{:<52}{:>8}{:>18}", "ratio", "middle", "lowest – highest");
    let ratio = |above: usize, below: usize, figure: fn(&Score) -> f64| {
        let each = scores[above].iter().zip(&scores[below]);
        spread(each.map(|(a, b)| figure(a) / figure(b)).collect())
    };
    let speed: fn(&Score) -> f64 = |score| score.per_second;
    let cpu: fn(&Score) -> f64 = |score| 1.0 / score.cpu_us;
    for (label, above, below) in [
        ("heartbeat ÷ SELECT 1", 1, 0),
        ("heartbeat with claims ÷ SELECT 1 with claims", 3, 2),
        ("heartbeat ÷ the seed's UPDATE", 1, 4),
        ("SELECT 1 ÷ the seed's UPDATE: the ceiling", 0, 4),
    ] {
        for (what, figure) in [("per second", speed), ("by server CPU", cpu)] {
            let (middle, lowest, highest) = ratio(above, below, figure);
            let label = format!("{label}, {what}");
            println!("{label:<60}{middle:>8.3}{lowest:>10.3} – {highest:.3}");
        }
    }
}
