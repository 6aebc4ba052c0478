//! What the long suites share.

use std::io::Write;

/// Whether the long forms are asked for: `make test-soak`.
pub fn soak() -> bool {
    std::env::var_os("SOAK").is_some_and(|value| !value.is_empty())
}

/// Prints what a suite has counted. Unlike `println!`, also when the test passes.
pub fn figure(text: &str) {
    // A test is not to fail because nobody reads its figures.
    let _ = writeln!(std::io::stderr(), "    {text}");
}
