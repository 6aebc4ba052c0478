//! Calls at a steady rate.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Calls `each` at a rate per second, catching up when late, until `goes_on` returns false for the elapsed time.
/// Returns the number of calls.
pub fn pace(per_second: f64, goes_on: impl Fn(Duration) -> bool, mut each: impl FnMut()) -> u64 {
    let began = Instant::now();
    let mut calls = 0u32;
    loop {
        let due = Duration::from_secs_f64(f64::from(calls) / per_second);
        let now = loop {
            let now = began.elapsed();
            let early = due.saturating_sub(now);
            // A sleep overshoots by about this much, so do not sleep for less.
            if early < Duration::from_micros(100) || !goes_on(now) {
                break now;
            }
            sleep(early.min(Duration::from_millis(20)));
        };
        if !goes_on(now) {
            return calls.into();
        }
        each();
        calls += 1;
    }
}
