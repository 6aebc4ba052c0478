//! The two clocks: the time of day, which somebody may set, and one that never steps.
//!
//! The steady clock is the machine's, since its start. It goes on while the machine sleeps, where the system has such a
//! clock. All processes of a server read the same.

use std::mem::MaybeUninit;

use super::{compat, fault_point};
use crate::rules::time::{Micros, SteadyTime, USECS_PER_MSEC, USECS_PER_SEC};

/// Reading both clocks takes no longer than this, unless the process is interrupted.
const SHORT: Micros = 2;
/// A reading that took longer says too little.
const TOO_LONG: Micros = USECS_PER_MSEC / 2;
/// Readings of which the shortest counts, unless one is short.
const ATTEMPTS: u32 = 4;

#[cfg(any(target_os = "linux", target_os = "android"))]
const STEADY_CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const STEADY_CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Returns the time of the steady clock.
#[inline]
pub fn steady() -> SteadyTime {
    uptime().plus(fault_point::clock_offset())
}

/// As [`steady`], but real time also where a test lets hours pass: for whether processes are running.
#[inline]
pub fn uptime() -> SteadyTime {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: fills the structure that it is given, which any bits are valid for. The clock exists, so it cannot fail;
    // if it did, time would stand still.
    let time = unsafe {
        libc::clock_gettime(STEADY_CLOCK, time.as_mut_ptr());
        time.assume_init()
    };
    SteadyTime::from_micros(time.tv_sec * USECS_PER_SEC + time.tv_nsec / 1000)
}

/// Returns how far the time of day is ahead of the steady clock; `None` if the process is interrupted again and again while
/// it reads them.
pub fn offset() -> Option<Micros> {
    let mut best = None;
    let mut shortest = TOO_LONG;
    for _ in 0..ATTEMPTS {
        let before = steady();
        let wall = compat::now();
        let took = steady().since(before);
        if (0..shortest).contains(&took) {
            shortest = took;
            best = Some(wall - before.micros() - took / 2);
        }
        if shortest <= SHORT {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_clock_does_not_go_back() {
        let mut last = uptime();
        for _ in 0..10_000 {
            let now = uptime();
            assert!(now >= last);
            last = now;
        }
    }
}
