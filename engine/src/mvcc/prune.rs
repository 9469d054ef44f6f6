//! Pruning one leaf: [`retain`] applied to every key on it, in one record.

use super::read::{goes_on, same_key_follows};
use super::retain::{Fate, retain};
use super::{Transactions, Versioned};
use crate::btree::Leaf;
use crate::compare::Compare;
use crate::error::Result;
use crate::page::cell::{EntryKind, Head, bit};
use crate::page::op::Ops;
use crate::page::{Page, flag};
use crate::record::RecordKind;
use crate::store::PageStore;
use crate::types::{CommandId, Sequence, SlotNumber, Xid};

/// How many rows are passed over between two looks at what else is to be done:
/// as many as lie on what is fetched of the next leaf meanwhile, if rows are of
/// some hundred bytes.
const ROWS_AT_ONCE: usize = 4;

/// What need not be read of a frozen row: [`retain`] asks a frozen version for
/// its writer only to recognise that of the version above it, and keeps one more
/// if it does not.
const A_FROZEN_ROW: Head = Head {
    flags: EntryKind::Put as u8 | bit::FROZEN,
    xmin: Xid::NONE,
    cid: CommandId(0),
    sequence: Sequence::FIRST,
};

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
        let compare = self.tree.compare;
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
        let rows_frozen = page.has(flag::ROWS_FROZEN);
        let rows_at_once = if rows_frozen { count } else { ROWS_AT_ONCE };
        let mut slot = 0;
        while slot < count {
            let first = slot;
            // Most keys of a leaf that was pruned before: one frozen row. In
            // between, the next leaf is fetched bit by bit.
            let rows = page.frozen_rows(slot, rows_at_once);
            if settle && !rows_frozen {
                self.tree.store.expect_more();
            }
            if rows > 0 {
                result.live += rows;
                slot += rows;
                continue;
            }
            heads.clear();
            loop {
                let (head, more) = if rows_frozen && !page.slot(slot).key_below {
                    (A_FROZEN_ROW, false)
                } else {
                    let head = page.leaf_cell(slot, block)?.head;
                    (head, same_key_follows(page, block, slot, head, compare)?)
                };
                heads.push(head);
                slot += 1;
                if !more {
                    break;
                }
            }
            let ends_here = slot < count || {
                let mut key = page.prefix().to_vec();
                key.extend_from_slice(page.suffix(first, block)?);
                goes_on(page, &key, compare).is_none()
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
            ops = ops.flags(flag::SETTLED, 0);
        } else if rows_frozen {
            // What is left of a key may be something else, and have the key now.
            ops = ops.flags(0, flag::ROWS_FROZEN);
        }
        self.tree.commit_leaf(leaf, RecordKind::Prune, ops, horizon);
        Ok(result)
    }
}
