//! Ending many rows at once: one latch and one record for as many of them as
//! stand on one leaf with nobody at them.

use super::{Transactions, VersionId, Versioned, Writer, XidStatus};
use crate::btree::{Target, search};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::cell::{EntryKind, Head, bit};
use crate::page::op::Ops;
use crate::page::{Page, SLOT_BYTES, flag};
use crate::record::RecordKind;
use crate::store::PageStore;
use crate::types::{SlotNumber, Xid};

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Puts tombstones on versions that were read, whose keys ascend, from the
    /// front of `rows`; how many were ended. It stops before a row that takes
    /// [`Versioned::supersede`]'s closer look, or stands on another leaf than
    /// the first one.
    ///
    /// A row needs no closer look if the version named is the very first entry
    /// of its key: locks and newer versions, whoever wrote them and however
    /// that ended, stand before it.
    pub fn end_run(&self, writer: Writer, rows: &[VersionId<'_>]) -> Result<usize> {
        let Some(first) = rows.first() else {
            return Ok(0);
        };
        let compare = self.tree.compare;
        let mut leaf = self.tree.leaf_exclusive(Target::Before(first.key))?;
        let block = leaf.block(self.tree.store);
        let page = Page::open(&leaf.guard, block)?;
        // The key that goes on to the next leaf, if one does.
        let divided = page
            .high()
            .filter(|high| high.sequence.is_some())
            .map(|high| high.key);
        let mut room = page.free_for_certain();
        let mut ops = Ops::new();
        let mut cell = Vec::new();
        let mut done = 0;
        let mut slot = 0;
        for row in rows {
            // Of rows that follow each other the next one is often the next.
            if slot >= page.slot_count() || !search::matches(page, slot, block, row.key, compare)? {
                let target = Target::Before(row.key);
                slot = search::lower_bound_from(page, block, slot, target, compare)?;
                if slot == page.slot_count()
                    || !search::matches(page, slot, block, row.key, compare)?
                {
                    break;
                }
            }
            let version = page.leaf_cell(slot, block)?.head;
            let need = Head::encoded_len_max(0, 0) + SLOT_BYTES;
            if version.kind() != EntryKind::Put
                || version.sequence != row.sequence
                || version.xmin != row.xmin
                || version.cid >= writer.cid && self.version_status(version) == XidStatus::Own
                || divided.is_some_and(|key| compare.compare(key, row.key).is_eq())
                || room < need
            {
                break;
            }
            self.tree.store.key_written(row.key, Some(row.sequence));
            self.tree.store.key_cleared(row.key);
            let head = Head {
                flags: EntryKind::Tombstone as u8 | bit::KEYS_UPDATED,
                xmin: writer.xid,
                cid: writer.cid,
                sequence: version.sequence.successor(),
            };
            cell.clear();
            head.encode(None, &[], &mut cell);
            room -= cell.len() + SLOT_BYTES;
            // Each tombstone before it has moved the slot on by one.
            ops = ops.insert(SlotNumber((slot + done) as u16), true, &cell);
            done += 1;
            slot += 1;
        }
        if done == 0 {
            return Ok(0);
        }
        self.tree.store.leaf_written(block);
        let settled = page.flags() & flag::ALL_FROZEN;
        if settled != 0 {
            ops = ops.flags(0, settled);
        }
        self.tree
            .commit_leaf(&mut leaf, RecordKind::Insert, ops, Xid::NONE);
        Ok(done)
    }
}
