//! Tests of the tree on the memory store.

mod concurrency;
mod damage;
mod loads;
mod model;
mod promises;
mod splits;
mod unfinished;

use std::cmp::Ordering;

use super::search::{copy_key, lower_bound, matches};
use super::{Leaf, NewEntry, Target, Tree, check};
use crate::compare::{Bytewise, Compare, common_prefix_len};
use crate::error::Result;
use crate::mem::MemStore;
use crate::page::cell::{EntryKind, Head};
use crate::page::{Page, PositionBuf};
use crate::record::RecordKind;
use crate::store::PageStore;
use crate::types::{BlockNumber, CommandId, Sequence, Xid};

/// Keys in descending byte order: an order that is not that of bytes.
struct Backwards;

impl Compare for Backwards {
    fn ordered(&self) -> bool {
        false
    }

    fn compare(&self, left: &[u8], right: &[u8]) -> Ordering {
        let turned = |key: &[u8]| key.iter().map(|byte| !byte).collect::<Vec<_>>();
        turned(left).cmp(&turned(right))
    }

    fn compare_bound(&self, key: &[u8], bound: &[u8], after: bool) -> Ordering {
        if after && key.starts_with(bound) {
            return Ordering::Less;
        }
        self.compare(key, bound)
    }

    fn separator(&self, left: &[u8], right: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let shared = common_prefix_len(left, right);
        out.extend_from_slice(&right[..(shared + 1).min(right.len())]);
    }
}

/// Keys in byte order that nobody may cut: a separator is the whole right key,
/// as it is for columns that only their type can compare.
struct Uncut;

impl Compare for Uncut {
    fn ordered(&self) -> bool {
        false
    }

    fn compare(&self, left: &[u8], right: &[u8]) -> Ordering {
        left.cmp(right)
    }

    fn compare_bound(&self, key: &[u8], bound: &[u8], after: bool) -> Ordering {
        Bytewise.compare_bound(key, bound, after)
    }

    fn separator(&self, _left: &[u8], right: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(right);
    }
}

/// An entry as a scan sees it.
type Seen = (Vec<u8>, u64, Vec<u8>);

fn put_head(sequence: u64) -> Head {
    Head {
        flags: EntryKind::Put as u8,
        xmin: Xid(100 + sequence as u32),
        cid: CommandId(1),
        sequence: Sequence(sequence),
    }
}

fn lock_head(holder: u32) -> Head {
    Head {
        flags: EntryKind::Lock as u8,
        xmin: Xid(holder),
        cid: CommandId(0),
        sequence: Sequence::of_lock(Xid(holder)),
    }
}

/// A new ordered tree.
fn ordered_store(page_size: usize) -> MemStore {
    let store = MemStore::recording(page_size);
    Tree::<_, Bytewise>::create(&store, b"layout", true).unwrap();
    store
}

/// Puts an entry where it belongs, as the versioned store does it.
fn put<S: PageStore, C: Compare>(
    tree: &Tree<'_, S, C>,
    head: Head,
    key: &[u8],
    body: &[u8],
) -> Result<BlockNumber> {
    let leaf = tree.leaf_exclusive(Target::At(key, head.sequence))?;
    let (slot, key_below) = place(tree, &leaf, head, key);
    let entry = NewEntry {
        head,
        key,
        body,
        slot,
        key_below,
        like: key_below.then_some(slot),
    };
    tree.put(leaf, entry, RecordKind::Insert)
}

fn place<S: PageStore, C: Compare>(
    tree: &Tree<'_, S, C>,
    leaf: &Leaf<'_, S>,
    head: Head,
    key: &[u8],
) -> (usize, bool) {
    let block = leaf.block(tree.store);
    let page = Page::open(&leaf.guard, block).unwrap();
    let target = Target::At(key, head.sequence);
    let slot = lower_bound(page, block, target, tree.compare).unwrap();
    let key_below =
        slot < page.slot_count() && matches(page, slot, block, key, tree.compare).unwrap();
    (slot, key_below)
}

fn seen(page: Page<'_>, slot: usize, block: BlockNumber) -> Seen {
    let mut key = Vec::new();
    copy_key(page, slot, block, &mut key).unwrap();
    let cell = page.leaf_cell(slot, block).unwrap();
    (key, cell.head.sequence.0, cell.body.to_vec())
}

/// Everything from a target on, leaf by leaf, resumed by position as scans do.
fn scan_forward<S: PageStore, C: Compare>(
    tree: &Tree<'_, S, C>,
    from: Target<'_>,
    mut between: impl FnMut(),
) -> Vec<Seen> {
    let mut rows = Vec::new();
    let mut guard = tree.leaf(from).unwrap();
    let mut resume: Option<PositionBuf> = None;
    loop {
        let block = tree.store.block_of_shared(&guard);
        let (high, right) = {
            let page = Page::open(&guard, block).unwrap();
            let target = resume
                .as_ref()
                .map_or(from, |position| Target::of(position.as_ref()));
            let first = lower_bound(page, block, target, tree.compare).unwrap();
            rows.extend((first..page.slot_count()).map(|slot| seen(page, slot, block)));
            (page.high().map(|high| high.to_buf()), page.right())
        };
        drop(guard);
        between();
        let Some(high) = high else {
            return rows;
        };
        guard = tree.right_leaf(high.as_ref(), right).unwrap();
        resume = Some(high);
    }
}

/// Everything before a target, backwards, resumed by position.
fn scan_backward<S: PageStore, C: Compare>(
    tree: &Tree<'_, S, C>,
    to: Target<'_>,
    mut between: impl FnMut(),
) -> Vec<Seen> {
    let mut rows = Vec::new();
    let mut guard = tree.leaf(to).unwrap();
    let mut resume: Option<PositionBuf> = None;
    loop {
        let block = tree.store.block_of_shared(&guard);
        let (low, left) = {
            let page = Page::open(&guard, block).unwrap();
            let target = resume
                .as_ref()
                .map_or(to, |position| Target::of(position.as_ref()));
            let end = lower_bound(page, block, target, tree.compare).unwrap();
            rows.extend((0..end).rev().map(|slot| seen(page, slot, block)));
            (page.low().map(|low| low.to_buf()), page.left())
        };
        drop(guard);
        between();
        let next = tree
            .left_leaf(low.as_ref().map(|low| low.as_ref()), left)
            .unwrap();
        match next {
            Some(next) => guard = next,
            None => return rows,
        }
        resume = low;
    }
}

/// Checks the tree; it must be in order. But versions may have been put anywhere
/// among others of their key, which the versioned store does not do.
fn checked<S: PageStore, C: Compare>(store: &S, compare: &C) -> check::Report {
    let mut report = check::check(store, compare).unwrap();
    let is_allowed = |problem: &check::Problem| problem.what.ends_with(check::UNLINKED);
    report.problems.retain(|problem| !is_allowed(problem));
    assert_eq!(report.problems, [], "the tree is not in order");
    report
}

/// A number as a key whose byte order is its own.
fn number_key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}
