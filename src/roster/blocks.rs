//! Blocks: which slots, and which user entries, are in use, and by which tenants.
//!
//! Entries are allocated in blocks of 256. A block is empty, or owned by the one tenant that has entries in it, or mixed.
//! So a scan of a tenant's entries reads the owners of all blocks, two bytes each, and enters only its own and the
//! mixed ones. A block becomes mixed where a tenant needs an entry and there is no empty block: no entry is lost to
//! blocks that others have begun. It stays mixed until it is empty, or until [`Blocks::unmix`] finds one tenant in it.
//!
//! Everything changes under the writers' lock. Scans read without it. What they rely on holds whenever the lock is free: a
//! block with an entry of a tenant is that tenant's or mixed, and the entry's bit is set. So a scan finds every entry
//! that was allocated before it began, and is not released before it is reached. It may miss one that is allocated
//! meanwhile, as a scan of an array may; and it may return one that is another tenant's by now, so the caller checks.

use std::{iter::successors, ops::Range};

use super::atomic::{SharedU16, SharedU32, SharedU64};

/// Entries per block.
pub const BLOCK: usize = 256;
const WORD: usize = u64::BITS as usize;
const WORDS: usize = BLOCK / WORD;

/// The owner of a block without entries.
const EMPTY: u16 = u16::MAX;
/// The owner of a block that may have entries of several tenants.
const MIXED: u16 = u16::MAX - 1;
/// The end of a list.
const NONE: u32 = u32::MAX;

/// A block: a bit for each entry in use, and its place in the list of its owner's blocks with room.
#[repr(C)]
pub struct Block {
    used: [SharedU64; WORDS],
    previous: SharedU32,
    next: SharedU32,
}

/// Counts of entries and blocks, and the first blocks of the lists that are no tenant's.
#[repr(C)]
pub struct BlockLists {
    /// Entries in use.
    used: SharedU32,
    /// Blocks that were ever in use. The memory of the others, and of their entries, was never touched.
    ever: SharedU32,
    empty: SharedU32,
    mixed: SharedU32,
    /// Where [`Blocks::next_mixed`] continues.
    hand: SharedU32,
}

/// Where the arrays of some [`Blocks`] are.
#[derive(Clone, Copy)]
pub struct BlocksPlan {
    entries: usize,
    tenants: usize,
    with_room_at: usize,
    owners_at: usize,
    blocks_at: usize,
}

impl BlocksPlan {
    /// The plan for `entries` entries of up to `tenants` tenants. `place` returns where so many bytes are.
    pub fn new(entries: usize, tenants: usize, place: &mut impl FnMut(usize) -> usize) -> BlocksPlan {
        let blocks = entries.div_ceil(BLOCK);
        BlocksPlan {
            entries,
            tenants,
            with_room_at: place(tenants * size_of::<SharedU32>()),
            owners_at: place(blocks * size_of::<SharedU16>()),
            blocks_at: place(blocks * size_of::<Block>()),
        }
    }
}

/// The blocks of one array of entries.
pub struct Blocks {
    entries: usize,
    lists: &'static BlockLists,
    /// Each tenant's first block that is not full.
    with_room: &'static [SharedU32],
    /// Apart from the blocks, so that a scan reads two bytes for 256 entries.
    owners: &'static [SharedU16],
    blocks: &'static [Block],
}

impl Blocks {
    /// # Safety
    /// `base` is 64-byte aligned memory that stays mapped for the life of the process, with room at what the plan has
    /// placed there, and used for nothing else.
    pub unsafe fn attach(base: *mut u8, plan: &BlocksPlan, lists: &'static BlockLists) -> Blocks {
        /// # Safety
        /// As above.
        unsafe fn array<T>(base: *mut u8, at: usize, count: usize) -> &'static [T] {
            // SAFETY: as the caller promises; all fields are atomics, for which any bit pattern is valid.
            unsafe { std::slice::from_raw_parts(base.add(at).cast::<T>(), count) }
        }
        let blocks = plan.entries.div_ceil(BLOCK);
        // SAFETY: as the caller promises.
        unsafe {
            Blocks {
                entries: plan.entries,
                lists,
                with_room: array(base, plan.with_room_at, plan.tenants),
                owners: array(base, plan.owners_at, blocks),
                blocks: array(base, plan.blocks_at, blocks),
            }
        }
    }

    /// Initializes everything: no entry is in use.
    pub fn clear(&self) {
        let lists = self.lists;
        for first in self.with_room.iter().chain([&lists.empty, &lists.mixed]) {
            first.set(NONE);
        }
        lists.used.set(0);
        lists.ever.set(0);
    }

    /// How many entries are in use.
    pub fn used(&self) -> u32 {
        self.lists.used.get()
    }

    /// Takes a free entry for a tenant: in one of its blocks, else in an empty one, else in one that it shares. `None` where
    /// all are in use.
    pub fn allocate(&self, tenant: usize) -> Option<u32> {
        let block = self.block_with_room(tenant)?;
        let owner = self.owners[block].get();
        let shared_owner = match owner {
            EMPTY => tenant as u16,
            owner if usize::from(owner) == tenant => owner,
            _ => MIXED,
        };
        self.change_owner(block, shared_owner);
        let at = self.first_free(block)?;
        let word = &self.blocks[block].used[at / WORD];
        word.set(word.get() | 1 << (at % WORD));
        if self.first_free(block).is_none() {
            self.unlink(block);
        }
        self.lists.used.add(1);
        Some((block * BLOCK + at) as u32)
    }

    /// Returns an entry that is in use.
    pub fn release(&self, at: u32) {
        let at = at as usize;
        let block = at / BLOCK;
        if self.first_free(block).is_none() {
            self.link(block);
        }
        let word = &self.blocks[block].used[at % BLOCK / WORD];
        word.set(word.get() & !(1 << (at % WORD)));
        if self.blocks[block].used.iter().all(|word| word.get() == 0) {
            self.change_owner(block, EMPTY);
        }
        self.lists.used.sub(1);
    }

    /// A block with room for an entry of a tenant.
    fn block_with_room(&self, tenant: usize) -> Option<usize> {
        if self.used() as usize == self.entries {
            return None;
        }
        let lists = self.lists;
        let found = |first: &SharedU32| Some(first.get() as usize).filter(|&block| block != NONE as usize);
        found(&self.with_room[tenant])
            .or_else(|| found(&lists.empty))
            .or_else(|| self.never_used())
            .or_else(|| found(&lists.mixed))
            // It becomes mixed, so that this search is over for as long as it has room.
            .or_else(|| self.with_room.iter().find_map(found))
    }

    /// Makes a block that was never in use an empty one.
    fn never_used(&self) -> Option<usize> {
        let block = self.lists.ever.get() as usize;
        (block < self.blocks.len()).then(|| {
            self.blocks[block].used.iter().for_each(|word| word.set(0));
            self.owners[block].set(EMPTY);
            self.link(block);
            self.lists.ever.set(block as u32 + 1);
            block
        })
    }

    /// The first entry of a block that is not in use.
    fn first_free(&self, block: usize) -> Option<usize> {
        let words = self.blocks[block].used.iter().enumerate();
        words
            .map(|(at, word)| (at, word.get()))
            .find(|&(_, bits)| bits != u64::MAX)
            .map(|(at, bits)| at * WORD + bits.trailing_ones() as usize)
            // The last block may be shorter.
            .filter(|&at| block * BLOCK + at < self.entries)
    }

    /// Gives a block that is not full to another owner.
    fn change_owner(&self, block: usize, owner: u16) {
        if self.owners[block].get() != owner {
            self.unlink(block);
            self.owners[block].set(owner);
            self.link(block);
        }
    }

    /// The first block with room of the owner of a block.
    fn list_of(&self, block: usize) -> &SharedU32 {
        match self.owners[block].get() {
            EMPTY => &self.lists.empty,
            MIXED => &self.lists.mixed,
            tenant => &self.with_room[usize::from(tenant)],
        }
    }

    /// Puts a block first in its list. One that was just full is used next, and others may become empty.
    fn link(&self, at: usize) {
        let (block, first) = (&self.blocks[at], self.list_of(at));
        block.previous.set(NONE);
        block.next.set(first.get());
        if first.get() != NONE {
            self.blocks[first.get() as usize].previous.set(at as u32);
        }
        first.set(at as u32);
    }

    fn unlink(&self, at: usize) {
        let (previous, next) = (self.blocks[at].previous.get(), self.blocks[at].next.get());
        match previous {
            NONE => self.list_of(at).set(next),
            previous => self.blocks[previous as usize].next.set(next),
        }
        if next != NONE {
            self.blocks[next as usize].previous.set(previous);
        }
    }

    /// The blocks, from `from` on, that may have entries of a tenant.
    fn blocks_of(&self, tenant: usize, from: usize) -> impl Iterator<Item = usize> {
        let owners = &self.owners[..self.lists.ever.get() as usize];
        (from..owners.len()).filter(move |&block| {
            let owner = owners[block].get();
            usize::from(owner) == tenant || owner == MIXED
        })
    }

    /// The ranges of entries, in order, that may be a tenant's.
    pub fn ranges_of(&self, tenant: usize) -> impl Iterator<Item = Range<usize>> {
        let range = |block| block * BLOCK..self.entries.min((block + 1) * BLOCK);
        self.blocks_of(tenant, 0).map(range)
    }

    /// The entries in use, in order and from `from` on, that may be a tenant's.
    pub fn entries_of(&self, tenant: usize, from: u32) -> impl Iterator<Item = u32> {
        let first_word = from as usize / WORD;
        self.blocks_of(tenant, from as usize / BLOCK)
            .flat_map(|block| block * WORDS..(block + 1) * WORDS)
            .filter(move |&word| word >= first_word)
            .flat_map(|word| self.entries_in(word))
            .filter(move |&at| at >= from)
    }

    /// The words of 64 entries each, in order, in which there may be some of a tenant; for [`Blocks::entries_in`].
    pub fn words_of(&self, tenant: usize) -> impl Iterator<Item = usize> {
        self.blocks_of(tenant, 0)
            .flat_map(|block| block * WORDS..(block + 1) * WORDS)
    }

    /// The entries in use in a word, as they are now.
    pub fn entries_in(&self, word: usize) -> impl Iterator<Item = u32> + use<> {
        let used = self.blocks[word / WORDS].used[word % WORDS].get();
        let some = |bits: u64| (bits != 0).then_some(bits);
        let first = (word * WORD) as u32;
        successors(some(used), move |bits| some(bits & (bits - 1))).map(move |bits| first + bits.trailing_zeros())
    }

    /// The next mixed block to look at, if there is any; each call returns another one.
    pub fn next_mixed(&self) -> Option<usize> {
        let ever = self.lists.ever.get() as usize;
        let from = (self.lists.hand.get() as usize).min(ever);
        let next = (from..ever)
            .chain(0..from)
            .find(|&block| self.owners[block].get() == MIXED)?;
        self.lists.hand.set(next as u32 + 1);
        Some(next)
    }

    /// Gives a mixed block to the tenant that all its entries belong to, as `tenant_of` has it, if it is one.
    pub fn unmix(&self, block: usize, tenant_of: impl Fn(u32) -> u16) {
        let mut tenants = (block * WORDS..(block + 1) * WORDS)
            .flat_map(|word| self.entries_in(word))
            .map(tenant_of);
        if self.owners[block].get() != MIXED {
            return;
        }
        let Some(first) = tenants.next() else {
            return;
        };
        if tenants.any(|tenant| tenant != first) {
            return;
        }
        match self.first_free(block) {
            Some(_) => self.change_owner(block, first),
            // A full block is in no list.
            None => self.owners[block].set(first),
        }
    }
}

#[cfg(test)]
mod tests;
