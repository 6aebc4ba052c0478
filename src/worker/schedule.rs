//! When the main loop has something to do.

use std::time::{Duration, Instant};

use super::transaction::RETRY_AFTER;

/// The time between two sweeps of the deadlines, and between two attempts to lock the catalog entry. A change is published at
/// most a second after it is due: a fifth of that leaves room for a slow commit, and a sweep of a million sessions
/// takes a hundredth of this.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(200);
/// Sweeps take at most 1 / `SWEEP_SHARE` of the time, unless that would put them further apart than
/// `MAX_SWEEP_INTERVAL`.
const SWEEP_SHARE: u32 = 20;
const MAX_SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// The time between two rounds of housekeeping.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
/// The least time between two comparisons of all users with the tables while the roster is incomplete.
const COMPARE_INTERVAL: Duration = Duration::from_secs(1);
/// These comparisons take at most 1 / `COMPARE_SHARE` of the time.
const COMPARE_SHARE: u32 = 3;
/// While changes are pending, background work gets 1 / (1 + `BACKGROUND_SHARE`) of the time.
const BACKGROUND_SHARE: u32 = 7;
/// The least time until the next load while the roster is full, or after an error.
const RELOAD_AFTER: Duration = Duration::from_secs(5);
/// These loads take at most 1 / (1 + `RELOAD_SHARE`) of the time.
const RELOAD_SHARE: u32 = 3;
/// The longest time that changes wait to be written, even if `presence.notify_interval` is longer.
pub const MAX_WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// When each part of the main loop is due.
pub struct Schedule {
    pub sweep: Instant,
    /// The next check whether somebody is about to drop, rename or copy the database.
    pub yield_check: Instant,
    pub housekeeping: Instant,
    /// Changes are not written before this.
    pub write: Instant,
    /// While changes are pending, background work is not continued before this.
    pub background: Instant,
    /// `None` while the roster is complete.
    pub load: Option<Instant>,
    /// `None` while there is no reason to compare all users with the tables.
    pub compare: Option<Instant>,
    /// Not before this are they compared because somebody has asked for it.
    next_compare: Instant,
}

impl Schedule {
    /// Everything is due now, the load only if it is needed.
    pub fn new(now: Instant, needs_load: bool) -> Schedule {
        Schedule {
            sweep: now,
            yield_check: now,
            housekeeping: now,
            write: now,
            background: now,
            load: needs_load.then_some(now),
            compare: Some(now),
            next_compare: now,
        }
    }

    /// Returns the next of these times, apart from those that matter only while changes are pending.
    pub fn next(&self) -> Instant {
        let optional = [self.load, self.compare];
        optional
            .into_iter()
            .flatten()
            .fold(self.sweep.min(self.yield_check).min(self.housekeeping), Instant::min)
    }

    /// To be called at the end of a sweep.
    pub fn after_sweep(&mut self, start: Instant) {
        let took = start.elapsed();
        let interval = SWEEP_INTERVAL.max(took * SWEEP_SHARE).min(MAX_SWEEP_INTERVAL);
        self.sweep = start + interval.max(took * 2);
    }

    /// To be called at a check for a reason to yield.
    pub fn before_yield_check(&mut self, now: Instant) {
        self.yield_check = now + SWEEP_INTERVAL;
    }

    /// To be called at the start of housekeeping.
    pub fn before_housekeeping(&mut self, now: Instant) {
        self.housekeeping = now + HOUSEKEEPING_INTERVAL;
    }

    /// To be called at the end of a step of background work.
    pub fn after_background(&mut self, start: Instant) {
        self.background = Instant::now() + start.elapsed() * BACKGROUND_SHARE;
    }

    /// To be called after a batch of changes was written.
    pub fn after_write(&mut self, start: Instant, notify_interval: Duration) {
        self.write = start + notify_interval.min(MAX_WRITE_INTERVAL);
    }

    /// Tries to write again after a lock conflict.
    pub fn retry_write(&mut self) {
        self.write = Instant::now() + RETRY_AFTER;
    }

    /// To be called after a load that made the roster complete: all users have to be compared with it.
    pub fn after_complete_load(&mut self) {
        self.load = None;
        self.compare = Some(Instant::now());
    }

    /// Loads again after a load that began at `start` has not made the roster complete.
    pub fn load_later(&mut self, start: Instant) {
        self.load = Some(Instant::now() + RELOAD_AFTER.max(start.elapsed() * RELOAD_SHARE));
    }

    /// Compares as soon as it can be afforded, however often that is asked for.
    pub fn compare_soon(&mut self, now: Instant) {
        self.compare = Some(now.max(self.next_compare));
    }

    /// Compares again after an error, and not earlier, whoever asks for it.
    pub fn compare_later(&mut self) {
        self.next_compare = Instant::now() + RELOAD_AFTER;
        self.compare = Some(self.next_compare);
    }

    /// Tries to load again after a lock conflict.
    pub fn retry_load(&mut self) {
        self.load = Some(Instant::now() + RETRY_AFTER);
    }

    /// To be called after all users were compared. While the roster is incomplete, they are compared again and again,
    /// and a load is due.
    pub fn after_compare(&mut self, start: Instant, is_complete: bool) {
        let pause = start.elapsed() * COMPARE_SHARE;
        self.next_compare = start + pause;
        self.compare = (!is_complete).then(|| start + COMPARE_INTERVAL.max(pause));
        if !is_complete && self.load.is_none() {
            self.load_later(start);
        }
    }

    /// Tries to compare again after a lock conflict.
    pub fn retry_compare(&mut self, start: Instant) {
        self.compare = Some(start + RETRY_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_that_somebody_asks_for_all_the_time_leave_time_for_the_rest() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, false);
        // It took at least a second.
        let second = Duration::from_secs(1);
        let began = start.checked_sub(second).expect("a machine that is up for a second");
        schedule.after_compare(began, true);
        assert_eq!(schedule.compare, None);
        schedule.compare_soon(start);
        assert!(schedule.compare >= Some(began + second * COMPARE_SHARE));
        // Longer than the comparison can have taken.
        let later = began + second * 100_000;
        schedule.compare_soon(later);
        assert_eq!(schedule.compare, Some(later));
    }

    #[test]
    fn a_comparison_that_has_failed_is_not_tried_again_at_once_whoever_asks_for_it() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, false);
        schedule.compare_later();
        schedule.compare_soon(start);
        assert!(schedule.compare >= Some(start + RELOAD_AFTER));
    }
}
