//! Putting one entry on a leaf.

use super::measure::{check_limits, key_len, keyless_len, used_bytes};
use super::plan::{Fresh, Planner};
use super::search::compare_position;
use super::split::slot_number;
use super::{Fill, Leaf, Target, Tree};
use crate::compare::{Compare, common_prefix_len, common_suffix_len};
use crate::error::{Error, Result};
use crate::page::cell::{EntryKind, Head, bit};
use crate::page::op::Ops;
use crate::page::{Page, Position, SLOT_BYTES, flag};
use crate::record::{Record, RecordKind};
use crate::store::PageStore;
use crate::types::BlockNumber;

/// An entry to be put on a leaf that is locked, and where.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'e> {
    /// Writer, number and flags.
    pub head: Head,
    /// The whole key.
    pub key: &'e [u8],
    /// Payload, strength or target.
    pub body: &'e [u8],
    /// The slot that it goes before.
    pub slot: usize,
    /// Whether the entry that stands in `slot` has the same key.
    pub key_below: bool,
    /// The slot of an older version whose body this one's resembles.
    pub like: Option<usize>,
}

/// An entry that is put together with others, at the place that its key and
/// sequence say.
#[derive(Clone, Copy, Debug)]
pub struct RunEntry<'e> {
    /// Writer, number and flags.
    pub head: Head,
    /// The whole key.
    pub key: &'e [u8],
    /// Payload, strength or target.
    pub body: &'e [u8],
}

/// The page flags that an entry makes untrue.
pub(super) fn flags_broken(page: Page<'_>, head: Head, key_below: bool) -> u16 {
    let is_frozen_row = head.kind() == EntryKind::Put && head.has(bit::FROZEN);
    let broken = match (key_below, is_frozen_row) {
        (false, true) => 0,
        (true, _) => flag::ALL_FROZEN,
        (false, false) => flag::SETTLED,
    };
    page.flags() & broken
}

fn cell_len(page: Page<'_>, entry: &NewEntry<'_>) -> usize {
    let key = if entry.key_below {
        0
    } else {
        key_len(entry.key.len() - page.prefix_len())
    };
    keyless_len(entry.head, entry.body.len()) + key
}

/// Whether an entry goes behind all others of the tree.
fn appends(page: Page<'_>, entry: &NewEntry<'_>) -> bool {
    !page.right().is_some() && entry.slot == page.slot_count() && entry.slot > 0
}

impl<'t, S: PageStore, C: Compare> Tree<'t, S, C> {
    /// Whether [`Tree::put`] would put this entry without splitting the leaf;
    /// otherwise the caller prunes first.
    ///
    /// The last leaf of the tree counts as full from its [`Fill`] on for an
    /// entry at its end, so that ascending loads need not move entries.
    pub fn fits(&self, leaf: &Leaf<'t, S>, entry: &NewEntry<'_>) -> Result<bool> {
        let page = Page::open(&leaf.guard, leaf.block(self.store))?;
        Ok(fits(page, entry) && !leaves_behind(page, entry, self.fill.get()))
    }

    /// Puts one entry on a locked leaf at its place and returns the block where
    /// it then stands, splitting the leaf if it does not fit; the caller has
    /// pruned before. The lock is released.
    ///
    /// One record if the entry fits; else one that splits the page and holds
    /// the entry, and one for the downlink. An error after the first of these
    /// (no space for the parent's split) leaves the entry in place: the
    /// caller's transaction aborts, and the next writer ends the split.
    pub fn put(
        &self,
        mut leaf: Leaf<'t, S>,
        entry: NewEntry<'_>,
        kind: RecordKind,
    ) -> Result<BlockNumber> {
        check_limits(self.store.page_size(), entry.head, entry.key, entry.body)?;
        let mut entry = entry;
        loop {
            let block = leaf.block(self.store);
            let page = Page::open(&leaf.guard, block)?;
            assert!(
                entry.key_below || entry.slot == 0 || !page.slot(entry.slot - 1).key_below,
                "an entry within a key's versions has that key"
            );
            let at_end = appends(page, &entry);
            let mut plan = None;
            if fits(page, &entry) {
                if leaves_behind(page, &entry, self.fill.get()) {
                    let fresh = Some(Fresh::Entry(&entry));
                    plan = self.planner(page, block, fresh)?.append()?;
                }
                if plan.is_none() {
                    let ops = put_ops(page, block, &entry)?;
                    let record = Record::new(kind).change(block, ops);
                    self.store.commit(&record, &mut [&mut leaf.guard]);
                    if at_end {
                        self.rightmost.set(Some(block));
                    }
                    return Ok(block);
                }
            }
            let fresh = Some(Fresh::Entry(&entry));
            if plan.is_none() {
                plan = self.planner(page, block, fresh)?.plan()?;
            }
            if let Some(plan) = plan {
                let right = self.split(&mut leaf.guard, &plan, fresh, None)?;
                let right_block = self.store.block_of(&right);
                self.finish_split(&mut leaf.guard, &mut leaf.path)?;
                if plan.fresh_left {
                    return Ok(block);
                }
                if at_end {
                    self.rightmost.set(Some(right_block));
                }
                return Ok(right_block);
            }
            // A large entry between two that leave it no room on either side:
            // split between others first; or, where that is not possible, make
            // the fences shorter. The README shows that this ends.
            let mut plan = self.planner(page, block, None)?.plan()?;
            if plan.is_none() {
                plan = self.planner(page, block, fresh)?.shorten()?;
            }
            let plan = plan.ok_or_else(|| Error::corrupt(block, "a leaf cannot be split"))?;
            let right = self.split(&mut leaf.guard, &plan, None, None)?;
            self.finish_split(&mut leaf.guard, &mut leaf.path)?;
            let position = Position {
                key: entry.key,
                sequence: Some(entry.head.sequence),
            };
            let separator = Target::of(plan.separator.as_ref());
            if compare_position(position, separator, self.compare).is_lt() {
                // At the end of the left page no slot holds the key any more.
                entry.key_below &= entry.slot < plan.keep;
                entry.like = entry.like.filter(|like| *like < plan.keep);
            } else {
                entry.slot -= plan.keep;
                entry.like = entry.like.and_then(|like| like.checked_sub(plan.keep));
                leaf.guard = right;
            }
        }
    }
}

impl<'t, S: PageStore, C: Compare> Tree<'t, S, C> {
    fn planner<'p>(
        &self,
        page: Page<'p>,
        block: BlockNumber,
        fresh: Option<Fresh<'p>>,
    ) -> Result<Planner<'p, C>>
    where
        't: 'p,
    {
        let planner = Planner::new(page, block, fresh, self.compare)?;
        Ok(planner.filled(self.fill.get()))
    }
}

fn fits(page: Page<'_>, entry: &NewEntry<'_>) -> bool {
    page.fits(cell_len(page, entry) + SLOT_BYTES)
}

/// Whether an entry at the tree's end should rather begin a new leaf than fill
/// up this one.
fn leaves_behind(page: Page<'_>, entry: &NewEntry<'_>, fill: Fill) -> bool {
    let bytes = cell_len(page, entry) + SLOT_BYTES;
    // What is left behind gets an upper fence, no longer than this.
    let fence = 1 + entry.key.len();
    appends(page, entry) && used_bytes(page) + bytes > fill.bytes(page.size(), bytes + fence)
}

/// The operations that put an entry on a leaf with room for it.
fn put_ops(page: Page<'_>, block: BlockNumber, entry: &NewEntry<'_>) -> Result<Ops> {
    let suffix = (!entry.key_below).then(|| &entry.key[page.prefix_len()..]);
    let slot = slot_number(entry.slot);
    let mut cell = Vec::with_capacity(Head::encoded_len_max(entry.key.len(), entry.body.len()));
    let mut ops = None;
    if let Some(like) = entry.like {
        let body = page.leaf_cell(like, block)?.body;
        let prefix = common_prefix_len(body, entry.body);
        let suffix_len = common_suffix_len(&body[prefix..], &entry.body[prefix..]);
        // Eight bytes is what the operation itself takes more.
        if prefix + suffix_len > 8 {
            entry.head.encode(suffix, &[], &mut cell);
            ops = Some(Ops::new().insert_like(
                slot,
                entry.key_below,
                slot_number(like),
                prefix as u16,
                suffix_len as u16,
                &cell,
                &entry.body[prefix..entry.body.len() - suffix_len],
            ));
        }
    }
    let ops = ops.unwrap_or_else(|| {
        cell.clear();
        entry.head.encode(suffix, entry.body, &mut cell);
        Ops::new().insert(slot, entry.key_below, &cell)
    });
    let broken = flags_broken(page, entry.head, entry.key_below);
    Ok(if broken == 0 {
        ops
    } else {
        ops.flags(0, broken)
    })
}
