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
    bytes: usize,
    page_size: usize,
    is_empty: bool,
}

impl Filling {
    /// That of a page.
    pub fn of(page: Page<'_>) -> Filling {
        let fences = fence_len(page.low()) + fence_len(page.high());
        Filling {
            bytes: used_bytes(page).saturating_sub(fences),
            page_size: page.size(),
            is_empty: page.slot_count() == 0,
        }
    }

    /// Whether a merge with the right sibling is worth looking into. Entries do
    /// not get smaller by one, but for a key that both have: so it is not if
    /// they are too many as they are.
    pub fn may_merge(self, right: Filling, fill: Fill) -> bool {
        self.is_empty
            || right.is_empty
            || self.bytes + right.bytes
                <= fill.merge_bytes(self.page_size) + key_bytes_max(self.page_size)
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
    let usable = usable_bytes(right.size());
    // A page cannot be sparser than with no entry, or with one downlink, however
    // much of it the fences take.
    let sparsest = if is_leaf { 0 } else { 1 };
    let limit = if count.min(right.slot_count()) <= sparsest {
        usable
    } else {
        fill.merge_bytes(right.size())
    };
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
