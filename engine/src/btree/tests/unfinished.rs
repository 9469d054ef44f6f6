//! A root whose split a crash cut off: it has a right half and no parent.
//! Whatever happens to the right half before a writer comes by the root, the
//! tree stays whole.

use super::promises::scrambled;
use super::*;
use crate::btree::Path;
use crate::mem::Lsn;
use crate::mem::log::Entry;
use crate::page::flag;
use crate::page::op::Ops;
use crate::record::RecordKind;
use crate::types::{Level, SlotNumber};

/// A tree whose root, of some level, was split when the log ends. `prepare` is
/// done to each tree before the row that may split it.
fn cut_off(
    level: Level,
    next: impl Fn(u32) -> u32,
    mut prepare: impl FnMut(&Tree<'_, MemStore, Bytewise>, u32),
) -> MemStore {
    let store = ordered_store(256);
    let tree = Tree::new(&store, &Bytewise);
    for nth in 0.. {
        prepare(&tree, nth);
        let key = number_key(next(nth));
        put(&tree, put_head(u64::from(nth) + 1), &key, &[7; 9]).unwrap();
        if tree.root_level().unwrap() > level {
            break;
        }
    }
    let entries = store.entries();
    let is_new_root = |entry: &Entry| matches!(entry, Entry::Change { record, .. } if record.kind == RecordKind::NewRoot);
    let raised = entries.iter().rposition(is_new_root).unwrap();
    let crashed = store.crash(Lsn(raised as u64), |states| states - 1);
    crashed.redo().unwrap();
    let tree = Tree::new(&crashed, &Bytewise);
    assert_eq!(tree.root_level().unwrap(), level);
    let (root, right) = halves(&tree);
    assert!(has(&crashed, root, flag::ROOT) && has(&crashed, root, flag::INCOMPLETE_SPLIT));
    assert!(!has(&crashed, right, flag::ROOT));
    crashed
}

/// The root, and what stands to its right.
fn halves(tree: &Tree<'_, MemStore, Bytewise>) -> (BlockNumber, BlockNumber) {
    let root = BlockNumber(tree.meta().unwrap().root);
    let guard = tree.store.read(root).unwrap();
    (root, Page::open(&guard, root).unwrap().right())
}

fn has(store: &MemStore, block: BlockNumber, flag: u16) -> bool {
    let guard = store.read(block).unwrap();
    Page::open(&guard, block).unwrap().has(flag)
}

fn keys(tree: &Tree<'_, MemStore, Bytewise>) -> Vec<Vec<u8>> {
    let rows = scan_forward(tree, Target::First, || ());
    rows.into_iter().map(|row| row.0).collect()
}

/// A leaf that nothing on the way to it was looked at for.
fn taken_directly<'t>(
    tree: &Tree<'t, MemStore, Bytewise>,
    key: &[u8],
    parent: BlockNumber,
) -> Leaf<'t, MemStore> {
    let mut path = Path::new();
    path.remember(Level(1), parent);
    let block = tree
        .store
        .block_of_shared(&tree.leaf(Target::Before(key)).unwrap());
    let guard = tree.store.lock(block).unwrap();
    Leaf { guard, path }
}

/// Puts a row on a leaf.
fn put_on<'t>(tree: &Tree<'t, MemStore, Bytewise>, leaf: Leaf<'t, MemStore>, key: &[u8]) {
    let head = put_head(9_999);
    let (slot, key_below) = place(tree, &leaf, head, key);
    let entry = NewEntry {
        head,
        key,
        body: &[8; 9],
        slot,
        key_below,
        like: None,
    };
    tree.put(leaf, entry, RecordKind::Insert).unwrap();
}

/// Writers come to all places; then no split is left.
fn ends_in_order(tree: &Tree<'_, MemStore, Bytewise>, expected: &mut Vec<Vec<u8>>) {
    expected.sort_unstable();
    assert_eq!(&keys(tree), expected);
    checked(tree.store, &Bytewise);
    for key in expected.iter() {
        drop(tree.leaf_exclusive(Target::Before(key)).unwrap());
    }
    let mut level = Level(1);
    while level <= tree.root_level().unwrap() {
        let mut place: Option<PositionBuf> = None;
        loop {
            let from = place
                .as_ref()
                .map_or(Target::First, |at| Target::of(at.as_ref()));
            place = tree.inner_page(level, from).unwrap().0;
            if place.is_none() {
                break;
            }
        }
        level.0 += 1;
    }
    assert_eq!(checked(tree.store, &Bytewise).incomplete_splits, 0);
    assert_eq!(&keys(tree), expected);
}

#[test]
fn the_right_half_of_a_root_leaf_is_split_before_the_root_has_a_parent() {
    let store = cut_off(Level::LEAF, |nth| 1000 * nth, |_, _| ());
    let tree = Tree::new(&store, &Bytewise);
    let (root, right) = halves(&tree);
    let mut expected = keys(&tree);
    let from = {
        let guard = store.read(right).unwrap();
        let low = Page::open(&guard, right).unwrap().low().unwrap().to_buf();
        let mut number = [0; 4];
        number[..low.key.len()].copy_from_slice(&low.key);
        u32::from_be_bytes(number)
    };
    for nth in 1..40 {
        let key = number_key(from + nth);
        tree.look_near(right);
        let leaf = tree.leaf_exclusive(Target::Before(&key)).unwrap();
        put_on(&tree, leaf, &key);
        expected.push(key.to_vec());
        checked(&store, &Bytewise);
    }
    assert!(!has(&store, root, flag::ROOT), "a writer came by the root");
    ends_in_order(&tree, &mut expected);
}

#[test]
fn a_page_whose_split_is_not_ended_is_split_again() {
    for level in [Level::LEAF, Level(1)] {
        let store = cut_off(level, |nth| scrambled(nth) % 60_000, |_, _| ());
        let tree = Tree::new(&store, &Bytewise);
        let (root, right) = halves(&tree);
        let mut expected = keys(&tree);
        let mut unfinished = 0;
        for nth in 0..600 {
            let key = number_key(60_000 + scrambled(nth) % 60_000);
            if expected.iter().any(|other| other[..] == key) {
                continue;
            }
            put_on(&tree, taken_directly(&tree, &key, right), &key);
            expected.push(key.to_vec());
            let report = checked(&store, &Bytewise);
            unfinished = unfinished.max(report.incomplete_splits);
        }
        // As long as nobody locks the root's page, it stays the root.
        if level == Level::LEAF {
            assert!(has(&store, root, flag::ROOT));
            assert!(unfinished > 8, "only {unfinished} splits stayed unfinished");
        }
        ends_in_order(&tree, &mut expected);
    }
}

#[test]
fn a_writer_on_the_right_of_an_unfinished_root_ends_its_split() {
    let store = cut_off(Level(1), |nth| 10 * nth, |_, _| ());
    let tree = Tree::new(&store, &Bytewise);
    let (root, _) = halves(&tree);
    let mut expected = keys(&tree);
    for nth in 0..600 {
        let key = number_key(1_000_000 + nth);
        put(&tree, put_head(1), &key, &[7; 9]).unwrap();
        expected.push(key.to_vec());
        assert!(checked(&store, &Bytewise).incomplete_splits <= 1);
    }
    assert!(!has(&store, root, flag::ROOT));
    ends_in_order(&tree, &mut expected);
}

/// Rows of every third leaf go, so that there are unused pages in front.
fn thin_out(tree: &Tree<'_, MemStore, Bytewise>, nth: u32) {
    if nth % 20 != 19 {
        return;
    }
    let key = number_key(10 * (nth - 18));
    let mut leaf = tree.leaf_exclusive(Target::Before(&key)).unwrap();
    let count = Page::open(&leaf.guard, leaf.block(tree.store))
        .unwrap()
        .slot_count();
    let all: Vec<_> = (0..count as u16).map(SlotNumber).collect();
    let ops = Ops::new().prune(&all, &[]);
    tree.commit_leaf(&mut leaf, RecordKind::Prune, ops, Xid::NONE);
    drop(leaf);
    tree.merge_right(Target::Before(&key)).unwrap();
}

#[test]
fn the_end_of_the_file_is_cleared_below_an_unfinished_root() {
    for recyclable in [0, u64::MAX] {
        let store = cut_off(Level(1), |nth| 10 * nth, thin_out);
        let tree = Tree::new(&store, &Bytewise);
        let (root, right) = halves(&tree);
        // Leaves behind the right half in the file, for which nobody came by
        // the root.
        for nth in 0..30 {
            let key = number_key(1_000_000 + nth);
            put_on(&tree, taken_directly(&tree, &key, right), &key);
        }
        assert!(has(&store, root, flag::INCOMPLETE_SPLIT));
        let mut expected = keys(&tree);
        store.set_recycle_stamp(5);
        store.set_recyclable_before(recyclable);
        store.set_alone(true);
        let cleared = tree.clear_end(u32::MAX, || true).unwrap();
        assert_eq!(
            store.block_count().unwrap(),
            cleared.blocks,
            "it allocates nothing"
        );
        store.truncate(cleared.end);
        store.set_alone(false);
        assert!(cleared.moved > 0, "{cleared:?}");
        ends_in_order(&tree, &mut expected);
    }
}
