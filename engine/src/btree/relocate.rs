//! Moving a page to another block, while nobody else is in the tree.

use super::cells::raw_cells;
use super::meta::Meta;
use super::search::{Goal, downlink_slot};
use super::split::slot_number;
use super::{Path, Target, Tree};
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::page::cell::InnerCell;
use crate::page::op::{Format, Ops};
use crate::page::{Page, PageKind, Position, flag};
use crate::record::{Record, RecordKind};
use crate::store::PageStore;
use crate::types::{BlockNumber, Level, SlotNumber};

/// Minus infinity, where a level's first page begins.
const LOWEST: Position<'static> = Position {
    key: &[],
    sequence: None,
};

/// Whether nothing uses a page.
pub(super) fn is_unused(bytes: &[u8], block: BlockNumber) -> Result<bool> {
    Ok(Page::is_new(bytes) || Page::open(bytes, block)?.kind() == PageKind::Deleted)
}

impl<'t, S: PageStore, C: Compare> Tree<'t, S, C> {
    /// Moves the page of block `from` to block `to`, which nothing uses; one
    /// record. Gives up at an unfinished split. **Nobody else may be in the
    /// tree**: `to` is used whatever its stamp says ("Shrinking the file" in
    /// `README.md`).
    ///
    /// Locks the new page, the left sibling, the page, the right sibling and
    /// the parent or the metapage, in this order.
    pub(super) fn relocate(&self, from: BlockNumber, to: BlockNumber) -> Result<bool> {
        let (left_block, right_block) = {
            let guard = self.store.read(from)?;
            let page = Page::open(&guard, from)?;
            if !matches!(page.kind(), PageKind::Leaf | PageKind::Inner) {
                return Ok(false);
            }
            (page.left(), page.right())
        };
        let mut new = self.store.lock(to)?;
        if !is_unused(&new, to)? {
            return Ok(false);
        }
        let mut left = None;
        if left_block.is_some() {
            let guard = self.store.lock(left_block)?;
            if Page::open(&guard, left_block)?.has(flag::INCOMPLETE_SPLIT) {
                return Ok(false);
            }
            left = Some(guard);
        }
        let mut old = self.store.lock(from)?;
        let page = Page::open(&old, from)?;
        if page.has(flag::INCOMPLETE_SPLIT) {
            return Ok(false);
        }
        let mut right = None;
        if right_block.is_some() {
            right = Some(self.store.lock(right_block)?);
        }
        let is_root = page.has(flag::ROOT);
        let (above_block, mut above, above_ops) = if is_root {
            self.rooted_at(from, to)?
        } else {
            let low = page.low().unwrap_or(LOWEST);
            self.child_at(Level(page.level().0 + 1), low, from, to)?
        };
        let new_ops = Ops::new()
            .format(&Format {
                kind: page.kind(),
                level: page.level(),
                flags: page.flags(),
                left: left_block,
                right: right_block,
                generation: page.generation(),
                prefix_len: page.prefix_len() as u16,
                low: page.low(),
                high: page.high(),
            })
            .insert_run(SlotNumber(0), raw_cells(page));
        // Whoever comes to the old block goes on to the new one.
        let old_ops = Ops::new()
            .flags(0, flag::ROOT)
            .links(None, Some(to))
            .delete(self.store.recycle_stamp());
        let mut record = Record::new(RecordKind::Relocate).init(to, new_ops);
        let mut pages = vec![&mut new];
        if let Some(left) = left.as_mut() {
            record = record.change(left_block, Ops::new().links(None, Some(to)));
            pages.push(left);
        }
        record = record.change(from, old_ops);
        if page.kind() == PageKind::Leaf {
            // Whoever has read the leaf has read the new one.
            self.store.leaf_merged(from, to);
        }
        let level = page.level();
        pages.push(&mut old);
        if let Some(right) = right.as_mut() {
            record = record.change(right_block, Ops::new().links(Some(to), None));
            pages.push(right);
        }
        record = record.change(above_block, above_ops);
        pages.push(&mut above);
        self.store.commit(&record, &mut pages);
        if is_root {
            self.root.set(Some((to, level)));
        }
        self.rightmost.set(None);
        Ok(true)
    }

    /// The metapage, and what has it name another root.
    fn rooted_at(
        &self,
        from: BlockNumber,
        to: BlockNumber,
    ) -> Result<(BlockNumber, S::Exclusive<'t>, Ops)> {
        let metapage = self.store.lock(BlockNumber::META)?;
        let mut meta = Meta::decode(&metapage)?;
        if meta.root != from.0 {
            return Err(Error::corrupt(
                from,
                format!("it says it is the root, which is {}", meta.root),
            ));
        }
        meta.root = to.0;
        let ops = Ops::new().meta(&meta.encode()?);
        Ok((BlockNumber::META, metapage, ops))
    }

    /// The parent of the page that begins at `low`, and what has it name
    /// another block. Ends no splits on the way: that may take a new page, and
    /// the place for it is not to be found at the end that is being cleared.
    fn child_at(
        &self,
        level: Level,
        low: Position<'_>,
        from: BlockNumber,
        to: BlockNumber,
    ) -> Result<(BlockNumber, S::Exclusive<'t>, Ops)> {
        let goal = Goal::at(Target::of(low));
        self.root.set(None);
        let block = {
            let guard = self.page_shared(level, goal, None, &mut Path::new())?;
            self.store.block_of_shared(&guard)
        };
        let parent = self.store.lock(block)?;
        let page = Page::open(&parent, block)?;
        let slot = if low.key.is_empty() && low.sequence.is_none() {
            Some(0)
        } else {
            downlink_slot(page, block, low, self.compare)?.checked_sub(1)
        };
        let cell = match slot {
            Some(slot) if slot < page.slot_count() => Some((slot, page.inner_cell(slot, block)?)),
            _ => None,
        };
        let Some((slot, cell)) = cell.filter(|(_, cell)| cell.child == from) else {
            return Err(Error::corrupt(
                block,
                format!("it has no downlink to {from}, which belongs there"),
            ));
        };
        let mut downlink = Vec::new();
        InnerCell::encode(to, cell.position, 0, &mut downlink);
        let ops = Ops::new().replace(slot_number(slot), &downlink);
        Ok((block, parent, ops))
    }
}
