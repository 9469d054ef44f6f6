//! Places that divide a tree into pieces of a few leaves, from the level above
//! the leaves.

use super::search::Goal;
use super::{Path, Target, Tree};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::{Page, PositionBuf};
use crate::store::PageStore;
use crate::types::{BlockNumber, Level};

/// The level above the leaves.
const ABOVE_LEAVES: Level = Level(1);

impl<S: PageStore, C: Compare> Tree<'_, S, C> {
    /// The lower fence of the leaf that lies `leaves` (at least one) behind the
    /// one with the target, or of an earlier one where the page above ends; and
    /// how many leaves that are. `None` if no leaf lies behind it.
    ///
    /// The fence lies behind the target. Leaves may be split and merged before
    /// and after the call; it is a position in the order of entries all the
    /// same; but nobody may take the root away meanwhile, as VACUUM does. Holds
    /// one share lock at a time, on inner pages, and none at the end.
    pub fn fence_behind(
        &self,
        target: Target<'_>,
        leaves: usize,
    ) -> Result<(Option<PositionBuf>, usize)> {
        // A root that this session knew may be no root any more, and no level
        // above the leaves be left.
        self.root.set(None);
        if self.root()?.1 < ABOVE_LEAVES {
            return Ok((None, 1));
        }
        let goal = Goal::at(target);
        let guard = self.page_shared(ABOVE_LEAVES, goal, None, &mut Path::new())?;
        let block = self.store.block_of_shared(&guard);
        self.fence_on(Page::open(&guard, block)?, block, goal, leaves)
    }

    fn fence_on(
        &self,
        page: Page<'_>,
        block: BlockNumber,
        goal: Goal<'_>,
        leaves: usize,
    ) -> Result<(Option<PositionBuf>, usize)> {
        let count = page.slot_count();
        let here = goal.child_slot(page, block, self.compare)?;
        let behind = here + leaves.max(1);
        if behind >= count {
            return Ok((page.high().map(|high| high.to_buf()), count - here));
        }
        let position = page.inner_cell(behind, block)?.position;
        let fence = PositionBuf {
            key: [page.prefix(), position.key].concat(),
            sequence: position.sequence,
        };
        Ok((Some(fence), behind - here))
    }
}
