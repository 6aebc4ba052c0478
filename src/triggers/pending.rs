//! The writes of the running transaction, in order.
//!
//! No other process sees them before the commit. Each entry has the number of its subtransaction; as these are assigned
//! in the order in which subtransactions begin, the rollback of one discards every entry with its number or a higher
//! one.

use std::cell::RefCell;

use pgrx::pg_sys;

use crate::{
    pg::process_local::ProcessLocal,
    roster::{self, Reservation, RowImage, Tenant, Write},
};

/// A write that is not yet applied to the roster.
#[derive(Clone, Copy)]
pub enum PendingWrite {
    /// A write of one row; without a reservation where the roster was full.
    Row(Write, Option<Reservation>),
    /// A TRUNCATE of the table, with its stamp.
    Truncate(u64),
}

struct Entry {
    subtransaction: pg_sys::SubTransactionId,
    tenant: Tenant,
    write: PendingWrite,
}

/// How many writes are applied under one hold of the writers' lock. A user who ends one session and starts another in a
/// transaction of so many writes never appears offline; more would delay the writes of other transactions.
const APPLY_BATCH: usize = 1000;

impl Entry {
    fn row(&self) -> Option<(&Write, Option<Reservation>)> {
        match &self.write {
            PendingWrite::Row(write, reservation) => Some((write, *reservation)),
            PendingWrite::Truncate(_) => None,
        }
    }
}

static PENDING: ProcessLocal<RefCell<Vec<Entry>>> = ProcessLocal::new(RefCell::new(Vec::new()));

/// Returns whether the transaction has no pending writes.
pub fn is_empty() -> bool {
    PENDING.borrow().is_empty()
}

/// Allocates memory for one more entry, so that [`push`] cannot fail. Returns false where there is none.
pub fn ensure_capacity() -> bool {
    PENDING.borrow_mut().try_reserve(1).is_ok()
}

/// Adds an entry, for which [`ensure_capacity`] has allocated memory.
pub fn push(tenant: Tenant, write: PendingWrite) {
    // SAFETY: reads the number of the running subtransaction.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    PENDING.borrow_mut().push(Entry {
        subtransaction,
        tenant,
        write,
    });
}

/// Returns this transaction's last write of a row that `matches`.
pub fn last_write(matches: impl Fn(&RowImage) -> bool) -> Option<Write> {
    PENDING.borrow().iter().rev().find_map(|entry| match &entry.write {
        PendingWrite::Row(write, _) if matches(&write.image) => Some(*write),
        _ => None,
    })
}

/// Discards the writes of the subtransaction `from` and of all later ones. Cannot fail.
pub fn discard_from(from: pg_sys::SubTransactionId) {
    let mut pending = PENDING.borrow_mut();
    while let Some(entry) = pending.pop_if(|entry| entry.subtransaction >= from) {
        if let PendingWrite::Row(_, Some(reservation)) = entry.write {
            entry.tenant.cancel_reservation(reservation);
        }
    }
    if pending.is_empty() {
        roster::clear_inflight();
    }
}

/// Applies all writes to the roster, in order. `timeout` is `presence.active_timeout` in microseconds. Cannot fail.
pub fn apply(timeout: i64) {
    let mut pending = PENDING.borrow_mut();
    let belong_together =
        |a: &Entry, b: &Entry| a.tenant.index() == b.tenant.index() && a.row().is_some() == b.row().is_some();
    for entries in pending.chunk_by(belong_together) {
        for entries in entries.chunks(APPLY_BATCH) {
            entries[0].tenant.apply(entries.iter().filter_map(Entry::row), timeout);
        }
        for entry in entries {
            if let PendingWrite::Truncate(stamp) = entry.write {
                entry.tenant.truncate(stamp);
            }
        }
    }
    pending.clear();
    // Does not keep the buffer of a transaction that has written millions of rows.
    if pending.capacity() > 1024 {
        *pending = Vec::new();
    }
}
