//! Making the tree lower: a root with one child gives way to that child.

use super::meta::Meta;
use super::{Tree, point};
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::page::op::Ops;
use crate::page::{Page, PageKind, flag};
use crate::record::{Record, RecordKind};
use crate::store::PageStore;
use crate::types::{BlockNumber, Level};

impl<'t, S: PageStore, C: Compare> Tree<'t, S, C> {
    /// How high the root stands above the leaves.
    pub fn root_level(&self) -> Result<Level> {
        Ok(Level(self.meta()?.root_level))
    }

    /// Makes the root's only child the root, if it has only one and that one
    /// is alone on its level. One record: see "Lowering the root" in
    /// `README.md`. Gives up where somebody else changes either meanwhile.
    ///
    /// Locks the child, the root and the metapage, in this order.
    pub fn lower_root(&self) -> Result<bool> {
        let meta = self.meta()?;
        let (root_block, root_level) = (BlockNumber(meta.root), Level(meta.root_level));
        let Some(level) = root_level.0.checked_sub(1).map(Level) else {
            return Ok(false);
        };
        // The root is looked at first, for its child has to be locked before
        // it is.
        let child_block = {
            let guard = self.store.read(root_block)?;
            let page = Page::open(&guard, root_block)?;
            match only_child(page, root_block, root_level)? {
                Some(child) => child,
                None => return Ok(false),
            }
        };
        self.store.pace(point::LOWER_BEFORE_LOCKS);
        let mut child = self.store.lock(child_block)?;
        let child_page = Page::open(&child, child_block)?;
        let is_alone = child_page.kind() == PageKind::of_level(level)
            && child_page.level() == level
            && !child_page.left().is_some()
            && !child_page.right().is_some();
        if !is_alone {
            return Ok(false);
        }
        let mut root = self.store.lock(root_block)?;
        let root_page = Page::open(&root, root_block)?;
        if only_child(root_page, root_block, root_level)? != Some(child_block) {
            return Ok(false);
        }
        let mut metapage = self.store.lock(BlockNumber::META)?;
        let mut meta = Meta::decode(&metapage)?;
        if meta.root != root_block.0 || meta.root_level != root_level.0 {
            return Err(Error::corrupt(
                root_block,
                format!("it says it is the root, which is {}", meta.root),
            ));
        }
        meta.root = child_block.0;
        meta.root_level = level.0;
        let record = Record::new(RecordKind::LowerRoot)
            .change(child_block, Ops::new().flags(flag::ROOT, 0))
            .change(
                root_block,
                Ops::new()
                    .flags(0, flag::ROOT)
                    .delete(self.store.recycle_stamp()),
            )
            .change(BlockNumber::META, Ops::new().meta(&meta.encode()?));
        self.store
            .commit(&record, &mut [&mut child, &mut root, &mut metapage]);
        self.root.set(Some((child_block, level)));
        drop(root);
        self.store.offer(root_block);
        Ok(true)
    }
}

/// The only child of a page that is the root still.
fn only_child(page: Page<'_>, block: BlockNumber, level: Level) -> Result<Option<BlockNumber>> {
    let is_root = page.kind() == PageKind::Inner
        && page.level() == level
        && page.has(flag::ROOT)
        && !page.has(flag::INCOMPLETE_SPLIT);
    if !is_root || page.slot_count() != 1 {
        return Ok(None);
    }
    Ok(Some(page.inner_cell(0, block)?.child))
}
