//! Range scans, leaf by leaf in either direction.
//!
//! A leaf *owns* the keys whose first position lies on it. A key whose
//! versions go on to the right is followed from its owner, and the page that
//! it goes on to skips it: so each key is judged once, whole, whichever way
//! the scan runs.

use super::batch::{Batch, Prefix};
use super::read::{Found, Lessons, goes_on, newest_seen, same_key_follows};
use super::{Snapshot, Transactions, Versioned};
use crate::btree::{Target, search};
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::page::cell::{EntryKind, LeafCell};
use crate::page::{Page, PageKind, Position, PositionBuf, Slot};
use crate::store::{LSN_BYTES, PageStore};
use crate::types::{BlockNumber, Sequence};
use std::cmp::Ordering;

/// One end of a range: the place before (`after == false`) or after all keys
/// that continue `key`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edge {
    /// Encoded key or the start of one.
    pub key: Vec<u8>,
    /// On which side of them.
    pub after: bool,
}

impl Edge {
    /// The edge between the keys whose first entry lies before a position and
    /// those whose first entry lies at or behind it.
    pub(super) fn at(position: &PositionBuf) -> Edge {
        Edge {
            key: position.key.clone(),
            after: position.sequence.is_some(),
        }
    }

    pub(super) fn target(&self) -> Target<'_> {
        if self.after {
            Target::After(&self.key)
        } else {
            Target::Before(&self.key)
        }
    }
}

/// A half-open range of keys, `from <= key < to`; `None` is unbounded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// Where it begins.
    pub from: Option<Edge>,
    /// Where it ends.
    pub to: Option<Edge>,
}

/// Which way a scan runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

/// Where a scan stands between two leaves. It holds no lock and no pin: it
/// resumes by key (rule 24).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nothing was read yet.
    Start,
    /// Everything on the near side of this position was read. The block is
    /// where the next leaf was last seen, a hint.
    At(PositionBuf, BlockNumber),
    /// Nothing is left.
    End,
}

/// Where a forward scan goes on from a position, and up to where a backward
/// scan still has to read: a key that the position lies in belongs to the
/// leaf on the position's left, its owner.
fn beyond(position: &PositionBuf) -> Target<'_> {
    match position.sequence {
        Some(_) => Target::After(&position.key),
        None => Target::Before(&position.key),
    }
}

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Copies the rows of the next leaf of a range that a snapshot sees to
    /// `batch` (ascending, whatever the direction) and moves `place` on.
    /// `Ok(false)`: the range is used up, and the batch empty. The batch may
    /// be empty before that.
    pub fn next_leaf(
        &self,
        range: &Range,
        direction: Direction,
        place: &mut Place,
        snapshot: &impl Snapshot,
        batch: &mut Batch,
    ) -> Result<bool> {
        batch.clear();
        if *place == Place::End {
            return Ok(false);
        }
        self.tree.store.interruptible();
        match direction {
            Direction::Forward => self.next_leaf_forward(range, place, snapshot, batch)?,
            Direction::Backward => self.next_leaf_backward(range, place, snapshot, batch)?,
        }
        Ok(true)
    }

    fn next_leaf_forward(
        &self,
        range: &Range,
        place: &mut Place,
        snapshot: &impl Snapshot,
        batch: &mut Batch,
    ) -> Result<()> {
        let compare = self.tree.compare;
        let guard = match &*place {
            Place::At(position, hint) => self.tree.right_leaf(position.as_ref(), *hint)?,
            _ => self
                .tree
                .leaf(range.from.as_ref().map_or(Target::First, Edge::target))?,
        };
        let block = self.tree.store.block_of_shared(&guard);
        let page = Page::open(&guard, block)?;
        let from = match &*place {
            // Nearly always the page begins just where the last one ended; a
            // key that goes on to here is passed over by `copy_slots`.
            Place::At(position, _) if page.low() == Some(position.as_ref()) => 0,
            Place::At(position, _) => search::lower_bound(page, block, beyond(position), compare)?,
            _ => match &range.from {
                Some(edge) => search::lower_bound(page, block, edge.target(), compare)?,
                None => 0,
            },
        };
        let (to, whole) = self.end_on(page, block, range)?;
        let next = match page.high() {
            Some(high) if whole => Place::At(high.to_buf(), page.right()),
            _ => Place::End,
        };
        let whole = whole
            && !matches!(&*place, Place::At(position, _) if position.sequence.is_some()
                && page.high().is_some_and(|high| high.sequence.is_some()
                    && compare.compare(high.key, &position.key).is_eq()));
        if let Place::At(_, right) = &next {
            self.tree.store.expect(*right);
        }
        self.copy_leaf(guard, block, from, to, whole, range, snapshot, batch)?;
        *place = next;
        Ok(())
    }

    fn next_leaf_backward(
        &self,
        range: &Range,
        place: &mut Place,
        snapshot: &impl Snapshot,
        batch: &mut Batch,
    ) -> Result<()> {
        let compare = self.tree.compare;
        // The leaf that holds what lies just before the place, and up to
        // which of its slots the place has it.
        let found = match &*place {
            Place::At(position, hint) => self.tree.left_leaf(Some(position.as_ref()), *hint)?,
            _ => Some(
                self.tree
                    .leaf(range.to.as_ref().map_or(Target::Last, Edge::target))?,
            ),
        };
        let Some(guard) = found else {
            *place = Place::End;
            return Ok(());
        };
        let block = self.tree.store.block_of_shared(&guard);
        let page = Page::open(&guard, block)?;
        let (mut to, mut whole) = self.end_on(page, block, range)?;
        if let Place::At(position, _) = &*place {
            to = search::lower_bound(page, block, beyond(position), compare)?;
            // Behind the place lies what was read already: the next leaf, or
            // after a merge a part of this one. But a key that the place lies
            // in was left to its owner, which is this leaf.
            whole = to == page.slot_count()
                && page.high().is_some_and(|high| {
                    high.sequence.is_some()
                        && position.sequence.is_some()
                        && compare.compare(high.key, &position.key).is_eq()
                });
        }
        let from = match &range.from {
            Some(edge) => search::lower_bound(page, block, edge.target(), compare)?,
            None => 0,
        };
        let next = match page.low() {
            Some(low) if self.begins_before(range, low) => Place::At(low.to_buf(), page.left()),
            _ => Place::End,
        };
        self.copy_leaf(guard, block, from, to, whole, range, snapshot, batch)?;
        *place = next;
        Ok(())
    }

    /// The slot at which the range ends on this page, and whether the page
    /// lies inside it up to its upper fence.
    pub(super) fn end_on(
        &self,
        page: Page<'_>,
        block: BlockNumber,
        range: &Range,
    ) -> Result<(usize, bool)> {
        let Some(edge) = &range.to else {
            return Ok((page.slot_count(), true));
        };
        let compare = self.tree.compare;
        if let Some(high) = page.high()
            && compare.compare_bound(high.key, &edge.key, edge.after) == Ordering::Less
        {
            return Ok((page.slot_count(), true));
        }
        let to = search::lower_bound(page, block, edge.target(), compare)?;
        Ok((to, false))
    }

    /// Whether anything of the range lies before a position.
    fn begins_before(&self, range: &Range, position: Position<'_>) -> bool {
        range.from.as_ref().is_none_or(|edge| {
            let order = self
                .tree
                .compare
                .compare_bound(position.key, &edge.key, edge.after);
            order.is_gt() || order.is_eq() && position.sequence.is_some()
        })
    }

    /// Copies what the snapshot sees of the slots `from..to`, lets go of the
    /// page, and follows a key that goes on to the right.
    #[expect(clippy::too_many_arguments, reason = "one leaf of one scan")]
    fn copy_leaf(
        &self,
        guard: S::Shared<'_>,
        block: BlockNumber,
        from: usize,
        to: usize,
        whole: bool,
        range: &Range,
        snapshot: &impl Snapshot,
        batch: &mut Batch,
    ) -> Result<()> {
        let mut lessons = Lessons::of(snapshot);
        if snapshot.is_tracked() {
            self.tree.store.leaf_read(block);
        }
        batch.block = block.0;
        let page = Page::open(&guard, block)?;
        let follow = copy_slots(
            page,
            block,
            from,
            to,
            whole,
            snapshot,
            self.tree.compare,
            batch,
            &mut lessons,
        )?;
        let follow = follow
            .filter(|(key, _)| {
                range.from.as_ref().is_none_or(|edge| {
                    self.tree.compare.compare_bound(key, &edge.key, edge.after) != Ordering::Less
                })
            })
            .map(|(key, sequence)| (key.to_vec(), sequence));
        drop(guard);
        self.note(block, &mut lessons);
        if let Some((key, sequence)) = follow {
            self.follow(&key, sequence, snapshot, batch)?;
        }
        Ok(())
    }

    /// Looks for the version of a key that a snapshot sees on the pages to the
    /// right of its owner, and copies it.
    fn follow(
        &self,
        key: &[u8],
        mut sequence: Sequence,
        snapshot: &impl Snapshot,
        batch: &mut Batch,
    ) -> Result<()> {
        let compare = self.tree.compare;
        let mut lessons = Lessons::of(snapshot);
        loop {
            let target = Target::At(key, sequence);
            let guard = self.tree.leaf(target)?;
            let block = self.tree.store.block_of_shared(&guard);
            let page = Page::open(&guard, block)?;
            let slot = search::lower_bound(page, block, target, compare)?;
            let next = match newest_seen(page, block, slot, key, snapshot, compare, &mut lessons)? {
                Found::Version(slot, cell) => {
                    if cell.head.kind() == EntryKind::Put {
                        // As in `get`: a row has one name, the stored one.
                        let suffix = page.suffix(slot, block)?;
                        batch.push(page.prefix(), suffix, cell.body, cell.head);
                    }
                    None
                }
                Found::None => None,
                Found::GoesOn(next) => Some(next),
            };
            drop(guard);
            self.note(block, &mut lessons);
            match next {
                Some(next) => sequence = next,
                None => return Ok(()),
            }
        }
    }

    /// Whether there is no entry at all, dead or alive.
    pub fn is_empty(&self) -> Result<bool> {
        let guard = self.tree.leaf(Target::First)?;
        let page = Page::open(&guard, self.tree.store.block_of_shared(&guard))?;
        Ok(page.slot_count() == 0 && page.high().is_none())
    }

    /// Copies the rows of one block, whichever it is: for samples (ANALYZE,
    /// TABLESAMPLE), which choose blocks and not keys. Returns how many
    /// versions it holds that nobody sees any more, or `None` for a page that
    /// is no leaf.
    pub fn sample_block(
        &self,
        block: BlockNumber,
        snapshot: &impl Snapshot,
        batch: &mut Batch,
    ) -> Result<Option<usize>> {
        batch.clear();
        let guard = self.tree.store.read(block)?;
        if Page::is_new(&guard) {
            return Ok(None);
        }
        let page = Page::open(&guard, block)?;
        if page.kind() != PageKind::Leaf {
            return Ok(None);
        }
        let entries = page.slot_count();
        self.copy_leaf(
            guard,
            block,
            0,
            entries,
            true,
            &Range::default(),
            snapshot,
            batch,
        )?;
        Ok(Some(entries.saturating_sub(batch.len())))
    }
}

#[cold]
fn unreadable(block: BlockNumber) -> Error {
    Error::corrupt(block, "a leaf entry cannot be read")
}

/// Copies a row whose cell was decoded in one piece.
#[inline(always)]
pub(super) fn push_small(
    page: Page<'_>,
    at: Slot,
    cell: &LeafCell<'_>,
    prefix: &Prefix<'_>,
    batch: &mut Batch,
) {
    // The key's rest and the payload are the cell's end, and the page goes on
    // behind it.
    let suffix_len = cell.suffix.map_or(0, <[u8]>::len);
    let skipped = at.length as usize - suffix_len - cell.body.len();
    let rest = &page.bytes()[at.offset as usize + skipped - LSN_BYTES..];
    batch.push_cell(prefix, rest, suffix_len, cell.body.len(), cell.head);
}

/// Copies what a snapshot sees of a page's slots. If `whole`, the last key may
/// go on beyond the page: it is then returned with the sequence it goes on at,
/// unless its version was found.
#[expect(clippy::too_many_arguments, reason = "one leaf of one scan")]
fn copy_slots<'p, C: Compare>(
    page: Page<'p>,
    block: BlockNumber,
    from: usize,
    to: usize,
    whole: bool,
    snapshot: &impl Snapshot,
    compare: &C,
    batch: &mut Batch,
    lessons: &mut Lessons,
) -> Result<Option<(&'p [u8], Sequence)>> {
    let prefix = Prefix::new(page.prefix());
    let mut slot = from;
    // A key that began on a page to the left is its owner's affair.
    if slot == 0
        && let Some(low) = page.low()
        && low.sequence.is_some()
    {
        while slot < to && search::matches(page, slot, block, low.key, compare)? {
            slot += 1;
        }
    }
    // Whether a version of the key at hand was seen, and of the last one.
    let mut decided = false;
    let mut decided_last = false;
    while slot < to {
        let at = page.slot(slot);
        if decided && at.key_below {
            // An older version, with one older still behind it.
            slot += 1;
            continue;
        }
        let bytes = page.cell_bytes(at);
        if !decided
            && !at.key_below
            && let Some(cell) = LeafCell::decode_small(bytes)
        {
            // The short way: the only version of its key.
            let judgement = snapshot.judge(cell.head);
            decided_last = lessons.note(slot, cell.head, judgement);
            if decided_last && cell.head.kind() == EntryKind::Put {
                push_small(page, at, &cell, &prefix, batch);
            }
            slot += 1;
            continue;
        }
        let Some(cell) = LeafCell::decode(bytes, at.key_below) else {
            return Err(unreadable(block));
        };
        let is_version = cell.head.is_version();
        if !decided && is_version {
            let judgement = snapshot.judge(cell.head);
            decided = lessons.note(slot, cell.head, judgement);
            if decided && cell.head.kind() == EntryKind::Put {
                let suffix = match cell.suffix {
                    Some(suffix) => suffix,
                    None => page.suffix(slot, block)?,
                };
                batch.push(page.prefix(), suffix, cell.body, cell.head);
            }
        }
        decided_last = decided;
        if !at.key_below
            && (is_version || !same_key_follows(page, block, slot, cell.head, compare)?)
        {
            decided = false;
        }
        slot += 1;
    }
    let last = page
        .high()
        .and_then(|high| Some((high.key, high.within_key()?)));
    let (Some((key, sequence)), true) = (last, whole) else {
        return Ok(None);
    };
    // The page ends within a key. If that key's version was found, or the key
    // began on a page further left, there is nothing to follow.
    if page
        .low()
        .is_some_and(|low| low.sequence.is_some() && compare.compare(low.key, key).is_eq())
    {
        return Ok(None);
    }
    let on_page = to > 0
        && search::matches(page, to - 1, block, key, compare)?
        && goes_on(page, key, compare).is_some();
    if on_page && decided_last {
        return Ok(None);
    }
    Ok(Some((key, sequence)))
}
