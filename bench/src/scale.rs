//! How much a run measures: everything, or less with `QUICK=1`.

use std::time::Duration;

/// Sizes and durations of one run.
#[derive(Clone, Debug)]
pub struct Scale {
    pub quick: bool,
    /// Live sessions on the large server.
    pub sessions: u64,
    pub connections: u64,
    /// Length of one turn of one variant.
    pub turn: Duration,
    /// Rounds where a figure has a budget.
    pub rounds: u64,
    /// Rounds where the shape matters more than the number.
    pub few_rounds: u64,
    /// Rounds of what takes seconds each.
    pub long_rounds: u64,
}

impl Scale {
    /// Returns the scale that `QUICK` in the environment chooses.
    pub fn from_environment() -> Scale {
        if std::env::var("QUICK").is_ok_and(|value| !value.is_empty() && value != "0") {
            Scale {
                quick: true,
                sessions: 50_000,
                connections: 4,
                turn: Duration::from_millis(100),
                rounds: 7,
                few_rounds: 5,
                long_rounds: 1,
            }
        } else {
            Scale {
                quick: false,
                sessions: 1_000_000,
                connections: 4,
                turn: Duration::from_millis(150),
                rounds: 120,
                few_rounds: 15,
                long_rounds: 3,
            }
        }
    }

    /// Returns the value for a quick or for a full run.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}
