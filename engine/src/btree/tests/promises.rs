//! Crashes, standbys, full disks, merges: one test for each promise of the
//! README.

use super::*;
use crate::error::Error;
use crate::mem::store::{Exclusive, Shared};
use crate::page::op::Ops;
use crate::predicate::Predicates;
use crate::record::Record;
use crate::store::Hint;
use crate::types::{Level, SlotNumber};
use std::sync::atomic::{AtomicU32, Ordering as Atomic};

/// A store that runs out of space.
struct Limited {
    store: MemStore,
    allocations_left: AtomicU32,
}

impl Predicates for Limited {}

impl PageStore for Limited {
    type Shared<'s> = Shared;
    type Exclusive<'s> = Exclusive;

    fn page_size(&self) -> usize {
        self.store.page_size()
    }
    fn block_count(&self) -> Result<u32> {
        self.store.block_count()
    }
    fn read(&self, at: BlockNumber) -> Result<Shared> {
        self.store.read(at)
    }
    fn lock(&self, at: BlockNumber) -> Result<Exclusive> {
        self.store.lock(at)
    }
    fn try_lock(&self, at: BlockNumber) -> Result<Option<Exclusive>> {
        self.store.try_lock(at)
    }
    fn allocate(&self) -> Result<Exclusive> {
        let left = self.allocations_left.load(Atomic::SeqCst);
        if left == 0 {
            return Err(Error::Store("no space left on device".into()));
        }
        self.allocations_left.store(left - 1, Atomic::SeqCst);
        self.store.allocate()
    }
    fn offer(&self, at: BlockNumber) {
        self.store.offer(at);
    }
    fn block_of(&self, guard: &Exclusive) -> BlockNumber {
        self.store.block_of(guard)
    }
    fn block_of_shared(&self, guard: &Shared) -> BlockNumber {
        self.store.block_of_shared(guard)
    }
    fn commit(&self, record: &Record, pages: &mut [&mut Exclusive]) {
        self.store.commit(record, pages);
    }
    fn hint(&self, at: BlockNumber, hints: &[Hint]) {
        self.store.hint(at, hints);
    }
    fn recycle_stamp(&self) -> u64 {
        self.store.recycle_stamp()
    }
}

/// Numbers that are not random but look like it.
pub(super) fn scrambled(number: u32) -> u32 {
    number.wrapping_mul(2_654_435_761) ^ (number >> 3)
}

fn numbers(rows: &[Seen]) -> Vec<u32> {
    rows.iter()
        .map(|row| u32::from_be_bytes(row.0[..].try_into().unwrap()))
        .collect()
}

/// Removes all entries of the leaf that a key belongs on.
fn empty_leaf<S: PageStore, C: Compare>(tree: &Tree<'_, S, C>, key: &[u8]) {
    let mut leaf = tree.leaf_exclusive(Target::Before(key)).unwrap();
    let count = Page::open(&leaf.guard, leaf.block(tree.store))
        .unwrap()
        .slot_count();
    let all: Vec<SlotNumber> = (0..count as u16).map(SlotNumber).collect();
    let ops = Ops::new().prune(&all, &[]);
    tree.commit_leaf(&mut leaf, RecordKind::Prune, ops, Xid::NONE);
}

#[test]
fn split_survives_crash_before_downlink() {
    let store = ordered_store(256);
    let tree = Tree::new(&store, &Bytewise);
    // What is in the tree once the log is there up to an LSN.
    let mut states = vec![(store.log_end().0, Vec::new())];
    let mut rows = Vec::new();
    for nth in 0..160 {
        let number = scrambled(nth) % 10_000;
        if rows.contains(&number) {
            continue;
        }
        put(&tree, put_head(1), &number_key(number), &[nth as u8; 9]).unwrap();
        rows.push(number);
        rows.sort_unstable();
        states.push((store.log_end().0, rows.clone()));
    }
    assert!(checked(&store, &Bytewise).depth >= 3);
    let mut interrupted = 0;
    let mut seed = 1u32;
    for end in states[0].0..=store.log_end().0 {
        let crashed = store.crash(crate::mem::Lsn(end), |n| {
            seed = scrambled(seed.wrapping_add(77));
            seed as usize % n
        });
        crashed.redo().unwrap();
        let report = checked(&crashed, &Bytewise);
        interrupted += report.incomplete_splits;
        let tree = Tree::new(&crashed, &Bytewise);
        let found = numbers(&scan_forward(&tree, Target::First, || ()));
        // The record that splits also puts: all of a statement or nothing.
        let before = states.iter().rev().find(|state| state.0 <= end).unwrap();
        let after = states.iter().find(|state| state.0 >= end).unwrap();
        assert!(found == before.1 || found == after.1, "at {end}");
        let mut backward = numbers(&scan_backward(&tree, Target::Last, || ()));
        backward.reverse();
        assert_eq!(backward, found);
        // The next writers end what they meet.
        for number in &found {
            put(&tree, put_head(2), &number_key(*number), b"next").unwrap();
        }
        let report = checked(&crashed, &Bytewise);
        assert_eq!(report.incomplete_splits, 0, "at {end}");
        assert_eq!(report.entries as usize, 2 * found.len());
    }
    assert!(
        interrupted > 20,
        "only {interrupted} splits were interrupted"
    );
}

#[test]
fn a_merge_leaves_interrupted_splits_alone() {
    let store = ordered_store(256);
    let tree = Tree::new(&store, &Bytewise);
    for nth in 0..100 {
        let number = scrambled(nth) % 10_000;
        put(
            &tree,
            put_head(u64::from(nth) + 1),
            &number_key(number),
            &[1; 9],
        )
        .unwrap();
    }
    let (mut interrupted, mut merged) = (0, 0);
    for end in 1..=store.log_end().0 {
        let crashed = store.crash(crate::mem::Lsn(end), |_| 0);
        crashed.redo().unwrap();
        let splits = checked(&crashed, &Bytewise).incomplete_splits;
        if splits == 0 {
            continue;
        }
        interrupted += splits;
        let tree = Tree::new(&crashed, &Bytewise);
        let rows = scan_forward(&tree, Target::First, || ());
        // Not as a writer, who would end the splits first.
        for block in (1..crashed.block_count().unwrap()).map(BlockNumber) {
            let mut guard = crashed.lock(block).unwrap();
            let page = Page::open(&guard, block).unwrap();
            if page.kind() == crate::page::PageKind::Leaf {
                let all: Vec<_> = (0..page.slot_count() as u16).map(SlotNumber).collect();
                let record =
                    Record::new(RecordKind::Prune).change(block, Ops::new().prune(&all, &[]));
                crashed.commit(&record, &mut [&mut guard]);
            }
        }
        for row in &rows {
            while tree.merge_right(Target::Before(&row.0)).unwrap() {
                merged += 1;
                assert!(checked(&crashed, &Bytewise).incomplete_splits <= splits);
            }
        }
        for row in &rows {
            put(&tree, put_head(1), &row.0, b"").unwrap();
        }
        checked(&crashed, &Bytewise);
    }
    assert!(interrupted > 10 && merged > 10, "{interrupted} {merged}");
}

#[test]
fn merge_survives_a_crash_at_every_record() {
    let store = ordered_store(256);
    let tree = Tree::new(&store, &Bytewise);
    for number in 0..120 {
        put(&tree, put_head(1), &number_key(number), &[7; 9]).unwrap();
    }
    store.checkpoint();
    let start = store.log_end().0;
    let mut rows: Vec<u32> = (0..120).collect();
    let mut states = vec![(start, rows.clone())];
    for number in (0..120).filter(|number| number % 3 > 0) {
        let mut leaf = tree
            .leaf_exclusive(Target::Before(&number_key(number)))
            .unwrap();
        let block = leaf.block(&store);
        let page = Page::open(&leaf.guard, block).unwrap();
        let slot =
            lower_bound(page, block, Target::Before(&number_key(number)), &Bytewise).unwrap();
        let ops = Ops::new().prune(&[SlotNumber(slot as u16)], &[]);
        tree.commit_leaf(&mut leaf, RecordKind::Prune, ops, Xid::NONE);
        drop(leaf);
        rows.retain(|row| *row != number);
        states.push((store.log_end().0, rows.clone()));
        tree.merge_right(Target::Before(&number_key(number.saturating_sub(12))))
            .unwrap();
        states.push((store.log_end().0, rows.clone()));
    }
    let merged = checked(&store, &Bytewise).deleted_pages;
    assert!(merged > 3, "only {merged} merges");
    let mut seed = 5u32;
    for end in start..=store.log_end().0 {
        let crashed = store.crash(crate::mem::Lsn(end), |n| {
            seed = scrambled(seed.wrapping_add(77));
            seed as usize % n
        });
        crashed.redo().unwrap();
        checked(&crashed, &Bytewise);
        let tree = Tree::new(&crashed, &Bytewise);
        let expected = &states.iter().rev().find(|state| state.0 <= end).unwrap().1;
        assert_eq!(
            &numbers(&scan_forward(&tree, Target::First, || ())),
            expected
        );
    }
}

#[test]
fn a_standby_reader_sees_every_row_once_between_any_two_applications() {
    let store = ordered_store(512);
    store.set_recyclable_before(u64::MAX);
    let tree = Tree::new(&store, &Bytewise);
    for number in 0..40 {
        put(&tree, put_head(1), &number_key(number * 10), &[7; 9]).unwrap();
    }
    let loaded = store.log_end();
    let (mut inner_merges, mut lowered) = (0, 0);
    for nth in 0..200 {
        let number = scrambled(nth) % 400;
        if !number.is_multiple_of(10) {
            let newest = put_head(u64::from(nth) + 2);
            put(&tree, newest, &number_key(number), &[9; 30]).unwrap();
        }
        // Now and then there are many, and then none: levels come and go.
        if nth % 60 == 10 {
            for number in (0..400u32).filter(|number| !number.is_multiple_of(10)) {
                let newest = put_head(1000 + u64::from(nth));
                put(&tree, newest, &number_key(number), &[9; 30]).unwrap();
            }
        }
        if nth % 60 == 40 {
            for number in 0..400 {
                prune_all_but_tens(&tree, number, 400);
            }
        }
        if nth % 3 == 0 {
            prune_all_but_tens(&tree, scrambled(nth + 1000) % 400, 400);
            for number in (0..400).step_by(25) {
                tree.merge_right(Target::Before(&number_key(number)))
                    .unwrap();
            }
            for number in (0..400).step_by(50) {
                let near = number_key(number);
                for level in 1..tree.root_level().unwrap().0 {
                    inner_merges += u32::from(
                        tree.merge_inner(Level(level), Target::Before(&near))
                            .unwrap(),
                    );
                }
            }
            lowered += u32::from(tree.lower_root().unwrap());
        }
    }
    assert!(checked(&store, &Bytewise).deleted_pages > 0);
    assert!(inner_merges > 0 && lowered > 0, "{inner_merges} {lowered}");
    let expected: Vec<u32> = (0..40).map(|number| number * 10).collect();
    for seed in 0..12u32 {
        let mut state = seed;
        let standby = store.standby(move |n| {
            state = scrambled(state.wrapping_add(101));
            state as usize % n
        });
        standby.replay_to(loaded).unwrap();
        let tree = Tree::new(&standby, &Bytewise);
        let mut rounds = 0;
        while standby.replayed() < store.log_end() {
            let mut forward = numbers(&scan_forward(&tree, Target::First, || ()));
            forward.retain(|number| number.is_multiple_of(10));
            assert_eq!(forward, expected);
            let mut backward = numbers(&scan_backward(&tree, Target::Last, || ()));
            backward.retain(|number| number.is_multiple_of(10));
            backward.reverse();
            assert_eq!(backward, expected);
            rounds += 1;
        }
        assert!(rounds > 3);
    }
}

/// Removes the versions of keys below `end` that are no multiples of ten from
/// the leaf that `near` belongs on.
pub(super) fn prune_all_but_tens<S: PageStore>(tree: &Tree<'_, S, Bytewise>, near: u32, end: u32) {
    let mut leaf = tree
        .leaf_exclusive(Target::Before(&number_key(near)))
        .unwrap();
    let block = leaf.block(tree.store);
    let page = Page::open(&leaf.guard, block).unwrap();
    let remove: Vec<SlotNumber> = (0..page.slot_count())
        .filter(|slot| {
            let number = numbers(&[seen(page, *slot, block)])[0];
            number < end && !number.is_multiple_of(10)
        })
        .map(|slot| SlotNumber(slot as u16))
        .collect();
    let ops = Ops::new().prune(&remove, &[]);
    tree.commit_leaf(&mut leaf, RecordKind::Prune, ops, Xid::NONE);
}

#[test]
fn no_space_for_a_downlink_leaves_a_tree_that_works() {
    let store = MemStore::recording(256);
    Tree::<_, Bytewise>::create(&store, b"", true).unwrap();
    let limited = Limited {
        store,
        allocations_left: AtomicU32::new(0),
    };
    let tree = Tree::new(&limited, &Bytewise);
    let mut rows = Vec::new();
    let (mut failures, mut interrupted) = (0, 0);
    for nth in 0..400 {
        let number = scrambled(nth) % 100_000;
        if rows.contains(&number) {
            continue;
        }
        // Enough for a leaf's split, not for its parent's.
        limited.allocations_left.store(nth % 2, Atomic::SeqCst);
        let done = put(&tree, put_head(1), &number_key(number), &[1; 12]);
        let report = checked(&limited, &Bytewise);
        interrupted += report.incomplete_splits;
        failures += u32::from(done.is_err());
        let stands = numbers(&scan_forward(&tree, Target::First, || ())).contains(&number);
        assert!(stands || done.is_err(), "an acknowledged entry is there");
        if stands {
            rows.push(number);
        }
        limited.allocations_left.store(100, Atomic::SeqCst);
        if !stands {
            put(&tree, put_head(1), &number_key(number), &[1; 12]).unwrap();
            rows.push(number);
        }
    }
    assert!(failures > 20 && interrupted > 5, "{failures} {interrupted}");
    rows.sort_unstable();
    assert_eq!(numbers(&scan_forward(&tree, Target::First, || ())), rows);
}

#[test]
fn a_merge_needs_one_parent_and_little_on_both_leaves() {
    let store = ordered_store(256);
    let tree = Tree::new(&store, &Bytewise);
    for number in 0..200 {
        put(&tree, put_head(1), &number_key(number), &[7; 9]).unwrap();
    }
    let before = checked(&store, &Bytewise);
    assert!(before.depth >= 3);
    // Full leaves stay.
    for number in 0..200 {
        assert_eq!(
            tree.merge_right(Target::Before(&number_key(number))),
            Ok(false)
        );
    }
    for number in 0..200 {
        empty_leaf(&tree, &number_key(number));
    }
    for number in 0..200 {
        while tree
            .merge_right(Target::Before(&number_key(number)))
            .unwrap()
        {
            checked(&store, &Bytewise);
        }
    }
    let after = checked(&store, &Bytewise);
    // One leaf remains for each lowest inner page, until those merge.
    assert_eq!(after.inner_pages, before.inner_pages);
    assert_eq!(after.depth, before.depth);
    assert!(after.leaf_pages < before.leaf_pages / 2);
    assert_eq!(after.deleted_pages, before.leaf_pages - after.leaf_pages);
    // What is deleted is used again once it may be, and not before.
    let blocks = store.block_count().unwrap();
    let fill = |from: u32| {
        for number in from..from + 60 {
            put(&tree, put_head(1), &number_key(number), &[7; 9]).unwrap();
        }
    };
    fill(1000);
    assert!(store.block_count().unwrap() > blocks);
    store.set_recyclable_before(u64::MAX);
    let blocks = store.block_count().unwrap();
    fill(2000);
    assert_eq!(store.block_count().unwrap(), blocks);
    checked(&store, &Bytewise);
}

#[test]
fn a_reader_on_a_deleted_leaf_moves_right() {
    let store = ordered_store(256);
    let tree = Tree::new(&store, &Bytewise);
    for number in 0..60 {
        put(&tree, put_head(1), &number_key(number), &[7; 9]).unwrap();
    }
    let guard = tree.leaf(Target::Before(&number_key(20))).unwrap();
    let block = store.block_of_shared(&guard);
    let page = Page::open(&guard, block).unwrap();
    let low = page.low().unwrap().to_buf();
    drop(guard);
    empty_leaf(&tree, &number_key(20));
    assert_eq!(tree.merge_right(Target::Before(&number_key(20))), Ok(true));
    assert_eq!(
        Page::open(&store.read(block).unwrap(), block)
            .unwrap()
            .kind(),
        crate::page::PageKind::Deleted
    );
    // As somebody does who read the parent, or the left sibling, before.
    let guard = tree.right_leaf(low.as_ref(), block).unwrap();
    let at = store.block_of_shared(&guard);
    let page = Page::open(&guard, at).unwrap();
    assert_eq!(page.low().unwrap().to_buf(), low);
    // And from the right, whose left link led here.
    drop(guard);
    let behind = number_key(30);
    let below = crate::page::Position {
        key: &behind,
        sequence: None,
    };
    let guard = tree.left_leaf(Some(below), block).unwrap().unwrap();
    let page = Page::open(&guard, BlockNumber::NONE).unwrap();
    assert!(page.high().unwrap().key > &behind[..3]);
}

#[test]
fn a_cached_root_is_verified() {
    let store = ordered_store(256);
    let old = Tree::new(&store, &Bytewise);
    assert!(old.leaf(Target::First).is_ok());
    let known = old.known_root();
    let tree = Tree::new(&store, &Bytewise);
    for number in 0..200 {
        put(&tree, put_head(1), &number_key(number), &[7; 9]).unwrap();
    }
    assert_ne!(tree.known_root(), known);
    let stale = Tree::with_root(&store, &Bytewise, known);
    assert_eq!(scan_forward(&stale, Target::First, || ()).len(), 200);
    let guard = stale.leaf(Target::Before(&number_key(150))).unwrap();
    drop(guard);
    assert_eq!(stale.known_root(), tree.known_root());
}

#[test]
fn a_block_remembered_as_the_last_leaf_may_be_no_page() {
    let store = ordered_store(256);
    let never_written = store.block_of(&store.allocate().unwrap());
    let tree = Tree::new(&store, &Bytewise);
    tree.append_near(Some(never_written));
    let block = put(&tree, put_head(1), &number_key(1), b"").unwrap();
    assert_ne!(block, never_written);
    checked(&store, &Bytewise);
}
