//! Heartbeats as the load grows: more connections, and more of them for the same session.

use super::{
    heartbeat::{BEAT, HEARTBEAT, SELECT},
    peers::{SEED, UPDATE},
};
use crate::{
    chapter::{Chapter, Chart, Kind},
    contest::{Contender, Measure, contest},
    ids,
    random::Random,
    venue::Venue,
    wire::Parameter,
};

const CONNECTIONS: &[u64] = &[1, 2, 4, 8, 16, 32, 64];

/// Share of the beats that go to one session, and the parameter that does so.
const HOT: &[(&str, f64, Parameter)] = &[
    ("1 %", 1.0, hot::<1>),
    ("10 %", 10.0, hot::<10>),
    ("50 %", 50.0, hot::<50>),
    ("100 %", 100.0, hot::<100>),
];

pub fn run(venue: &mut Venue) -> Chapter {
    let scale = venue.scale.clone();
    let rounds = scale.pick(1, 5);
    let (stage, _) = venue.with_peers();
    let mut chapter = Chapter::new("load", "Heartbeats under load");
    let service = |name: &str, connections, sql, parameter| {
        Contender::new(name, connections, |_| {
            stage.statement("bench_service", "", sql, parameter)
        })
    };
    let mut raw = Vec::new();
    let mut lines = vec![Vec::new(); 3];
    for &connections in CONNECTIONS {
        let any = Some(ids::any_id as Parameter);
        let mut contenders = [
            service(SELECT, connections, "SELECT 1", None),
            service(HEARTBEAT, connections, BEAT, any),
            service(SEED, connections, UPDATE, any),
        ];
        let outcome = contest(&scale, &mut contenders, rounds);
        for (line, name) in lines.iter_mut().zip([SELECT, HEARTBEAT, SEED]) {
            line.push((connections as f64, outcome.per_second(name).median));
        }
        chapter.figure(
            format!("heartbeat ÷ SELECT 1, {connections} connections"),
            "×",
            outcome.ratio(Measure::Clock, HEARTBEAT, SELECT),
        );
        chapter.figure(
            format!("heartbeat ÷ the seed's UPDATE, {connections} connections"),
            "×",
            outcome.ratio(Measure::Clock, HEARTBEAT, SEED),
        );
        raw.push(outcome.raw());
    }
    chapter.charts.push(Chart {
        name: "connections".into(),
        title: "Beats per second as connections grow".into(),
        x: "connections".into(),
        y: "per second".into(),
        kind: Kind::Lines(named(&[SELECT, HEARTBEAT, SEED], lines)),
    });

    let mut lines = vec![Vec::new(); 2];
    for &(share, number, parameter) in HOT {
        let connections = scale.connections;
        let mut contenders = [
            service(HEARTBEAT, connections, BEAT, Some(parameter)),
            service(SEED, connections, UPDATE, Some(parameter)),
        ];
        let outcome = contest(&scale, &mut contenders, rounds);
        for (line, name) in lines.iter_mut().zip([HEARTBEAT, SEED]) {
            line.push((number, outcome.per_second(name).median));
            let label = format!("{name}, {share} of the beats for one session");
            chapter.figure(label, "/s", outcome.per_second(name));
        }
        raw.push(outcome.raw());
    }
    chapter.charts.push(Chart {
        name: "hot".into(),
        title: "Beats per second as more of them are for one session".into(),
        x: "per cent of the beats".into(),
        y: "per second".into(),
        kind: Kind::Lines(named(&[HEARTBEAT, SEED], lines)),
    });
    chapter.raw = raw.into();
    chapter
}

/// Lines with their names.
pub fn named(names: &[&str], lines: Vec<Vec<(f64, f64)>>) -> Vec<(String, Vec<(f64, f64)>)> {
    let names = names.iter().map(|name| (*name).to_owned());
    names.zip(lines).collect()
}

/// One session so many times in a hundred, else any.
fn hot<const PER_CENT: u64>(random: &mut Random, sessions: u64, out: &mut Vec<u8>) -> u64 {
    let any = random.below(sessions);
    let is_hot = random.below(100) < PER_CENT;
    out.extend_from_slice(&ids::id(if is_hot { 0 } else { any }));
    1
}
