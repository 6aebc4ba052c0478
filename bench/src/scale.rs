//! How much is measured: the whole of it, or QUICK=1.

use std::time::Duration;

/// The same order of turns every time.
pub const SEED: u64 = 20_000_101;

/// Sizes and durations of one run.
#[derive(Clone, Debug)]
pub struct Scale {
    pub quick: bool,
    /// Live sessions in the big table.
    pub sessions: u64,
    pub connections: u64,
    /// One contender's turn.
    pub turn: Duration,
    /// Rounds of a contest that the budget speaks of.
    pub rounds: u64,
    /// Rounds of one that is there to show a shape.
    pub few_rounds: u64,
    /// Rounds of what takes seconds each.
    pub long_rounds: u64,
}

impl Scale {
    /// What the environment asks for.
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

    /// One of two values.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}
