//! `make bench`: pg_presence beside the alternatives, on the same machine, interleaved, in one run.
//!
//! Each scenario is a file in `scenarios`; `README.md` explains what its figures mean. `QUICK=1` measures less,
//! `ONLY=name` runs one scenario (or several, separated by commas), and the argument `publish` writes the figures of
//! the last full run into the READMEs. `BEFORE=directory` compares with another build instead.

mod budget;
mod burst;
mod chart;
mod connection;
mod env;
mod ids;
mod interleave;
mod json;
mod listeners;
mod machine;
mod pace;
mod random;
mod redis;
mod report;
mod results;
mod scale;
mod scenarios;
mod server;
mod sql_client;
mod summary;

use std::{path::Path, time::Instant};

use env::Env;
use report::Report;
use scale::Scale;

fn main() {
    let scale = Scale::from_environment();
    if std::env::args().nth(1).as_deref() == Some("publish") {
        let report = Report::load(false).expect("results of a full run: run `make bench` first");
        report.publish();
        return;
    }
    if let Some(programs) = std::env::var_os("BEFORE").filter(|programs| !programs.is_empty()) {
        let results = scenarios::before::run(&mut Env::new(scale), Path::new(&programs));
        report::print(&results);
        report::save_turns(&results);
        return;
    }
    let only = std::env::var("ONLY").unwrap_or_default();
    let chosen: Vec<_> = scenarios::ALL
        .iter()
        .filter(|(name, _)| only.is_empty() || only.split(',').any(|one| one == *name))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = scenarios::ALL.iter().map(|(name, _)| *name).collect();
        eprintln!(
            "error: no scenario named \"{only}\"\nhint: the scenarios are {}",
            names.join(", ")
        );
        std::process::exit(2);
    }
    let previous = if only.is_empty() {
        None
    } else {
        Report::load(scale.quick)
    };
    let mut report = previous.unwrap_or_else(|| Report::new(scale.quick));
    let mut env = Env::new(scale);
    report.machine = machine::describe(&env.redis_versions());
    for (name, run) in chosen {
        let began = Instant::now();
        progress(&format!("scenario {name}"));
        let results = run(&mut env);
        report::print(&results);
        report.add(results);
        // After each scenario, so that its results are kept if a later one fails.
        report.save();
        progress(&format!("{name} took {:.0} s", began.elapsed().as_secs_f64()));
    }
    report.print_budget();
    progress(&format!("figures and charts are in {}", report.directory().display()));
}

/// Reports progress on standard error; standard output is for the tables.
fn progress(text: &str) {
    eprintln!("{text}");
}
