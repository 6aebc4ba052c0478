//! What the long suites share.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the long forms are asked for: `make test-soak`.
pub fn soak() -> bool {
    std::env::var_os("SOAK").is_some_and(|value| !value.is_empty())
}

/// What chance begins with: another number each time, or the one that SEED says.
pub fn seed() -> u64 {
    std::env::var("SEED").map_or_else(
        |_| u64::from(std::process::id()),
        |seed| seed.parse().expect("a number"),
    )
}

/// Prints what a suite has counted. Unlike `println!`, also when the test passes.
pub fn figure(text: &str) {
    // A test is not to fail because nobody reads its figures.
    let _ = writeln!(std::io::stderr(), "    {text}");
}

/// Sets a flag when it goes, also by a panic: for threads that work until they are told to stop.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
