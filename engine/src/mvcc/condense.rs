//! VACUUM above the leaves: sparse inner pages are merged, and the tree gets
//! lower where a level has one page left.

use super::vacuum::{Vacuumed, beginning};
use super::{Transactions, Versioned};
use crate::btree::{Filling, Target};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::PositionBuf;
use crate::store::PageStore;
use crate::types::Level;

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Merges sparse inner pages, level by level from the lowest up, and then
    /// lowers the root as far as it goes. Leaves whose parents were merged are
    /// neighbours below one parent now, and are merged in their turn; so one
    /// pass makes a single leaf of a tree that holds nothing any more.
    pub(super) fn condense(
        &self,
        total: &mut Vacuumed,
        pause: &mut impl FnMut(&Vacuumed),
    ) -> Result<()> {
        let mut level = Level(1);
        // The root's own level as well: it has one page, or several and no
        // root above them if a crash cut off the root's split.
        while level <= self.tree.root_level()? {
            self.condense_level(level, total, pause)?;
            level.0 += 1;
        }
        while self.tree.lower_root()? {
            total.lowered += 1;
            total.inner = total.inner.saturating_sub(1);
        }
        Ok(())
    }

    /// Merges sparse neighbours of one level, in key order.
    fn condense_level(
        &self,
        level: Level,
        total: &mut Vacuumed,
        pause: &mut impl FnMut(&Vacuumed),
    ) -> Result<()> {
        let mut place: Option<PositionBuf> = None;
        // Where the page before this one begins, and how full it is.
        let mut previous: Option<(Option<PositionBuf>, Filling)> = None;
        loop {
            let (next, filling) = self.tree.inner_page(level, beginning(&place))?;
            total.inner += 1;
            pause(total);
            let merged = match (&previous, &place) {
                (Some((before, fills)), Some(_))
                    if fills.may_merge(filling, self.tree.fill_of(level)) =>
                {
                    self.tree.merge_inner(level, beginning(before))?
                }
                _ => false,
            };
            previous = match (previous, place) {
                (Some((before, _)), Some(fence)) if merged => {
                    total.inner -= 1;
                    total.inner_merged += 1;
                    self.merge_below(Level(level.0 - 1), &fence, total)?;
                    let filling = self.tree.inner_page(level, beginning(&before))?.1;
                    Some((before, filling))
                }
                (_, place) => Some((place, filling)),
            };
            if next.is_none() {
                return Ok(());
            }
            place = next;
        }
    }

    /// Merges the pages that meet at a fence which was that of two parents
    /// until those were merged, and so on down to the leaves.
    fn merge_below(&self, level: Level, fence: &PositionBuf, total: &mut Vacuumed) -> Result<()> {
        if !self.tree.merge_at(level, fence.as_ref())? {
            return Ok(());
        }
        if level > Level::LEAF {
            total.inner = total.inner.saturating_sub(1);
            total.inner_merged += 1;
            return self.merge_below(Level(level.0 - 1), fence, total);
        }
        total.merged += 1;
        // As after any merge of leaves: a chain may be whole now (rule 2).
        let mut merged = self.tree.leaf_exclusive(Target::of(fence.as_ref()))?;
        let removed = self.settle_leaf(&mut merged)?.removed as u64;
        total.removed += removed;
        total.dead = total.dead.saturating_sub(removed);
        Ok(())
    }
}
