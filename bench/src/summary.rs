//! The five-number summary of a measurement.

use serde::{Deserialize, Serialize};

/// Minimum, quartiles and maximum of the values that a figure had in all rounds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Summary {
    pub median: f64,
    /// First and third quartile: half of the values lie between them.
    pub q1: f64,
    pub q3: f64,
    pub min: f64,
    pub max: f64,
    /// How many values there were.
    pub rounds: usize,
}

impl Summary {
    /// Summarizes at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Summary {
        let mut values: Vec<f64> = values.into_iter().collect();
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        Summary {
            median: quantile(&values, 0.5),
            q1: quantile(&values, 0.25),
            q3: quantile(&values, 0.75),
            min: values[0],
            max: values[values.len() - 1],
            rounds: values.len(),
        }
    }

    /// The summary of a value that was measured once.
    pub fn once(value: f64) -> Summary {
        Summary::of([value])
    }

    /// The interquartile range as text; empty for a value that was measured once.
    pub fn quartiles(&self) -> String {
        self.range(self.q1, self.q3)
    }

    /// The whole range as text; empty for a value that was measured once.
    pub fn extremes(&self) -> String {
        self.range(self.min, self.max)
    }

    fn range(&self, low: f64, high: f64) -> String {
        if self.rounds > 1 {
            format!("{} – {}", format_number(low), format_number(high))
        } else {
            String::new()
        }
    }
}

/// Returns a quantile of sorted values, interpolated linearly.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

/// Formats a number with its significant digits.
pub fn format_number(number: f64) -> String {
    match number.abs() {
        size if size >= 10_000.0 => {
            let sign = if number < 0.0 { "-" } else { "" };
            format!("{sign}{}", grouped(&format!("{size:.0}")))
        }
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        0.0 => "0".into(),
        size if size < 0.1 => format!("{number:.4}"),
        _ => format!("{number:.3}"),
    }
}

/// Returns "1 session", "1,000 sessions".
pub fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(&number.to_string()))
}

/// Separates groups of three digits with commas.
fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
