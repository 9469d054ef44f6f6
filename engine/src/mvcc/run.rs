//! Inserting many rows at once: sorted by key, one latch and one record for
//! as many of them as belong on one leaf (rule 43).

use super::write::Written;
use super::{Transactions, Versioned, Writer};
use crate::btree::{RunEntry, Target, search};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::Page;
use crate::page::cell::{EntryKind, Head};
use crate::store::PageStore;
use crate::types::{BlockNumber, Sequence};

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Inserts rows of keys that have no entry at all, from the front of
    /// `rows`, which ascend; how many were inserted. It stops before a key
    /// that has entries, or stands twice: such a row takes
    /// [`Versioned::insert`]'s closer look. `flags` as there.
    pub fn insert_run(
        &self,
        writer: Writer,
        flags: u8,
        rows: &[(&[u8], &[u8])],
        written: &mut Vec<Written>,
    ) -> Result<usize> {
        let head = Head {
            flags: EntryKind::Put as u8 | flags,
            xmin: writer.xid,
            cid: writer.cid,
            sequence: Sequence::FIRST,
        };
        let rows = rows.iter().map(|(key, body)| RunEntry { head, key, body });
        let put = self.put_new_keys(rows, true)?;
        written.extend((0..put).map(|_| Written {
            sequence: Sequence::FIRST,
            block: BlockNumber::NONE,
            own_lock: false,
        }));
        Ok(put)
    }

    /// Puts entries of keys that have none at all, from the front of `rows`,
    /// which ascend, on the leaf of the first: how many. It stops before a key
    /// that has entries, or stands twice. `is_told` says whether readers may
    /// have looked for these keys (rule 22).
    pub(super) fn put_new_keys<'e>(
        &self,
        rows: impl Iterator<Item = RunEntry<'e>>,
        is_told: bool,
    ) -> Result<usize> {
        let mut rows = rows.peekable();
        let Some(first) = rows.peek() else {
            return Ok(0);
        };
        let compare = self.tree.compare;
        let mut leaf = self.tree.leaf_exclusive(Target::Before(first.key))?;
        let block = leaf.block(self.tree.store);
        let need =
            Head::encoded_len_max(first.key.len(), first.body.len()) + crate::page::SLOT_BYTES;
        if Page::open(&leaf.guard, block)?.free() < need {
            self.prune_leaf(&mut leaf)?;
        }
        let page = Page::open(&leaf.guard, block)?;
        let count = page.slot_count();
        let mut entries: Vec<RunEntry<'_>> = Vec::new();
        let mut bytes = 0;
        // Behind the last entry there is nothing left to compare with.
        let mut at_end = false;
        for row in rows {
            let target = Target::Before(row.key);
            if page
                .high()
                .is_some_and(|high| search::compare_position(high, target, compare).is_le())
            {
                break;
            }
            if let Some(last) = entries.last()
                && compare.compare(last.key, row.key).is_ge()
            {
                break;
            }
            if !at_end {
                let slot = search::lower_bound(page, block, target, compare)?;
                at_end = slot == count;
                if !at_end && search::matches(page, slot, block, row.key, compare)? {
                    break;
                }
            }
            if at_end && super::read::goes_on(page, row.key, compare).is_some() {
                break;
            }
            if is_told {
                self.tree.store.key_written(row.key, None);
            }
            bytes += row.key.len() + row.body.len();
            entries.push(row);
            if bytes > self.tree.store.page_size() {
                break;
            }
        }
        if entries.is_empty() {
            return Ok(0);
        }
        if is_told {
            self.tree.store.leaf_written(block);
        }
        self.tree.put_run(leaf, &entries)
    }
}
