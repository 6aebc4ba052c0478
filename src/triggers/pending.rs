//! Writes of the running transaction, in the order they were made.
//!
//! Nothing here is seen by anybody before the commit. Each entry knows its subtransaction; as those are numbered in
//! the order they begin, the rollback of one drops every entry with its number or a higher one.

use std::cell::RefCell;

use pgrx::pg_sys;

use crate::{
    pg::process_local::Local,
    roster::{self, Reservation, RowImage, Tenant, Write},
};

/// One entry.
#[derive(Clone, Copy)]
pub enum Op {
    /// A row was written; without a reservation where the roster was full.
    Row(Write, Option<Reservation>),
    /// The table was truncated, at this stamp.
    Truncate(u64),
}

struct Entry {
    subtransaction: pg_sys::SubTransactionId,
    tenant: Tenant,
    op: Op,
}

/// Writes that take effect at one moment: a user who in one transaction leaves one session for another is online all
/// the while. More would keep everybody else's writes waiting.
const TOGETHER: usize = 1000;

impl Entry {
    fn row(&self) -> Option<(&Write, Option<Reservation>)> {
        match &self.op {
            Op::Row(write, reserved) => Some((write, *reserved)),
            Op::Truncate(_) => None,
        }
    }
}

static PENDING: Local<RefCell<Vec<Entry>>> = Local::new(RefCell::new(Vec::new()));

/// Whether the transaction has written anything.
pub fn is_empty() -> bool {
    PENDING.borrow().is_empty()
}

/// Makes room for one more entry, so that [`push`] cannot fail. False when there is no memory.
pub fn make_room() -> bool {
    PENDING.borrow_mut().try_reserve(1).is_ok()
}

/// Adds an entry, for which [`make_room`] has made room.
pub fn push(tenant: Tenant, op: Op) {
    // SAFETY: reads the number of the running subtransaction.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    PENDING.borrow_mut().push(Entry {
        subtransaction,
        tenant,
        op,
    });
}

/// What this transaction made of a session, if it wrote it: its last image, and whether it deleted it.
pub fn last_write(matches: impl Fn(&RowImage) -> bool) -> Option<Write> {
    PENDING.borrow().iter().rev().find_map(|entry| match &entry.op {
        Op::Row(write, _) if matches(&write.image) => Some(*write),
        _ => None,
    })
}

/// Gives up what the subtransaction `from` and all later ones wrote. Cannot fail.
pub fn roll_back(from: pg_sys::SubTransactionId) {
    let mut pending = PENDING.borrow_mut();
    while let Some(entry) = pending.pop_if(|entry| entry.subtransaction >= from) {
        if let Op::Row(_, Some(reserved)) = entry.op {
            entry.tenant.cancel_reservation(reserved);
        }
    }
    if pending.is_empty() {
        roster::clear_inflight();
    }
}

/// Applies everything, in order. Cannot fail.
pub fn apply(timeout: i64) {
    let mut pending = PENDING.borrow_mut();
    let together =
        |a: &Entry, b: &Entry| a.tenant.index() == b.tenant.index() && a.row().is_some() == b.row().is_some();
    for entries in pending.chunk_by(together) {
        for entries in entries.chunks(TOGETHER) {
            entries[0].tenant.apply(entries.iter().filter_map(Entry::row), timeout);
        }
        for entry in entries {
            if let Op::Truncate(stamp) = entry.op {
                entry.tenant.truncate(stamp);
            }
        }
    }
    pending.clear();
    // A transaction that wrote millions of rows leaves no such buffer behind.
    if pending.capacity() > 1024 {
        *pending = Vec::new();
    }
}
