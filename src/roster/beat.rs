//! Beats and releases: the hot path.
//!
//! A steady beat takes one shared partition lock, reads its session's line and stores into it; nothing it writes is shared
//! with other sessions.

use super::{
    atomic::{digest_words, uuid_words},
    clock::Now,
    layout::Roster,
    lock::{self, Held, Index},
    lookup::{Key, Owner},
    state::{SessionFlag, SessionState},
    tenant::Tenant,
};
use crate::rules::{
    status::Reason,
    time::{Micros, SteadyTime},
};

/// The roster's answer to a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Counted.
    Counted,
    /// The session is the caller's and has ended.
    Ended,
    /// The roster does not know it, or it is not the caller's: the table has to be read.
    Missing,
}

/// A session as a beat finds it.
pub(super) enum Found {
    Live(u32),
    TimedOut(u32),
    Ended,
    Missing,
}

impl Tenant {
    /// Finds a session and returns it with its id partition share-locked, so that its state cannot change.
    #[inline(always)]
    pub(super) fn find(&self, key: &Key, owner: &Owner, now: &Now) -> (Found, Held) {
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
                        let bucket = roster.id_bucket(self.index(), slot.id.get());
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
        if !owner.owns(slot) || !roster.survives_truncate(slot) {
            return (Found::Missing, held);
        }
        let found = match slot.state.get() {
            SessionState::Live | SessionState::TimedOut if now.wall() >= slot.expires_at.get() => Found::Ended,
            SessionState::Live => Found::Live(at),
            SessionState::TimedOut => Found::TimedOut(at),
            SessionState::Ended if !slot.flags.has(SessionFlag::Deleted) => Found::Ended,
            SessionState::Ended | SessionState::Empty => Found::Missing,
        };
        (found, held)
    }

    /// Counts a heartbeat, if the roster knows the session and `owner` may touch it. `timeout` is evaluated only when a
    /// session resumes, or somebody returns to it.
    #[inline(always)]
    pub fn beat(&self, key: &Key, owner: &Owner, now: &Now, timeout: fn() -> Micros) -> Beat {
        let counters = self.counters();
        let (found, held) = self.find(key, owner, now);
        match found {
            Found::Live(at) if self.roster().touch(at, now.steady) => {
                drop(held);
                counters.count_beat();
                Beat::Counted
            }
            Found::Live(_) | Found::TimedOut(_) => {
                drop(held);
                self.resume(key, owner, true, now, timeout())
            }
            Found::Ended => {
                drop(held);
                counters.count_rejected();
                Beat::Ended
            }
            Found::Missing => Beat::Missing,
        }
    }

    /// As [`Tenant::beat`], of a client that nobody is at: the session stays live, and becomes idle.
    pub fn beat_idle(&self, key: &Key, owner: &Owner, now: &Now, timeout: Micros) -> Beat {
        let (found, held) = self.find(key, owner, now);
        let is_unattended = |at: u32| self.roster().slots[at as usize].flags.has(SessionFlag::Unattended);
        match found {
            Found::Live(at) if is_unattended(at) => {
                self.roster().touch(at, now.steady);
                drop(held);
                self.counters().count_beat();
                Beat::Counted
            }
            Found::Live(_) | Found::TimedOut(_) => {
                drop(held);
                self.resume(key, owner, false, now, timeout)
            }
            Found::Ended => {
                drop(held);
                self.counters().count_rejected();
                Beat::Ended
            }
            Found::Missing => Beat::Missing,
        }
    }

    /// Makes a session live, attended or not. The state may have changed since it was found, so it is looked up again.
    #[cold]
    fn resume(&self, key: &Key, owner: &Owner, attended: bool, now: &Now, timeout: Micros) -> Beat {
        let roster = self.roster();
        let writer = roster.write();
        // Under the writers' lock nothing changes; the partition is released at once, to be taken exclusively.
        let (found, held) = self.find(key, owner, now);
        drop(held);
        let beat = match found {
            Found::Live(at) | Found::TimedOut(at) => {
                if attended {
                    writer.set_attended(at);
                } else {
                    let slot = &roster.slots[at as usize];
                    let bucket = roster.id_bucket(self.index(), slot.id.get());
                    let _held = lock::exclusive(Index::Id, bucket);
                    // Of a bound session, somebody was there until now.
                    writer.set_unattended_locked(at, slot.activity(now.steady));
                }
                roster.touch(at, now.steady);
                writer.set_state(at, SessionState::Live, Reason::Resumed);
                writer.update_idle(at, now);
                roster.schedule_sweep(at, timeout, now);
                Beat::Counted
            }
            Found::Ended => Beat::Ended,
            Found::Missing => Beat::Missing,
        };
        drop(writer);
        match beat {
            Beat::Counted => self.counters().count_beat(),
            Beat::Ended => self.counters().count_rejected(),
            Beat::Missing => {}
        }
        beat
    }
}

impl Roster {
    /// Stores a beat, and returns whether the session is attended: otherwise its last beat was one of an idle client. The
    /// caller holds the session's id partition or the writers' lock. Leaves `seen` alone: the sweep may visit too early and
    /// will re-check the slot.
    #[inline]
    pub(super) fn touch(&self, at: u32, now: SteadyTime) -> bool {
        let slot = &self.slots[at as usize];
        slot.last_activity.raise(now);
        if slot.release_at.some().is_some() {
            slot.release_at.clear();
        }
        // In the steady case one test of one byte.
        if slot.flags.has_any([SessionFlag::Recovered, SessionFlag::Unattended]) {
            if slot.flags.has(SessionFlag::Recovered) {
                slot.flags.assign(SessionFlag::Recovered, false);
            }
            return !slot.flags.has(SessionFlag::Unattended);
        }
        true
    }
}
