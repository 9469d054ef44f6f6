//! Writing one key: insert, supersede (update, delete), lock. Each looks at
//! the key under the exclusive lock of its first leaf, decides, and writes one
//! record. Nothing here waits for a transaction: whoever would have to is told
//! for whom, lets go of everything, waits, and comes again (rule 10).

use super::chain::{Chain, Newer};
use super::read::Lessons;
use super::{
    Sight, Snapshot, Strength, Transactions, VersionId, VersionIdBuf, Versioned, Writer, XidStatus,
};
use crate::btree::{Leaf, NewEntry, Target, search};
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::page::Page;
use crate::page::cell::{EntryKind, Head, bit};
use crate::page::op::Ops;
use crate::record::RecordKind;
use crate::store::PageStore;
use crate::types::{BlockNumber, Sequence, SlotNumber, Xid};

/// Row locks of ended transactions that a locker passes by before it clears
/// them away: each costs every later one a look-up under the latch.
const ENDED_LOCKS_MAX: usize = 8;

/// Where a new version stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// Its number.
    pub sequence: Sequence,
    /// Its page, as of now.
    pub block: BlockNumber,
    /// Whether the writer's transaction held a lock on the row before.
    pub own_lock: bool,
}

/// What became of an insertion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Insertion {
    /// Done.
    Done(Written),
    /// A live row has this key already.
    Exists(Head),
    /// The answer depends on a transaction that still runs.
    Busy {
        /// Whom to wait for.
        xid: Xid,
        /// Whether its version is a speculative insertion.
        speculative: bool,
    },
}

/// What became of an update, a delete or a lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Done; for a lock, the place is that of the locked version.
    Done(Written),
    /// The version is not there, or not one that this command could have read.
    Invisible,
    /// An own command superseded it, after this one began.
    SelfModified(Head),
    /// A committed transaction superseded it; the row goes on there.
    Updated(Head, Option<VersionIdBuf>),
    /// A committed transaction deleted it.
    Deleted(Head),
    /// A transaction that still runs holds the row.
    Busy {
        /// Whom to wait for.
        xid: Xid,
        /// Its version, or `None` if it only holds a row lock.
        version: Option<Head>,
        /// Whether others may be waiting for the caller's own transaction, which
        /// holds a lock on the row or wrote the version named: then it must not
        /// queue behind them.
        own_lock: bool,
    },
}

/// The version that supersedes another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Successor<'b> {
    /// `Put`, or one of the kinds that end a row.
    pub kind: EntryKind,
    /// Whether a key column changes or the row ends (rule 9).
    pub keys_updated: bool,
    /// Payload, or the target of a `Moved`.
    pub body: &'b [u8],
}

impl Successor<'_> {
    fn strength(&self) -> Strength {
        if self.keys_updated || self.kind != EntryKind::Put {
            Strength::Exclusive
        } else {
            Strength::NoKeyExclusive
        }
    }
}

impl<'t, S: PageStore, C: Compare, T: Transactions> Versioned<'t, S, C, T> {
    /// Inserts a row under a key that must have no live one. Check and
    /// insertion happen under one lock (rule 15). `flags` are bits of the version:
    /// SPECULATIVE, or FROZEN for a row that everybody sees at once, in a relation
    /// that goes with the writer if that aborts.
    pub fn insert(
        &self,
        writer: Writer,
        key: &[u8],
        payload: &[u8],
        flags: u8,
    ) -> Result<Insertion> {
        let leaf = self.tree.leaf_exclusive(Target::Before(key))?;
        let chain = self.chain(&leaf, key, None)?;
        match &chain.newer {
            Newer::Own(head) | Newer::Committed(head, _) if head.kind() == EntryKind::Put => {
                // Two who both found the key missing and both insert it depend
                // on each other, which tells the loser more than that the key
                // is there now.
                self.is_written(&leaf, key, None);
                return Ok(Insertion::Exists(*head));
            }
            Newer::None | Newer::Own(_) | Newer::Committed(..) => {}
            Newer::InProgress(head) => {
                return Ok(Insertion::Busy {
                    xid: head.xmin,
                    speculative: head.has(bit::SPECULATIVE),
                });
            }
        }
        self.is_written(&leaf, key, None);
        let head = Head {
            flags: EntryKind::Put as u8 | flags,
            xmin: writer.xid,
            cid: writer.cid,
            sequence: chain.newest.map_or(Sequence::FIRST, Sequence::successor),
        };
        self.put(leaf, chain, head, key, payload, None)
            .map(Insertion::Done)
    }

    /// Puts a newer version on top of the one read: an update in place, a
    /// delete, or the tombstone of a move. `acceptable` is asked of the
    /// version read (the crosscheck snapshot of rule 4).
    pub fn supersede(
        &self,
        writer: Writer,
        id: VersionId<'_>,
        successor: Successor<'_>,
        acceptable: impl Fn(Head) -> bool,
    ) -> Result<Outcome> {
        self.supersede_noting(writer, id, successor, acceptable, |_| ())
    }

    /// As [`Versioned::supersede`]. `note` is shown the body of the version
    /// that is about to be superseded, or `None` if it is not on the page at
    /// hand; a page is locked meanwhile.
    pub fn supersede_noting(
        &self,
        writer: Writer,
        id: VersionId<'_>,
        successor: Successor<'_>,
        acceptable: impl Fn(Head) -> bool,
        note: impl FnOnce(Option<&[u8]>),
    ) -> Result<Outcome> {
        let leaf = self.tree.leaf_exclusive(Target::Before(id.key))?;
        let chain = self.chain(&leaf, id.key, Some(id))?;
        if let Some(refusal) = self.refusal(writer, &chain, Some(successor.strength())) {
            return Ok(refusal);
        }
        let Some((named, slot)) = chain.named else {
            return Ok(Outcome::Invisible);
        };
        if !acceptable(named) {
            return Ok(Outcome::Updated(named, None));
        }
        self.is_written(&leaf, id.key, Some(id.sequence));
        if successor.kind != EntryKind::Put {
            self.tree.store.key_cleared(id.key);
        }
        match slot {
            Some(slot) => {
                let block = self.tree.store.block_of(&leaf.guard);
                let page = Page::open(&leaf.guard, block)?;
                note(Some(page.leaf_cell(slot, block)?.body));
            }
            None => note(None),
        }
        let head = Head {
            flags: successor.kind as u8
                | if successor.keys_updated || successor.kind != EntryKind::Put {
                    bit::KEYS_UPDATED
                } else {
                    0
                },
            xmin: writer.xid,
            cid: writer.cid,
            sequence: chain.newest.unwrap_or(id.sequence).successor(),
        };
        let like = slot.filter(|_| successor.kind == EntryKind::Put);
        self.put(leaf, chain, head, id.key, successor.body, like)
            .map(Outcome::Done)
    }

    /// Takes a row lock on the key of a version that must still be the
    /// row's newest.
    pub fn lock(&self, writer: Writer, id: VersionId<'_>, strength: Strength) -> Result<Outcome> {
        let mut leaf = self.tree.leaf_exclusive(Target::Before(id.key))?;
        let mut chain = self.chain(&leaf, id.key, Some(id))?;
        if chain.ended_locks > ENDED_LOCKS_MAX {
            self.prune_leaf(&mut leaf)?;
            chain = self.chain(&leaf, id.key, Some(id))?;
        }
        if let Some(refusal) = self.refusal(writer, &chain, Some(strength)) {
            return Ok(refusal);
        }
        if chain.named.is_none() {
            return Ok(Outcome::Invisible);
        }
        let block = self.tree.store.block_of(&leaf.guard);
        let done = Outcome::Done(Written {
            sequence: id.sequence,
            block,
            own_lock: chain.locks.iter().any(|held| held.own),
        });
        // A lock of any own (sub)transaction that is live suffices: whatever
        // ends that one takes this command's subtransaction with it.
        if chain
            .locks
            .iter()
            .any(|held| held.own && held.strength >= strength)
        {
            return Ok(done);
        }
        let body = [strength as u8];
        let head = Head {
            flags: EntryKind::Lock as u8,
            xmin: writer.xid,
            cid: writer.cid,
            sequence: Sequence::of_lock(writer.xid),
        };
        self.put_entry(leaf, head, id.key, &body, None, RecordKind::Lock)?;
        Ok(done)
    }

    /// The newest version of a row that a snapshot sees, from a named version
    /// on: followed version by version, and across moves (rule 3). A row that
    /// was born under the key later is another one.
    pub fn latest(&self, id: VersionId<'_>, snapshot: &impl Snapshot) -> Result<VersionIdBuf> {
        let mut latest = id.to_buf();
        let mut lessons = Lessons::of(snapshot);
        loop {
            self.tree.store.interruptible();
            let key = latest.key.clone();
            let leaf = self.tree.leaf_exclusive(Target::Before(&key))?;
            let block = leaf.block(self.tree.store);
            if snapshot.is_tracked() {
                self.tree.store.leaf_read(block);
            }
            let chain = self.chain(&leaf, &key, Some(latest.as_ref()))?;
            drop(leaf);
            let (Newer::Own(head) | Newer::InProgress(head) | Newer::Committed(head, _)) =
                chain.newer
            else {
                return Ok(latest);
            };
            let sight = snapshot.judge(head).sight;
            if snapshot.is_tracked() {
                lessons.pass(head, sight);
                self.note(block, &mut lessons);
            }
            match chain.next {
                Some(next) if sight == Sight::Seen => latest = next,
                _ => return Ok(latest),
            }
        }
    }

    /// Ends a speculative insertion: keeps the row, or takes it back. False if
    /// there is no such speculative version.
    pub fn finish_speculative(&self, id: VersionId<'_>, keep: bool) -> Result<bool> {
        let mut leaf = self.tree.leaf_exclusive(Target::At(id.key, id.sequence))?;
        let block = self.tree.store.block_of(&leaf.guard);
        let page = Page::open(&leaf.guard, block)?;
        let target = Target::At(id.key, id.sequence);
        let slot = search::lower_bound(page, block, target, self.tree.compare)?;
        if slot >= page.slot_count()
            || !search::matches(page, slot, block, id.key, self.tree.compare)?
        {
            return Ok(false);
        }
        let cell = page.leaf_cell(slot, block)?;
        if cell.head.sequence != id.sequence
            || cell.head.xmin != id.xmin
            || !cell.head.has(bit::SPECULATIVE)
        {
            return Ok(false);
        }
        let slot = SlotNumber(slot as u16);
        // Nobody but its writer ever saw a version that is withdrawn, and what
        // lies below it is what it was before: no horizon.
        let ops = if keep {
            Ops::new().confirm(slot)
        } else {
            Ops::new().prune(&[slot], &[])
        };
        self.tree
            .commit_leaf(&mut leaf, RecordKind::Confirm, ops, Xid::NONE);
        Ok(true)
    }

    /// Why the version cannot be superseded or locked now, if it cannot.
    fn refusal(
        &self,
        writer: Writer,
        chain: &Chain,
        strength: Option<Strength>,
    ) -> Option<Outcome> {
        // A version that this very command wrote is none that it could have
        // read: ON CONFLICT comes upon one by its dirty snapshot.
        if let Some((named, _)) = chain.named
            && named.cid >= writer.cid
            && self.version_status(named) == XidStatus::Own
        {
            return Some(Outcome::Invisible);
        }
        // Asked only of a row that somebody else holds. The version named may be
        // an own one and still be held: KEY SHARE stays on the key while others
        // update the rest of the row.
        let own_lock = || {
            chain.locks.iter().any(|held| held.own)
                || chain
                    .named
                    .is_some_and(|(head, _)| self.version_status(head) == XidStatus::Own)
        };
        // KEY SHARE lives beside updates that leave the keys alone: it is the
        // row's key that it protects, and the lock is the key's (rule 8). Every
        // newer version counts, not the next one alone: a row that was updated
        // and then deleted is a deleted row. An own newer version is told as to
        // everybody else, and so is any if the version itself is gone.
        let passes_updates = strength == Some(Strength::KeyShare)
            && chain.named.is_some()
            && !matches!(chain.newer, Newer::Own(_));
        let newer = if passes_updates {
            &chain.newer_key
        } else {
            &chain.newer
        };
        match newer {
            Newer::None => {}
            Newer::Own(head) => {
                return Some(if head.cid >= writer.cid {
                    Outcome::SelfModified(*head)
                } else {
                    Outcome::Invisible
                });
            }
            Newer::InProgress(head) => {
                return Some(Outcome::Busy {
                    xid: head.xmin,
                    version: Some(*head),
                    own_lock: own_lock(),
                });
            }
            Newer::Committed(head, target) => {
                return Some(match head.kind() {
                    EntryKind::Put | EntryKind::Moved => Outcome::Updated(*head, target.clone()),
                    EntryKind::MovedPartition => Outcome::Updated(*head, None),
                    EntryKind::Tombstone | EntryKind::Lock => Outcome::Deleted(*head),
                });
            }
        }
        let strength = strength?;
        chain
            .locks
            .iter()
            .find(|held| !held.own && held.strength.conflicts(strength))
            .map(|held| Outcome::Busy {
                xid: held.xid,
                version: None,
                own_lock: own_lock(),
            })
    }

    /// Tells the store that a version is about to be put under a key whose
    /// first leaf is locked (rule 22), wherever on that leaf or behind it.
    pub(super) fn is_written(&self, leaf: &Leaf<'t, S>, key: &[u8], over: Option<Sequence>) {
        self.tree.store.key_written(key, over);
        self.tree.store.leaf_written(leaf.block(self.tree.store));
    }

    /// Puts a version whose place is known, pruning and splitting as needed.
    pub(super) fn put(
        &self,
        leaf: Leaf<'t, S>,
        chain: Chain,
        head: Head,
        key: &[u8],
        body: &[u8],
        like: Option<usize>,
    ) -> Result<Written> {
        let sequence = head.sequence;
        let own_lock = chain.locks.iter().any(|held| held.own);
        let written = |block| Written {
            sequence,
            block,
            own_lock,
        };
        let block = self.tree.store.block_of(&leaf.guard);
        let page = Page::open(&leaf.guard, block)?;
        let splits_key = page.high().is_some_and(|high| high.within_key().is_some());
        let entry = NewEntry {
            head,
            key,
            body,
            slot: chain.insert_at,
            key_below: chain.key_below,
            like,
        };
        if splits_key || !self.tree.fits(&leaf, &entry)? {
            return self
                .put_entry(leaf, head, key, body, like, RecordKind::Insert)
                .map(written);
        }
        self.tree.put(leaf, entry, RecordKind::Insert).map(written)
    }

    /// Puts an entry at its place in the order, after pruning the leaf if it
    /// is too full.
    pub(super) fn put_entry(
        &self,
        mut leaf: Leaf<'t, S>,
        head: Head,
        key: &[u8],
        body: &[u8],
        like: Option<usize>,
        kind: RecordKind,
    ) -> Result<BlockNumber> {
        let mut block = self.tree.store.block_of(&leaf.guard);
        let compare = self.tree.compare;
        let target = Target::At(key, head.sequence);
        let need = Head::encoded_len_max(key.len(), body.len()) + crate::page::SLOT_BYTES;
        let mut like = like;
        let mut is_pruned = false;
        // A key's locks may spill over to the right; what sorts behind them
        // goes there too. Whoever comes to this key next passes this leaf and
        // then waits for the one that is locked here.
        while Page::open(&leaf.guard, block)?
            .high()
            .is_some_and(|high| search::compare_position(high, target, compare).is_le())
        {
            leaf = self.tree.right_exclusive(&leaf)?.ok_or_else(|| {
                Error::corrupt(block, "a page with an upper fence has no right sibling")
            })?;
            block = self.tree.store.block_of(&leaf.guard);
            like = None;
        }
        if Page::open(&leaf.guard, block)?.free() < need && self.prune_leaf(&mut leaf)?.changed {
            // Slots have moved; but where the key begins, there stands what the
            // new version goes before.
            is_pruned = like.take().is_some();
        }
        let page = Page::open(&leaf.guard, block)?;
        let slot = search::lower_bound(page, block, target, compare)?;
        let key_below =
            slot < page.slot_count() && search::matches(page, slot, block, key, compare)?;
        if is_pruned && key_below {
            let is_version = page.leaf_cell(slot, block)?.head.kind() == EntryKind::Put;
            like = is_version.then_some(slot);
        }
        if key_below {
            // A lock that is raised stands there already, wherever its leaf. Its
            // command id is kept, which nobody asks of a lock: so the new cell
            // is as long as the old one, and fits.
            let old = page.leaf_cell(slot, block)?;
            if old.head.sequence == head.sequence {
                let head = Head {
                    cid: old.head.cid,
                    ..head
                };
                let mut cell = Vec::new();
                head.encode(old.suffix, body, &mut cell);
                let ops = Ops::new().replace(SlotNumber(slot as u16), &cell);
                self.tree.commit_leaf(&mut leaf, kind, ops, Xid::NONE);
                return Ok(block);
            }
        }
        self.tree.put(
            leaf,
            NewEntry {
                head,
                key,
                body,
                slot,
                key_below,
                like,
            },
            kind,
        )
    }
}
