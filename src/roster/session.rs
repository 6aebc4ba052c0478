//! Sessions: their two indexes, and the heap of slots.

use subtle::ConstantTimeEq;

use super::{
    Full,
    cell::{digest_words, uuid_words, words_digest},
    layout::{NONE, Roster, Slot},
    lock::{self, Index},
    stamp::survives,
    state::{EMPTY, ENDED, TIMED_OUT},
    units,
    write::Writer,
};
use crate::core::token::Digest;
use uuid::Uuid;

/// Two words to one, so that nobody who does not know the seeds can make ids collide.
#[inline]
pub fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[inline]
fn bucket(hash: u64, buckets: usize) -> usize {
    // The upper half of a product spreads a hash over any number of buckets, without a division.
    ((u128::from(hash) * buckets as u128) >> 64) as usize
}

impl Roster {
    #[inline]
    fn hash(&self, space: usize, a: u64, b: u64) -> u64 {
        let [s0, s1, s2, s3] = self.header.seeds.words();
        mix(mix(a ^ s0, b ^ s1) ^ s2, (space as u64).wrapping_add(s3))
    }

    #[inline]
    pub fn id_bucket(&self, space: usize, id: [u64; 2]) -> usize {
        bucket(self.hash(space, id[0], id[1]), self.by_id.len())
    }

    #[inline]
    pub fn digest_bucket(&self, space: usize, digest: [u64; 4]) -> usize {
        bucket(self.hash(space, digest[0], digest[1]), self.by_digest.len())
    }

    #[inline]
    pub fn user_bucket(&self, space: usize, id: [u64; 2]) -> usize {
        bucket(self.hash(space, id[0], id[1]), self.by_user.len())
    }

    /// The slot of a session id. The caller holds the bucket's id partition or the writers' lock.
    #[inline]
    pub fn find_id(&self, space: usize, bucket: usize, id: [u64; 2]) -> Option<u32> {
        let mut at = self.by_id[bucket].get();
        while at != NONE {
            let slot = &self.slots[at as usize];
            if slot.id.words() == id && slot.space.get() as usize == space {
                return Some(at);
            }
            at = slot.id_next.get();
        }
        None
    }

    /// The slot of a digest; one that has not ended before one that has. The caller holds the bucket's digest
    /// partition or the writers' lock. Digests are compared in constant time.
    pub fn find_digest(&self, space: usize, bucket: usize, digest: &Digest) -> Option<u32> {
        let mut ended = None;
        let mut at = self.by_digest[bucket].get();
        while at != NONE {
            let slot = &self.slots[at as usize];
            let same: bool = words_digest(slot.digest.words())
                .as_slice()
                .ct_eq(digest.as_bytes())
                .into();
            if same && slot.space.get() as usize == space {
                if slot.state.get() != ENDED && self.stands(slot) {
                    return Some(at);
                }
                ended = Some(at);
            }
            at = slot.digest_next.get();
        }
        ended
    }

    /// Whether no TRUNCATE has removed the session.
    #[inline]
    pub fn stands(&self, slot: &Slot) -> bool {
        survives(slot, self.space_of(slot))
    }

    /// Writes down when the sweep has to look at a session, whose last activity is the latest thing known of it.
    #[inline]
    pub fn expect(&self, at: u32, deadline: i64, timeout: i64) {
        let seen = units::seen_for(deadline, timeout, self.header.origin.get());
        self.seen[at as usize].set(seen);
    }
}

impl Writer {
    /// A free slot; one that can be evicted where there is none.
    fn allocate_slot(&self) -> Result<u32, Full> {
        let heap = &self.roster.header.heap;
        let free = heap.free_slot.get();
        if free != NONE {
            heap.free_slot
                .set(self.roster.slots[free as usize].id_next.get());
            return Ok(self.count_slot(free));
        }
        let ever = heap.slots_ever.get();
        if (ever as usize) < self.roster.slots.len() {
            heap.slots_ever.set(ever + 1);
            return Ok(self.count_slot(ever));
        }
        self.evict()?;
        let free = heap.free_slot.get();
        heap.free_slot
            .set(self.roster.slots[free as usize].id_next.get());
        Ok(self.count_slot(free))
    }

    fn count_slot(&self, at: u32) -> u32 {
        self.roster.header.heap.slots_used.add(1);
        at
    }

    /// Frees one slot that nobody needs: an ended session that is told, or a timed out one that the table knows.
    fn evict(&self) -> Result<(), Full> {
        const LOOKS: usize = 256;
        let heap = &self.roster.header.heap;
        let oldest = self.roster.oldest_inflight();
        let slots = self.roster.slots.len() as u32;
        for _ in 0..LOOKS.min(slots as usize) {
            let at = heap.evict_hand.get() % slots;
            heap.evict_hand.set(at + 1);
            let slot = &self.roster.slots[at as usize];
            let spare = match slot.state.get() {
                ENDED => true,
                TIMED_OUT => self.is_flushed(slot),
                _ => false,
            };
            if spare && self.may_free(slot, oldest) {
                self.roster.space_of(slot).counts.evicted.add(1);
                self.free_session(at);
                return Ok(());
            }
        }
        Err(Full)
    }

    /// Whether a slot may leave the roster, as far as transactions under way are concerned.
    pub fn may_free(&self, slot: &Slot, oldest_inflight: u64) -> bool {
        let stamp = slot.stamp.get();
        slot.pins.get() == 0
            && !slot.flags.has(super::state::END_UNWRITTEN)
            && (stamp & super::stamp::LOADED != 0 || stamp < oldest_inflight)
    }

    /// A new slot for a session of `user`, in state EMPTY and in all chains. The writers' lock is held.
    pub fn add_session(
        &self,
        space: usize,
        id: &Uuid,
        auth_id: &Uuid,
        digest: &Digest,
        user: u32,
    ) -> Result<u32, Full> {
        let at = self.allocate_slot()?;
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        slot.id.set(uuid_words(id));
        slot.auth_id.set(uuid_words(auth_id));
        slot.last_activity.set(i64::MIN);
        slot.release_at.set(0);
        slot.expires_at.set(i64::MAX);
        slot.space.set(space as u16);
        slot.state.set(EMPTY);
        slot.flags.set(0);
        slot.digest.set(digest_words(digest.as_bytes()));
        slot.stamp.set(roster.load_stamp());
        slot.pins.set(0);
        slot.flushed.set(0);
        roster.seen[at as usize].set(units::NEVER);
        roster.spaces[space].counts.sessions.add(1);

        let bucket = roster.id_bucket(space, slot.id.words());
        {
            let _held = lock::exclusive(Index::Id, bucket);
            slot.id_next.set(roster.by_id[bucket].get());
            roster.by_id[bucket].set(at);
        }
        self.link_digest(at);
        self.link_user(at, user);
        Ok(at)
    }

    /// Takes a session out of all chains and gives its slot back. It must not be LIVE, nor pinned.
    pub fn free_session(&self, at: u32) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        let space = slot.space.get() as usize;
        self.unlink_user(at);
        self.unlink_digest(at);
        let bucket = roster.id_bucket(space, slot.id.words());
        {
            let _held = lock::exclusive(Index::Id, bucket);
            let mut link = &roster.by_id[bucket];
            while link.get() != at {
                link = &roster.slots[link.get() as usize].id_next;
            }
            link.set(slot.id_next.get());
        }
        let counts = &roster.spaces[space].counts;
        counts.sessions.sub(1);
        if slot.state.get() == ENDED {
            counts.ended.sub(1);
        }
        roster.seen[at as usize].set(units::NEVER);
        slot.state.set(EMPTY);
        let heap = &roster.header.heap;
        slot.id_next.set(heap.free_slot.get());
        heap.free_slot.set(at);
        heap.slots_used.sub(1);
    }

    fn link_digest(&self, at: u32) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        let bucket = roster.digest_bucket(slot.space.get() as usize, slot.digest.words());
        let _held = lock::exclusive(Index::Digest, bucket);
        slot.digest_next.set(roster.by_digest[bucket].get());
        roster.by_digest[bucket].set(at);
    }

    fn unlink_digest(&self, at: u32) {
        let roster = self.roster;
        let slot = &roster.slots[at as usize];
        let bucket = roster.digest_bucket(slot.space.get() as usize, slot.digest.words());
        let _held = lock::exclusive(Index::Digest, bucket);
        let mut link = &roster.by_digest[bucket];
        while link.get() != at {
            link = &roster.slots[link.get() as usize].digest_next;
        }
        link.set(slot.digest_next.get());
    }

    /// Gives a session another token.
    pub fn change_digest(&self, at: u32, digest: &Digest) {
        let slot = &self.roster.slots[at as usize];
        let words = digest_words(digest.as_bytes());
        if slot.digest.words() != words {
            self.unlink_digest(at);
            slot.digest.set(words);
            self.link_digest(at);
        }
    }
}
