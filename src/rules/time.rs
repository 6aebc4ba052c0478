//! Time in PostgreSQL's representation: microseconds since 2000-01-01 UTC.

use chrono::{DateTime, SecondsFormat};

/// A point in time (microseconds since 2000-01-01 UTC, PostgreSQL's `TimestampTz`) or a duration (microseconds).
pub type Micros = i64;

pub const USECS_PER_MSEC: Micros = 1_000;
pub const USECS_PER_SEC: Micros = 1_000_000;
pub const USECS_PER_MINUTE: Micros = 60 * USECS_PER_SEC;

/// A point in time on a clock that never steps; see [`crate::pg::clock`]. What is silent is silent by this clock, whatever
/// the time of day does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SteadyTime(Micros);

impl SteadyTime {
    /// Before everything that has happened.
    pub const PAST: SteadyTime = SteadyTime(Micros::MIN);
    /// After everything that will happen.
    pub const FUTURE: SteadyTime = SteadyTime(Micros::MAX);

    /// The time that is `micros` after the clock's zero.
    #[inline]
    pub const fn from_micros(micros: Micros) -> SteadyTime {
        SteadyTime(micros)
    }

    /// Microseconds since the clock's zero.
    #[inline]
    pub const fn micros(self) -> Micros {
        self.0
    }

    /// `duration` later; the distant past and future stay what they are.
    #[inline]
    pub const fn plus(self, duration: Micros) -> SteadyTime {
        match self.0 {
            Micros::MIN | Micros::MAX => self,
            at => SteadyTime(at.saturating_add(duration)),
        }
    }

    /// `duration` earlier.
    #[inline]
    pub const fn minus(self, duration: Micros) -> SteadyTime {
        self.plus(duration.saturating_neg())
    }

    /// The time from `earlier` to this.
    #[inline]
    pub const fn since(self, earlier: SteadyTime) -> Micros {
        self.0.saturating_sub(earlier.0)
    }
}

/// 2000-01-01 UTC in Unix time.
const EPOCH: Micros = 946_684_800 * USECS_PER_SEC;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z in Unix time, the bounds of RFC 3339.
const FIRST: Micros = -62_135_596_800 * USECS_PER_SEC;
const LAST: Micros = 253_402_300_800 * USECS_PER_SEC - 1;

/// Formats a point in time as RFC 3339, in UTC with microseconds: `2026-11-23T15:00:00.123456Z`.
///
/// RFC 3339 has no infinity, and only the years 1 to 9999: any other time is clamped to these bounds.
pub fn rfc3339(at: Micros) -> String {
    DateTime::from_timestamp_micros(at.saturating_add(EPOCH).clamp(FIRST, LAST))
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_rfc3339_with_microseconds_in_utc() {
        assert_eq!(rfc3339(0), "2000-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(848_761_200_123_456), "2026-11-23T15:00:00.123456Z");
        assert_eq!(rfc3339(-1), "1999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn infinities_are_clamped_to_the_bounds_of_rfc3339() {
        assert_eq!(rfc3339(i64::MIN), "0001-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn the_distant_past_and_future_do_not_move() {
        assert_eq!(SteadyTime::PAST.plus(1), SteadyTime::PAST);
        assert_eq!(SteadyTime::FUTURE.minus(1), SteadyTime::FUTURE);
        assert_eq!(SteadyTime::from_micros(5).minus(7).plus(3).micros(), 1);
        assert!(SteadyTime::PAST < SteadyTime::from_micros(0) && SteadyTime::from_micros(0) < SteadyTime::FUTURE);
    }

    proptest! {
        #[test]
        fn every_time_has_the_same_length_and_parses_back(at in any::<i64>()) {
            let text = rfc3339(at);
            prop_assert_eq!(text.len(), 27);
            let back = DateTime::parse_from_rfc3339(&text).unwrap().timestamp_micros();
            prop_assert_eq!(back, at.saturating_add(EPOCH).clamp(FIRST, LAST));
        }
    }
}
