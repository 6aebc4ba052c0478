//! Beats and releases: the hot path.
//!
//! A steady beat takes one shared partition lock, reads its session's line and stores into it; nothing it writes is
//! shared with other sessions.

use super::{
    Key, Owner, Space,
    cell::{digest_words, uuid_words},
    layout::{Roster, Slot},
    lock::{self, Held, Index},
    state::{DELETED, ENDED, LIVE, RECOVERED, TIMED_OUT},
};
use crate::core::{status::Reason, time::Micros};

/// What the roster says to a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Counted.
    Counted,
    /// The session is the caller's and has ended.
    Ended,
    /// The roster does not know it, or it is not the caller's: the table has to be asked.
    Missing,
}

/// What a shared look at a session found.
enum Found {
    Live(u32),
    TimedOut(u32),
    Ended,
    Missing,
}

impl Owner {
    #[inline]
    fn owns(&self, slot: &Slot) -> bool {
        match self {
            Owner::Any => true,
            Owner::Auth(id) => slot.auth_id.words() == uuid_words(id),
            Owner::Nobody => false,
        }
    }
}

impl Space {
    /// Looks a session up, and gives the slot's id partition, shared, so that its state stays.
    #[inline(always)]
    fn look(&self, key: &Key, owner: &Owner, now: Micros) -> (Found, Held) {
        let roster = self.roster();
        let (at, held) = match key {
            Key::Id(id) => {
                let words = uuid_words(id);
                let bucket = roster.id_bucket(self.index(), words);
                let held = lock::shared(Index::Id, bucket);
                (roster.find_id(self.index(), bucket, words), held)
            }
            Key::Digest(digest) => {
                let bucket = roster.digest_bucket(self.index(), digest_words(digest.as_bytes()));
                let outer = lock::shared(Index::Digest, bucket);
                let at = roster.find_digest(self.index(), bucket, digest);
                match at {
                    // Found under the digest's lock, the slot stays in use while its id's lock is taken.
                    Some(at) => {
                        let slot = &roster.slots[at as usize];
                        let bucket = roster.id_bucket(self.index(), slot.id.words());
                        (Some(at), lock::shared(Index::Id, bucket))
                    }
                    None => (None, outer),
                }
            }
        };
        let Some(at) = at else {
            return (Found::Missing, held);
        };
        let slot = &roster.slots[at as usize];
        if !owner.owns(slot) || !roster.stands(slot) {
            return (Found::Missing, held);
        }
        let found = match slot.state.get() {
            LIVE | TIMED_OUT if now >= slot.expires_at.get() => Found::Ended,
            LIVE => Found::Live(at),
            TIMED_OUT => Found::TimedOut(at),
            ENDED if !slot.flags.has(DELETED) => Found::Ended,
            _ => Found::Missing,
        };
        (found, held)
    }

    /// Counts a heartbeat, if the roster knows the session and `owner` may. `timeout` is the silence that is too long;
    /// it is asked only where somebody comes back.
    #[inline(always)]
    pub fn beat(&self, key: &Key, owner: &Owner, now: Micros, timeout: fn() -> Micros) -> Beat {
        let roster = self.roster();
        let tally = self.tally();
        let (found, held) = self.look(key, owner, now);
        match found {
            Found::Live(at) => {
                roster.touch(at, now);
                drop(held);
                tally.count_beat();
                Beat::Counted
            }
            Found::TimedOut(_) => {
                drop(held);
                self.resume(key, owner, now, timeout())
            }
            Found::Ended => {
                drop(held);
                tally.count_rejected();
                Beat::Ended
            }
            Found::Missing => Beat::Missing,
        }
    }

    /// Brings a timed out session back. The state may have changed since it was found: it is looked up again.
    #[cold]
    fn resume(&self, key: &Key, owner: &Owner, now: Micros, timeout: Micros) -> Beat {
        let roster = self.roster();
        let writer = roster.write();
        // Under the writers' lock nothing changes; the partition is released at once, to be taken exclusively.
        let (found, held) = self.look(key, owner, now);
        drop(held);
        let beat = match found {
            Found::Live(at) | Found::TimedOut(at) => {
                roster.touch(at, now);
                writer.set_state(at, LIVE, Reason::Resumed);
                let slot = &roster.slots[at as usize];
                let deadline = super::state::deadline(slot, self.entry(), timeout);
                roster.expect(at, deadline, timeout);
                Beat::Counted
            }
            Found::Ended => Beat::Ended,
            Found::Missing => Beat::Missing,
        };
        writer.done();
        match beat {
            Beat::Counted => self.tally().count_beat(),
            Beat::Ended => self.tally().count_rejected(),
            Beat::Missing => {}
        }
        beat
    }

    /// Lets a live session time out after `grace`, unless it beats first.
    pub fn release(
        &self,
        key: &Key,
        owner: &Owner,
        grace: Micros,
        now: Micros,
        timeout: Micros,
    ) -> Beat {
        let roster = self.roster();
        // A release and a beat of the same session exclude each other: the one writes what the other clears.
        let writer = roster.write();
        let (found, held) = self.look(key, owner, now);
        drop(held);
        let release = match found {
            Found::Live(at) => {
                let slot = &roster.slots[at as usize];
                let bucket = roster.id_bucket(self.index(), slot.id.words());
                let _held = lock::exclusive(Index::Id, bucket);
                let until = now.saturating_add(grace);
                let before = slot.release_at.get();
                slot.release_at.set(if before == 0 {
                    until
                } else {
                    until.min(before)
                });
                let deadline = super::state::deadline(slot, self.entry(), timeout);
                roster.expect(at, deadline, timeout);
                Beat::Counted
            }
            // Silent already: there is nothing to shorten.
            Found::TimedOut(_) => Beat::Counted,
            Found::Ended => Beat::Ended,
            Found::Missing => Beat::Missing,
        };
        writer.done();
        release
    }
}

impl Roster {
    /// Stores a beat. The caller holds the session's id partition or the writers' lock. What the sweep looks at stays as
    /// it is: it comes too early then, and finds that out.
    #[inline]
    fn touch(&self, at: u32, now: Micros) {
        let slot = &self.slots[at as usize];
        slot.last_activity.raise(now);
        if slot.release_at.get() != 0 {
            slot.release_at.set(0);
        }
        if slot.flags.has(RECOVERED) {
            slot.flags.assign(RECOVERED, false);
        }
    }
}
