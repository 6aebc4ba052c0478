//! Words of shared memory.
//!
//! Every field of the roster is one of these: a relaxed atomic, which on today's processors costs what a plain load or
//! store costs, and makes a racing read return a stale value instead of being undefined behaviour. The order between
//! fields comes from the roster's locks alone.

use std::{
    marker::PhantomData,
    sync::atomic::{
        AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, SeqCst},
        fence,
    },
};

use uuid::Uuid;

use crate::rules::time::SteadyTime;

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
            /// Adds atomically; returns the old value.
            #[inline]
            pub fn add(&self, value: $plain) -> $plain {
                self.0.fetch_add(value, Relaxed)
            }
            /// Subtracts atomically; returns the old value.
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
            /// Raises the value to at least `value`, atomically.
            #[inline]
            pub fn raise(&self, value: $plain) {
                self.0.fetch_max(value, Relaxed);
            }
        }
    };
}

word!(SharedU8, AtomicU8, u8);
word!(SharedU16, AtomicU16, u16);
word!(SharedU32, AtomicU32, u32);
word!(SharedU64, AtomicU64, u64);
word!(SharedTime, AtomicI64, i64);
counter!(SharedU32, u32);
counter!(SharedU64, u64);
maximum!(SharedU64, u64);
maximum!(SharedTime, i64);

impl SharedU32 {
    /// Atomically swaps the value with sequential consistency; returns the old one.
    #[inline]
    pub fn swap(&self, value: u32) -> u32 {
        self.0.swap(value, SeqCst)
    }

    /// As [`SharedU32::swap`], and nothing before or after it is reordered with it, relaxed reads and writes included.
    #[inline]
    pub fn swap_fenced(&self, value: u32) -> u32 {
        fence(SeqCst);
        let old = self.0.swap(value, SeqCst);
        fence(SeqCst);
        old
    }

    /// Replaces a 0, with sequential consistency. Returns whether the value was 0.
    pub fn set_if_zero(&self, value: u32) -> bool {
        self.0.compare_exchange(0, value, SeqCst, SeqCst).is_ok()
    }
}

impl SharedU64 {
    /// Reads with acquire ordering: what was written before the value was published is visible.
    pub fn get_acquire(&self) -> u64 {
        self.0.load(Acquire)
    }

    /// Stores with a full memory barrier.
    #[inline]
    pub fn publish(&self, value: u64) {
        self.0.swap(value, SeqCst);
    }
}

impl SharedTime {
    /// Replaces the value, if it is still `old`.
    pub fn replace(&self, old: i64, new: i64) -> bool {
        self.0.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
}

/// A time on the steady clock.
#[repr(transparent)]
pub struct SharedSteadyTime(AtomicI64);

impl SharedSteadyTime {
    #[inline]
    pub fn get(&self) -> SteadyTime {
        SteadyTime::from_micros(self.0.load(Relaxed))
    }

    #[inline]
    pub fn set(&self, time: SteadyTime) {
        self.0.store(time.micros(), Relaxed);
    }

    /// Raises the value to at least `time`, atomically.
    #[inline]
    pub fn raise(&self, time: SteadyTime) {
        self.0.fetch_max(time.micros(), Relaxed);
    }

    /// The time, of a field in which 0 means that there is none.
    #[inline]
    pub fn some(&self) -> Option<SteadyTime> {
        let time = self.get();
        (time.micros() != 0).then_some(time)
    }

    /// Sets such a field to none.
    #[inline]
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}

/// One bit of a [`SharedFlags`].
pub trait Flag: Copy {
    /// The bit.
    fn mask(self) -> u8;
}

/// A set of the flags `F`.
#[repr(transparent)]
pub struct SharedFlags<F>(AtomicU8, PhantomData<F>);

impl<F: Flag> SharedFlags<F> {
    #[inline]
    pub fn has(&self, flag: F) -> bool {
        self.0.load(Relaxed) & flag.mask() != 0
    }

    /// Whether any of these flags is set.
    #[inline]
    pub fn has_any<const N: usize>(&self, flags: [F; N]) -> bool {
        let mask = flags.into_iter().fold(0, |mask, flag| mask | flag.mask());
        self.0.load(Relaxed) & mask != 0
    }

    /// Sets or clears one flag, atomically: a beat may clear one under a shared lock.
    #[inline]
    pub fn assign(&self, flag: F, on: bool) {
        if on {
            self.0.fetch_or(flag.mask(), Relaxed);
        } else {
            self.0.fetch_and(!flag.mask(), Relaxed);
        }
    }

    /// Clears all flags.
    pub fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}

/// N times eight bytes, such as a UUID or a digest. Written only while nobody else can find it.
#[repr(transparent)]
pub struct SharedWords<const N: usize>([SharedU64; N]);

impl<const N: usize> SharedWords<N> {
    #[inline]
    pub fn get(&self) -> [u64; N] {
        std::array::from_fn(|i| self.0[i].get())
    }
    pub fn set(&self, words: [u64; N]) {
        for (shared, word) in self.0.iter().zip(words) {
            shared.set(word);
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

/// Prefetches the cache line at an address, without waiting for it.
#[inline]
pub fn prefetch<T>(address: *const T) {
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
