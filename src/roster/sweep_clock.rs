//! The sweep's clock: units of 100 ms since the roster's origin, in 32 bits (13 years).
//!
//! For each session the roster keeps the time at which the sweep last knew it to be *seen* (rounded up), and the sweep
//! searches for `seen + timeout <= now`. A deadline that is not a plain timeout (a release, an absolute end, a recovery)
//! is stored as the `seen` that yields it. So a new `presence.active_timeout` moves all ordinary deadlines at once.
//!
//! `seen` only says when to check; the check of the session itself is exact to the microsecond. A beat does not write
//! it, which spares it a cache line: the sweep visits once per timeout, finds the newer activity and reschedules itself.

use crate::rules::time::{Micros, SteadyTime};

/// One unit, in microseconds.
pub const UNIT: Micros = 100_000;
/// Nothing to sweep here.
pub const NEVER: u32 = 0;
/// An ended session that waits to be freed.
pub const TOMBSTONE: u32 = u32::MAX;

/// The unit that contains `time`, rounded up, within what can be stored.
#[inline]
pub fn ceil(time: SteadyTime, origin: SteadyTime) -> u32 {
    let units = time.since(origin).saturating_add(UNIT - 1).div_euclid(UNIT);
    units.clamp(1, i64::from(TOMBSTONE) - 1) as u32
}

/// The newest `seen` that is due at `now`.
#[inline]
pub fn due(now: SteadyTime, timeout: Micros, origin: SteadyTime) -> u32 {
    let units = now.since(origin).div_euclid(UNIT) - (timeout + UNIT - 1).div_euclid(UNIT);
    units.clamp(0, i64::from(TOMBSTONE) - 1) as u32
}

/// The `seen` whose deadline is `deadline`.
#[inline]
pub fn seen_for(deadline: SteadyTime, timeout: Micros, origin: SteadyTime) -> u32 {
    ceil(deadline.minus(timeout), origin)
}
