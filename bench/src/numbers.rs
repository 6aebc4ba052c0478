//! What is left of many measurements.

use serde::{Deserialize, Serialize};

/// The middle of some numbers, and how far they lie apart.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Spread {
    pub median: f64,
    /// The quartiles: half of the numbers lie between them.
    pub lower: f64,
    pub upper: f64,
    pub lowest: f64,
    pub highest: f64,
    /// How many numbers there were.
    pub rounds: usize,
}

impl Spread {
    /// Of at least one number.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Spread {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        assert!(!numbers.is_empty(), "nothing was measured");
        numbers.sort_by(f64::total_cmp);
        Spread {
            median: quantile(&numbers, 0.5),
            lower: quantile(&numbers, 0.25),
            upper: quantile(&numbers, 0.75),
            lowest: numbers[0],
            highest: numbers[numbers.len() - 1],
            rounds: numbers.len(),
        }
    }

    /// Of a number that was measured once.
    pub fn once(number: f64) -> Spread {
        Spread::of([number])
    }
}

/// The number below which a share of sorted numbers lies, between two of them in proportion.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

/// A number in as many digits as say something.
pub fn short(number: f64) -> String {
    match number.abs() {
        size if size >= 10_000.0 => {
            let digits = format!("{:.0}", number.abs());
            let mut text = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place) % 3 == 0 {
                    text.push(',');
                }
                text.push(digit);
            }
            if number < 0.0 {
                format!("-{text}")
            } else {
                text
            }
        }
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        0.0 => "0".into(),
        size if size < 0.1 => format!("{number:.4}"),
        _ => format!("{number:.3}"),
    }
}
