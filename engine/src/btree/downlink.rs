//! Ending a split: the right half's downlink, or a new root above both.

use super::cells::Cells;
use super::descend::{Arrival, RESTARTS_MAX};
use super::meta::Meta;
use super::plan::{Fresh, Planner};
use super::search::{Goal, downlink_slot};
use super::split::slot_number;
use super::{Path, Target, Tree};
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::page::cell::InnerCell;
use crate::page::op::{Format, Ops};
use crate::page::{Page, PageKind, Position, PositionBuf, SLOT_BYTES, flag};
use crate::record::{Record, RecordKind};
use crate::store::PageStore;
use crate::types::{BlockNumber, Level, SlotNumber};

/// The right half of a split.
struct Half {
    block: BlockNumber,
    low: PositionBuf,
}

impl<'t, S: PageStore, C: Compare> Tree<'t, S, C> {
    /// Ends the split of a locked page that says INCOMPLETE_SPLIT: puts its
    /// right sibling's downlink into the parent and clears the flag, in one
    /// record. The page stays locked; its parents are locked on the way and
    /// released: child before parent.
    ///
    /// Below a root that was split and has none above it yet there is no parent:
    /// then the split is left as it is, for the writer who ends the root's.
    pub(super) fn finish_split(&self, child: &mut S::Exclusive<'t>, path: &mut Path) -> Result<()> {
        let block = self.store.block_of(child);
        let page = Page::open(child, block)?;
        let level = page.level();
        let right = Half {
            block: page.right(),
            low: page
                .high()
                .ok_or_else(|| Error::corrupt(block, "a split page without an upper fence"))?
                .to_buf(),
        };
        if page.has(flag::ROOT) {
            return self.raise_root(child, level, &right);
        }
        let above = Level(level.0 + 1);
        let Some(mut parent) = self.lock_parent(above, right.low.as_ref(), path)? else {
            return Ok(());
        };
        let parent_block = self.store.block_of(&parent);
        let parent_page = Page::open(&parent, parent_block)?;
        let position = right.low.as_ref();
        let slot = downlink_slot(parent_page, parent_block, position, self.compare)?;
        if slot == 0 {
            return Err(Error::corrupt(
                parent_block,
                "an inner page without downlinks",
            ));
        }
        let mut cell = Vec::new();
        InnerCell::encode(right.block, position, parent_page.prefix_len(), &mut cell);
        if parent_page.fits(cell.len() + SLOT_BYTES) {
            let record = Record::new(RecordKind::Downlink)
                .change(block, Ops::new().flags(0, flag::INCOMPLETE_SPLIT))
                .change(
                    parent_block,
                    Ops::new().insert(slot_number(slot), false, &cell),
                );
            self.store.commit(&record, &mut [child, &mut parent]);
            return Ok(());
        }
        let fresh = Fresh::Downlink {
            slot,
            child: right.block,
            position,
        };
        let plan = Planner::new(parent_page, parent_block, Some(fresh), self.compare)?
            .plan()?
            .ok_or_else(|| Error::corrupt(parent_block, "an inner page cannot be split"))?;
        drop(self.split(&mut parent, &plan, Some(fresh), Some(child))?);
        self.finish_split(&mut parent, path)
    }

    /// Puts a new root above the old one, which was split.
    fn raise_root(&self, left: &mut S::Exclusive<'t>, level: Level, right: &Half) -> Result<()> {
        let left_block = self.store.block_of(left);
        let page = Page::open(left, left_block)?;
        let mut root = self.store.allocate()?;
        let mut metapage = self.store.lock(BlockNumber::META)?;
        let root_block = self.store.block_of(&root);
        let root_level = Level(level.0.checked_add(1).ok_or_else(|| {
            Error::corrupt(left_block, "a root as high as a level can be counted")
        })?);
        let mut meta = Meta::decode(&metapage)?;
        if meta.root != left_block.0 {
            return Err(Error::corrupt(
                left_block,
                format!("it says it is the root, which is {}", meta.root),
            ));
        }
        meta.root = root_block.0;
        meta.root_level = root_level.0;
        let mut cells = Cells::of_page();
        cells.inner(left_block, Position::FIRST, 0);
        cells.inner(right.block, right.low.as_ref(), 0);
        let root_ops = Ops::new()
            .format(&Format {
                kind: PageKind::Inner,
                level: root_level,
                flags: flag::ROOT | page.flags() & flag::ORDERED,
                left: BlockNumber::NONE,
                right: BlockNumber::NONE,
                generation: page.generation(),
                prefix_len: 0,
                low: None,
                high: None,
            })
            .insert_run(SlotNumber(0), cells.iter());
        let record = Record::new(RecordKind::NewRoot)
            .init(root_block, root_ops)
            .change(
                left_block,
                Ops::new().flags(0, flag::ROOT | flag::INCOMPLETE_SPLIT),
            )
            .change(BlockNumber::META, Ops::new().meta(&meta.encode()?));
        self.store
            .commit(&record, &mut [&mut root, left, &mut metapage]);
        self.root.set(Some((root_block, root_level)));
        Ok(())
    }

    /// Locks the inner page on a level that contains a position: the hint in
    /// `path` if that is it, else the one that a descent finds, finishing
    /// splits that it meets.
    ///
    /// Neither the hint is waited for nor the remembered root. Both may be older
    /// than pages that the caller holds, so that the page was unlinked meanwhile
    /// and used again as one of those.
    ///
    /// `None` if the tree has no such level: the root of the level below was
    /// split and is no root's child yet.
    pub(super) fn lock_parent(
        &self,
        level: Level,
        position: Position<'_>,
        path: &mut Path,
    ) -> Result<Option<S::Exclusive<'t>>> {
        let goal = Goal::at(Target::of(position));
        if let Some(block) = path.hint(level)
            && let Some(guard) = self.store.try_lock(block)?
        {
            let page = Page::open(&guard, block)?;
            if self.arrive(page, goal, level, false) == Arrival::Here
                && !page.has(flag::INCOMPLETE_SPLIT)
            {
                return Ok(Some(guard));
            }
        }
        for _ in 0..RESTARTS_MAX {
            self.root.set(None);
            if self.root()?.1 < level {
                return Ok(None);
            }
            let found = self.descend(goal, level, path)?;
            if let Some(guard) = self.settle(found, goal, level, path)? {
                path.remember(level, self.store.block_of(&guard));
                return Ok(Some(guard));
            }
        }
        Err(self.lost(BlockNumber::META))
    }
}
