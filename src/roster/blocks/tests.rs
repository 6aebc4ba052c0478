//! Random allocations and releases by several tenants.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashSet},
};

use proptest::{prelude::*, sample::Index};

use super::*;

const TENANTS: usize = 4;

/// Blocks in memory of their own, and which tenant has which entry.
struct Model {
    blocks: Blocks,
    held: BTreeMap<u32, usize>,
}

impl Model {
    fn new(entries: usize) -> Model {
        let size = Cell::new(size_of::<BlockLists>());
        let mut place = |bytes: usize| {
            let start = size.get().next_multiple_of(64);
            size.set(start + bytes);
            start
        };
        let plan = BlocksPlan::new(entries, TENANTS, &mut place);
        // As after another use of the memory; aligned as words are.
        let memory = Vec::leak(vec![0x5555_5555_5555_5555u64; size.get() / 8 + 1]);
        let base = memory.as_mut_ptr().cast::<u8>();
        // SAFETY: the plan has placed everything behind the lists, in memory that is never freed. Words of atomics,
        // so that an alignment of eight bytes is enough.
        let blocks = unsafe { Blocks::attach(base, &plan, &*base.cast::<BlockLists>()) };
        blocks.clear();
        Model {
            blocks,
            held: BTreeMap::new(),
        }
    }

    fn allocate(&mut self, tenant: usize) -> Option<u32> {
        let at = self.blocks.allocate(tenant)?;
        assert_eq!(self.held.insert(at, tenant), None, "{at} was in use");
        Some(at)
    }

    fn release(&mut self, at: u32) {
        assert!(self.held.remove(&at).is_some());
        self.blocks.release(at);
    }

    fn release_all_of(&mut self, tenant: usize) {
        let entries: Vec<u32> = self.held.keys().copied().filter(|at| self.held[at] == tenant).collect();
        entries.into_iter().for_each(|at| self.release(at));
    }

    fn unmix_all(&mut self) {
        for _ in 0..self.blocks.blocks.len() {
            if let Some(block) = self.blocks.next_mixed() {
                self.blocks.unmix(block, |at| self.held[&at] as u16);
            }
        }
    }

    fn scanned(&self, tenant: usize) -> Vec<u32> {
        self.blocks.entries_of(tenant, 0).collect()
    }

    /// The blocks in a list, which is followed in both directions.
    fn list(&self, first: &SharedU32) -> Vec<usize> {
        let mut found = Vec::new();
        let (mut previous, mut at) = (NONE, first.get());
        while at != NONE {
            let block = &self.blocks.blocks[at as usize];
            assert_eq!(block.previous.get(), previous);
            assert!(found.len() < self.blocks.blocks.len(), "a circle");
            found.push(at as usize);
            (previous, at) = (at, block.next.get());
        }
        found
    }

    fn check(&self) {
        let blocks = &self.blocks;
        assert_eq!(blocks.used() as usize, self.held.len());
        for tenant in 0..TENANTS {
            let scanned = self.scanned(tenant);
            assert!(scanned.is_sorted());
            assert!(scanned.iter().all(|at| self.held.contains_key(at)));
            let ranges: HashSet<usize> = blocks.ranges_of(tenant).flatten().collect();
            let words: Vec<u32> = blocks
                .words_of(tenant)
                .flat_map(|word| blocks.entries_in(word))
                .collect();
            assert_eq!(words, scanned);
            for (at, _) in self.held.iter().filter(|(_, holder)| **holder == tenant) {
                assert!(scanned.binary_search(at).is_ok(), "{at} is missed");
                assert!(ranges.contains(&(*at as usize)), "{at} is in no range");
            }
            if let Some(middle) = scanned.get(scanned.len() / 2) {
                let rest: Vec<u32> = blocks.entries_of(tenant, *middle).collect();
                assert_eq!(rest, scanned[scanned.len() / 2..]);
            }
        }
        let tenants = blocks.with_room.iter().zip(0..);
        let lists = tenants.chain([(&blocks.lists.empty, EMPTY), (&blocks.lists.mixed, MIXED)]);
        let mut listed = 0;
        for (first, owner) in lists {
            for block in self.list(first) {
                assert_eq!(blocks.owners[block].get(), owner);
                assert!(blocks.first_free(block).is_some(), "{block} is full");
                listed += 1;
            }
        }
        let ever = 0..blocks.lists.ever.get() as usize;
        assert_eq!(listed, ever.filter(|&block| blocks.first_free(block).is_some()).count());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Allocate { tenant: usize, count: usize },
    Release { which: Index, count: usize },
    ReleaseAllOf { tenant: usize },
    Unmix,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..TENANTS, 1usize..200).prop_map(|(tenant, count)| Step::Allocate { tenant, count }),
        4 => (any::<Index>(), 1usize..200).prop_map(|(which, count)| Step::Release { which, count }),
        1 => (0..TENANTS).prop_map(|tenant| Step::ReleaseAllOf { tenant }),
        1 => Just(Step::Unmix),
    ]
}

proptest! {
    // A case is thousands of steps.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_in_use_twice_and_every_entry_is_found_and_room_is_never_lost(
        entries in 1usize..800,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut model = Model::new(entries);
        for step in steps {
            match step {
                Step::Allocate { tenant, count } => {
                    for _ in 0..count {
                        let is_full = model.held.len() == entries;
                        prop_assert_eq!(model.allocate(tenant).is_none(), is_full);
                    }
                }
                Step::Release { which, count } => {
                    for _ in 0..count.min(model.held.len()) {
                        let at = *model.held.keys().nth(which.index(model.held.len())).expect("an entry");
                        model.release(at);
                    }
                }
                Step::ReleaseAllOf { tenant } => model.release_all_of(tenant),
                Step::Unmix => model.unmix_all(),
            }
            model.check();
        }
        while model.held.len() < entries {
            prop_assert!(model.allocate(model.held.len() % TENANTS).is_some());
        }
        prop_assert!(model.allocate(0).is_none());
        model.check();
    }
}

#[test]
fn a_scan_enters_no_block_of_another_tenant() {
    let mut model = Model::new(10 * BLOCK);
    for _ in 0..3 * BLOCK + 1 {
        model.allocate(0);
    }
    model.allocate(1);
    assert_eq!(model.scanned(1).len(), 1);
    assert_eq!(model.blocks.ranges_of(1).count(), 1);
    assert_eq!(model.blocks.ranges_of(2).count(), 0);
    assert_eq!(model.scanned(0).len(), 3 * BLOCK + 1);
}

#[test]
fn tenants_share_blocks_only_where_none_is_empty() {
    let mut model = Model::new(2 * BLOCK);
    model.allocate(0);
    model.allocate(1);
    assert_eq!(model.blocks.lists.mixed.get(), NONE);
    model.allocate(2);
    assert_ne!(model.blocks.lists.mixed.get(), NONE);
    // The one that is mixed has room for all others.
    model.allocate(3);
    assert_eq!(model.blocks.ranges_of(3).count(), 1);
}

#[test]
fn a_block_belongs_to_nobody_once_it_is_empty() {
    let mut model = Model::new(BLOCK);
    for tenant in [0, 1] {
        model.allocate(tenant);
    }
    for tenant in [0, 1] {
        model.release_all_of(tenant);
    }
    assert_eq!(model.blocks.ranges_of(0).count(), 0);
    model.allocate(2);
    assert_eq!(model.blocks.ranges_of(0).count(), 0);
    assert_eq!(model.blocks.ranges_of(2).count(), 1);
}

#[test]
fn a_mixed_block_that_one_tenant_has_alone_becomes_its_own() {
    for entries in [3, BLOCK] {
        let mut model = Model::new(entries);
        for tenant in [0, 1] {
            model.allocate(tenant);
        }
        model.unmix_all();
        assert_eq!(model.blocks.ranges_of(2).count(), 1, "two tenants have it");
        model.release_all_of(0);
        while model.held.len() < 3 {
            model.allocate(1);
        }
        model.unmix_all();
        assert_eq!(model.blocks.ranges_of(0).count(), 0);
        assert_eq!(model.scanned(1).len(), 3);
        model.check();
    }
}

#[test]
fn memory_that_is_not_needed_is_not_touched() {
    let mut model = Model::new(4 * BLOCK);
    for _ in 0..10 {
        let at = model.allocate(0).expect("room");
        assert!(at < 10);
    }
    model.release(3);
    assert_eq!(model.allocate(0), Some(3));
    assert_eq!(model.blocks.lists.ever.get(), 1);
}
