//! Ending many entries of an index at once: sorted by key, one lock and one
//! record for as many of them as stand on one leaf.
//!
//! What a tombstone costs is mostly the way to its leaf. A deletion of many rows
//! ends many entries of each leaf, in an order that has nothing to do with the
//! index's; sorted, they share the way, the lock and the record. Whether a
//! tombstone may be written later than its row's is the caller's to know.

use super::ends::Ends;
use super::{Transactions, Versioned, Writer, XidStatus};
use crate::btree::{Target, search};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::cell::EntryKind;
use crate::page::{Page, flag};
use crate::record::RecordKind;
use crate::store::PageStore;
use crate::types::{BlockNumber, Xid};

/// An entry to be ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ending<'e> {
    /// Who ended its row, and by which command.
    pub writer: Writer,
    /// The entry's key.
    pub key: &'e [u8],
}

/// More tombstones than this do not go into one record, so that its operations
/// stay far below what a record may hold of one block.
const RECORD_MAX: usize = 1024;

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Puts a tombstone on each of `count` live entries, whose keys ascend
    /// strictly; how many it came to. If that is fewer than `count`, the next
    /// one has no live entry (rule 14), and nothing was written for it.
    ///
    /// `done` is told after each record how many are ended, so that a caller
    /// who is stopped by an error knows where. No page is locked then.
    pub fn end_index_entries<'e>(
        &self,
        count: usize,
        ending: impl Fn(usize) -> Ending<'e>,
        mut done: impl FnMut(usize),
    ) -> Result<usize> {
        let mut ended = 0;
        let mut right = BlockNumber::NONE;
        while ended < count {
            self.tree.store.interruptible();
            // Where many entries end, the next one often does on the next leaf.
            self.tree.look_near(right);
            let (here, next) = self.end_on_leaf(ended, count, right.is_some(), &ending)?;
            if here == 0 {
                // Another writer's rest is in front of it, or the leaf is full:
                // it takes a closer look.
                let Ending { writer, key } = ending(ended);
                if !self.end_index_entry(writer, key, None)? {
                    return Ok(ended);
                }
                ended += 1;
            }
            right = if here > 1 { next } else { BlockNumber::NONE };
            ended += here;
            done(ended);
        }
        Ok(ended)
    }

    /// Ends entries from the `from`th on, as far as they stand on one leaf, are
    /// the newest of their keys, and find room; how many, and the leaf to the
    /// right. `are_many` says that the next ones are expected there.
    fn end_on_leaf<'e>(
        &self,
        from: usize,
        count: usize,
        are_many: bool,
        ending: &impl Fn(usize) -> Ending<'e>,
    ) -> Result<(usize, BlockNumber)> {
        let compare = self.tree.compare;
        let mut leaf = self.tree.leaf_exclusive(Target::Before(ending(from).key))?;
        let block = leaf.block(self.tree.store);
        let mut may_prune = true;
        'again: loop {
            let page = Page::open(&leaf.guard, block)?;
            let right = page.right();
            if are_many && right.is_some() {
                self.tree.store.expect(right);
            }
            let slots = page.slot_count();
            let mut room = page.free_for_certain();
            let mut ends = Ends::default();
            let (mut here, mut slot, mut gap) = (0, 0, slots / 2);
            while from + here < count && here < RECORD_MAX {
                let Ending { writer, key } = ending(from + here);
                if are_many {
                    self.tree.store.expect_more();
                    self.tree.store.expect_more();
                }
                // Where it is not, it is on another leaf, or nowhere.
                let Some(at) = search::find_near(page, block, (slot, gap), key, compare)? else {
                    break;
                };
                let newest = page.leaf_cell(at, block)?.head;
                let is_live = newest.kind() == EntryKind::Put
                    && matches!(
                        self.version_status(newest),
                        XidStatus::Own | XidStatus::Committed
                    );
                if !is_live {
                    break;
                }
                let Some(rest) = room.checked_sub(ends.bytes(writer, newest.sequence)) else {
                    if !std::mem::take(&mut may_prune) {
                        break;
                    }
                    // Slots may have moved, and all that was planned with them.
                    self.prune_leaf(&mut leaf)?;
                    continue 'again;
                };
                room = rest;
                self.tree.store.key_written(key, Some(newest.sequence));
                ends.push(writer, at);
                here += 1;
                gap = at - slot;
                slot = at + 1;
            }
            if here > 0 {
                let mut ops = ends.ops();
                if page.has(flag::ALL_FROZEN) {
                    ops = ops.flags(0, flag::ALL_FROZEN);
                }
                self.tree.store.leaf_written(block);
                self.tree
                    .commit_leaf(&mut leaf, RecordKind::Insert, ops, Xid::NONE);
            }
            return Ok((here, right));
        }
    }
}
