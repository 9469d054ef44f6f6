//! Clearing the end of the file, so that it can be cut off.

use super::Tree;
use super::relocate::is_unused;
use crate::compare::Compare;
use crate::error::Result;
use crate::store::PageStore;
use crate::types::BlockNumber;

/// How many pages of the end are asked for ahead of being looked at.
const AHEAD: u32 = 32;

/// What clearing the end of a file came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// Blocks of the file.
    pub blocks: u32,
    /// Nothing uses this block or any behind it.
    pub end: u32,
    /// Pages that were moved for it.
    pub moved: u32,
}

impl<S: PageStore, C: Compare> Tree<'_, S, C> {
    /// Finds out where the file can be cut off. Pages in use at its end are
    /// moved to unused ones further in front, up to `moves_max` of them. Goes on
    /// as long as `go_on` says so, which is asked between pages.
    ///
    /// **Nobody else may be in the tree** from before this is called until the
    /// file is cut: see "Shrinking the file" in `README.md`.
    pub fn clear_end(&self, moves_max: u32, mut go_on: impl FnMut() -> bool) -> Result<Cleared> {
        let store = self.store;
        let blocks = store.block_count()?;
        let mut cleared = Cleared {
            blocks,
            end: blocks,
            moved: 0,
        };
        // Where pages are moved to: every block before it is in use.
        let mut to = BlockNumber(1);
        let mut expected = blocks;
        while cleared.end > 1 && go_on() {
            let last = BlockNumber(cleared.end - 1);
            if last.0 < expected {
                for block in expected.saturating_sub(AHEAD)..expected {
                    store.expect(BlockNumber(block));
                }
                expected = expected.saturating_sub(AHEAD);
            }
            if !is_unused(&store.read(last)?, last)? {
                if cleared.moved == moves_max {
                    break;
                }
                while to < last && !is_unused(&store.read(to)?, to)? {
                    to.0 += 1;
                    if !go_on() {
                        return Ok(cleared);
                    }
                }
                if to >= last || !self.relocate(last, to)? {
                    break;
                }
                cleared.moved += 1;
            }
            cleared.end = last.0;
        }
        Ok(cleared)
    }
}
