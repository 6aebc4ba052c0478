//! What one part of the benchmark has found: figures for a table, charts, and the raw numbers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    contest::{Measure, Outcome},
    numbers::Spread,
};

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Chapter {
    pub name: String,
    pub title: String,
    pub figures: Vec<Figure>,
    pub charts: Vec<Chart>,
    pub raw: Value,
}

/// One line of a chapter's table.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Figure {
    pub label: String,
    pub unit: String,
    pub spread: Spread,
    /// The row of the budget that this is, if any.
    pub budget: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Chart {
    /// The file's name, without its ending.
    pub name: String,
    pub title: String,
    /// What the axes show; for bars, only y.
    pub x: String,
    pub y: String,
    pub kind: Kind,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Kind {
    /// Lines over two logarithmic axes.
    Lines(Vec<(String, Vec<(f64, f64)>)>),
    /// A bar for each name, the longest for the largest number, on a logarithmic scale.
    Bars(Vec<(String, f64)>),
}

impl Chapter {
    pub fn new(name: &str, title: &str) -> Chapter {
        Chapter {
            name: name.into(),
            title: title.into(),
            figures: Vec::new(),
            charts: Vec::new(),
            raw: Value::Null,
        }
    }

    /// Adds a figure.
    pub fn figure(&mut self, label: impl Into<String>, unit: &str, spread: Spread) -> &mut Figure {
        self.figures.push(Figure {
            label: label.into(),
            unit: unit.into(),
            spread,
            budget: None,
        });
        self.figures.last_mut().expect("just pushed")
    }

    /// Adds how one contender compares with another, by the clock and by CPU time. The row of the budget, if any, is met
    /// by the clock.
    pub fn ratio(&mut self, outcome: &Outcome, above: &str, below: &str, budget: Option<&str>) {
        let label = format!("{above} ÷ {below}");
        self.figure(&label, "×", outcome.ratio(Measure::Clock, above, below))
            .budget = budget.map(str::to_owned);
        self.figure(
            format!("{label}, by server CPU"),
            "×",
            outcome.ratio(Measure::Cpu, above, below),
        );
    }

    /// Adds what each contender did.
    pub fn speeds(&mut self, outcome: &Outcome, names: &[&str]) {
        for name in names {
            self.figure(*name, "/s", outcome.per_second(name));
            self.figure(format!("{name}: server CPU"), "µs", outcome.cpu_us(name));
        }
    }
}

impl Figure {
    /// Says which row of the budget this is.
    pub fn meets(&mut self, row: &str) {
        self.budget = Some(row.into());
    }
}
