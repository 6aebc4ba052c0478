//! Finds the last of a transaction's writes with some key, however many there are.
//!
//! Writes are only added and removed at the end, so each bucket is a list that begins with its newest write.

use std::collections::TryReserveError;

const NONE: u32 = u32::MAX;

/// A hash index of writes, by their positions.
pub struct WriteIndex {
    /// The newest write in each bucket. Their number is a power of two.
    heads: Vec<u32>,
    /// For each write that is covered, the one before it in its bucket.
    previous: Vec<u32>,
}

impl WriteIndex {
    pub const fn new() -> WriteIndex {
        WriteIndex {
            heads: Vec::new(),
            previous: Vec::new(),
        }
    }

    /// Returns the last write with this hash that `matches`, among those that are covered.
    pub fn last(&self, hash: u32, mut matches: impl FnMut(usize) -> bool) -> Option<usize> {
        let mut at = *self.heads.get(self.bucket(hash))?;
        while at != NONE {
            if matches(at as usize) {
                return Some(at as usize);
            }
            at = self.previous[at as usize];
        }
        None
    }

    /// Covers all `count` writes, of which `hash_of` returns the hash. Fails where there is no memory, which it leaves to
    /// the caller to report: an error of PostgreSQL here would keep the unit test from being linked.
    pub fn cover(&mut self, count: usize, hash_of: impl Fn(usize) -> u32) -> Result<(), TryReserveError> {
        if count > self.heads.len() {
            let buckets = count.next_power_of_two();
            self.heads.try_reserve(buckets - self.heads.len())?;
            self.previous.clear();
            self.heads.clear();
            self.heads.resize(buckets, NONE);
        }
        let covered = self.previous.len();
        self.previous.try_reserve(count - covered)?;
        for at in covered..count {
            let bucket = self.bucket(hash_of(at));
            self.previous.push(self.heads[bucket]);
            self.heads[bucket] = at as u32;
        }
        Ok(())
    }

    /// Removes the write at the position `count` where it is covered. It is the last one. Cannot fail.
    pub fn remove_last(&mut self, count: usize, hash: u32) {
        if self.previous.len() == count + 1
            && let Some(previous) = self.previous.pop()
        {
            let bucket = self.bucket(hash);
            self.heads[bucket] = previous;
        }
    }

    /// Removes all writes, and frees the memory. Cannot fail.
    pub fn clear(&mut self) {
        *self = WriteIndex::new();
    }

    fn bucket(&self, hash: u32) -> usize {
        hash as usize & self.heads.len().wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_with_a_key_is_found_after_any_additions_and_removals() {
        let mut state = 1u32;
        let mut random = |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % n
        };
        // Seven keys in three buckets' worth of hashes.
        let hash = |key: u32| key % 3;
        let mut keys: Vec<u32> = Vec::new();
        let mut index = WriteIndex::new();
        for _ in 0..5000 {
            match random(5) {
                0 => {
                    for _ in 0..random(8) {
                        if let Some(key) = keys.pop() {
                            index.remove_last(keys.len(), hash(key));
                        }
                    }
                }
                1 if random(100) == 0 => {
                    keys.clear();
                    index.clear();
                }
                _ => keys.push(random(7)),
            }
            if random(3) == 0 {
                index.cover(keys.len(), |at| hash(keys[at])).unwrap();
                let key = random(7);
                let expected = keys.iter().rposition(|&other| other == key);
                assert_eq!(index.last(hash(key), |at| keys[at] == key), expected);
            }
        }
    }
}
