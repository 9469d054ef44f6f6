//! `check`: an amcheck for one store. Reads every page and collects whatever
//! breaks a promise of the README's, rather than stop at the first.
//!
//! It takes one share lock at a time, so nobody may write meanwhile.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::measure::prefix_for;
use super::meta::Meta;
use super::search::{compare_positions, copy_key, same_key};
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::page::cell::{EntryKind, LeafCell, bit};
use crate::page::{self, Page, PageKind, Position, PositionBuf, flag};
use crate::store::PageStore;
use crate::types::{BlockNumber, Level};

/// What is said of a version that others of its key follow on its page, but that
/// has a key of its own.
pub(super) const UNLINKED: &str = "a version has a key of its own, and the next entry the same key";

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where.
    pub block: BlockNumber,
    /// Which.
    pub what: String,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Whatever is wrong.
    pub problems: Vec<Problem>,
    /// Leaves.
    pub leaf_pages: u64,
    /// Inner pages.
    pub inner_pages: u64,
    /// Deleted pages, to be used again.
    pub deleted_pages: u64,
    /// Pages never written.
    pub new_pages: u64,
    /// Entries on leaves, locks included.
    pub entries: u64,
    /// Levels, that of the leaves included.
    pub depth: u32,
    /// Bytes free on leaves, garbage included.
    pub free_bytes: u64,
    /// Bytes of garbage on leaves.
    pub garbage_bytes: u64,
    /// Pages whose right sibling still lacks a downlink: right, but left over
    /// from a crash or an error.
    pub incomplete_splits: u64,
}

/// A page's downlink, as its parent has it or ought to.
struct Downlink {
    low: PositionBuf,
    block: BlockNumber,
}

struct Checker<'c, S, C> {
    store: &'c S,
    compare: &'c C,
    report: Report,
    visited: HashSet<BlockNumber>,
    ordered: bool,
}

/// Checks the whole tree.
pub fn check<S: PageStore, C: Compare>(store: &S, compare: &C) -> Result<Report> {
    let mut checker = Checker {
        store,
        compare,
        report: Report::default(),
        visited: HashSet::from([BlockNumber::META]),
        ordered: compare.ordered(),
    };
    let meta = {
        let guard = store.read(BlockNumber::META)?;
        Meta::decode(&guard)
    };
    match meta {
        Err(error) => checker.refuse(BlockNumber::META, error),
        Ok(meta) if !BlockNumber(meta.root).is_some() => {
            checker.problem(BlockNumber::META, "it names no root");
        }
        Ok(meta) => {
            if meta.ordered != checker.ordered {
                checker.problem(BlockNumber::META, "the order of keys is another one");
            }
            checker.report.depth = u32::from(meta.root_level) + 1;
            checker.tree(BlockNumber(meta.root), Level(meta.root_level))?;
        }
    }
    checker.unreached()?;
    Ok(checker.report)
}

impl<S: PageStore, C: Compare> Checker<'_, S, C> {
    fn problem(&mut self, block: BlockNumber, what: impl Into<String>) {
        self.report.problems.push(Problem {
            block,
            what: what.into(),
        });
    }

    fn refuse(&mut self, block: BlockNumber, error: Error) {
        match error {
            Error::Corrupt { block, what } => self.problem(block, what),
            other => self.problem(block, other.to_string()),
        }
    }

    /// Level by level, from the root down.
    fn tree(&mut self, root: BlockNumber, root_level: Level) -> Result<()> {
        let mut expected = vec![Downlink {
            low: PositionBuf::default(),
            block: root,
        }];
        for level in (0..=root_level.0).rev() {
            let Some(first) = expected.first().map(|downlink| downlink.block) else {
                return Ok(());
            };
            expected = self.level(Level(level), first, expected, level == root_level.0)?;
        }
        Ok(())
    }

    /// One level from its first page to the right; returns its downlinks.
    fn level(
        &mut self,
        level: Level,
        first: BlockNumber,
        expected: Vec<Downlink>,
        is_root_level: bool,
    ) -> Result<Vec<Downlink>> {
        let mut expected = expected.into_iter().peekable();
        let mut downlinks = Vec::new();
        let mut block = first;
        let mut left = BlockNumber::NONE;
        let mut left_high: Option<PositionBuf> = None;
        let mut left_is_incomplete = false;
        while block.is_some() {
            self.store.interruptible();
            if !self.visited.insert(block) {
                self.problem(block, "two links lead to it");
                return Ok(downlinks);
            }
            let guard = match self.store.read(block) {
                Ok(guard) => guard,
                Err(error) => {
                    self.refuse(block, error);
                    return Ok(downlinks);
                }
            };
            let page = match Page::open(&guard, block) {
                Ok(page) => page,
                Err(error) => {
                    self.refuse(block, error);
                    return Ok(downlinks);
                }
            };
            if page.kind() != PageKind::of_level(level) || page.level() != level {
                self.problem(
                    block,
                    format!(
                        "a {:?} page of level {} stands on level {}",
                        page.kind(),
                        page.level().0,
                        level.0
                    ),
                );
                return Ok(downlinks);
            }
            // The flag says that this page's downlink is missing; else there
            // has to be one, and it names the page and its lower fence.
            let low = page.low().map(Position::to_buf);
            let named = expected.next_if(|downlink| downlink.block == block);
            match (left_is_incomplete, named) {
                (false, None) => self.problem(block, "its parent has no downlink to it"),
                (true, Some(_)) => {
                    self.problem(
                        left,
                        "INCOMPLETE_SPLIT, though the right half has a downlink",
                    );
                }
                (false, Some(downlink)) if downlink.low != low.clone().unwrap_or_default() => {
                    self.problem(block, "its downlink's position is not its lower fence");
                }
                _ => {}
            }
            if page.left() != left {
                self.problem(
                    block,
                    format!("its left link is {}, not {left}", page.left()),
                );
            }
            if low != left_high {
                self.problem(
                    block,
                    "its lower fence is not its left sibling's upper fence",
                );
            }
            if page.has(flag::ROOT) != (is_root_level && !left.is_some()) {
                self.problem(block, "the flag ROOT is wrong");
            }
            self.page(page, block, &mut downlinks);
            left = block;
            left_high = page.high().map(Position::to_buf);
            left_is_incomplete = page.has(flag::INCOMPLETE_SPLIT);
            self.report.incomplete_splits += u64::from(left_is_incomplete);
            block = page.right();
            if block.is_some() == left_high.is_none() {
                self.problem(
                    left,
                    "its upper fence and its right link contradict each other",
                );
            }
        }
        if left_is_incomplete {
            self.problem(left, "INCOMPLETE_SPLIT on a level's last page");
        }
        for downlink in expected {
            self.problem(downlink.block, "a downlink names it, but no sibling's link");
        }
        Ok(downlinks)
    }

    /// What one page promises, and the order of what it holds.
    fn page(&mut self, page: Page<'_>, block: BlockNumber, downlinks: &mut Vec<Downlink>) {
        let is_leaf = page.kind() == PageKind::Leaf;
        if is_leaf {
            self.report.leaf_pages += 1;
            self.report.entries += page.slot_count() as u64;
            self.report.free_bytes += page.free() as u64;
            self.report.garbage_bytes += page.garbage() as u64;
        } else {
            self.report.inner_pages += 1;
        }
        if page.has(flag::ORDERED) != self.ordered {
            self.problem(block, "the flag ORDERED is wrong");
        }
        if let Err(error) = page::check::check(page.bytes(), block) {
            self.refuse(block, error);
            return;
        }
        if page.prefix_len() != prefix_for(page, page.low(), page.high()) {
            self.problem(block, "its prefix is not that of its fences");
        }
        if let (Some(low), Some(high)) = (page.low(), page.high())
            && compare_positions(low, high, self.compare).is_ge()
        {
            self.problem(block, "its fences are out of order");
        }
        let mut last: Option<PositionBuf> = None;
        for slot in 0..page.slot_count() {
            let position = match position(page, slot, block) {
                Ok(position) => position,
                Err(error) => {
                    self.refuse(block, error);
                    return;
                }
            };
            let order =
                |left: Position<'_>| compare_positions(left, position.as_ref(), self.compare);
            let ascends = last
                .as_ref()
                .is_none_or(|last| order(last.as_ref()) == Ordering::Less);
            let from_low = page.low().is_none_or(|low| order(low).is_le());
            let to_high = page.high().is_none_or(|high| order(high).is_gt());
            if !ascends {
                self.problem(block, format!("slot {slot} is out of order"));
            }
            if !from_low || !to_high {
                self.problem(block, format!("slot {slot} lies outside the page's fences"));
            }
            if is_leaf && slot > 0 && goes_on_unlinked(page, slot - 1, block, self.compare) {
                self.problem(block, format!("slot {}: {UNLINKED}", slot - 1));
            }
            if !is_leaf && let Ok(cell) = page.inner_cell(slot, block) {
                downlinks.push(Downlink {
                    low: position.clone(),
                    block: cell.child,
                });
            }
            last = Some(position);
        }
        if !is_leaf && page.slot_count() == 0 {
            self.problem(block, "an inner page without downlinks");
        }
        if page.has(flag::ALL_FROZEN) {
            self.all_frozen(page, block);
        }
        if page.has(flag::ROWS_FROZEN) {
            self.rows_frozen(page, block);
        }
    }

    fn rows_frozen(&mut self, page: Page<'_>, block: BlockNumber) {
        let held = (0..page.slot_count()).all(|slot| {
            page.slot(slot).key_below || page.leaf_cell(slot, block).is_ok_and(is_frozen_row)
        });
        if !held {
            self.problem(block, "ROWS_FROZEN on a page that has others");
        }
    }

    fn all_frozen(&mut self, page: Page<'_>, block: BlockNumber) {
        let live =
            (0..page.slot_count()).all(|slot| page.leaf_cell(slot, block).is_ok_and(is_frozen_row));
        if !live {
            self.problem(block, "ALL_FROZEN on a page that is not");
        }
    }

    /// Pages that no link leads to have to be deleted or new.
    fn unreached(&mut self) -> Result<()> {
        for block in (1..self.store.block_count()?).map(BlockNumber) {
            self.store.interruptible();
            if self.visited.contains(&block) {
                continue;
            }
            let guard = match self.store.read(block) {
                Ok(guard) => guard,
                Err(error) => {
                    self.refuse(block, error);
                    continue;
                }
            };
            if guard.iter().all(|byte| *byte == 0) {
                self.report.new_pages += 1;
                continue;
            }
            match Page::open(&guard, block).map(Page::kind) {
                Ok(PageKind::Deleted) => {
                    self.report.deleted_pages += 1;
                    // Whoever remembers it as the root has to be told.
                    if Page::open(&guard, block)?.has(flag::ROOT) {
                        self.problem(block, "a deleted page says that it is the root");
                    }
                }
                Ok(kind) => self.problem(block, format!("no link leads to this {kind:?} page")),
                Err(error) => self.refuse(block, error),
            }
        }
        Ok(())
    }
}

/// Where the entry or downlink in a slot stands.
fn position(page: Page<'_>, slot: usize, block: BlockNumber) -> Result<PositionBuf> {
    let mut key = Vec::new();
    if page.kind() == PageKind::Leaf {
        copy_key(page, slot, block, &mut key)?;
        let sequence = page.leaf_cell(slot, block)?.head.sequence;
        return Ok(PositionBuf {
            key,
            sequence: Some(sequence),
        });
    }
    let position = page.inner_cell(slot, block)?.position;
    if slot == 0 {
        if position != Position::FIRST {
            return Err(Error::corrupt(block, "its first downlink has a key"));
        }
        return Ok(page.low().map(Position::to_buf).unwrap_or_default());
    }
    key.extend_from_slice(page.prefix());
    key.extend_from_slice(position.key);
    Ok(PositionBuf {
        key,
        sequence: position.sequence,
    })
}

/// Whether a version has a key of its own that is that of the next slot too,
/// where everybody takes it for the last of its key on the page. (A row lock may
/// have one: a first version is put behind it.)
fn goes_on_unlinked(
    page: Page<'_>,
    slot: usize,
    block: BlockNumber,
    compare: &impl Compare,
) -> bool {
    let is_version = |cell: LeafCell<'_>| cell.head.is_version();
    !page.slot(slot).key_below
        && page.leaf_cell(slot, block).is_ok_and(is_version)
        && same_key(page, slot, block, compare).is_ok_and(|same| same)
}

fn is_frozen_row(cell: LeafCell<'_>) -> bool {
    cell.head.kind() == EntryKind::Put && cell.head.has(bit::FROZEN)
}
