//! Completing an index that its table's writers have been filling for a while
//! (CREATE INDEX CONCURRENTLY): entry by entry, what a snapshot sees in the
//! index is made equal to what it sees in the table (rule 17).
//!
//! Nobody older than the snapshot will ever use the index, and every writer that
//! did not fill it has ended before the snapshot was taken. So of each entry's
//! history only what the snapshot sees can be wrong, and only three things can be:
//!
//! - *The entry is missing*: the row was written before the index was filled.
//!   It is put on top. A version that the snapshot does not see cannot stand
//!   there: whoever ends or replaces an entry that an unfinished index lacks,
//!   puts what was there before first (`end_index_entry`), for everybody to see.
//!   That is right although the version that he supersedes may be younger than
//!   the snapshot: had it *brought* the entry, its writer would have put it, or
//!   have ended before the snapshot was taken.
//!   Where the index knows nothing of an entry, which is nearly always, there is
//!   nothing to ask, and a leaf takes as many such entries at once as it can.
//! - *The entry is stale*: it was put, and the row then ended by a writer that
//!   did not know of the index. There may be newer versions above it, so it is
//!   made a tombstone where it stands.
//! - *The entry says something else* beside its key: it was put, and such a
//!   writer then changed the row. What is right goes on top, unless somebody
//!   whom the snapshot does not see has ended or replaced the entry since: he
//!   has put what is right before that, for whoever saw what was wrong
//!   (`end_index_entry`). So nothing of a snapshot's has to go beneath what it
//!   does not see.
//!
//! `index/README.md` has the whole argument, CONCURRENTLY.

use std::ops::ControlFlow;

use super::{Sight, Snapshot, Transactions, Versioned, XidStatus};
use crate::btree::{Leaf, RunEntry, Target, search};
use crate::compare::Compare;
use crate::error::Result;
use crate::mvcc::chain::Newer;
use crate::page::cell::{EntryKind, Head, bit};
use crate::page::op::Ops;
use crate::page::{Page, flag};
use crate::record::RecordKind;
use crate::store::PageStore;
use crate::types::{Sequence, SlotNumber, Xid};

/// What became of an entry that a row has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entered {
    /// It was missing, or another, and is there now.
    Put,
    /// It was there.
    Stands,
    /// It is missing beneath versions that the snapshot does not see, which no
    /// writer that keeps to the rules leaves behind.
    Hindered,
}

/// What a snapshot sees of an entry.
struct Seen {
    newest: Option<(Sequence, EntryKind)>,
    /// Whether it says what it should, beside its key.
    is_same: bool,
    /// Whether something newer is there that has not aborted.
    has_newer: bool,
}

impl<'t, S: PageStore, C: Compare, T: Transactions> Versioned<'t, S, C, T> {
    /// Puts the entry of a row, whose version `row` the snapshot sees in the
    /// table, unless the snapshot sees it in the index already, or one that is
    /// other in its body and that somebody else has made right.
    pub fn enter_missing_entry(
        &self,
        snapshot: &impl Snapshot,
        row: Head,
        key: &[u8],
        body: &[u8],
    ) -> Result<Entered> {
        let leaf = self.tree.leaf_exclusive(Target::Before(key))?;
        let seen = self.seen_of(&leaf, snapshot, key, body)?;
        if matches!(seen.newest, Some((_, EntryKind::Put))) && (seen.is_same || seen.has_newer) {
            return Ok(Entered::Stands);
        }
        if seen.has_newer {
            return Ok(Entered::Hindered);
        }
        let chain = self.chain(&leaf, key, None)?;
        let head = Head {
            flags: EntryKind::Put as u8 | row.flags & bit::FROZEN,
            sequence: chain.newest.map_or(Sequence::FIRST, Sequence::successor),
            ..row
        };
        self.put(leaf, chain, head, key, body, None)?;
        Ok(Entered::Put)
    }

    /// Puts entries of rows of which the index knows nothing at all, from the
    /// front of `entries`, which ascend and carry the rows' versions; how many.
    /// For these there is nothing to be asked of a snapshot. It stops before one
    /// that takes [`Versioned::enter_missing_entry`]'s closer look.
    pub fn enter_unknown_entries<'e>(
        &self,
        entries: impl Iterator<Item = RunEntry<'e>>,
    ) -> Result<usize> {
        let first_version = |entry: RunEntry<'e>| RunEntry {
            head: Head {
                flags: EntryKind::Put as u8 | entry.head.flags & bit::FROZEN,
                sequence: Sequence::FIRST,
                ..entry.head
            },
            ..entry
        };
        self.put_new_keys(entries.map(first_version), false)
    }

    /// Ends an entry that the snapshot sees although no row has it, for
    /// everybody.
    pub fn end_stale_entry(&self, snapshot: &impl Snapshot, key: &[u8]) -> Result<()> {
        let leaf = self.tree.leaf_exclusive(Target::Before(key))?;
        let seen = self.seen_of(&leaf, snapshot, key, &[])?;
        drop(leaf);
        let Some((sequence, EntryKind::Put)) = seen.newest else {
            return Ok(());
        };
        // Its writers only put versions above it; pruning may take it away.
        let target = Target::At(key, sequence);
        let mut leaf = self.tree.leaf_exclusive(target)?;
        let block = leaf.block(self.tree.store);
        let page = Page::open(&leaf.guard, block)?;
        let slot = search::lower_bound(page, block, target, self.tree.compare)?;
        if slot == page.slot_count() || !search::matches(page, slot, block, key, self.tree.compare)?
        {
            return Ok(());
        }
        let old = page.leaf_cell(slot, block)?;
        if old.head.sequence != sequence || old.head.kind() != EntryKind::Put {
            return Ok(());
        }
        let head = Head {
            flags: EntryKind::Tombstone as u8 | bit::KEYS_UPDATED | bit::FROZEN,
            ..old.head
        };
        let mut cell = Vec::new();
        head.encode(old.suffix, &[], &mut cell);
        let mut ops = Ops::new().replace(SlotNumber(slot as u16), &cell);
        let settled = page.flags() & flag::SETTLED;
        if settled != 0 {
            ops = ops.flags(0, settled);
        }
        self.tree
            .commit_leaf(&mut leaf, RecordKind::Insert, ops, Xid::NONE);
        Ok(())
    }

    /// Whether the last that is known of an entry is its end.
    pub fn is_entry_ended(&self, key: &[u8]) -> Result<bool> {
        let leaf = self.tree.leaf_exclusive(Target::Before(key))?;
        Ok(match self.chain(&leaf, key, None)?.newer {
            Newer::None => true,
            Newer::InProgress(_) => false,
            Newer::Own(head) | Newer::Committed(head, _) => head.kind() != EntryKind::Put,
        })
    }

    /// What a snapshot sees of an entry, whose first leaf is locked.
    fn seen_of(
        &self,
        leaf: &Leaf<'t, S>,
        snapshot: &impl Snapshot,
        key: &[u8],
        body: &[u8],
    ) -> Result<Seen> {
        let mut seen = Seen {
            newest: None,
            is_same: false,
            has_newer: false,
        };
        let block = leaf.block(self.tree.store);
        let page = Page::open(&leaf.guard, block)?;
        let start = search::lower_bound(page, block, Target::Before(key), self.tree.compare)?;
        self.walk(leaf, start, key, |_, cell| {
            let head = cell.head;
            if !head.is_version() {
                return ControlFlow::Continue(());
            }
            match snapshot.judge(head).sight {
                Sight::Seen => {
                    seen.newest = Some((head.sequence, head.kind()));
                    seen.is_same = cell.body == body;
                    return ControlFlow::Break(());
                }
                Sight::TooNew => {
                    seen.has_newer |= self.version_status(head) != XidStatus::Aborted;
                }
                Sight::Aborted => {}
            }
            ControlFlow::Continue(())
        })?;
        Ok(seen)
    }
}
