//! Ending many rows at once: one latch and one record for as many of them as
//! stand on one leaf with nobody at them.

use super::ends::Ends;
use super::{Transactions, VersionId, Versioned, Writer, XidStatus};
use crate::btree::{Target, search};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::cell::EntryKind;
use crate::page::{Page, flag};
use crate::record::RecordKind;
use crate::store::PageStore;
use crate::types::Xid;

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Puts tombstones on versions that were read, whose keys ascend, from the
    /// front of `rows`; how many were ended. It stops before a row that takes
    /// [`Versioned::supersede`]'s closer look, or stands on another leaf than
    /// the first one.
    ///
    /// A row needs no closer look if the version named is the very first entry
    /// of its key: locks and newer versions, whoever wrote them and however
    /// that ended, stand before it.
    ///
    /// `rows` yields each with its number among the rows of its leaf, from which
    /// its slot is guessed.
    pub fn end_run<'k>(
        &self,
        writer: Writer,
        rows: impl Iterator<Item = (usize, VersionId<'k>)>,
    ) -> Result<usize> {
        let mut rows = rows.peekable();
        let Some((_, first)) = rows.peek() else {
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
        let mut ends = Ends::default();
        let count = page.slot_count();
        let prefix = page.prefix();
        let ordered = page.has(flag::ORDERED);
        let mut done = 0;
        // How many slots further on than its number the last row was, and the
        // first slot behind it.
        let (mut drift, mut behind) = (0, 0);
        for (number, row) in rows {
            let mut slot = number + drift;
            // A slot that was guessed has to be the first one of its key. The one
            // right behind the last row is, or it would be of that row's key.
            let is_it = slot < count
                && slot >= behind
                && if ordered && !page.slot(slot).key_below {
                    let suffix = page.leaf_cell(slot, block)?.suffix;
                    suffix.is_some() && suffix == row.key.strip_prefix(prefix)
                } else {
                    search::matches(page, slot, block, row.key, compare)?
                }
                && (slot == behind
                    || ordered && page.slot(slot - 1).head != page.slot(slot).head
                    || !search::same_key(page, slot - 1, block, compare)?);
            if !is_it {
                let target = Target::Before(row.key);
                slot = search::lower_bound_from(page, block, behind, target, compare)?;
                if slot == count || !search::matches(page, slot, block, row.key, compare)? {
                    break;
                }
                drift = slot.saturating_sub(number);
            }
            let version = page.leaf_cell(slot, block)?.head;
            let need = ends.bytes(writer, version.sequence);
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
            room -= need;
            ends.push(writer, slot);
            done += 1;
            behind = slot + 1;
        }
        if done == 0 {
            return Ok(0);
        }
        self.tree.store.leaf_written(block);
        let mut ops = ends.ops();
        let settled = page.flags() & flag::ALL_FROZEN;
        if settled != 0 {
            ops = ops.flags(0, settled);
        }
        self.tree
            .commit_leaf(&mut leaf, RecordKind::Insert, ops, Xid::NONE);
        Ok(done)
    }
}
