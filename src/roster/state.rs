//! The state of a session in the roster, and when it is live.

use super::layout::{Roster, Slot, SpaceEntry};
use crate::core::time::Micros;

/// Reserved: a transaction or a load is about to say what the session is.
pub const EMPTY: u8 = 0;
/// Live when last looked at.
pub const LIVE: u8 = 1;
/// Silent for too long; a beat resumes it.
pub const TIMED_OUT: u8 = 2;
/// Ended for good: a tombstone.
pub const ENDED: u8 = 3;

/// Loaded at the start of service and not heard of since: live until the grace has passed.
pub const RECOVERED: u8 = 1;
/// The table has `is_active = false`.
pub const TABLE_INACTIVE: u8 = 2;
/// The worker ended the session; the table does not say so yet.
pub const END_UNWRITTEN: u8 = 4;
/// An ended session whose row is gone: to anybody who asks, there is no such session.
pub const DELETED: u8 = 8;

/// A user's flag: waits in the queue of dirty users.
pub const DIRTY: u8 = 1;
/// A user's flag: has a key that its id does not tell.
pub const KEYED: u8 = 2;

/// The instant from which a session is no longer live, if nothing is heard of it.
#[inline]
pub fn deadline(slot: &Slot, space: &SpaceEntry, timeout: Micros) -> Micros {
    let mut end = slot.last_activity.get().saturating_add(timeout);
    if slot.flags.has(RECOVERED) {
        end = end.max(space.grace_until.get());
    }
    let release_at = slot.release_at.get();
    if release_at != 0 {
        end = end.min(release_at);
    }
    end.min(slot.expires_at.get())
}

/// Whether the session is live at `now`: the truth that readers compare with the clock.
#[inline]
pub fn is_live(slot: &Slot, space: &SpaceEntry, timeout: Micros, now: Micros) -> bool {
    slot.state.get() == LIVE
        && super::stamp::survives(slot, space)
        && now < deadline(slot, space, timeout)
}

impl Roster {
    /// The space that a slot belongs to.
    #[inline]
    pub fn space_of(&self, slot: &Slot) -> &'static SpaceEntry {
        &self.spaces[slot.space.get() as usize]
    }
}
