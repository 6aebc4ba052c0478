//! What is shown: tables on the terminal, the numbers as JSON, charts, and the README's table.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    budget::ROWS,
    chapter::{Chapter, Figure},
    chart,
    numbers::short,
};

/// All that a run has found.
#[derive(Deserialize, Serialize)]
pub struct Report {
    pub machine: Value,
    pub quick: bool,
    pub chapters: Vec<Chapter>,
}

const FILE: &str = "latest.json";
const MARKERS: (&str, &str) = ("<!-- benchmark -->\n", "<!-- /benchmark -->");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where results are kept: a quick run's are nobody's business but its own.
fn directory(quick: bool) -> PathBuf {
    root().join(if quick {
        "target/bench"
    } else {
        "bench/results"
    })
}

impl Report {
    /// What has been found so far, if anything.
    pub fn load(quick: bool) -> Option<Report> {
        let text = fs::read_to_string(directory(quick).join(FILE)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Where its numbers and charts are.
    pub fn directory(&self) -> PathBuf {
        directory(self.quick)
    }

    /// Adds a chapter, in the place of an older one of its name.
    pub fn add(&mut self, chapter: Chapter) {
        let same = |old: &&mut Chapter| old.name == chapter.name;
        match self.chapters.iter_mut().find(same) {
            Some(old) => *old = chapter,
            None => self.chapters.push(chapter),
        }
    }

    /// Writes numbers and charts.
    pub fn save(&self) {
        let directory = self.directory();
        fs::create_dir_all(&directory).expect("a directory for the results");
        let text = serde_json::to_string_pretty(self).expect("JSON");
        fs::write(directory.join(FILE), text + "\n").expect("to write the results");
        for chart in self.chapters.iter().flat_map(|chapter| &chapter.charts) {
            if let Err(error) = chart::draw(chart, &directory) {
                panic!("chart {}: {error}", chart.name);
            }
        }
    }

    /// Prints the budget with what was measured.
    pub fn print_budget(&self) {
        if self.quick {
            println!(
                "\nA quick run: a twentieth of the sessions, and too few rounds to tell small differences."
            );
        }
        println!(
            "\n{:<76}{:>10}{:>10}{:>12}   half of the rounds within",
            "the budget", "at least", "aim", "measured"
        );
        for (row, figure) in self.budget() {
            let label = row.label.replace('`', "");
            let s = &figure.spread;
            println!(
                "{}{:>10}{:>10}{:>12}   {} – {}",
                padded(&label, 76),
                row.at_least,
                row.aim,
                short(s.median),
                short(s.lower),
                short(s.upper)
            );
        }
    }

    fn budget(&self) -> impl Iterator<Item = (&'static crate::budget::Row, &Figure)> {
        ROWS.iter().filter_map(|row| {
            let figures = self.chapters.iter().flat_map(|chapter| &chapter.figures);
            let mut those = figures.filter(|figure| figure.budget.as_deref() == Some(row.key));
            Some((row, those.next()?))
        })
    }

    /// Puts the budget's table, the machine and the charts into the README, between its markers.
    pub fn publish(&self) {
        let path = root().join("README.md");
        let readme = fs::read_to_string(&path).expect("the README");
        let (before, rest) = readme.split_once(MARKERS.0).expect("the first marker");
        let (_, after) = rest.split_once(MARKERS.1).expect("the second marker");
        let text = format!(
            "{before}{}{}{}{after}",
            MARKERS.0,
            self.markdown(),
            MARKERS.1
        );
        fs::write(path, text).expect("to write the README");
    }

    fn markdown(&self) -> String {
        let word = |name: &str| self.machine[name].as_str().unwrap_or_default().to_owned();
        let mut text = format!(
            "{} cores of {}, {}, {}, {}. Between dashes: half of the rounds lie within.\n\n\
             | | at least | aim | measured | |\n|---|--:|--:|--:|---|\n",
            self.machine["cores"],
            word("processor"),
            word("distribution"),
            word("postgresql"),
            word("date"),
        );
        for (row, figure) in self.budget() {
            let s = &figure.spread;
            text += &format!(
                "| {} | {} | {} | **{}** | {} |\n",
                row.label,
                row.at_least,
                row.aim,
                short(s.median),
                if s.rounds > 1 {
                    format!("{} – {}", short(s.lower), short(s.upper))
                } else {
                    String::new()
                }
            );
        }
        text += "\n";
        for chart in self.chapters.iter().flat_map(|chapter| &chapter.charts) {
            text += &format!("![{}](bench/results/{}.svg)\n", chart.title, chart.name);
        }
        text
    }
}

/// Prints a chapter's table.
pub fn print(chapter: &Chapter) {
    println!(
        "\n{}{:>12}{:>26}{:>26}",
        padded(&chapter.title, 76),
        "median",
        "half within",
        "lowest – highest"
    );
    for figure in &chapter.figures {
        let s = &figure.spread;
        let (half, all) = if s.rounds > 1 {
            (
                format!("{} – {}", short(s.lower), short(s.upper)),
                format!("{} – {}", short(s.lowest), short(s.highest)),
            )
        } else {
            (String::new(), String::new())
        };
        println!(
            "{}{:>12}{half:>26}{all:>26}  {}",
            padded(&figure.label, 76),
            short(s.median),
            figure.unit
        );
    }
}

/// Fills up with spaces by characters, as `{:<76}` does too; too long a text is left as it is.
fn padded(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}
