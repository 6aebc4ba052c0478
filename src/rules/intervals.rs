//! Intervals that depend on each other, in microseconds.

use super::time::{Micros, USECS_PER_MINUTE, USECS_PER_SEC};

/// Returns the heartbeat interval for clients: at most 2/5 of the timeout, so that one lost beat has no effect.
pub const fn heartbeat(interval: Micros, timeout: Micros) -> Micros {
    min(interval, timeout / 5 * 2)
}

/// Returns the maximum lag of the table: at most half of (`timeout` - `heartbeat`), so that queries that compare the
/// `last_activity` of the table with the clock are correct too. `heartbeat` is the effective interval.
pub const fn flush(interval: Micros, timeout: Micros, heartbeat: Micros) -> Micros {
    min(interval, (timeout - heartbeat) / 2)
}

/// Returns the length of the grace period after a start, in which sessions from the table count as live whatever their
/// age: every client that is still there beats within it. `heartbeat` and `flush` are the effective intervals.
pub const fn recovery_grace(timeout: Micros, heartbeat: Micros, flush: Micros) -> Micros {
    min(timeout, heartbeat + flush)
}

/// Returns the time between two cleanups: a tenth of the retention, between one second and ten minutes.
pub const fn cleanup_period(retention: Micros) -> Micros {
    max(min(retention / 10, 10 * USECS_PER_MINUTE), USECS_PER_SEC)
}

const fn min(a: Micros, b: Micros) -> Micros {
    if a < b { a } else { b }
}

const fn max(a: Micros, b: Micros) -> Micros {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Micros = 86_400 * USECS_PER_SEC;

    #[test]
    fn the_defaults_are_not_limited() {
        let (timeout, beat, lag) = (5 * USECS_PER_MINUTE, 2 * USECS_PER_MINUTE, 90 * USECS_PER_SEC);
        assert_eq!(heartbeat(beat, timeout), beat);
        assert_eq!(flush(lag, timeout, beat), lag);
        assert_eq!(recovery_grace(timeout, beat, lag), 210 * USECS_PER_SEC);
        assert_eq!(cleanup_period(DAY), 10 * USECS_PER_MINUTE);
    }

    #[test]
    fn cleanup_runs_at_most_every_second_and_at_least_every_ten_minutes() {
        assert_eq!(cleanup_period(USECS_PER_SEC), USECS_PER_SEC);
        assert_eq!(cleanup_period(50 * USECS_PER_SEC), 5 * USECS_PER_SEC);
        assert_eq!(cleanup_period(3650 * DAY), 10 * USECS_PER_MINUTE);
    }

    proptest! {
        #[test]
        fn a_beat_and_its_flush_fit_into_the_timeout(
            interval in USECS_PER_SEC..=DAY,
            lag in USECS_PER_SEC..=3600 * USECS_PER_SEC,
            timeout in USECS_PER_SEC..=DAY,
        ) {
            let beat = heartbeat(interval, timeout);
            let flush = flush(lag, timeout, beat);
            prop_assert!(beat > 0 && beat * 5 <= timeout * 2 && beat <= interval);
            prop_assert!(flush > 0 && flush * 2 <= timeout - beat && flush <= lag);
            prop_assert!(beat + flush < timeout);
            prop_assert_eq!(recovery_grace(timeout, beat, flush), beat + flush);
        }
    }
}
