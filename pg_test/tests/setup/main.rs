//! Set-up: it installs only what is missing, leaves the user's PostgreSQL as it is, and finds what cannot work first.

mod extension;
mod machine;
mod packages;
mod targets;
mod unsuitable;

use machine::{Done, Machine};

/// Returns the number of the first line of the output that contains a text.
#[track_caller]
fn line_of(done: &Done, text: &str) -> usize {
    let line = done.output.lines().position(|line| line.contains(text));
    line.unwrap_or_else(|| panic!("{text} in: {}", done.output))
}
