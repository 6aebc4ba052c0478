//! Everybody connects at once.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use serde_json::json;

use crate::{chapter::Chapter, ids, numbers::Spread, stage::Stage, venue::Venue};

/// Clients that log in at the same time, as a pool lets them.
const CLIENTS: u64 = 32;
/// Gateways, each of which logs in a hundred at a time.
const GATEWAYS: u64 = 4;

struct Way {
    name: &'static str,
    connections: u64,
    batch: u64,
    sql: &'static str,
}

const WAYS: [Way; 4] = [
    Way {
        name: "start_session",
        connections: CLIENTS,
        batch: 1,
        sql: "SELECT presence.start_session(user_id => $1)",
    },
    Way {
        name: "the seed's INSERT with NOTIFY",
        connections: CLIENTS,
        batch: 1,
        sql: "INSERT INTO seed_notify.user_sessions (user_id, auth_id, session_token)
              VALUES ($1, $1, gen_random_uuid())",
    },
    Way {
        name: "start_sessions of 100",
        connections: GATEWAYS,
        batch: 100,
        sql: "SELECT presence.start_sessions($1)",
    },
    Way {
        name: "the seed's INSERT of 100 with NOTIFY",
        connections: GATEWAYS,
        batch: 100,
        sql: "INSERT INTO seed_notify.user_sessions (user_id, auth_id, session_token)
              SELECT u, u, gen_random_uuid() FROM unnest($1::uuid[]) u",
    },
];

pub fn run(venue: &mut Venue) -> Chapter {
    let scale = venue.scale.clone();
    let (rounds, slice) = scale.pick((2, 1_000), (5, 20_000));
    let mut stage = Stage::new(
        rounds * slice * 3 + 1000,
        &[("presence.flush_interval", "90s")],
    );
    stage.load(1);
    stage.load_peers();
    let mut users = 1000;
    let mut per_second = vec![Vec::new(); WAYS.len()];
    let mut told = Vec::new();
    for round in 0..rounds {
        for turn in 0..WAYS.len() {
            // Another one begins each round.
            let number = (turn + round as usize) % WAYS.len();
            let began = Instant::now();
            storm(&stage, &WAYS[number], users, slice);
            users += slice;
            per_second[number].push(slice as f64 / began.elapsed().as_secs_f64());
            stage.wait_until_written();
            if number == 0 {
                told.push(slice as f64 / began.elapsed().as_secs_f64());
            }
        }
    }
    let mut chapter = Chapter::new("storm", "Everybody connects at once");
    for (way, numbers) in WAYS.iter().zip(&per_second) {
        let spread = Spread::of(numbers.iter().copied());
        chapter.figure(format!("{}: sessions", way.name), "/s", spread);
        let seconds = Spread::of(numbers.iter().map(|number| 100_000.0 / number));
        chapter.figure(format!("{}: 100,000 sessions", way.name), "s", seconds);
    }
    chapter.figure(
        "start_session: sessions, until the last is written and told",
        "/s",
        Spread::of(told),
    );
    for (above, below) in [(0, 1), (2, 3)] {
        let ratios = per_second[above].iter().zip(&per_second[below]);
        chapter.figure(
            format!("{} ÷ {}", WAYS[above].name, WAYS[below].name),
            "×",
            Spread::of(ratios.map(|(above, below)| above / below)),
        );
    }
    chapter.raw = json!({ "per_second": per_second });
    chapter
}

fn storm(stage: &Stage, way: &Way, first: u64, sessions: u64) {
    let next = AtomicU64::new(first);
    thread::scope(|scope| {
        for _ in 0..way.connections {
            let next = &next;
            scope.spawn(move || {
                let mut wire = stage.wire("bench_service");
                wire.prepare(way.sql);
                let mut parameter = Vec::new();
                loop {
                    let from = next.fetch_add(way.batch, Ordering::Relaxed);
                    if from >= first + sessions {
                        break;
                    }
                    parameter.clear();
                    if way.batch == 1 {
                        parameter.extend_from_slice(&ids::id(from));
                    } else {
                        let numbers: Vec<u64> = (from..from + way.batch).collect();
                        ids::array(&numbers, &mut parameter);
                    }
                    wire.execute(Some(&parameter));
                }
            });
        }
    });
}
