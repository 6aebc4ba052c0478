//! Words of shared memory.
//!
//! Every field of the roster is one of these: a relaxed atomic, which on today's processors costs what a plain
//! load or store costs, and makes a racing read a stale value instead of undefined behaviour. Ordering between
//! fields comes from the roster's locks alone.

use std::sync::atomic::{
    AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst,
};

use uuid::Uuid;

macro_rules! word {
    ($name:ident, $atomic:ty, $plain:ty) => {
        #[repr(transparent)]
        pub struct $name($atomic);

        impl $name {
            #[inline]
            pub fn get(&self) -> $plain {
                self.0.load(Relaxed)
            }
            #[inline]
            pub fn set(&self, value: $plain) {
                self.0.store(value, Relaxed)
            }
        }
    };
}

macro_rules! counter {
    ($name:ident, $plain:ty) => {
        impl $name {
            /// Adds, in one indivisible step; gives the value before.
            #[inline]
            pub fn add(&self, value: $plain) -> $plain {
                self.0.fetch_add(value, Relaxed)
            }
            /// Subtracts, in one indivisible step; gives the value before.
            #[inline]
            pub fn sub(&self, value: $plain) -> $plain {
                self.0.fetch_sub(value, Relaxed)
            }
        }
    };
}

macro_rules! maximum {
    ($name:ident, $plain:ty) => {
        impl $name {
            /// Raises the value to at least `value`, in one indivisible step.
            #[inline]
            pub fn raise(&self, value: $plain) {
                self.0.fetch_max(value, Relaxed);
            }
        }
    };
}

word!(W8, AtomicU8, u8);
word!(W16, AtomicU16, u16);
word!(W32, AtomicU32, u32);
word!(W64, AtomicU64, u64);
word!(Time, AtomicI64, i64);
counter!(W32, u32);
counter!(W64, u64);
maximum!(W64, u64);
maximum!(Time, i64);

impl W32 {
    /// Replaces the value in one indivisible step that everything before and after keeps its side of; gives the value
    /// before.
    #[inline]
    pub fn swap(&self, value: u32) -> u32 {
        self.0.swap(value, SeqCst)
    }
}

impl W64 {
    /// Stores so that everything after this comes after it for other processes too.
    #[inline]
    pub fn publish(&self, value: u64) {
        self.0.swap(value, SeqCst);
    }
}

impl W8 {
    /// Sets or clears the bits of `mask`, in one indivisible step: a beat may clear a bit under a shared lock.
    #[inline]
    pub fn assign(&self, mask: u8, on: bool) {
        if on {
            self.0.fetch_or(mask, Relaxed);
        } else {
            self.0.fetch_and(!mask, Relaxed);
        }
    }
    #[inline]
    pub fn has(&self, mask: u8) -> bool {
        self.get() & mask != 0
    }
}

/// N times eight bytes, such as a UUID or a digest. Written only while nobody else can see it.
#[repr(transparent)]
pub struct Bytes<const N: usize>([W64; N]);

impl<const N: usize> Bytes<N> {
    #[inline]
    pub fn words(&self) -> [u64; N] {
        std::array::from_fn(|i| self.0[i].get())
    }
    pub fn set(&self, words: [u64; N]) {
        for (cell, word) in self.0.iter().zip(words) {
            cell.set(word);
        }
    }
}

/// A UUID as the two words it is stored and hashed as.
#[inline]
pub fn uuid_words(id: &Uuid) -> [u64; 2] {
    let (high, low) = id.as_u64_pair();
    [high, low]
}

/// The UUID of two words.
#[inline]
pub fn words_uuid(words: [u64; 2]) -> Uuid {
    Uuid::from_u64_pair(words[0], words[1])
}

/// A digest as the four words it is stored as.
#[inline]
pub fn digest_words(digest: &[u8; 32]) -> [u64; 4] {
    std::array::from_fn(|i| {
        let mut word = [0; 8];
        word.copy_from_slice(&digest[i * 8..i * 8 + 8]);
        u64::from_ne_bytes(word)
    })
}

/// The digest of four words.
#[inline]
pub fn words_digest(words: [u64; 4]) -> [u8; 32] {
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    digest
}
