//! What a scenario measured: figures for a table, charts, and the raw turns.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    burst::Rate,
    chart::Chart,
    interleave::{Measure, Outcome},
    json,
    summary::Summary,
};

/// The results of one scenario.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Results {
    pub name: String,
    pub title: String,
    #[serde(serialize_with = "json::one_per_line")]
    pub figures: Vec<Figure>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charts: Vec<Chart>,
    /// Every turn, as JSON that differs between scenarios; not published.
    #[serde(skip)]
    pub turns: Value,
}

/// One line of a scenario's table.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Figure {
    pub label: String,
    pub unit: String,
    #[serde(flatten)]
    pub summary: Summary,
    /// Key of the budget row that this figure is measured against, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
}

impl Results {
    pub fn new(name: &str, title: &str) -> Results {
        Results {
            name: name.into(),
            title: title.into(),
            figures: Vec::new(),
            charts: Vec::new(),
            turns: Value::Null,
        }
    }

    /// Adds a figure.
    pub fn figure(&mut self, label: impl Into<String>, unit: &str, summary: Summary) -> &mut Figure {
        self.figures.push(Figure {
            label: label.into(),
            unit: unit.into(),
            summary,
            budget: None,
        });
        self.figures.last_mut().expect("just pushed")
    }

    /// Adds the ratio of two variants by the clock, for a budget row if one is given, and by CPU time.
    pub fn ratio(&mut self, outcome: &Outcome, numerator: &str, denominator: &str, budget: Option<&str>) {
        let label = format!("{numerator} ÷ {denominator}");
        self.figure(&label, "×", outcome.ratio(Measure::Clock, numerator, denominator))
            .budget = budget.map(str::to_owned);
        self.figure(
            format!("{label}, by server CPU"),
            "×",
            outcome.ratio(Measure::Cpu, numerator, denominator),
        );
    }

    /// Adds the rate and the CPU time of each variant.
    pub fn rates(&mut self, outcome: &Outcome, names: &[&str]) {
        for name in names {
            self.figure(*name, "/s", outcome.per_second(name));
            self.figure(format!("{name}: server CPU"), "µs", outcome.cpu_us(name));
        }
    }

    /// Adds the rate and the CPU time of bursts.
    pub fn bursts(&mut self, name: &str, rates: &[Rate]) {
        self.figure(name, "/s", Summary::of(rates.iter().map(|rate| rate.per_second)));
        self.figure(
            format!("{name}: server CPU"),
            "µs",
            Summary::of(rates.iter().map(|rate| rate.cpu_us)),
        );
    }

    /// Adds the ratio of bursts to others, compared within each round, by the clock and by CPU time.
    pub fn burst_ratio(&mut self, numerator: (&str, &[Rate]), denominator: (&str, &[Rate])) {
        let label = format!("{} ÷ {}", numerator.0, denominator.0);
        let pairs = || numerator.1.iter().zip(denominator.1);
        let by_clock = Summary::of(pairs().map(|(n, d)| n.per_second / d.per_second));
        self.figure(&label, "×", by_clock);
        let by_cpu = Summary::of(pairs().map(|(n, d)| d.cpu_us / n.cpu_us));
        self.figure(format!("{label}, by server CPU"), "×", by_cpu);
    }
}

impl Figure {
    /// Makes this the figure of a budget row.
    pub fn for_budget(&mut self, key: &str) {
        self.budget = Some(key.into());
    }
}
