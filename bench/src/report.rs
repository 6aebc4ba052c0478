//! The report of a run: tables on the terminal, the results file, charts, and the figures in the READMEs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    budget::{HEADLINES, ROWS, Row},
    progress,
    results::{Figure, Results},
    summary::format_number,
};

/// Everything that a run measured.
#[derive(Deserialize, Serialize)]
pub struct Report {
    pub machine: Value,
    pub quick: bool,
    pub scenarios: Vec<Results>,
}

const FILE: &str = "latest.json";
const MARKERS: (&str, &str) = ("<!-- benchmark -->\n", "<!-- /benchmark -->");
/// The chart that the project's README shows.
const HEADLINE_CHART: &str = "alternatives";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The directory for what is not published: results of quick runs, and the turns of every run.
fn scratch() -> PathBuf {
    root().join("target/bench")
}

fn directory(quick: bool) -> PathBuf {
    if quick { scratch() } else { root().join("bench/results") }
}

impl Report {
    pub fn new(quick: bool) -> Report {
        Report {
            machine: Value::Null,
            quick,
            scenarios: Vec::new(),
        }
    }

    /// Reads the results of earlier runs; `None` if there are none that can be read.
    pub fn load(quick: bool) -> Option<Report> {
        let text = fs::read_to_string(directory(quick).join(FILE)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Returns where the results and charts are.
    pub fn directory(&self) -> PathBuf {
        directory(self.quick)
    }

    /// Adds the results of a scenario, in place of older ones of the same name, and saves its turns.
    pub fn add(&mut self, results: Results) {
        save_turns(&results);
        let same = |old: &&mut Results| old.name == results.name;
        match self.scenarios.iter_mut().find(same) {
            Some(old) => *old = results,
            None => self.scenarios.push(results),
        }
    }

    /// Writes the results file and draws the charts.
    pub fn save(&self) {
        let directory = self.directory();
        fs::create_dir_all(&directory).expect("create the directory of the results");
        let text = serde_json::to_string_pretty(self).expect("serialize the results");
        fs::write(directory.join(FILE), text + "\n").expect("write the results");
        // From the file, so that drawing them again yields the same charts.
        Report::load(self.quick).expect("results just written").draw_charts();
    }

    fn draw_charts(&self) {
        for chart in self.scenarios.iter().flat_map(|results| &results.charts) {
            if let Err(error) = chart.draw(&self.directory()) {
                panic!("could not draw chart \"{}\": {error}", chart.name);
            }
        }
    }

    /// Prints the budget with what was measured.
    pub fn print_budget(&self) {
        if self.quick {
            println!("\nA quick run: a twentieth of the sessions, and too few rounds to resolve small differences.");
        }
        println!(
            "\n{:<76}{:>20}{:>10}{:>12}   interquartile range",
            "budget", "required", "aim", "median"
        );
        for (row, figure) in self.budget() {
            println!(
                "{:<76}{:>20}{:>10}{:>12}   {}",
                row.label.replace('`', ""),
                row.required,
                row.aim,
                format_number(figure.summary.median),
                figure.summary.quartiles()
            );
        }
    }

    /// Returns the budget's rows that have been measured, with their figures.
    fn budget(&self) -> impl Iterator<Item = (&'static Row, &Figure)> {
        ROWS.iter().filter_map(|row| {
            let mut figures = self.scenarios.iter().flat_map(|results| &results.figures);
            let figure = figures.find(|figure| figure.budget.as_deref() == Some(row.key))?;
            Some((row, figure))
        })
    }

    /// Draws the charts again and writes the figures between the markers of the READMEs: the whole budget and all
    /// charts into the benchmark's, the headlines into the project's.
    pub fn publish(&self) {
        self.draw_charts();
        let all = self.markdown("results", |_| true, |_| true);
        let headlines = self.markdown(
            "bench/results",
            |key| HEADLINES.contains(&key),
            |chart| chart == HEADLINE_CHART,
        );
        for (name, figures) in [("bench/README.md", all), ("README.md", headlines)] {
            let path = root().join(name);
            let readme = fs::read_to_string(&path).expect("read the README");
            match between_markers(&readme, &figures) {
                Some(readme) => fs::write(&path, readme).expect("write the README"),
                None => progress(&format!("{name} has no markers for the figures; skipping it")),
            }
        }
    }

    /// Returns the machine, a table of the chosen budget rows and the chosen charts.
    fn markdown(&self, directory: &str, row: impl Fn(&str) -> bool, chart: impl Fn(&str) -> bool) -> String {
        let word = |name: &str| self.machine[name].as_str().unwrap_or_default().to_owned();
        let mut text = format!(
            "Medians and interquartile ranges on {} cores of {}, {}, {}, {}.\n\n\
             | | required | aim | median | interquartile range |\n|---|--:|--:|--:|---|\n",
            self.machine["cores"],
            word("processor"),
            word("distribution"),
            word("postgresql"),
            word("date"),
        );
        for (budget, figure) in self.budget().filter(|(budget, _)| row(budget.key)) {
            text += &format!(
                "| {} | {} | {} | **{}** | {} |\n",
                budget.label,
                budget.required,
                budget.aim,
                format_number(figure.summary.median),
                figure.summary.quartiles()
            );
        }
        text += "\n";
        let charts = self.scenarios.iter().flat_map(|results| &results.charts);
        for chart in charts.filter(|one| chart(&one.name)) {
            text += &format!("![{}]({directory}/{}.svg)\n", chart.title, chart.name);
        }
        text
    }
}

/// Returns a page with the text between its markers replaced, or `None` if it has none.
fn between_markers(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(MARKERS.0)?;
    let (_, after) = rest.split_once(MARKERS.1)?;
    Some(format!("{before}{}{text}{}{after}", MARKERS.0, MARKERS.1))
}

/// Writes every turn of a scenario below `target/`, for further analysis.
pub fn save_turns(results: &Results) {
    let directory = scratch().join("turns");
    fs::create_dir_all(&directory).expect("create the directory of the turns");
    let text = serde_json::to_string(&results.turns).expect("serialize the turns");
    let file = directory.join(format!("{}.json", results.name));
    fs::write(file, text + "\n").expect("write the turns");
}

/// Prints a scenario's table.
pub fn print(results: &Results) {
    println!(
        "\n{:<76}{:>12}{:>26}{:>26}",
        results.title, "median", "interquartile range", "min – max"
    );
    for figure in &results.figures {
        println!(
            "{:<76}{:>12}{:>26}{:>26}  {}",
            figure.label,
            format_number(figure.summary.median),
            figure.summary.quartiles(),
            figure.summary.extremes(),
            figure.unit
        );
    }
}
