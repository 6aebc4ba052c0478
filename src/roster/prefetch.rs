//! Prefetches of what beats, and readers of all users, are about to read.
//!
//! In a roster of a million sessions a beat takes two cache misses, the hash bucket and the slot it points to. A batch
//! call knows the next ids, so it prefetches them and overlaps the misses; a single beat overlaps its own with the work
//! that comes before it.

use uuid::Uuid;

use super::{
    atomic::{prefetch, uuid_words},
    layout::Roster,
    lock::{self, Index},
    tenant::Tenant,
};

/// How many beats ahead a slot is prefetched, and its bucket twice as many: as much as processors keep in flight.
const PREFETCH_DISTANCE: usize = 12;
/// How many users ahead the bucket of one and both cache lines of its first slot are prefetched: as many lines in all as
/// for beats.
pub const USERS_AHEAD: usize = 8;

impl Roster {
    /// Prefetches what a reader of all users needs of one. The user is read without its lock: a stale one only wastes the
    /// prefetch.
    #[inline]
    pub fn prefetch_user(&self, tenant: usize, at: u32) {
        let user = &self.users[at as usize];
        prefetch(&self.by_user[self.user_bucket(tenant, user.id.get())]);
        if let Some(slot) = self.slots.get(user.first.get() as usize) {
            prefetch(&slot.id);
            prefetch(&slot.digest);
        }
    }
}

impl Tenant {
    /// Prefetches for the beats after index `i`. Call once per index, in order.
    #[inline]
    pub fn prefetch_batch(&self, ids: &[Uuid], i: usize) {
        if i == 0 {
            ids.iter()
                .take(2 * PREFETCH_DISTANCE)
                .for_each(|id| self.prefetch_bucket(id));
            ids.iter().take(PREFETCH_DISTANCE).for_each(|id| self.prefetch_slot(id));
        }
        if let Some(id) = ids.get(i + 2 * PREFETCH_DISTANCE) {
            self.prefetch_bucket(id);
        }
        if let Some(id) = ids.get(i + PREFETCH_DISTANCE) {
            self.prefetch_slot(id);
        }
    }

    /// Prefetches the lock that a beat of a session takes.
    #[inline]
    pub fn prefetch_lock(&self, id: &Uuid) {
        let bucket = self.roster().id_bucket(self.index(), uuid_words(id));
        lock::prefetch_partition(Index::Id, bucket);
    }

    /// Prefetches the bucket of a session, which a beat needs first.
    #[inline]
    pub fn prefetch_bucket(&self, id: &Uuid) {
        let roster = self.roster();
        let bucket = roster.id_bucket(self.index(), uuid_words(id));
        if let Some(bucket) = roster.by_id.get(bucket) {
            prefetch(bucket);
        }
    }

    /// Prefetches the slot of a session. The bucket is read without its lock: a stale slot only wastes the prefetch.
    #[inline]
    pub fn prefetch_slot(&self, id: &Uuid) {
        let roster = self.roster();
        let bucket = roster.id_bucket(self.index(), uuid_words(id));
        let at = roster.by_id.get(bucket).map(|bucket| bucket.get() as usize);
        if let Some(slot) = at.and_then(|at| roster.slots.get(at)) {
            prefetch(slot);
        }
    }
}
