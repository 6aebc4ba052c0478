//! One heartbeat beside `SELECT 1` once more, as PostgreSQL's own benchmark measures it: with libpq, text and its script.

use std::fs;

use serde_json::json;

use super::heartbeat::{HEARTBEAT, SELECT};
use crate::{
    chapter::Chapter, ids::ID, numbers::Spread, pgbench, random::Random, scale, stage::Stage,
    venue::Venue,
};

/// pgbench makes no uuids: a script fetches so many ids, then uses each of them once. So does everybody's.
const IDS: u64 = 100;
const NOTHING: &str = "an empty Rust function";
const CONTENDERS: [(&str, &str); 3] = [
    (SELECT, "SELECT 1;"),
    (NOTHING, "SELECT benches.nothing(:id{});"),
    (HEARTBEAT, "SELECT presence.heartbeat(:id{});"),
];

pub fn run(venue: &mut Venue) -> Chapter {
    let scale = venue.scale.clone();
    let (rounds, seconds) = scale.pick((2, 2), (7, 8));
    let stage = venue.stage();
    stage.run(&format!(
        "CREATE TABLE public.some AS
             SELECT r / {IDS} AS n, array_agg(id) AS ids
               FROM (SELECT {ID} AS id, row_number() OVER (ORDER BY random()) - 1 AS r
                       FROM generate_series(0, {} - 1) n) s
              GROUP BY r / {IDS};
         CREATE UNIQUE INDEX ON public.some (n);
         ANALYZE public.some;
         GRANT SELECT ON public.some TO bench_service;
         GRANT USAGE ON SCHEMA benches TO bench_service;
         GRANT EXECUTE ON FUNCTION benches.nothing(uuid) TO bench_service",
        stage.sessions
    ));
    let scripts: Vec<String> = (CONTENDERS.iter().enumerate())
        .map(|(number, (_, statement))| script(stage, number, statement))
        .collect();

    let mut random = Random::new(scale::SEED);
    let mut order: Vec<usize> = (0..CONTENDERS.len()).collect();
    let mut did = vec![Vec::new(); CONTENDERS.len()];
    for _ in 0..rounds {
        random.shuffle(&mut order);
        for &number in &order {
            let connections = format!("-c{}", scale.connections);
            let (time, script) = (format!("-T{seconds}"), format!("-f{}", scripts[number]));
            #[rustfmt::skip]
            let arguments = [
                "-n", "-Mprepared", "-P1", "-Ubench_service", &connections, "-j2", &time, &script,
            ];
            let said = pgbench::run(stage, &stage.database, &arguments).each_second;
            // In its first seconds a new connection maps the roster into its memory, page by page.
            let warm = &said[said.len() / 2..];
            did[number].push(IDS as f64 * warm.iter().sum::<f64>() / warm.len() as f64);
        }
    }

    let mut chapter = Chapter::new("pgbench", "One heartbeat beside SELECT 1, by pgbench");
    for ((name, _), did) in CONTENDERS.iter().zip(&did) {
        chapter.figure(*name, "/s", Spread::of(did.iter().copied()));
    }
    let mut ratio = |above: usize, below: usize| {
        let label = format!(
            "{} ÷ {}, by pgbench",
            CONTENDERS[above].0, CONTENDERS[below].0
        );
        let ratios = did[above]
            .iter()
            .zip(&did[below])
            .map(|(above, below)| above / below);
        chapter.figure(label, "×", Spread::of(ratios));
    };
    ratio(2, 0);
    ratio(2, 1);
    ratio(1, 0);
    chapter.raw = json!(did);
    chapter
}

/// Writes a script that fetches ids and runs the statement for each of them; returns its path.
fn script(stage: &Stage, number: usize, statement: &str) -> String {
    let each = |line: &dyn Fn(u64) -> String, between: &str| {
        (1..=IDS).map(line).collect::<Vec<_>>().join(between)
    };
    let ids = each(&|n| format!("ids[{n}] AS id{n}"), ", ");
    let statements = each(&|n| statement.replace("{}", &n.to_string()), "\n");
    let text = format!(
        "\\set n random(0, {} - 1)\nSELECT {ids} FROM public.some WHERE n = :n \\gset\n{statements}\n",
        stage.sessions / IDS
    );
    let path = stage
        .cluster
        .socket_directory()
        .join(format!("script{number}"));
    fs::write(&path, text).expect("a script");
    path.to_str().expect("UTF-8").to_owned()
}
