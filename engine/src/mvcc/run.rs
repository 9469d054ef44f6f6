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
        let Some((first, payload)) = rows.first() else {
            return Ok(0);
        };
        let compare = self.tree.compare;
        let mut leaf = self.tree.leaf_exclusive(Target::Before(first))?;
        let block = leaf.block(self.tree.store);
        let need = Head::encoded_len_max(first.len(), payload.len()) + crate::page::SLOT_BYTES;
        if Page::open(&leaf.guard, block)?.free() < need {
            self.prune_leaf(&mut leaf)?;
        }
        let page = Page::open(&leaf.guard, block)?;
        let count = page.slot_count();
        let head = Head {
            flags: EntryKind::Put as u8 | flags,
            xmin: writer.xid,
            cid: writer.cid,
            sequence: Sequence::FIRST,
        };
        let mut entries: Vec<RunEntry<'_>> = Vec::new();
        let mut bytes = 0;
        // Behind the last entry there is nothing left to compare with.
        let mut at_end = false;
        for (key, body) in rows {
            let target = Target::Before(key);
            if page
                .high()
                .is_some_and(|high| search::compare_position(high, target, compare).is_le())
            {
                break;
            }
            if let Some(last) = entries.last()
                && compare.compare(last.key, key).is_ge()
            {
                break;
            }
            if !at_end {
                let slot = search::lower_bound(page, block, target, compare)?;
                at_end = slot == count;
                if !at_end && search::matches(page, slot, block, key, compare)? {
                    break;
                }
            }
            if at_end && super::read::goes_on(page, key, compare).is_some() {
                break;
            }
            self.tree.store.key_written(key, None);
            entries.push(RunEntry { head, key, body });
            bytes += key.len() + body.len();
            if bytes > self.tree.store.page_size() {
                break;
            }
        }
        if entries.is_empty() {
            return Ok(0);
        }
        self.tree.store.leaf_written(block);
        let put = self.tree.put_run(leaf, &entries)?;
        written.extend((0..put).map(|_| Written {
            sequence: Sequence::FIRST,
            block: BlockNumber::NONE,
            own_lock: false,
        }));
        Ok(put)
    }
}
