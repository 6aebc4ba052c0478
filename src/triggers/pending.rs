//! The writes of the running transaction, in order.
//!
//! No other process sees them before the commit. Each entry has the number of its subtransaction; as these are assigned
//! in the order in which subtransactions begin, the rollback of one discards every entry with its number or a higher
//! one.

use std::cell::{Cell, RefCell};

use pgrx::pg_sys;
use uuid::Uuid;

use super::write_index::WriteIndex;
use crate::{
    pg::{errors, fault_point, process_local::ProcessLocal},
    roster::{self, Effect, Key, Owner, Reservation, Tenant, Visibility, Write},
    rules::{hiding::Hiding, time::Micros, token::Digest},
    store::visibility,
};

/// A write that is not yet applied to the roster.
#[derive(Clone, Copy)]
pub enum PendingWrite {
    /// A write of one row; without a reservation where the roster was full.
    Row(Write, Option<Reservation>),
    /// A TRUNCATE of the table, with its stamp.
    Truncate(u64),
    /// What the roster knows of the last activity of this user is to be forgotten.
    Forget(Uuid),
    /// A session that the transaction has started is to be bound to this connection, with this grace.
    Bind(Uuid, Micros),
    /// One that it has started is to be released, with this grace.
    Release(Uuid, Micros),
    /// Something else is declared of this user.
    Declared(Uuid),
    /// A user is hidden, or shown again; without a reservation where the roster was full.
    Visibility(VisibilityWrite),
    /// Others are of whom there are too many to keep.
    VisibilityLost,
    /// `user_presence` was written by somebody else, or more is declared than can be kept: all users are to be compared.
    Compare,
    /// Rows that the roster has no room for, and of which there are too many to keep: it has to be loaded again.
    Overflow,
}

/// What a transaction makes of a user who is hidden, or shown again.
#[derive(Clone, Copy)]
pub struct VisibilityWrite {
    pub user_id: Uuid,
    pub visibility: Visibility,
    /// What has hidden the user before.
    pub before: Option<Hiding>,
    pub reservation: Option<Reservation>,
    /// Whether a later write of the transaction makes something else of the user.
    pub is_superseded: bool,
}

struct Entry {
    subtransaction: pg_sys::SubTransactionId,
    /// The command that wrote the row.
    command: pg_sys::CommandId,
    /// The newest such command of this entry and all before it.
    newest_command: pg_sys::CommandId,
    tenant: Tenant,
    write: PendingWrite,
}

/// How many writes a commit may have that is applied under one hold of the writers' lock, which takes about a
/// millisecond: a user who ends one session and starts another in it never appears offline to anybody.
const SMALL_COMMIT: usize = 1000;
/// How many writes of a larger commit are applied under one hold, as the writes of other transactions wait meanwhile. To
/// readers such a user may appear offline between two holds; to the worker it does not.
const APPLY_BATCH: usize = 256;

impl Entry {
    fn row(&self) -> Option<(&Write, Option<Reservation>)> {
        match &self.write {
            PendingWrite::Row(write, reservation) => Some((write, *reservation)),
            _ => None,
        }
    }

    fn lacks_slot(&self) -> bool {
        matches!(&self.write, PendingWrite::Row(write, None) if !write.is_end())
    }

    fn is_comparison(&self) -> bool {
        matches!(&self.write, PendingWrite::Compare)
    }

    /// The user of whom something else is declared.
    fn declared(&self) -> Option<&Uuid> {
        match &self.write {
            PendingWrite::Declared(user_id) => Some(user_id),
            _ => None,
        }
    }

    fn visibility(&self) -> Option<&VisibilityWrite> {
        match &self.write {
            PendingWrite::Visibility(write) => Some(write),
            _ => None,
        }
    }

    fn is_visibility_lost(&self) -> bool {
        matches!(&self.write, PendingWrite::VisibilityLost)
    }

    /// Whether it takes a session away.
    fn is_departure(&self) -> bool {
        self.row()
            .is_some_and(|(write, _)| write.is_end() || write.effect.deactivated)
    }

    /// Whether it is applied under another hold of the writers' lock than the rows.
    fn is_apart(&self) -> bool {
        matches!(
            self.write,
            PendingWrite::Bind(..) | PendingWrite::Release(..) | PendingWrite::Visibility(_)
        )
    }

    fn is_overflow(&self) -> bool {
        matches!(&self.write, PendingWrite::Overflow)
    }

    fn matches(&self, key: &Key) -> bool {
        self.row().is_some_and(|(write, _)| match key {
            Key::Id(id) => write.image.id == *id,
            Key::Digest(digest) => write.image.digest == *digest,
        })
    }

    fn id_hash(&self) -> u32 {
        self.row().map_or(0, |(write, _)| hash_of_id(&write.image.id))
    }

    fn digest_hash(&self) -> u32 {
        self.row().map_or(0, |(write, _)| hash_of_digest(&write.image.digest))
    }
}

fn hash_of_id(id: &Uuid) -> u32 {
    let (high, low) = id.as_u64_pair();
    // Ids may be numbered rather than random: the product mixes all bits into the upper half.
    ((high.rotate_left(32) ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

fn hash_of_digest(digest: &Digest) -> u32 {
    let [a, b, c, d, ..] = *digest.as_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// So few entries are searched one by one.
const FEW: usize = 16;

static PENDING: ProcessLocal<RefCell<Vec<Entry>>> = ProcessLocal::new(RefCell::new(Vec::new()));

/// Writes without a slot that are kept for the case that the roster has room for them at commit. A restore may write
/// millions.
const MAX_WITHOUT_SLOT: usize = 10_000;

/// Users of whom something is declared that are kept. Above that, all users are compared.
const MAX_DECLARED: usize = 10_000;

/// How many of the entries are writes without a slot, how many say that there are more, how many are comparisons, how
/// many are users of whom something is declared, how many are users who are hidden or shown again, and how many say that there
/// are more of these.
static WITHOUT_SLOT: ProcessLocal<Cell<usize>> = ProcessLocal::new(Cell::new(0));
static OVERFLOWS: ProcessLocal<Cell<usize>> = ProcessLocal::new(Cell::new(0));
static COMPARISONS: ProcessLocal<Cell<usize>> = ProcessLocal::new(Cell::new(0));
static DECLARED: ProcessLocal<Cell<usize>> = ProcessLocal::new(Cell::new(0));
static VISIBILITY: ProcessLocal<Cell<usize>> = ProcessLocal::new(Cell::new(0));
static VISIBILITY_LOST: ProcessLocal<Cell<usize>> = ProcessLocal::new(Cell::new(0));

/// The entries by session and by token, as far as they have been looked up.
struct Indexes {
    by_id: WriteIndex,
    by_digest: WriteIndex,
}

static INDEXES: ProcessLocal<RefCell<Indexes>> = ProcessLocal::new(RefCell::new(Indexes {
    by_id: WriteIndex::new(),
    by_digest: WriteIndex::new(),
}));

/// Returns whether the transaction has no pending writes.
pub fn is_empty() -> bool {
    PENDING.borrow().is_empty()
}

/// Whether another write without a slot is to be kept. Otherwise [`PendingWrite::Overflow`] stands for it, once.
pub fn keeps_without_slot() -> bool {
    WITHOUT_SLOT.get() < MAX_WITHOUT_SLOT
}

/// Whether the transaction has written rows that are not kept: nobody else sees them before the commit.
pub fn has_overflowed() -> bool {
    OVERFLOWS.get() > 0
}

/// Whether all users are to be compared already. A rollback that discards that entry undoes the running statement, too: a
/// subtransaction that is open now has no higher number than the running one.
pub fn has_comparison() -> bool {
    COMPARISONS.get() > 0
}

/// Whether something else is known to be declared of a user, by one of the last entries. A rollback that discards that entry
/// undoes what comes after it, too.
pub fn has_declared(user_id: &Uuid) -> bool {
    let pending = PENDING.borrow();
    pending
        .iter()
        .rev()
        .take(FEW)
        .any(|entry| entry.declared() == Some(user_id))
}

/// Whether another user of whom something is declared is to be kept.
pub fn keeps_declared() -> bool {
    DECLARED.get() < MAX_DECLARED
}

/// Whether the transaction has hidden anybody or shown anybody again.
#[inline]
pub fn has_visibility() -> bool {
    VISIBILITY.get() > 0 || loses_visibility()
}

/// Whether the transaction has hidden this user, or shown it again.
pub fn has_visibility_of(user_id: &Uuid) -> bool {
    let pending = PENDING.borrow();
    let mut writes = pending.iter().filter_map(Entry::visibility);
    has_visibility() && writes.any(|write| write.user_id == *user_id)
}

/// Returns what hides a user as others see it, where the transaction has written that.
pub fn hidden_to_others(user_id: &Uuid) -> Option<Hiding> {
    let pending = PENDING.borrow();
    let mut of_user = pending.iter().filter_map(Entry::visibility);
    of_user.find(|write| write.user_id == *user_id)?.before
}

/// Looks whether the user of a reservation is hidden, where nobody has. Where the transaction itself has changed who is, the
/// worker does.
pub fn resolve(tenant: Tenant, reservation: &Reservation, user_id: &Uuid) {
    match has_visibility() && tenant.is_unresolved(reservation) {
        true => tenant.lose_visibility(),
        false => visibility::resolve(tenant, reservation, user_id),
    }
}

/// Whether the roster does not know who is hidden once the transaction has committed.
#[inline]
pub fn loses_visibility() -> bool {
    VISIBILITY_LOST.get() > 0
}

/// Whether another user who is hidden or shown again is to be kept.
pub fn keeps_visibility() -> bool {
    VISIBILITY.get() < MAX_DECLARED
}

/// Allocates memory for one more entry, so that [`push`] cannot fail. Returns false where there is none.
pub fn ensure_capacity() -> bool {
    PENDING.borrow_mut().try_reserve(1).is_ok()
}

/// Adds an entry, for which [`ensure_capacity`] has allocated memory. `command` is the number of the command that wrote
/// the row.
pub fn push(tenant: Tenant, command: pg_sys::CommandId, write: PendingWrite) {
    // SAFETY: reads the number of the running subtransaction.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    let mut pending = PENDING.borrow_mut();
    let newest_command = pending.last().map_or(command, |last| last.newest_command.max(command));
    let entry = Entry {
        subtransaction,
        command,
        newest_command,
        tenant,
        write,
    };
    WITHOUT_SLOT.set(WITHOUT_SLOT.get() + usize::from(entry.lacks_slot()));
    OVERFLOWS.set(OVERFLOWS.get() + usize::from(entry.is_overflow()));
    COMPARISONS.set(COMPARISONS.get() + usize::from(entry.is_comparison()));
    DECLARED.set(DECLARED.get() + usize::from(entry.declared().is_some()));
    VISIBILITY.set(VISIBILITY.get() + usize::from(entry.visibility().is_some()));
    VISIBILITY_LOST.set(VISIBILITY_LOST.get() + usize::from(entry.is_visibility_lost()));
    pending.push(entry);
}

/// Adds what is to happen at the commit. Errors: 53200 where there is no memory to keep it.
pub fn at_commit(tenant: Tenant, write: PendingWrite) {
    if !ensure_capacity() {
        errors::no_memory();
    }
    push(tenant, 0, write);
}

/// Returns this transaction's last write of a session. Errors: 53200 where there is no memory to look it up.
pub fn last_write(key: &Key) -> Option<Write> {
    let pending = PENDING.borrow();
    let at = position_of_last(&pending, key)?;
    pending[at].row().map(|(write, _)| *write)
}

fn position_of_last(pending: &[Entry], key: &Key) -> Option<usize> {
    if pending.len() <= FEW {
        return pending.iter().rposition(|entry| entry.matches(key));
    }
    let mut indexes = INDEXES.borrow_mut();
    let (index, hash, covered) = match key {
        Key::Id(id) => {
            let covered = indexes.by_id.cover(pending.len(), |at| pending[at].id_hash());
            (&indexes.by_id, hash_of_id(id), covered)
        }
        Key::Digest(digest) => {
            let covered = indexes.by_digest.cover(pending.len(), |at| pending[at].digest_hash());
            (&indexes.by_digest, hash_of_digest(digest), covered)
        }
    };
    if covered.is_err() {
        errors::no_memory();
    }
    index.last(hash, |at| pending[at].matches(key))
}

/// Adds `effect` to the last write of a session if a later command than `command` made it: a trigger whose name sorts
/// before ours has written the row again, and its write was captured first. Returns whether there is such a write.
/// Errors: 53200 where there is no memory to look it up.
pub fn merge_into_later(id: &Uuid, command: pg_sys::CommandId, effect: Effect) -> bool {
    let mut pending = PENDING.borrow_mut();
    if pending.last().is_none_or(|last| last.newest_command <= command) {
        return false;
    }
    let Some(at) = position_of_last(&pending, &Key::Id(*id)) else {
        return false;
    };
    let entry = &mut pending[at];
    match &mut entry.write {
        PendingWrite::Row(write, _) if entry.command > command => {
            write.effect.beat |= effect.beat;
            write.effect.activated |= effect.activated && write.image.is_active;
            write.effect.deactivated |= effect.deactivated && !write.image.is_active;
            true
        }
        _ => false,
    }
}

/// Discards the writes of the subtransaction `from` and of all later ones. Cannot fail.
pub fn discard_from(from: pg_sys::SubTransactionId) {
    let mut pending = PENDING.borrow_mut();
    let mut indexes = INDEXES.borrow_mut();
    let discarded = std::iter::from_fn(|| {
        let entry = pending.pop_if(|entry| entry.subtransaction >= from)?;
        indexes.by_id.remove_last(pending.len(), entry.id_hash());
        indexes.by_digest.remove_last(pending.len(), entry.digest_hash());
        WITHOUT_SLOT.set(WITHOUT_SLOT.get() - usize::from(entry.lacks_slot()));
        OVERFLOWS.set(OVERFLOWS.get() - usize::from(entry.is_overflow()));
        COMPARISONS.set(COMPARISONS.get() - usize::from(entry.is_comparison()));
        DECLARED.set(DECLARED.get() - usize::from(entry.declared().is_some()));
        VISIBILITY.set(VISIBILITY.get() - usize::from(entry.visibility().is_some()));
        VISIBILITY_LOST.set(VISIBILITY_LOST.get() - usize::from(entry.is_visibility_lost()));
        Some(entry)
    });
    roster::cancel_reservations(discarded.filter_map(|entry| match entry.write {
        PendingWrite::Row(_, reservation) => reservation,
        PendingWrite::Visibility(write) => write.reservation,
        _ => None,
    }));
    if pending.is_empty() {
        indexes.by_id.clear();
        indexes.by_digest.clear();
        roster::clear_inflight();
    }
}

/// Applies all writes to the roster, in order. `timeout` is `presence.active_timeout` in microseconds. Cannot fail.
pub fn apply(timeout: Micros) {
    let mut pending = PENDING.borrow_mut();
    let same_tenant = |a: &Entry, b: &Entry| a.tenant.index() == b.tenant.index();
    // What neither truncates nor forgets separates no rows, as they are to be seen together.
    let is_among_rows = |entry: &Entry| !matches!(entry.write, PendingWrite::Truncate(_) | PendingWrite::Forget(_));
    let belong_together = |a: &Entry, b: &Entry| same_tenant(a, b) && is_among_rows(a) == is_among_rows(b);
    let is_large = pending.len() > SMALL_COMMIT;
    // A user whom the rows take offline may be online by what is applied apart.
    let is_in_parts = is_large || pending.iter().any(Entry::is_apart) && pending.iter().any(Entry::is_departure);
    if is_in_parts {
        let tenants = pending.chunk_by(same_tenant).map(|entries| entries[0].tenant);
        tenants.for_each(|tenant| tenant.begin_large_commit());
    }
    // Whoever is hidden is so before all that the transaction has written besides, and whoever is shown again after that.
    apply_visibility(&pending, timeout, true);
    for entries in pending.chunk_by(belong_together) {
        for entries in entries.chunks(if is_large { APPLY_BATCH } else { SMALL_COMMIT }) {
            let writes = entries.iter().filter_map(Entry::row);
            entries[0].tenant.apply(writes, timeout, is_large);
            if is_large {
                fault_point::pause("apply");
            }
        }
        for entry in entries {
            match entry.write {
                PendingWrite::Row(..)
                | PendingWrite::Declared(_)
                | PendingWrite::Visibility(_)
                | PendingWrite::VisibilityLost => {}
                PendingWrite::Truncate(stamp) => entry.tenant.truncate(stamp),
                PendingWrite::Forget(user_id) => entry.tenant.forget_user(&user_id),
                PendingWrite::Bind(id, grace) => {
                    entry.tenant.bind(&id, grace, timeout);
                }
                PendingWrite::Release(id, grace) => {
                    entry.tenant.release(&Key::Id(id), &Owner::Any, grace, timeout);
                }
                PendingWrite::Compare => entry.tenant.request_compare(),
                PendingWrite::Overflow => entry.tenant.set_overflow(),
            }
        }
        // Last, as the worker may look at these users at once: what they declare shows beside what their sessions have become.
        entries[0]
            .tenant
            .queue_declared(entries.iter().filter_map(Entry::declared));
    }
    apply_visibility(&pending, timeout, false);
    if is_in_parts {
        let tenants = pending.chunk_by(same_tenant).map(|entries| entries[0].tenant);
        tenants.for_each(|tenant| tenant.end_large_commit());
    }
    pending.clear();
    WITHOUT_SLOT.set(0);
    OVERFLOWS.set(0);
    COMPARISONS.set(0);
    DECLARED.set(0);
    VISIBILITY.set(0);
    VISIBILITY_LOST.set(0);
    let mut indexes = INDEXES.borrow_mut();
    indexes.by_id.clear();
    indexes.by_digest.clear();
    // Does not keep the buffer of a transaction that has written millions of rows.
    if pending.capacity() > 1024 {
        *pending = Vec::new();
    }
}

/// Applies what hides users, or what shows them again. Cannot fail.
fn apply_visibility(pending: &[Entry], timeout: Micros, hides: bool) {
    if !has_visibility() {
        return;
    }
    for entry in pending {
        match &entry.write {
            // Also after those that are kept, as the worker may have read before.
            PendingWrite::VisibilityLost => entry.tenant.void_visibility(),
            PendingWrite::Visibility(write) if write.is_superseded => {
                // Once what supersedes it is applied.
                if let Some(reservation) = write.reservation.filter(|_| !hides) {
                    entry.tenant.cancel_reservation(reservation);
                }
            }
            PendingWrite::Visibility(write) if hides == matches!(write.visibility, Visibility::HiddenUntil(_)) => {
                let VisibilityWrite {
                    user_id,
                    reservation,
                    visibility,
                    ..
                } = write;
                entry
                    .tenant
                    .apply_visibility(user_id, *reservation, *visibility, timeout);
            }
            _ => {}
        }
    }
}

/// Finds out which writes that hide users or show them again are superseded by later ones, before the commit. Errors: 53200
/// where there is no memory for that.
pub fn supersede_visibility() {
    if VISIBILITY.get() < 2 {
        return;
    }
    let mut pending = PENDING.borrow_mut();
    let mut writes = Vec::new();
    if writes.try_reserve_exact(VISIBILITY.get()).is_err() {
        drop(pending);
        errors::no_memory();
    }
    let found = pending.iter().enumerate();
    // A trigger of somebody else may have had the write of a later command captured first.
    let key = |(at, entry): (usize, &Entry)| {
        let user_id = entry.visibility()?.user_id;
        Some((entry.tenant.index(), user_id, entry.command, at))
    };
    writes.extend(found.filter_map(key));
    writes.sort_unstable();
    for pair in writes.windows(2) {
        let [(tenant, user_id, _, earlier), later] = pair else {
            continue;
        };
        if (tenant, user_id) == (&later.0, &later.1)
            && let PendingWrite::Visibility(write) = &mut pending[*earlier].write
        {
            write.is_superseded = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Looks up a write after each one that is added. Returns how many writes were hashed or compared.
    fn steps(ids: &[Uuid]) -> usize {
        let steps = Cell::new(0);
        let count = |at: usize| {
            steps.set(steps.get() + 1);
            &ids[at]
        };
        let mut index = WriteIndex::new();
        for length in 1..=ids.len() {
            index.cover(length, |at| hash_of_id(count(at))).unwrap();
            let wanted = length / 2;
            let found = index.last(hash_of_id(&ids[wanted]), |at| count(at) == &ids[wanted]);
            assert_eq!(found, Some(wanted));
        }
        steps.get()
    }

    #[test]
    fn beats_for_many_sessions_of_the_same_transaction_take_steps_in_proportion() {
        for length in [500, 10_000, 200_000] {
            // Of clients that number their sessions at either end, and random ones.
            let kinds: [fn(u128) -> Uuid; 3] = [
                Uuid::from_u128,
                |n| Uuid::from_u128(n << 64),
                |n| Uuid::new_v5(&Uuid::NAMESPACE_OID, &n.to_be_bytes()),
            ];
            for kind in kinds {
                let ids: Vec<Uuid> = (0..length).map(kind).collect();
                let steps = steps(&ids);
                assert!(steps < 6 * ids.len(), "{steps} steps for {} sessions", ids.len());
            }
        }
    }
}
