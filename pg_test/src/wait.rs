//! Waiting for conditions. The deadline is when a test gives up, not how fast anything has to be.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// How long a test waits before it gives up: PATIENCE in seconds, or a minute.
pub fn patience() -> Duration {
    let seconds = std::env::var("PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Returns once `condition` holds; panics with `what` if it does not in [`patience`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Returns once `read` returns `expected`; panics with `what` and what it returns instead if it does not in [`patience`].
pub fn wait_until_equal<T: PartialEq + Debug>(what: &str, expected: &T, mut read: impl FnMut() -> T) {
    let start = Instant::now();
    loop {
        let found = read();
        if found == *expected {
            return;
        }
        assert!(
            start.elapsed() < patience(),
            "timed out waiting: {what} is {found:?} rather than {expected:?}"
        );
        sleep(PAUSE);
    }
}

/// Returns the first value that `attempt` yields; panics with `what` if there is none in [`patience`].
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(start.elapsed() < patience(), "timed out waiting: {what}");
        sleep(PAUSE);
    }
}

/// The longest time between two steps of an attempt. One that stalls for longer than what it is about proves nothing.
pub struct Stalls {
    last: Instant,
    longest: Duration,
}

impl Stalls {
    /// The first step.
    pub fn begin() -> Stalls {
        Stalls {
            last: Instant::now(),
            longest: Duration::ZERO,
        }
    }

    /// The next step.
    pub fn step(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
    }

    /// The time since the last step is no stall.
    pub fn skip(&mut self) {
        self.last = Instant::now();
    }

    /// The last step: returns the longest time between two.
    pub fn end(mut self) -> Duration {
        self.step();
        self.longest
    }
}
