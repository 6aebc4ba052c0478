//! Spaces: each install of the extension in each database has the roster to itself.
//!
//! A space is named by the database's OID and the OID of its `user_sessions`, so that a dropped and created again
//! extension, or a database copied from a template, inherits nothing. A process remembers its space; entries are
//! never given to another install while the server runs, unless all of them have been used up.

use std::cell::Cell;

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    attached,
    cell::uuid_words,
    layout::{NONE, Roster, SPACES, SpaceEntry, Tally},
    state::{EMPTY, ENDED},
    write::Writer,
};
use crate::{
    compat,
    core::{status::Reason, time::Micros},
    installed,
    local::Local,
    settings,
};

// A space is 0 until it is first used.
const IN_USE: u32 = 1;
const PURGED: u32 = 2;
/// The grace of a space that was first used on a standby.
const NOT_BEGUN: Micros = Micros::MIN;

/// A handle on one install's part of the roster.
#[derive(Clone, Copy)]
pub struct Space {
    roster: &'static Roster,
    index: u16,
}

/// The space that this process last asked for.
#[derive(Clone, Copy)]
struct Known {
    relation: pg_sys::Oid,
    space: Space,
    /// This process's, which counts for that space.
    tally: &'static Tally,
}

static KNOWN: Local<Cell<Option<Known>>> = Local::new(Cell::new(None));

/// The space of the current database. Errors: 55000 where the library is not preloaded or the extension not there.
#[inline]
pub fn space() -> Space {
    let relation = installed::get().sessions;
    match KNOWN.get() {
        Some(known) if known.relation == relation => known.space,
        _ => find_or_register(relation),
    }
}

/// The space that this process last asked for. Looks nothing up, and so cannot fail.
#[inline]
pub fn known_space() -> Option<Space> {
    KNOWN.get().map(|known| known.space)
}

/// The space of the current database, if there is a roster and the extension is installed.
pub fn try_space() -> Option<Space> {
    Roster::attached()?;
    installed::try_get().map(|_| space())
}

#[cold]
fn find_or_register(relation: pg_sys::Oid) -> Space {
    let roster = attached();
    // SAFETY: a plain global of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    let grace_until = if compat::in_recovery() {
        NOT_BEGUN
    } else {
        compat::now() + settings::recovery_grace()
    };
    let index = roster.register(database.to_u32(), relation.to_u32(), grace_until);
    let Some(index) = index else {
        crate::errors::no_room_for_database();
    };
    Space { roster, index }.remember(relation).space
}

impl Roster {
    fn register(&'static self, database: u32, relation: u32, grace_until: Micros) -> Option<u16> {
        let writer = self.write();
        let ever = self.header.heap.spaces_ever.get() as usize;
        let is_it = |entry: &SpaceEntry| {
            entry.state.get() == IN_USE
                && entry.database.get() == database
                && entry.relation.get() == relation
        };
        let index = match self.spaces[..ever].iter().position(is_it) {
            Some(index) => Some(index),
            None => {
                let index = if ever < SPACES {
                    self.header.heap.spaces_ever.set(ever as u32 + 1);
                    Some(ever)
                } else {
                    self.spaces
                        .iter()
                        .position(|entry| entry.state.get() == PURGED)
                };
                if let Some(index) = index {
                    writer.forget_tallies(index);
                    self.spaces[index].start(database, relation, grace_until);
                }
                index
            }
        };
        writer.done();
        index.map(|index| index as u16)
    }
}

impl SpaceEntry {
    fn start(&self, database: u32, relation: u32, grace_until: Micros) {
        self.database.set(database);
        self.relation.set(relation);
        self.complete.set(0);
        self.floor.set(0);
        self.reaped.set(0);
        self.grace_until.set(grace_until);
        self.overflow.set(0);
        self.reconcile.set(1);
        self.dirty.head.set(NONE);
        self.dirty.tail.set(NONE);
        self.dirty.length.set(0);
        self.worker.pid.set(0);
        self.worker.asleep.set(0);
        self.worker.last_tick.set(0);
        for count in [
            &self.counts.slow_paths,
            &self.counts.overflowed,
            &self.counts.evicted,
            &self.counts.beats,
            &self.counts.rejected,
        ] {
            count.set(0);
        }
        self.state.set(IN_USE);
    }
}

impl Space {
    #[inline]
    pub(super) fn roster(&self) -> &'static Roster {
        self.roster
    }

    #[inline]
    pub fn index(&self) -> usize {
        self.index as usize
    }

    #[inline]
    pub fn entry(&self) -> &'static SpaceEntry {
        &self.roster.spaces[self.index as usize]
    }

    fn remember(self, relation: pg_sys::Oid) -> Known {
        let known = Known {
            relation,
            space: self,
            tally: self.take_tally(),
        };
        KNOWN.set(Some(known));
        known
    }

    /// Where this process counts heartbeats of the space.
    #[inline]
    pub(super) fn tally(&self) -> &'static Tally {
        match KNOWN.get() {
            Some(known) if known.space.index == self.index => known.tally,
            _ => self.remember(self.relation()).tally,
        }
    }

    /// A number for a user that does not tell whose it is, the same until the server restarts.
    pub fn secret_number(&self, user: &Uuid) -> u32 {
        self.roster.user_bucket(self.index(), uuid_words(user)) as u32
    }

    /// Whether the roster knows every live session of this database, so that it can answer alone.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.entry().complete.get() != 0
    }

    /// Until when sessions loaded at the start count as live even if silent. A standby gives no grace: its own begins
    /// with the first question after the promotion.
    pub fn grace_until(&self) -> Micros {
        let until = &self.entry().grace_until;
        if until.get() == NOT_BEGUN && !compat::in_recovery() {
            until.raise(compat::now() + settings::recovery_grace());
        }
        until.get()
    }

    /// Whether some sessions are in the table only, as the roster has been full.
    pub fn in_overflow(&self) -> bool {
        self.entry().overflow.get() != 0
    }

    /// The roster could not take a session: from now on it cannot answer alone.
    pub fn set_overflow(&self) {
        let writer = self.roster.write();
        self.overflow_under(&writer);
        writer.done();
    }

    pub(super) fn overflow_under(&self, writer: &Writer) {
        let entry = self.entry();
        entry.overflow.set(1);
        entry.complete.set(0);
        entry.reconcile.set(1);
        writer.has_news(self.index());
    }

    /// Begins a load of the table: gives the stamp its rows are filed under. To be called once the table is locked,
    /// and before the snapshot is taken; to be followed by [`Space::end_load`].
    pub fn begin_load(&self) -> u64 {
        self.grace_until();
        let writer = self.roster.write();
        self.entry().overflow.set(0);
        drop(writer);
        // Published as under way, so that nobody evicts the mark of an end that the load's snapshot does not see.
        self.roster.take_stamp_for_load()
    }

    /// Ends a load. If it was whole, and the roster has not been full since it began, the roster is complete: it
    /// knows every live session. Gives whether it is.
    pub fn end_load(&self, whole: bool) -> bool {
        self.roster.stamps_told();
        let writer = self.roster.write();
        let entry = self.entry();
        let complete = whole && entry.overflow.get() == 0;
        if complete {
            entry.complete.set(1);
        } else {
            entry.overflow.set(1);
        }
        drop(writer);
        complete
    }

    /// Whether the table has not been loaded yet, or the roster has been full since.
    pub fn needs_load(&self) -> bool {
        !self.is_complete()
    }

    /// Whether the tables have to be compared with the roster; asking clears the wish.
    pub fn take_reconcile(&self) -> bool {
        self.entry().reconcile.swap(0) != 0
    }

    /// The process of this database's worker, 0 if there is none.
    pub fn worker_pid(&self) -> u32 {
        self.entry().worker.pid.get()
    }

    /// Whether the worker has looked within the last second, so that the kept counts are right.
    pub fn worker_on_time(&self, now: Micros) -> bool {
        let worker = &self.entry().worker;
        worker.pid.get() != 0 && now - worker.last_tick.get() < 1_000_000
    }

    /// The relation OID of `user_sessions` that names the space.
    pub fn relation(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.entry().relation.get())
    }

    /// The database that the space is for.
    pub fn database(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.entry().database.get())
    }
}

/// All spaces in use, for launcher and workers to find those whose database or table has gone.
pub fn spaces() -> Vec<Space> {
    let Some(roster) = Roster::attached() else {
        return Vec::new();
    };
    let ever = roster.header.heap.spaces_ever.get().min(SPACES as u32) as u16;
    (0..ever)
        .map(|index| Space { roster, index })
        .filter(|space| space.entry().state.get() == IN_USE)
        .collect()
}

/// Frees what a dropped install left in the roster. True when nothing is left of it; false when transactions still
/// hold some of it, so that it has to be asked again.
pub fn purge(space: Space) -> bool {
    const BATCH: u32 = 512;
    let roster = space.roster;
    let oldest = roster.oldest_inflight();
    let mut left = 0;
    let mut from = 0;
    loop {
        let writer = roster.write();
        let ever = roster.header.heap.slots_ever.get();
        let to = ever.min(from + BATCH);
        for at in from..to {
            let slot = &roster.slots[at as usize];
            if slot.space.get() as usize != space.index() || slot.user.get() == NONE {
                continue;
            }
            if !writer.in_use(at) {
                continue;
            }
            if slot.state.get() != EMPTY {
                writer.set_state(at, ENDED, Reason::Deleted);
                slot.flags.set(0);
            }
            if slot.pins.get() == 0 && writer.may_free(slot, oldest) {
                writer.free_session(at);
            } else {
                left += 1;
            }
        }
        while writer.take_one_dirty(space.index(), 0, 0).is_some() {}
        drop(writer);
        from = to;
        if from == ever {
            break;
        }
    }
    if left == 0 {
        let writer = roster.write();
        space.entry().state.set(PURGED);
        drop(writer);
    }
    left == 0
}
