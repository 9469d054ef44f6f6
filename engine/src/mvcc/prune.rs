//! Pruning one leaf: [`retain`] applied to every key on it, in one record.

use super::read::{goes_on, same_key_follows};
use super::retain::{Fate, retain};
use super::{Transactions, Versioned};
use crate::btree::Leaf;
use crate::compare::Compare;
use crate::error::Result;
use crate::page::cell::{EntryKind, Head, bit, is_frozen_row};
use crate::page::op::Ops;
use crate::page::{Page, flag};
use crate::record::RecordKind;
use crate::store::PageStore;
use crate::types::{SlotNumber, Xid};

/// What pruning a leaf did, and what it left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pruned {
    /// Whether anything was written.
    pub changed: bool,
    /// Entries removed.
    pub removed: usize,
    /// Rows that the newest version of their key still is.
    pub live: usize,
    /// Entries left that are no live row: older versions, tombstones, locks.
    pub dead: usize,
    /// The oldest transaction id left that is not frozen; `None` if none is.
    pub oldest_xid: Option<Xid>,
}

impl<'t, S: PageStore, C: Compare, T: Transactions> Versioned<'t, S, C, T> {
    /// Prunes a locked leaf.
    pub fn prune_leaf(&self, leaf: &mut Leaf<'t, S>) -> Result<Pruned> {
        self.prune(leaf, false)
    }

    /// Prunes a locked leaf and, if then every entry is the frozen row of its
    /// key, notes it on the page: it is passed over until something is written.
    pub(super) fn settle_leaf(&self, leaf: &mut Leaf<'t, S>) -> Result<Pruned> {
        self.prune(leaf, true)
    }

    fn prune(&self, leaf: &mut Leaf<'t, S>, settle: bool) -> Result<Pruned> {
        let block = self.tree.store.block_of(&leaf.guard);
        let page = Page::open(&leaf.guard, block)?;
        let count = page.slot_count();
        let mut result = Pruned::default();
        if page.has(flag::ALL_FROZEN) {
            result.live = count;
            return Ok(result);
        }
        let (mut remove, mut freeze) = (Vec::new(), Vec::new());
        let mut horizon = Xid::NONE;
        let mut heads: Vec<Head> = Vec::new();
        let mut fates = Vec::new();
        let mut slot = 0;
        while slot < count {
            let first = slot;
            if settle {
                self.tree.store.expect_more();
            }
            // Most keys of a leaf that was pruned before: one frozen row.
            let read = page.slot(slot);
            if !read.key_below && is_frozen_row(page.cell_bytes(read)) {
                result.live += 1;
                slot += 1;
                continue;
            }
            heads.clear();
            loop {
                let head = page.leaf_cell(slot, block)?.head;
                heads.push(head);
                let more = same_key_follows(page, block, slot, head)?;
                slot += 1;
                if !more {
                    break;
                }
            }
            let ends_here = slot < count || {
                let mut key = page.prefix().to_vec();
                key.extend_from_slice(page.suffix(first, block)?);
                goes_on(page, &key, self.tree.compare).is_none()
            };
            horizon = horizon.newer_of(retain(
                heads.iter().copied(),
                ends_here,
                self.transactions,
                &mut fates,
            ));
            let mut newest = true;
            for (nth, fate) in fates.iter().enumerate() {
                let at = SlotNumber((first + nth) as u16);
                match fate {
                    Fate::Remove => {
                        remove.push(at);
                        result.removed += 1;
                        continue;
                    }
                    Fate::Freeze => freeze.push(at),
                    Fate::Keep if heads[nth].has(bit::FROZEN) => {}
                    Fate::Keep => {
                        let xid = heads[nth].xmin;
                        result.oldest_xid = Some(match result.oldest_xid {
                            Some(oldest) if oldest.precedes(xid) => oldest,
                            _ => xid,
                        });
                    }
                }
                if heads[nth].kind() == EntryKind::Put && newest {
                    result.live += 1;
                } else {
                    result.dead += 1;
                }
                newest &= !heads[nth].is_version();
            }
        }
        // A leaf that begins within a key may hold an older version of it, which
        // looks like a row of its own from here.
        let settles = settle
            && result.dead == 0
            && result.oldest_xid.is_none()
            && page.low().is_none_or(|low| low.within_key().is_none());
        result.changed = !remove.is_empty() || !freeze.is_empty();
        let notes = settles && count > 0;
        if !(result.changed || notes) {
            return Ok(result);
        }
        let mut ops = Ops::new();
        if result.changed {
            ops = ops.prune(&remove, &freeze);
        }
        if notes {
            ops = ops.flags(flag::ALL_FROZEN, 0);
        }
        self.tree.commit_leaf(leaf, RecordKind::Prune, ops, horizon);
        Ok(result)
    }
}
