//! Memory asked for ahead of many beats.
//!
//! In a roster of a million sessions a beat waits twice for memory: for its bucket, then for the slot the bucket names.
//! A call with many ids knows which come next, so it can have these waits at the same time.

use uuid::Uuid;

use super::{
    Space,
    cell::uuid_words,
    lock::{self, Index},
};

/// How many beats ahead a slot is asked for, and its bucket twice as many: as much as processors keep in flight.
const AHEAD: usize = 12;

impl Space {
    /// Asks for what the beats that follow number `now` of these will need. To be called with each number in turn.
    #[inline]
    pub fn ask_ahead(&self, ids: &[Uuid], now: usize) {
        if now == 0 {
            ids.iter()
                .take(2 * AHEAD)
                .for_each(|id| self.ask_for_bucket(id));
            ids.iter().take(AHEAD).for_each(|id| self.ask_for_slot(id));
        }
        if let Some(id) = ids.get(now + 2 * AHEAD) {
            self.ask_for_bucket(id);
        }
        if let Some(id) = ids.get(now + AHEAD) {
            self.ask_for_slot(id);
        }
    }

    /// Asks for the lock that a beat of a session takes.
    #[inline]
    pub fn ask_for_lock(&self, id: &Uuid) {
        let bucket = self.roster().id_bucket(self.index(), uuid_words(id));
        lock::ask_for(Index::Id, bucket);
    }

    /// Asks for the bucket of a session, which a beat needs first.
    #[inline]
    pub fn ask_for_bucket(&self, id: &Uuid) {
        let roster = self.roster();
        let bucket = roster.id_bucket(self.index(), uuid_words(id));
        if let Some(bucket) = roster.by_id.get(bucket) {
            ask_for(bucket);
        }
    }

    /// Asks for what the bucket of a session names. Without the bucket's lock, as it does not matter whose slot this is
    /// by the time of the beat.
    #[inline]
    pub fn ask_for_slot(&self, id: &Uuid) {
        let roster = self.roster();
        let bucket = roster.id_bucket(self.index(), uuid_words(id));
        let at = roster.by_id.get(bucket).map(|bucket| bucket.get() as usize);
        if let Some(slot) = at.and_then(|at| roster.slots.get(at)) {
            ask_for(slot);
        }
    }
}

/// Has the processor fetch the cache line where a value begins, and does not wait for it.
#[inline]
pub(super) fn ask_for<T>(address: *const T) {
    // SAFETY: a hint, which reads and writes nothing and may be given any address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}
