//! VACUUM of one store: every leaf pruned and frozen, sparse neighbours
//! merged, then the inner pages above them. Leaves are visited in key order, because entries only ever move to
//! the right (rule 21); no index is looked at, for each store prunes itself.

use super::{Transactions, Versioned};
use crate::btree::{Filling, Target};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::{Page, PageKind, PositionBuf, flag};
use crate::store::PageStore;
use crate::types::{BlockNumber, Level, Xid};

/// What a VACUUM found and did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vacuumed {
    /// Leaves visited.
    pub leaves: u64,
    /// Entries removed.
    pub removed: u64,
    /// Live rows left.
    pub live: u64,
    /// Entries left that are no live row.
    pub dead: u64,
    /// Leaves merged into their right neighbour.
    pub merged: u64,
    /// Inner pages left in the tree.
    pub inner: u64,
    /// Inner pages merged into their right neighbour.
    pub inner_merged: u64,
    /// Levels by which the tree became lower.
    pub lowered: u64,
    /// Pages offered for use again.
    pub offered: u64,
    /// The oldest transaction id left unfrozen anywhere.
    pub oldest_xid: Option<Xid>,
}

impl Vacuumed {
    /// Pages in use, the metapage included.
    pub fn in_use(&self) -> u64 {
        1 + self.leaves - self.merged + self.inner
    }
}

/// The target that finds the leaf which begins at a position, or the first.
pub(super) fn beginning(position: &Option<PositionBuf>) -> Target<'_> {
    position
        .as_ref()
        .map_or(Target::First, |at| Target::of(at.as_ref()))
}

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Tells the free-space map of every page that nothing uses: deleted ones
    /// that were too young when they were offered last, and ones that a crash
    /// leaked between extending the relation and formatting the page (rule 32).
    ///
    /// Blocks are looked at only if there are so many more of them than pages
    /// were met in the tree that it is worth it.
    fn offer_unused(&self, total: &mut Vacuumed) -> Result<()> {
        let store = self.tree.store;
        let blocks = store.block_count()?;
        let in_use = total.in_use();
        if u64::from(blocks) <= in_use + in_use / 20 + 4 {
            return Ok(());
        }
        for block in (1..blocks).map(BlockNumber) {
            store.interruptible();
            let guard = store.read(block)?;
            let unused = Page::is_new(&guard)
                || Page::open(&guard, block).is_ok_and(|page| page.kind() == PageKind::Deleted);
            drop(guard);
            if unused {
                store.offer(block);
                total.offered += 1;
            }
        }
        Ok(())
    }

    /// Vacuums the store; `pause` is called between leaves with no lock held.
    pub fn vacuum(&self, mut pause: impl FnMut(&Vacuumed)) -> Result<Vacuumed> {
        let mut total = Vacuumed::default();
        let mut place: Option<PositionBuf> = None;
        // Where the leaf before this one begins, and how full it is. It is
        // merged into this one once both are pruned.
        let mut previous: Option<(Option<PositionBuf>, Filling)> = None;
        loop {
            let mut leaf = self.tree.leaf_exclusive(beginning(&place))?;
            let page = Page::open(&leaf.guard, self.tree.store.block_of(&leaf.guard))?;
            // The next one is probably as this one: each of its entries will be
            // looked at, or little but its slots, or nothing.
            if page.right().is_some() && !page.has(flag::ALL_FROZEN) {
                if page.has(flag::ROWS_FROZEN) {
                    self.tree.store.expect_little(page.right());
                } else {
                    self.tree.store.expect(page.right());
                }
            }
            let pruned = self.settle_leaf(&mut leaf)?;
            total.leaves += 1;
            total.removed += pruned.removed as u64;
            total.live += pruned.live as u64;
            total.dead += pruned.dead as u64;
            total.oldest_xid = match (total.oldest_xid, pruned.oldest_xid) {
                (Some(a), Some(b)) => Some(if a.precedes(b) { a } else { b }),
                (a, b) => a.or(b),
            };
            let block = self.tree.store.block_of(&leaf.guard);
            let page = Page::open(&leaf.guard, block)?;
            let next = page.high().map(|high| high.to_buf());
            let right = page.right();
            let filling = Filling::of(page);
            drop(leaf);
            pause(&total);
            previous = Some(match previous {
                Some((before, fills))
                    if fills.may_merge(filling, self.tree.fill_of(Level::LEAF))
                        && self.tree.merge_right(beginning(&before))? =>
                {
                    total.merged += 1;
                    // A key that went on from one leaf to the other is whole
                    // now, and its tombstone may go (rule 2).
                    let mut merged = self.tree.leaf_exclusive(beginning(&before))?;
                    let removed = self.settle_leaf(&mut merged)?.removed as u64;
                    total.removed += removed;
                    total.dead = total.dead.saturating_sub(removed);
                    let block = self.tree.store.block_of(&merged.guard);
                    (before, Filling::of(Page::open(&merged.guard, block)?))
                }
                _ => (place, filling),
            });
            self.tree.look_near(right);
            if next.is_none() {
                self.condense(&mut total, &mut pause)?;
                self.offer_unused(&mut total)?;
                return Ok(total);
            }
            place = next;
        }
    }
}
