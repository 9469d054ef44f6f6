//! The tree: a Lehman–Yao B-link tree whose leaves hold the versions of the
//! store, ordered by key and, within a key, newest first.
//!
//! Read `README.md` here first: terms, invariants, lock order, crash states,
//! and why every interleaving of scans, splits and merges is right.

mod bulk;
mod cells;
pub mod check;
mod descend;
mod divide;
mod downlink;
mod guide;
mod insert;
mod lower;
mod measure;
mod merge;
mod meta;
mod plan;
mod rank;
mod relocate;
mod run;
pub mod search;
pub mod short;
mod shrink;
mod split;
#[cfg(test)]
mod tests;

use std::cell::Cell;

use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::page::op::Ops;
use crate::record::{Record, RecordKind};
use crate::store::PageStore;
use crate::types::{BlockNumber, Level, Xid};

pub use bulk::Bulk;
pub use guide::Guide;
pub use insert::{NewEntry, RunEntry};
pub use measure::check_limits;
pub use merge::Filling;
pub use meta::{FORMAT_VERSION, MAGIC, Meta};
pub use search::Target;
pub use shrink::Cleared;

/// Percent of a page that an ascending load and a bulk build fill.
pub const FILL_PERCENT: usize = 90;
/// Percent of a page that two neighbours may fill together to be merged.
pub const MERGE_PERCENT: usize = 70;

/// How full leaves are left behind by ascending loads and bulk builds. Inner
/// pages are filled to `FILL_PERCENT` whatever it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    percent: usize,
}

impl Default for Fill {
    fn default() -> Fill {
        Fill {
            percent: FILL_PERCENT,
        }
    }
}

impl Fill {
    /// Of 10 to 100 percent; beyond that the nearer of the two.
    pub fn percent(percent: usize) -> Fill {
        Fill {
            percent: percent.clamp(10, 100),
        }
    }

    /// Bytes of fences, slots and cells on a page that is so full, if its
    /// entries take `entry` bytes each, with their slots.
    ///
    /// However full pages are to be, they keep room for a new version of one of
    /// their entries, as long as that leaves them as full as they are by
    /// default. The version before it is dead when the next one comes, and gives
    /// it its room; without any, the first UPDATE of a row cuts its leaf in two
    /// that stay half empty.
    fn bytes(self, page_size: usize, entry: usize) -> usize {
        let usable = measure::usable_bytes(page_size);
        let roomy = usable.saturating_sub(entry + measure::VERSION_GROWTH_MAX);
        let default = usable * self.percent.min(FILL_PERCENT) / 100;
        (usable * self.percent / 100).min(roomy.max(default))
    }

    /// Bytes that two leaves may fill together to be merged: emptier ones where
    /// leaves are to be emptier.
    fn merge_bytes(self, page_size: usize) -> usize {
        let percent = MERGE_PERCENT * self.percent.min(FILL_PERCENT) / FILL_PERCENT;
        measure::usable_bytes(page_size) * percent / 100
    }
}

/// Names of the points at which a test may stop a session (`PageStore::pace`).
pub mod point {
    /// A page is split, and its downlink is missing; the left half is locked.
    pub const SPLIT_BEFORE_DOWNLINK: &str = "btree: split before downlink";
    /// All pages of a merge are locked and nothing has changed.
    pub const MERGE_BEFORE_COMMIT: &str = "btree: merge before commit";
    /// A page was looked at without a lock on its left sibling.
    pub const MERGE_BEFORE_LOCKS: &str = "btree: merge before locks";
    /// The root was looked at without a lock on its only child.
    pub const LOWER_BEFORE_LOCKS: &str = "btree: lower the root before locks";
}

/// One tree in one page store, as one session uses it.
///
/// It caches where the root and the rightmost leaf were; both are verified on
/// use (rule 31), so that a `Tree` may live as long as its session likes.
pub struct Tree<'t, S: PageStore, C: Compare> {
    /// Where the pages are.
    pub store: &'t S,
    /// The order of keys.
    pub compare: &'t C,
    root: Cell<Option<(BlockNumber, Level)>>,
    rightmost: Cell<Option<BlockNumber>>,
    /// Where the next leaf asked for was last seen; used once.
    near: Cell<Option<BlockNumber>>,
    fill: Cell<Fill>,
    /// Copies of inner pages that lead to leaves.
    guide: Cell<Guide>,
}

/// A leaf that nobody else sees, and the way that led to it.
pub struct Leaf<'t, S: PageStore + 't> {
    /// The locked page.
    pub guard: S::Exclusive<'t>,
    path: Path,
}

/// The inner pages that a descent went through: hints, one for each level.
/// A hint is locked and verified before it is believed.
#[derive(Clone, Copy, Debug)]
struct Path {
    at_level: [BlockNumber; Path::LEVELS],
}

impl Path {
    /// Levels that are remembered; those above are found by descent.
    const LEVELS: usize = 12;

    fn new() -> Path {
        Path {
            at_level: [BlockNumber::NONE; Path::LEVELS],
        }
    }

    fn remember(&mut self, level: Level, block: BlockNumber) {
        if let Some(hint) = self.at_level.get_mut(level.0 as usize) {
            *hint = block;
        }
    }

    fn hint(&self, level: Level) -> Option<BlockNumber> {
        self.at_level
            .get(level.0 as usize)
            .copied()
            .filter(|block| block.is_some())
    }
}

impl<'t, S: PageStore, C: Compare> Tree<'t, S, C> {
    /// A session's view of the tree in `store`.
    pub fn new(store: &'t S, compare: &'t C) -> Self {
        Tree {
            store,
            compare,
            root: Cell::new(None),
            rightmost: Cell::new(None),
            near: Cell::new(None),
            fill: Cell::default(),
            guide: Cell::default(),
        }
    }

    /// Says how full leaves are to be left behind.
    pub fn fill_to(&self, fill: Fill) {
        self.fill.set(fill);
    }

    /// As [`Tree::new`], with the root that an earlier [`Tree`] knew. The file
    /// may have become shorter since.
    pub fn with_root(store: &'t S, compare: &'t C, root: Option<(BlockNumber, Level)>) -> Self {
        let tree = Self::new(store, compare);
        tree.root
            .set(root.filter(|(block, _)| tree.is_within(*block)));
        tree
    }

    /// How full pages of a level are to be left behind.
    pub fn fill_of(&self, level: Level) -> Fill {
        if level == Level::LEAF {
            self.fill.get()
        } else {
            Fill::default()
        }
    }

    /// Whether a remembered block can be read.
    fn is_within(&self, block: BlockNumber) -> bool {
        block.is_some() && self.store.holds(block) == Ok(true)
    }

    /// Where this session last appended behind all other entries, to be handed
    /// to [`Tree::append_near`] of a later [`Tree`].
    pub fn known_rightmost(&self) -> Option<BlockNumber> {
        self.rightmost.get()
    }

    /// Says where an earlier [`Tree`] of this session last appended. It is
    /// verified, and forgotten by the first entry that goes elsewhere.
    pub fn append_near(&self, block: Option<BlockNumber>) {
        self.rightmost
            .set(block.filter(|block| self.is_within(*block)));
    }

    /// Says where the leaf that is asked for next was last seen. It is looked
    /// at first, and taken if its kind and fences say that it is still the one
    /// (rules 23 and 31). The file may have become shorter since.
    pub fn look_near(&self, block: BlockNumber) {
        self.near
            .set(Some(block).filter(|block| self.is_within(*block)));
    }

    /// The root as far as this session knows it, to be handed to
    /// [`Tree::with_root`].
    pub fn known_root(&self) -> Option<(BlockNumber, Level)> {
        self.root.get()
    }

    /// The root, from the cache or the metapage; to be verified on arrival.
    fn root(&self) -> Result<(BlockNumber, Level)> {
        if let Some(root) = self.root.get() {
            return Ok(root);
        }
        let meta = self.meta()?;
        let root = (BlockNumber(meta.root), Level(meta.root_level));
        if !root.0.is_some() {
            return Err(Error::corrupt(
                BlockNumber::META,
                "the tree has no root: its bulk build was never finished",
            ));
        }
        self.root.set(Some(root));
        Ok(root)
    }

    /// Commits a record of this one leaf: pruning, a row lock, a status
    /// change. `horizon` is the record's conflict horizon (rule 30).
    pub fn commit_leaf(&self, leaf: &mut Leaf<'t, S>, kind: RecordKind, ops: Ops, horizon: Xid) {
        let record = Record::new(kind)
            .change(leaf.block(self.store), ops)
            .horizon(horizon);
        self.store.commit(&record, &mut [&mut leaf.guard]);
    }

    fn lost(&self, at: BlockNumber) -> Error {
        Error::corrupt(at, "a descent from the root does not arrive")
    }
}

impl<'t, S: PageStore> Leaf<'t, S> {
    /// Which block it is.
    pub fn block(&self, store: &S) -> BlockNumber {
        store.block_of(&self.guard)
    }
}
