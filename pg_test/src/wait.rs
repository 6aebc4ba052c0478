//! Waiting for conditions. The deadline says when a test gives up, not how fast
//! anything has to be.

use std::thread::sleep;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// How long a test waits before it gives up: a minute, or as many seconds as PATIENCE says.
pub fn patience() -> Duration {
    let seconds = std::env::var("PATIENCE")
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Returns once `condition` holds; panics with `what` when it does not within a minute.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Returns what `attempt` finds; panics with `what` when that is nothing for a minute.
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(start.elapsed() < patience(), "waited in vain: {what}");
        sleep(PAUSE);
    }
}
