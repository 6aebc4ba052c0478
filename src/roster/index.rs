//! The three indexes: chained hash tables of sessions by id and by token digest, and of users by id.

use subtle::ConstantTimeEq;

use super::{
    atomic::words_digest,
    layout::{NONE, Roster},
    state::SessionState,
};
use crate::rules::token::Digest;

/// Mixes two words into one, so that nobody who does not know the seeds can make ids collide.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
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
    fn hash(&self, tenant: usize, a: u64, b: u64) -> u64 {
        let [s0, s1, s2, s3] = self.header.seeds.get();
        mix(mix(a ^ s0, b ^ s1) ^ s2, (tenant as u64).wrapping_add(s3))
    }

    #[inline]
    pub fn id_bucket(&self, tenant: usize, id: [u64; 2]) -> usize {
        bucket(self.hash(tenant, id[0], id[1]), self.by_id.len())
    }

    #[inline]
    pub fn digest_bucket(&self, tenant: usize, digest: [u64; 4]) -> usize {
        bucket(self.hash(tenant, digest[0], digest[1]), self.by_digest.len())
    }

    #[inline]
    pub fn user_bucket(&self, tenant: usize, id: [u64; 2]) -> usize {
        bucket(self.hash(tenant, id[0], id[1]), self.by_user.len())
    }

    /// The slot of a session id. The caller holds the bucket's id partition or the writers' lock.
    #[inline]
    pub fn find_id(&self, tenant: usize, bucket: usize, id: [u64; 2]) -> Option<u32> {
        let mut at = self.by_id[bucket].get();
        while at != NONE {
            let slot = &self.slots[at as usize];
            if slot.id.get() == id && slot.tenant.get() as usize == tenant {
                return Some(at);
            }
            at = slot.id_next.get();
        }
        None
    }

    /// The slot of a digest: of a session that has not ended, else of a reservation or of one that has. The caller holds the bucket's digest partition
    /// or the writers' lock. Digests are compared in constant time.
    pub fn find_digest(&self, tenant: usize, bucket: usize, digest: &Digest) -> Option<u32> {
        let mut other = None;
        let mut at = self.by_digest[bucket].get();
        while at != NONE {
            let slot = &self.slots[at as usize];
            let same: bool = words_digest(slot.digest.get())
                .as_slice()
                .ct_eq(digest.as_bytes())
                .into();
            if same && slot.tenant.get() as usize == tenant {
                let is_current = matches!(slot.state.get(), SessionState::Live | SessionState::TimedOut);
                if is_current && self.survives_truncate(slot) {
                    return Some(at);
                }
                other = Some(at);
            }
            at = slot.digest_next.get();
        }
        other
    }

    /// The entry of a user. The caller holds the bucket's user partition or the writers' lock.
    #[inline]
    pub fn find_user(&self, tenant: usize, bucket: usize, id: [u64; 2]) -> Option<u32> {
        let mut at = self.by_user[bucket].get();
        while at != NONE {
            let user = &self.users[at as usize];
            if user.id.get() == id && user.tenant.get() as usize == tenant {
                return Some(at);
            }
            at = user.hash_next.get();
        }
        None
    }
}
