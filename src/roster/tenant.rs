//! Tenants: each install of the extension in each database has a part of the roster to itself.
//!
//! A tenant is identified by the OIDs of the database and of its `user_sessions`, so that an extension that was dropped
//! and created again, or a database copied from a template, inherits nothing. A process remembers its tenant; an entry is
//! never reused for another install while the server runs, unless all of them have been used up.

use std::cell::Cell;

use pgrx::pg_sys;
use uuid::Uuid;

use super::{
    atomic::uuid_words,
    layout::{BackendCounters, MAX_TENANTS, NONE, Roster, TenantEntry},
    writer::Writer,
};
use crate::{
    pg::{clock, compat, process_local::ProcessLocal},
    rules::time::SteadyTime,
    settings,
};

// An entry is 0 until it is first used.
const IN_USE: u32 = 1;
const PURGED: u32 = 2;
/// The grace period of a tenant that was first used on a standby.
pub(super) const NOT_BEGUN: SteadyTime = SteadyTime::PAST;

/// A handle on one install's part of the roster.
#[derive(Clone, Copy)]
pub struct Tenant {
    roster: &'static Roster,
    index: u16,
}

/// The tenant that this process used last.
#[derive(Clone, Copy)]
struct LastUsed {
    relation: pg_sys::Oid,
    tenant: Tenant,
    /// This process's counters, which count for that tenant.
    counters: &'static BackendCounters,
}

static LAST_USED: ProcessLocal<Cell<Option<LastUsed>>> = ProcessLocal::new(Cell::new(None));

/// The tenant that this process used last. Reads no catalog, and so cannot fail.
#[inline]
pub fn known_tenant() -> Option<Tenant> {
    LAST_USED.get().map(|last| last.tenant)
}

/// All tenants, for launcher and workers to find those whose database or table is gone.
pub fn tenants() -> impl Iterator<Item = Tenant> {
    Roster::attached().into_iter().flat_map(|roster| {
        let ever = roster.header.free_lists.tenants_ever.get().min(MAX_TENANTS as u32) as u16;
        (0..ever)
            .map(move |index| Tenant { roster, index })
            .filter(|tenant| tenant.entry().state.get() == IN_USE)
    })
}

impl TenantEntry {
    /// Whether an install uses the entry.
    pub fn is_in_use(&self) -> bool {
        self.state.get() == IN_USE
    }

    /// Whether the entry may be another install's.
    pub fn is_purged(&self) -> bool {
        self.state.get() == PURGED
    }

    /// Begins an install's use of the entry. The caller holds the writers' lock.
    pub fn start(&self, database: u32, relation: u32, grace_until: SteadyTime) {
        self.database.set(database);
        self.relation.set(relation);
        self.complete.set(0);
        self.nothing_declared.set(0);
        self.nothing_hidden.set(0);
        self.floor.set(0);
        self.reaped.set(0);
        self.grace_until.set(grace_until);
        self.overflow.set(0);
        self.compare.set(1);
        self.dirty.head.set(NONE);
        self.dirty.tail.set(NONE);
        self.dirty.length.set(0);
        self.dirty.absent.set(0);
        self.dirty.since.clear();
        self.worker.pid.set(0);
        self.worker.asleep.set(0);
        self.stood_from.set(SteadyTime::FUTURE);
        self.stood_until.set(SteadyTime::PAST);
        self.worker.last_tick.clear();
        self.worker.alive_at.clear();
        self.worker.noted_for.clear();
        self.worker.set_aside.set(0);
        self.worker.capture_version.set(0);
        self.worker.error.length.set(0);
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

    /// Makes the entry one that another install may use. The caller holds the writers' lock.
    pub fn set_purged(&self) {
        self.state.set(PURGED);
    }
}

impl Tenant {
    /// The tenant with this number. To be remembered, if it is this process's.
    pub(super) fn at(roster: &'static Roster, index: u16) -> Tenant {
        Tenant { roster, index }
    }

    /// The tenant that this process used last, if it is that of this relation.
    #[inline]
    pub(super) fn last_used(relation: pg_sys::Oid) -> Option<Tenant> {
        LAST_USED
            .get()
            .filter(|last| last.relation == relation)
            .map(|last| last.tenant)
    }

    #[inline]
    pub(super) fn roster(&self) -> &'static Roster {
        self.roster
    }

    #[inline]
    pub fn index(&self) -> usize {
        self.index as usize
    }

    #[inline]
    pub fn entry(&self) -> &'static TenantEntry {
        &self.roster.tenants[self.index as usize]
    }

    /// Makes it the tenant that this process used last.
    pub(super) fn use_from_now_on(self) -> Tenant {
        self.remember(self.relation()).tenant
    }

    fn remember(self, relation: pg_sys::Oid) -> LastUsed {
        let last = LastUsed {
            relation,
            tenant: self,
            counters: self.attach_counters(),
        };
        LAST_USED.set(Some(last));
        last
    }

    /// Where this process counts heartbeats of the tenant.
    #[inline]
    pub(super) fn counters(&self) -> &'static BackendCounters {
        match LAST_USED.get() {
            Some(last) if last.tenant.index == self.index => last.counters,
            _ => self.remember(self.relation()).counters,
        }
    }

    /// A number for a user that does not reveal the user, and stays the same until the server restarts.
    pub fn user_hash(&self, user: &Uuid) -> u32 {
        self.roster.user_bucket(self.index(), uuid_words(user)) as u32
    }

    /// Whether the roster knows every session of this database that has not ended, so that it can answer alone.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.entry().complete.get() != 0
    }

    /// End of the recovery grace period, in which loaded sessions count as live. On a standby it starts with the first
    /// read after promotion.
    pub fn grace_until(&self) -> SteadyTime {
        let until = &self.entry().grace_until;
        if until.get() == NOT_BEGUN && !compat::in_recovery() {
            until.raise(clock::steady().plus(settings::recovery_grace()));
        }
        until.get()
    }

    /// Whether some sessions are in the table only, because the roster has been full.
    pub fn in_overflow(&self) -> bool {
        self.entry().overflow.get() != 0
    }

    /// Whether a user whose live sessions only the table has is idle if `user_presence` says so: nobody has been heard from
    /// since. In overflow somebody may have been, of which only the table was told.
    pub fn keeps_idle(&self) -> bool {
        !self.in_overflow()
    }

    /// Notes that the roster could not take a session: from now on it cannot answer alone.
    pub fn set_overflow(&self) {
        self.set_overflow_locked(&self.roster.write());
    }

    pub(super) fn set_overflow_locked(&self, writer: &Writer) {
        let entry = self.entry();
        entry.overflow.set(1);
        entry.complete.set(0);
        entry.compare.set(1);
        writer.wake_worker_of(self.index());
    }

    /// Notes that sessions may have been written that the roster has not heard of: until the table has been loaded, the
    /// roster cannot answer alone.
    pub fn set_incomplete(&self) {
        let writer = self.roster.write();
        let entry = self.entry();
        entry.complete.set(0);
        entry.compare.set(1);
        writer.wake_worker_of(self.index());
    }

    /// Returns and clears the compare flag: whether the tables have to be compared with the roster.
    pub fn take_compare(&self) -> bool {
        self.entry().compare.swap(0) != 0
    }

    /// The OID of `user_sessions`.
    pub fn relation(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.entry().relation.get())
    }

    /// The database.
    pub fn database(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.entry().database.get())
    }
}
