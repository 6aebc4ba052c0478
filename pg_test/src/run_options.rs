//! What the long-running programs share: environment variables, reports, stopping.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the soak forms are requested, as by `make test-soak`.
pub fn soak() -> bool {
    std::env::var_os("SOAK").is_some_and(|value| !value.is_empty())
}

/// How often something random is done: `each` in an ordinary run, a fifth of that with QUICK=1, as where several versions
/// of PostgreSQL are tested, and `soak` in the soak forms.
pub fn times(each: u32, soaking: u32) -> u32 {
    let is_quick = std::env::var_os("QUICK").is_some_and(|value| !value.is_empty());
    match (soak(), is_quick) {
        (true, _) => soaking,
        (false, true) => each / 5,
        (false, false) => each,
    }
}

/// The random seed: the value of SEED, or another one in each run.
pub fn seed() -> u64 {
    seed_or(u64::from(std::process::id()))
}

/// The value of SEED, or else `default`.
pub fn seed_or(default: u64) -> u64 {
    std::env::var("SEED").map_or(default, |seed| seed.parse().expect("a number"))
}

/// Prints what a test has measured. Unlike `println!`, also when the test passes.
pub fn report(text: &str) {
    // A closed standard error must not fail a test.
    let _ = writeln!(std::io::stderr(), "    {text}");
}

/// Sets a flag when dropped, on a panic too, for threads that work until they are stopped.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
