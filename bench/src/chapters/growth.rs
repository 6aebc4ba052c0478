//! What it costs as sessions grow, from a thousand to ten million.

use std::time::{Duration, Instant};

use super::{
    heartbeat::{BEAT, HEARTBEAT, SELECT},
    load::named,
    peers::{SEED, UPDATE},
};
use crate::{
    chapter::{Chapter, Chart, Kind},
    contest::{Contender, contest},
    ids::any_id,
    numbers::Spread,
    say,
    stage::Stage,
    venue::Venue,
};

const SWEEP: &str = "sweep";
const IS_ONLINE: &str = "is_online";
const ONLINE_USERS: &str = "count(*) of online_users()";
/// The seed's table is not loaded beyond: it would take minutes, and its UPDATE does not change.
const SEED_UP_TO: u64 = 1_000_000;
/// How long the loading of one size may take.
const PATIENCE: Duration = Duration::from_secs(1200);

pub fn run(venue: &mut Venue) -> Chapter {
    venue.close();
    let scale = venue.scale.clone();
    let sizes: &[u64] = scale.pick(
        &[1_000, 10_000, 50_000],
        &[1_000, 10_000, 100_000, 1_000_000, 10_000_000],
    );
    let mut stage = Stage::new(sizes[0], &[]);
    stage.run("GRANT USAGE ON SCHEMA benches TO bench_service; GRANT EXECUTE ON FUNCTION benches.sweep_once() TO bench_service");
    let mut chapter = Chapter::new("growth", "As sessions grow");
    let names = [SELECT, HEARTBEAT, IS_ONLINE, SEED];
    let (mut speeds, mut looks) = (vec![Vec::new(); 4], vec![Vec::new(); 2]);
    let mut raw = Vec::new();
    let mut loading = Duration::ZERO;
    for &sessions in sizes {
        // Each size is ten times the last.
        if loading * 10 > PATIENCE {
            say(&format!("{sessions} sessions would take too long to load"));
            break;
        }
        let began = Instant::now();
        let room = (sessions + 100).to_string();
        stage.cluster.configure(&[("presence.max_sessions", &room)]);
        let took = stage.load(sessions);
        loading = began.elapsed();
        let mut of = |what: &str, unit, spread| {
            chapter.figure(format!("{what}, {sessions} sessions"), unit, spread);
        };
        of(
            "shared memory per session",
            "bytes",
            Spread::once(stage.memory_per_session()),
        );
        of(
            "all in memory after a restart",
            "s",
            Spread::once(took.as_secs_f64()),
        );
        if sessions <= SEED_UP_TO {
            stage.run("DROP SCHEMA IF EXISTS seed CASCADE");
            stage.load_seed("seed", "");
        }
        let any = |name: &str, sql| {
            Contender::new(name, scale.connections, |_| {
                stage.statement("bench_service", "", sql, Some(any_id))
            })
        };
        let alone = |name: &str, sql| {
            Contender::new(name, 1, |_| stage.statement("bench_service", "", sql, None))
        };
        let mut contenders = vec![
            alone(SWEEP, "SELECT benches.sweep_once()"),
            alone(ONLINE_USERS, "SELECT count(*) FROM presence.online_users()"),
            Contender::new(SELECT, scale.connections, |_| {
                stage.statement("bench_service", "", "SELECT 1", None)
            }),
            any(HEARTBEAT, BEAT),
            any(IS_ONLINE, "SELECT presence.is_online($1)"),
        ];
        if sessions <= SEED_UP_TO {
            contenders.push(any(SEED, UPDATE));
        }
        let outcome = contest(&scale, &mut contenders, scale.pick(1, 5));
        for (line, name) in speeds.iter_mut().zip(names) {
            if name != SEED || sessions <= SEED_UP_TO {
                line.push((sessions as f64, outcome.per_second(name).median));
                of(name, "/s", outcome.per_second(name));
            }
        }
        for (line, name) in looks.iter_mut().zip([SWEEP, ONLINE_USERS]) {
            let ms = Spread::of(outcome.each(name, |score| score.cpu_us / 1000.0));
            line.push((sessions as f64, ms.median));
            of(name, "ms", ms);
        }
        raw.push(outcome.raw());
    }
    for (name, title, y, names, lines) in [
        (
            "growth",
            "Calls per second as sessions grow",
            "per second",
            &names[..],
            speeds,
        ),
        (
            "looking",
            "Looking at all sessions as they grow",
            "ms",
            &[SWEEP, ONLINE_USERS],
            looks,
        ),
    ] {
        chapter.charts.push(Chart {
            name: name.into(),
            title: title.into(),
            x: "sessions".into(),
            y: y.into(),
            kind: Kind::Lines(named(names, lines)),
        });
    }
    chapter.raw = raw.into();
    chapter
}
