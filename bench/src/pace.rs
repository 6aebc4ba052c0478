//! Calls at a steady rate.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Calls `each` so many times a second while `goes_on` says so of the time that has passed; who is late makes up for it.
/// Returns how often it did.
pub fn pace(per_second: f64, goes_on: impl Fn(Duration) -> bool, mut each: impl FnMut()) -> u64 {
    let began = Instant::now();
    let mut did = 0u32;
    loop {
        let due = Duration::from_secs_f64(f64::from(did) / per_second);
        let now = loop {
            let now = began.elapsed();
            let early = due.saturating_sub(now);
            // Sleeping takes its own time: what is due sooner is done now.
            if early < Duration::from_micros(100) || !goes_on(now) {
                break now;
            }
            sleep(early.min(Duration::from_millis(20)));
        };
        if !goes_on(now) {
            return did.into();
        }
        each();
        did += 1;
    }
}
