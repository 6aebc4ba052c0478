//! Time in the roster: what is silent is measured on the steady clock, what the tables have is the time of day.
//!
//! How far the time of day is ahead of the steady clock is kept in shared memory, so that all processes convert the same
//! way and a time reads back as it was written. It changes only where somebody sets the clock; worker, launcher, whoever
//! writes and whoever reads the tables find that out. Everybody else takes the offset as it is: an expiry, which goes by the time of day,
//! is right again once one of them has run.

use super::{layout::Roster, tenant::Tenant};
use crate::{
    pg::clock,
    rules::time::{Micros, SteadyTime, USECS_PER_MSEC, USECS_PER_SEC},
};

/// The time of day may be ahead of what it is taken for by this, or behind, before the clock counts as set.
const TOLERANCE: Micros = 5 * USECS_PER_MSEC;
/// Where the clock is set by less, in microseconds, the activity in the tables is close enough.
pub const SMALL_STEP: u64 = USECS_PER_SEC as u64;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub steady: SteadyTime,
    /// How far the time of day is ahead of the steady clock.
    offset: Micros,
}

impl Now {
    /// The time of day.
    #[inline]
    pub fn wall(&self) -> Micros {
        self.steady.micros().saturating_add(self.offset)
    }

    /// The time of day of a time on the steady clock.
    pub fn to_wall(self, time: SteadyTime) -> Micros {
        time.plus(self.offset).micros()
    }

    /// The steady clock's time at a time of day, which may lie ahead.
    #[inline]
    pub fn to_steady(self, wall: Micros) -> SteadyTime {
        SteadyTime::from_micros(wall).minus(self.offset)
    }

    /// The steady clock's time of an activity: one that is found in the future is now.
    pub fn activity(&self, wall: Micros) -> SteadyTime {
        match self.is_future(wall) {
            true => self.steady,
            false => self.to_steady(wall),
        }
    }

    /// Whether a time of day lies in the future.
    pub fn is_future(&self, wall: Micros) -> bool {
        wall > self.wall().saturating_add(TOLERANCE)
    }
}

impl Tenant {
    /// Now, as [`Roster::now`].
    #[inline]
    pub fn now(&self) -> Now {
        self.roster().now()
    }

    /// Now, as [`Roster::synchronize_clock`].
    pub fn synchronize_clock(&self) -> Now {
        self.roster().synchronize_clock()
    }

    /// By how much the clock was set since the server started, forward and back, in microseconds.
    pub fn clock_moved(&self) -> u64 {
        self.roster().header.clock_moved.get()
    }
}

impl Roster {
    /// Now, as far as it is known how the time of day is set.
    #[inline]
    pub fn now(&self) -> Now {
        Now {
            steady: clock::steady(),
            offset: self.header.clock_offset.get(),
        }
    }

    /// Finds out whether the time of day was set, and returns now. Takes no lock and cannot fail.
    pub fn synchronize_clock(&self) -> Now {
        let known = self.header.clock_offset.get();
        if let Some(offset) = clock::offset()
            && offset.abs_diff(known) > TOLERANCE.unsigned_abs()
        {
            let now = clock::steady().micros();
            // First what makes the times in the tables ambiguous. Whoever replaces the offset decides for all.
            self.header.ambiguous_until.raise(now.saturating_add(offset.max(known)));
            if self.header.clock_offset.replace(known, offset) {
                self.header.clock_moved.add(offset.abs_diff(known));
                if offset > known && offset.abs_diff(known) > SMALL_STEP {
                    self.start_grace_of_incomplete(clock::steady());
                }
            }
        }
        self.now()
    }

    /// Sessions that only the table has seem silent for the size of a step forward.
    fn start_grace_of_incomplete(&self, now: SteadyTime) {
        let ever = self.header.free_lists.tenants_ever.get() as usize;
        let tenants = self.tenants.iter().take(ever);
        tenants
            .filter(|tenant| tenant.is_in_use() && tenant.complete.get() == 0)
            .for_each(|tenant| tenant.start_grace(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now {
        steady: SteadyTime::from_micros(1000),
        offset: 500,
    };

    #[test]
    fn a_time_reads_back_as_it_was_written() {
        let time = SteadyTime::from_micros(7);
        assert_eq!(NOW.to_steady(NOW.to_wall(time)), time);
        assert_eq!(NOW.wall(), 1500);
    }

    #[test]
    fn an_activity_in_the_future_is_now() {
        assert_eq!(NOW.activity(1499).micros(), 999);
        let future = 1501 + TOLERANCE;
        assert_eq!(NOW.activity(future), NOW.steady);
        assert_eq!(NOW.activity(Micros::MAX), NOW.steady);
        assert!(NOW.is_future(future) && !NOW.is_future(future - 1));
    }

    #[test]
    fn infinities_stay_what_they_are() {
        assert_eq!(NOW.to_steady(Micros::MAX), SteadyTime::FUTURE);
        assert_eq!(NOW.activity(Micros::MIN), SteadyTime::PAST);
        assert_eq!(NOW.to_wall(SteadyTime::PAST), Micros::MIN);
    }
}
