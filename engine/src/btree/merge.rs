//! Merging a page into its right sibling: a leaf, or an inner page.

use super::cells::Cells;
use super::descend::RESTARTS_MAX;
use super::measure::{fence_len, key_len, prefix_for, usable_bytes, used_bytes};
use super::search::{Goal, downlink_slot};
use super::split::slot_number;
use super::{Fill, Path, Target, Tree, point};
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::page::cell::InnerCell;
use crate::page::op::Ops;
use crate::page::{Page, PageKind, Position, PositionBuf, SLOT_BYTES, flag, key_bytes_max};
use crate::record::{Record, RecordKind};
use crate::store::PageStore;
use crate::types::{BlockNumber, Level, SlotNumber};

/// How full a page is, as far as a merge wants to know.
#[derive(Clone, Copy, Debug)]
pub struct Filling {
    page_size: usize,
    /// Of slots and cells.
    bytes: usize,
    /// Of the fences.
    low: usize,
    high: usize,
    /// What the last entry's key takes at most, told by its slot: of a leaf that
    /// VACUUM has pruned little else is at hand.
    last_key: usize,
    /// Whether it is as sparse as a page of its level can be.
    is_sparsest: bool,
}

impl Filling {
    /// That of a page.
    pub fn of(page: Page<'_>) -> Filling {
        let (low, high) = (fence_len(page.low()), fence_len(page.high()));
        let last_key = match page.slot_count().checked_sub(1) {
            Some(last) if page.kind() == PageKind::Leaf => {
                usize::from(page.slot(last).length).min(key_len(key_bytes_max(page.size())))
            }
            _ => 0,
        };
        Filling {
            page_size: page.size(),
            bytes: used_bytes(page).saturating_sub(low + high),
            low,
            high,
            last_key,
            is_sparsest: is_sparsest(page),
        }
    }

    /// Whether a merge with the right sibling is worth looking into, which
    /// copies all of the left page: not if the entries are too many as they are.
    /// None of them gets shorter by a merge, for the prefix does not get longer,
    /// but the left page's last one, if its key goes on to the right.
    pub fn may_merge(self, right: Filling, fill: Fill) -> bool {
        self.low + self.bytes.saturating_sub(self.last_key) + right.bytes + right.high
            <= limit(self.page_size, fill, self.is_sparsest || right.is_sparsest)
    }
}

/// A page cannot be sparser than with no entry, or with one downlink, however
/// much of it the fences take.
fn is_sparsest(page: Page<'_>) -> bool {
    page.slot_count() <= if page.kind() == PageKind::Leaf { 0 } else { 1 }
}

/// What a merged page may take of fences, slots and cells.
fn limit(page_size: usize, fill: Fill, is_one_sparsest: bool) -> usize {
    if is_one_sparsest {
        usable_bytes(page_size)
    } else {
        fill.merge_bytes(page_size)
    }
}

/// What the merged page will be.
struct Merged {
    prefix_len: usize,
    /// What comes in front of the right page's cells. Of an inner page this is
    /// also, with a key now, the first of them.
    cells: Cells,
}

impl<'t, S: PageStore, C: Compare> Tree<'t, S, C> {
    /// Merges the leaf that contains the target into its right sibling: see
    /// `merge_pages`.
    pub fn merge_right(&self, target: Target<'_>) -> Result<bool> {
        self.merge_pages(Level::LEAF, Goal::at(target))
    }

    /// Merges the inner page of a level that contains the target into its
    /// right sibling: see `merge_pages`.
    pub fn merge_inner(&self, level: Level, target: Target<'_>) -> Result<bool> {
        assert!(level > Level::LEAF, "inner pages stand above the leaves");
        self.merge_pages(level, Goal::at(target))
    }

    /// Merges the two pages of a level that meet at a fence: for a fence that
    /// was one between two parents until those were merged.
    pub fn merge_at(&self, level: Level, fence: Position<'_>) -> Result<bool> {
        self.merge_pages(level, Goal::below(fence))
    }

    /// Merges the page of a level that contains the goal into its right
    /// sibling, if both have the same parent and together fill no more than
    /// `MERGE_PERCENT` and [`Fill`] have it (or, of leaves, one is empty). One record; on
    /// success the entries or downlinks of the left page stand at the front of
    /// the right one, and whoever holds a link to the left one moves right.
    /// Gives up, rather than wait for a better moment, where a neighbour
    /// changed meanwhile.
    ///
    /// Locks left sibling, page, right sibling and parent, in this order.
    fn merge_pages(&self, level: Level, goal: Goal<'_>) -> Result<bool> {
        let mut path = Path::new();
        // The page is looked at first, for its left sibling has to be locked
        // before it is.
        let (outer_block, left_block) = {
            let guard = self.page_shared(level, goal, None, &mut path)?;
            let block = self.store.block_of_shared(&guard);
            let page = Page::open(&guard, block)?;
            if !page.right().is_some() {
                return Ok(false);
            }
            (page.left(), block)
        };
        self.store.pace(point::MERGE_BEFORE_LOCKS);
        let mut outer = if outer_block.is_some() {
            let guard = self.store.lock(outer_block)?;
            let page = Page::open(&guard, outer_block)?;
            if !is_stable(page, level) || page.right() != left_block {
                return Ok(false);
            }
            Some(guard)
        } else {
            None
        };
        let mut left = self.store.lock(left_block)?;
        let left_page = Page::open(&left, left_block)?;
        let right_block = left_page.right();
        if !is_stable(left_page, level) || left_page.left() != outer_block || !right_block.is_some()
        {
            return Ok(false);
        }
        let mut right = self.store.lock(right_block)?;
        let right_page = Page::open(&right, right_block)?;
        if right_page.left() != left_block {
            return Err(Error::corrupt(
                right_block,
                format!("its left sibling is not {left_block}, which links to it"),
            ));
        }
        if !is_stable(right_page, level) {
            return Ok(false);
        }
        let Some(merged) = plan(
            left_page,
            left_block,
            right_page,
            right_block,
            self.fill_of(level),
            self.compare,
        )?
        else {
            return Ok(false);
        };
        // The parent of the right page's position: it holds the left page's
        // downlink as well, or the two have different parents.
        let boundary = left_page
            .high()
            .ok_or_else(|| Error::corrupt(left_block, "not the last page, but without a fence"))?;
        let above = Level(level.0 + 1);
        let mut parent = self
            .lock_parent(above, boundary, &mut path)?
            .ok_or_else(|| Error::corrupt(left_block, "it has a sibling, but no parent"))?;
        let parent_block = self.store.block_of(&parent);
        let parent_page = Page::open(&parent, parent_block)?;
        let behind = downlink_slot(parent_page, parent_block, boundary, self.compare)?;
        let Some(slot) = behind.checked_sub(2) else {
            return Ok(false);
        };
        let own = parent_page.inner_cell(slot, parent_block)?;
        let other = parent_page.inner_cell(slot + 1, parent_block)?;
        if own.child != left_block || other.child != right_block {
            return Err(Error::corrupt(
                parent_block,
                format!("its downlinks do not name {left_block} and {right_block} in a row"),
            ));
        }
        self.store.pace(point::MERGE_BEFORE_COMMIT);
        // Its bytes behind the page's prefix stay what they are.
        let mut downlink = Vec::new();
        InnerCell::encode(right_block, own.position, 0, &mut downlink);
        let not_frozen = flag::SETTLED & !left_page.flags();
        let mut right_ops = Ops::new()
            .fences(merged.prefix_len as u16, left_page.low(), right_page.high())
            .insert_run(SlotNumber(0), merged.cells.iter());
        if level > Level::LEAF {
            // The right page's first downlink has got a key, and stands in front.
            let old = slot_number(merged.cells.iter().count());
            right_ops = right_ops.prune(&[old], &[]);
        }
        let right_ops = right_ops
            .links(Some(outer_block), None)
            .flags(0, not_frozen);
        let parent_ops = Ops::new()
            .replace(slot_number(slot), &downlink)
            .prune(&[slot_number(slot + 1)], &[]);
        let mut record = Record::new(RecordKind::Merge);
        let mut pages = Vec::with_capacity(4);
        if let Some(outer) = outer.as_mut() {
            record = record.change(outer_block, Ops::new().links(None, Some(right_block)));
            pages.push(outer);
        }
        record = record
            .change(left_block, Ops::new().delete(self.store.recycle_stamp()))
            .change(right_block, right_ops)
            .change(parent_block, parent_ops);
        pages.extend([&mut left, &mut right, &mut parent]);
        if level == Level::LEAF {
            // What would have gone to the left leaf goes to the right one now.
            self.store.leaf_merged(left_block, right_block);
        }
        self.store.commit(&record, &mut pages);
        drop(left);
        self.store.offer(left_block);
        Ok(true)
    }

    /// Where the page of a level that contains the target ends, and how full
    /// it is. Ends its split, if a crash or an error cut that off.
    pub fn inner_page(
        &self,
        level: Level,
        target: Target<'_>,
    ) -> Result<(Option<PositionBuf>, Filling)> {
        let goal = Goal::at(target);
        let mut path = Path::new();
        for _ in 0..RESTARTS_MAX {
            {
                let guard = self.page_shared(level, goal, None, &mut path)?;
                let page = Page::open(&guard, self.store.block_of_shared(&guard))?;
                if !page.has(flag::INCOMPLETE_SPLIT) {
                    return Ok((page.high().map(Position::to_buf), Filling::of(page)));
                }
            }
            let found = self.descend(goal, level, &mut path)?;
            // Whatever comes of it, the page is looked at again.
            drop(self.settle(found, goal, level, &mut path)?);
        }
        Err(self.lost(BlockNumber::META))
    }
}

/// A live page of the level whose right sibling has a downlink.
fn is_stable(page: Page<'_>, level: Level) -> bool {
    page.kind() == PageKind::of_level(level)
        && page.level() == level
        && !page.has(flag::INCOMPLETE_SPLIT)
}

/// The left page's cells for the front of the right page, if that is wanted
/// and fits.
fn plan(
    left: Page<'_>,
    left_block: BlockNumber,
    right: Page<'_>,
    right_block: BlockNumber,
    fill: Fill,
    compare: &impl Compare,
) -> Result<Option<Merged>> {
    let prefix_len = prefix_for(right, left.low(), right.high());
    let is_leaf = right.kind() == PageKind::Leaf;
    let count = left.slot_count();
    let mut cells = Cells::of_page();
    for slot in 0..count {
        // The last one takes the key that the right page begins with, if it
        // is its own, in whichever bytes: on one page a version with a key of
        // its own is the last of that key.
        let below = left.slot(slot).key_below
            || is_leaf
                && slot + 1 == count
                && right.slot_count() > 0
                && is_same(left, slot, left_block, right, right_block, compare)?;
        cells.copy(left, slot, left_block, prefix_len, below)?;
    }
    if !is_leaf {
        for (page, block) in [(left, left_block), (right, right_block)] {
            if page.slot_count() == 0 {
                return Err(Error::corrupt(block, "an inner page without downlinks"));
            }
        }
        // The right page's first downlink is the first no more.
        let child = right.inner_cell(0, right_block)?.child;
        let position = right.low().ok_or_else(|| {
            Error::corrupt(right_block, "not the first page, but without a fence")
        })?;
        cells.inner(child, position, prefix_len);
    }
    let moved: usize = cells.iter().map(|(_, cell)| cell.len() + SLOT_BYTES).sum();
    // Keys get back what the shorter prefix no longer says for them.
    let given_back = right.prefix_len() - prefix_len;
    let mut stays = 0;
    for slot in 0..right.slot_count() {
        let read = right.slot(slot);
        stays += SLOT_BYTES + read.length as usize;
        if !is_leaf {
            // The old first one, which goes, has no key.
            stays += if slot == 0 { 0 } else { given_back };
        } else if !read.key_below {
            let suffix = right.suffix(slot, right_block)?.len();
            stays += key_len(suffix + given_back) - key_len(suffix);
        }
    }
    let bytes = fence_len(left.low()) + fence_len(right.high()) + moved + stays;
    let is_one_sparsest = is_sparsest(left) || is_sparsest(right);
    let limit = limit(right.size(), fill, is_one_sparsest);
    Ok((bytes <= limit).then_some(Merged { prefix_len, cells }))
}

/// Whether the entry in a slot of the left page is of the key that the right
/// page begins with.
fn is_same(
    left: Page<'_>,
    slot: usize,
    left_block: BlockNumber,
    right: Page<'_>,
    right_block: BlockNumber,
    compare: &impl Compare,
) -> Result<bool> {
    let of_left = (left.prefix(), left.suffix(slot, left_block)?);
    let of_right = (right.prefix(), right.suffix(0, right_block)?);
    let whole = |(prefix, suffix): (&[u8], &[u8])| [prefix, suffix].concat();
    Ok(compare.compare(&whole(of_left), &whole(of_right)).is_eq())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Bytewise;
    use crate::page::apply::{Scratch, apply};
    use crate::page::cell::{EntryKind, Head};
    use crate::page::op::Format;
    use crate::store::LSN_BYTES;
    use crate::types::{CommandId, Sequence, Xid};

    const KEY: [u8; 40] = [b'k'; 40];

    /// A leaf of one version of the key, as long as that.
    fn leaf(low: Option<u64>, high: Option<u64>, sequence: u64, body_bytes: usize) -> Vec<u8> {
        let fence = |sequence: Option<u64>| {
            sequence.map(|sequence| Position {
                key: &KEY,
                sequence: Some(Sequence(sequence)),
            })
        };
        let head = Head {
            flags: EntryKind::Put as u8,
            xmin: Xid(7),
            cid: CommandId(0),
            sequence: Sequence(sequence),
        };
        let mut cell = Vec::new();
        head.encode(Some(&KEY), &vec![1; body_bytes], &mut cell);
        let ops = Ops::new()
            .format(&Format {
                kind: PageKind::Leaf,
                level: Level::LEAF,
                flags: flag::ORDERED,
                left: BlockNumber::NONE,
                right: BlockNumber::NONE,
                generation: 0,
                prefix_len: 0,
                low: fence(low),
                high: fence(high),
            })
            .insert(SlotNumber(0), false, &cell);
        let mut bytes = vec![0; 512 - LSN_BYTES];
        apply(&mut bytes, &Vec::from(ops), &mut Scratch::new(512)).unwrap();
        bytes
    }

    #[test]
    fn two_versions_may_be_merged_that_fit_only_with_one_key_for_both() {
        let (left, at) = (leaf(None, Some(8), 9, 1), BlockNumber(1));
        let left = Page::open(&left, at).unwrap();
        let mut so_only = 0;
        for body_bytes in 0..300 {
            let right = leaf(Some(8), None, 8, body_bytes);
            let right = Page::open(&right, at).unwrap();
            let fill = Fill::default();
            let fits = plan(left, at, right, at, fill, &Bytewise).unwrap();
            let of_left = Filling::of(left);
            let may_merge = |of_left: Filling| of_left.may_merge(Filling::of(right), fill);
            assert!(may_merge(of_left) || fits.is_none());
            let with_both = Filling {
                last_key: 0,
                ..of_left
            };
            so_only += usize::from(fits.is_some() && !may_merge(with_both));
        }
        assert_eq!(so_only, key_len(KEY.len()));
    }

    #[test]
    fn leaves_too_full_to_be_merged_are_not_looked_into() {
        let (left, at) = (leaf(None, Some(8), 9, 100), BlockNumber(1));
        let left = Page::open(&left, at).unwrap();
        let mut in_vain = 0;
        for body_bytes in 0..300 {
            let right = leaf(Some(8), None, 8, body_bytes);
            let right = Page::open(&right, at).unwrap();
            let fill = Fill::default();
            let fits = plan(left, at, right, at, fill, &Bytewise).unwrap();
            let may_merge = Filling::of(left).may_merge(Filling::of(right), fill);
            in_vain += usize::from(may_merge && fits.is_none());
        }
        // But for the key of the last entry, which only its length tells.
        assert_eq!(in_vain, key_len(key_bytes_max(512)) - key_len(KEY.len()));
    }
}
