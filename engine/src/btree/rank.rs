//! How far into the tree a key lies, roughly: for statistics, which want to
//! know whether rows that follow each other by some column lie near each other.
//! In a tree that is a matter of the order of keys, not of block numbers.

use super::search::Goal;
use super::{Path, Target, Tree};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::{Page, PageKind};
use crate::store::PageStore;
use crate::types::Level;

impl<S: PageStore, C: Compare> Tree<'_, S, C> {
    /// The fraction of the tree that lies before a key's leaf, taking all
    /// children of a page for equally large. Keys of different leaves rank in
    /// their order, unless the tree changes meanwhile. Holds one share lock at
    /// a time, and none on return.
    pub fn rank(&self, key: &[u8]) -> Result<f64> {
        let goal = Goal::at(Target::Before(key));
        let mut path = Path::new();
        self.descend(goal, Level::LEAF, &mut path)?;
        let (mut rank, mut width) = (0.0, 1.0);
        for level in (1..=self.root()?.1.0).rev() {
            let Some(block) = path.hint(Level(level)) else {
                continue;
            };
            let guard = self.store.read(block)?;
            let page = Page::open(&guard, block)?;
            let count = page.slot_count();
            if page.kind() != PageKind::Inner || count == 0 {
                continue;
            }
            let slot = goal.child_slot(page, block, self.compare)?;
            width /= count as f64;
            rank += slot as f64 * width;
        }
        Ok(rank)
    }
}
