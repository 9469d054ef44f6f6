//! Ways to a leaf: from the root, to the right, to the left.

use super::search::Goal;
use super::{Leaf, Path, Target, Tree};
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::page::{Page, PageKind, Position, flag};
use crate::store::PageStore;
use crate::types::{BlockNumber, Level};

/// How often a descent starts again before it calls the tree corrupt. Each
/// time a concurrent change must have got in between.
pub(super) const RESTARTS_MAX: usize = 1000;

/// What a page is to somebody who came to it through a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// It contains the goal.
    Here,
    /// The goal lies further right: the page was split or deleted.
    Right(BlockNumber),
    /// The link was too old: start again.
    Lost,
}

/// Where a descent ended: a block that has still to be locked and judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub block: BlockNumber,
    /// It was taken for the root, so it has to say so itself.
    pub as_root: bool,
}

/// Steps to the right along one level. Links that damage has closed to a
/// circle would otherwise be followed for ever.
#[derive(Default)]
struct Steps(u32);

impl Steps {
    /// Takes one. More of them than there are pages lead nowhere; how many
    /// there are is asked only once there is a suspicion.
    fn take(&mut self, store: &impl PageStore, from: BlockNumber) -> Result<()> {
        self.0 += 1;
        if self.0.is_multiple_of(256) && self.0 > store.block_count()? {
            return Err(Error::corrupt(
                from,
                "its right link leads back to it or to no end",
            ));
        }
        Ok(())
    }
}

impl<'t, S: PageStore, C: Compare> Tree<'t, S, C> {
    /// Judges a page on a level. Every live page with low <= goal < high is
    /// the one looked for, however it was reached.
    pub(super) fn arrive(
        &self,
        page: Page<'_>,
        goal: Goal<'_>,
        level: Level,
        as_root: bool,
    ) -> Arrival {
        let kind = PageKind::of_level(level);
        if page.level() != level || as_root && !page.has(flag::ROOT) {
            return Arrival::Lost;
        }
        let right = || {
            if page.right().is_some() {
                Arrival::Right(page.right())
            } else {
                Arrival::Lost
            }
        };
        if page.kind() == PageKind::Deleted {
            return right();
        }
        if page.kind() != kind
            || page
                .low()
                .is_some_and(|low| goal.precedes(low, self.compare))
        {
            return Arrival::Lost;
        }
        match page.high() {
            Some(high) if goal.passes(high, self.compare) => right(),
            _ => Arrival::Here,
        }
    }

    /// Goes down to the page on `level` that should contain the goal, holding
    /// one share lock at a time and none at the end.
    pub(super) fn descend(&self, goal: Goal<'_>, level: Level, path: &mut Path) -> Result<Found> {
        let mut block = BlockNumber::META;
        'restart: for _ in 0..RESTARTS_MAX {
            let root = self.root()?;
            block = root.0;
            let mut at = root.1;
            let mut as_root = true;
            if at < level {
                // Our root is older than the level: somebody raised the tree.
                self.root.set(None);
                if self.root()?.1 < level {
                    return Err(Error::corrupt(block, "the tree lacks a level"));
                }
                continue;
            }
            let mut steps = Steps::default();
            let mut is_beyond_unfinished = false;
            while at > level {
                let guard = self.store.read(block)?;
                let page = Page::open(&guard, block)?;
                match self.arrive(page, goal, at, as_root) {
                    Arrival::Lost => {
                        self.root.set(None);
                        continue 'restart;
                    }
                    Arrival::Right(next) => {
                        is_beyond_unfinished |= page.has(flag::INCOMPLETE_SPLIT);
                        steps.take(self.store, block)?;
                        block = next;
                    }
                    Arrival::Here => {
                        // Whoever puts a downlink here shall come by the page
                        // whose split he has to end first.
                        let hint = if is_beyond_unfinished {
                            BlockNumber::NONE
                        } else {
                            block
                        };
                        is_beyond_unfinished = false;
                        path.remember(at, hint);
                        if page.slot_count() == 0 {
                            return Err(Error::corrupt(block, "an inner page without downlinks"));
                        }
                        let slot = goal.child_slot(page, block, self.compare)?;
                        block = page.inner_cell(slot, block)?.child;
                        at = Level(at.0 - 1);
                    }
                }
                as_root = false;
            }
            return Ok(Found { block, as_root });
        }
        Err(self.lost(block))
    }

    /// The leaf that contains the target, share-locked.
    pub fn leaf(&self, target: Target<'_>) -> Result<S::Shared<'t>> {
        let goal = Goal::at(target);
        if let Some(block) = self.near.take() {
            let guard = self.store.read(block)?;
            if self.is_the_leaf(&guard, block, goal) {
                return Ok(guard);
            }
        }
        self.leaf_guided(goal)
    }

    /// Whether a page that is locked contains the target.
    #[inline]
    pub fn lies_on(&self, page: Page<'_>, target: Target<'_>) -> bool {
        let goal = Goal::at(target);
        !page
            .low()
            .is_some_and(|low| goal.precedes(low, self.compare))
            && !page
                .high()
                .is_some_and(|high| goal.passes(high, self.compare))
    }

    /// Whether a page that was not come to by the tree is the goal's leaf.
    fn is_the_leaf(&self, bytes: &[u8], block: BlockNumber, goal: Goal<'_>) -> bool {
        Page::open(bytes, block).is_ok_and(|page| {
            page.kind() == PageKind::Leaf
                && !page.has(flag::INCOMPLETE_SPLIT)
                && self.arrive(page, goal, Level::LEAF, false) == Arrival::Here
        })
    }

    /// The leaf that contains the target, exclusively locked. What split of it
    /// was not ended has been, but where there is nobody to put the downlink in
    /// yet: below a root that has none above it (README, "Records and crash
    /// states").
    ///
    /// Holds only that lock on return; on the way it may lock the parents of a
    /// page whose split it finishes.
    pub fn leaf_exclusive(&self, target: Target<'_>) -> Result<Leaf<'t, S>> {
        let goal = Goal::at(target);
        let mut path = Path::new();
        if let Some(block) = self.near.take() {
            let guard = self.store.lock(block)?;
            if self.is_the_leaf(&guard, block, goal) {
                return Ok(Leaf { guard, path });
            }
        }
        if let Some(leaf) = self.rightmost_exclusive(target)? {
            return Ok(leaf);
        }
        for _ in 0..RESTARTS_MAX {
            let found = self.descend(goal, Level::LEAF, &mut path)?;
            if let Some(guard) = self.settle(found, goal, Level::LEAF, &mut path)? {
                return Ok(Leaf { guard, path });
            }
            self.root.set(None);
        }
        Err(self.lost(BlockNumber::META))
    }

    /// Locks a page that a descent found, moving right as needed and finishing
    /// splits that it meets; `None` if the way was lost. What it returns may
    /// still say INCOMPLETE_SPLIT, if there is no parent for the right half yet
    /// (`lock_parent`).
    pub(super) fn settle(
        &self,
        found: Found,
        goal: Goal<'_>,
        level: Level,
        path: &mut Path,
    ) -> Result<Option<S::Exclusive<'t>>> {
        let Found {
            mut block,
            mut as_root,
        } = found;
        let mut steps = Steps::default();
        loop {
            let mut guard = self.store.lock(block)?;
            let page = Page::open(&guard, block)?;
            let arrival = self.arrive(page, goal, level, as_root);
            if arrival == Arrival::Lost {
                return Ok(None);
            }
            if page.kind() != PageKind::Deleted && page.has(flag::INCOMPLETE_SPLIT) {
                // The next writer ends it: readers would go the longer way for
                // ever.
                self.finish_split(&mut guard, path)?;
            }
            match arrival {
                Arrival::Right(next) => {
                    steps.take(self.store, block)?;
                    block = next;
                }
                _ => return Ok(Some(guard)),
            }
            as_root = false;
        }
    }

    /// The leaf that this session last appended to, if the target belongs
    /// there and nobody is using it.
    fn rightmost_exclusive(&self, target: Target<'_>) -> Result<Option<Leaf<'t, S>>> {
        let Some(block) = self.rightmost.get() else {
            return Ok(None);
        };
        if let Some(guard) = self.store.try_lock(block)? {
            // Whatever stands there now may be no page of this tree.
            let is_it = Page::open(&guard, block).is_ok_and(|page| {
                page.kind() == PageKind::Leaf
                    && !page.right().is_some()
                    && self.arrive(page, Goal::at(target), Level::LEAF, false) == Arrival::Here
            });
            if is_it {
                return Ok(Some(Leaf {
                    guard,
                    path: Path::new(),
                }));
            }
        }
        self.rightmost.set(None);
        Ok(None)
    }

    /// The leaf behind `high`, a leaf's upper fence that was noted with its
    /// right link `hint` before its lock was released: the leaf that contains
    /// this position. It may begin before it, if leaves were merged since; the
    /// caller goes on at the position, not at the first slot.
    pub fn right_leaf(&self, high: Position<'_>, hint: BlockNumber) -> Result<S::Shared<'t>> {
        self.leaf_shared(Goal::at(Target::of(high)), Some(hint), &mut Path::new())
    }

    /// The leaf before `low`, a leaf's lower fence that was noted with its
    /// left link `hint` before its lock was released: the leaf that contains
    /// what lies just below this position. It may reach beyond it, if leaves
    /// were merged since; the caller goes on below the position. `None` if
    /// `low` is minus infinity.
    pub fn left_leaf(
        &self,
        low: Option<Position<'_>>,
        hint: BlockNumber,
    ) -> Result<Option<S::Shared<'t>>> {
        match low {
            None => Ok(None),
            Some(low) => self
                .leaf_shared(Goal::below(low), Some(hint), &mut Path::new())
                .map(Some),
        }
    }

    /// The leaf that contains a goal, share-locked: from a hint to the right,
    /// or from the root.
    pub(super) fn leaf_shared(
        &self,
        goal: Goal<'_>,
        hint: Option<BlockNumber>,
        path: &mut Path,
    ) -> Result<S::Shared<'t>> {
        self.page_shared(Level::LEAF, goal, hint, path)
    }

    /// The page of a level that contains a goal, share-locked: from a hint to
    /// the right, or from the root.
    pub(super) fn page_shared(
        &self,
        level: Level,
        goal: Goal<'_>,
        hint: Option<BlockNumber>,
        path: &mut Path,
    ) -> Result<S::Shared<'t>> {
        let mut hint = hint.filter(|block| block.is_some());
        for _ in 0..RESTARTS_MAX {
            let hinted = hint.is_some();
            let mut found = match hint.take() {
                Some(block) => Found {
                    block,
                    as_root: false,
                },
                None => self.descend(goal, level, path)?,
            };
            let mut steps = Steps::default();
            loop {
                let guard = self.store.read(found.block)?;
                let page = Page::open(&guard, found.block)?;
                match self.arrive(page, goal, level, found.as_root) {
                    Arrival::Here => return Ok(guard),
                    Arrival::Lost => break,
                    Arrival::Right(next) => {
                        steps.take(self.store, found.block)?;
                        found.block = next;
                    }
                }
                found.as_root = false;
            }
            if !hinted {
                self.root.set(None);
            }
        }
        Err(self.lost(BlockNumber::META))
    }

    /// The right sibling of a leaf that stays locked: left before right. The
    /// caller must let go of it before putting anything on the left one, which
    /// may have to split and then locks its right sibling itself. Its own split
    /// is ended as by `settle`.
    pub fn right_exclusive(&self, leaf: &Leaf<'t, S>) -> Result<Option<Leaf<'t, S>>> {
        let next = Page::open(&leaf.guard, leaf.block(self.store))?.right();
        if !next.is_some() {
            return Ok(None);
        }
        let mut guard = self.store.lock(next)?;
        let page = Page::open(&guard, next)?;
        if page.kind() != PageKind::Leaf {
            return Err(Error::corrupt(next, "a leaf's right sibling is no leaf"));
        }
        let mut path = leaf.path;
        if page.has(flag::INCOMPLETE_SPLIT) {
            self.finish_split(&mut guard, &mut path)?;
        }
        Ok(Some(Leaf { guard, path }))
    }
}
