//! `make bench`: pg_presence beside what one would pick instead, on the same machine, interleaved, in one run.
//!
//! Every chapter is a file in `chapters`; `README.md` says what their numbers mean. `QUICK=1` measures less, `ONLY=name`
//! one chapter (or several, with commas), the argument `publish` puts the last full run's table into the README.

mod audience;
mod budget;
mod chapter;
mod chapters;
mod chart;
mod contest;
mod ids;
mod machine;
mod numbers;
mod pace;
mod random;
mod redis;
mod report;
mod scale;
mod stage;
mod venue;
mod wire;

use std::time::Instant;

use report::Report;
use scale::Scale;
use venue::Venue;

fn main() {
    let scale = Scale::from_environment();
    if std::env::args().nth(1).as_deref() == Some("publish") {
        let report = Report::load(false).expect("a full run's results: run `make bench` first");
        report.publish();
        return;
    }
    let only = std::env::var("ONLY").unwrap_or_default();
    let chosen: Vec<_> = chapters::ALL
        .iter()
        .filter(|(name, _)| only.is_empty() || only.split(',').any(|one| one == *name))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = chapters::ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("error: no chapter {only}; there are {}", names.join(", "));
        std::process::exit(2);
    }
    let kept = if only.is_empty() {
        None
    } else {
        Report::load(scale.quick)
    };
    let mut report = kept.unwrap_or_else(|| Report {
        machine: serde_json::Value::Null,
        quick: scale.quick,
        chapters: Vec::new(),
    });
    let mut venue = Venue::new(scale);
    report.machine = machine::describe(&venue.peers());
    for (name, chapter) in chosen {
        let began = Instant::now();
        say(&format!("chapter {name}"));
        let chapter = chapter(&mut venue);
        report::print(&chapter);
        report.add(chapter);
        // Here, so that what was measured is kept when a later chapter fails.
        report.save();
        say(&format!(
            "{name} took {:.0} s",
            began.elapsed().as_secs_f64()
        ));
    }
    report.print_budget();
    say(&format!(
        "numbers and charts are in {}",
        report.directory().display()
    ));
}

fn say(text: &str) {
    eprintln!("{text}");
}
