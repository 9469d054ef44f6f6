//! Walking one key's entries under the exclusive lock of its first leaf, for
//! those who are about to write: unique check, update chain, row locks.

use super::{Strength, Transactions, VersionIdBuf, Versioned, XidStatus};
use crate::btree::{Leaf, Target, search};
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::mvcc::VersionId;
use crate::mvcc::read::{goes_on, same_key_follows};
use crate::page::Page;
use crate::page::cell::{EntryKind, Head, LeafCell, bit};
use crate::store::PageStore;
use crate::types::{BlockNumber, Sequence, Xid};
use std::ops::ControlFlow;

/// The version that stands in a writer's way, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Newer {
    /// No version newer than the one read.
    None,
    /// One of an own command.
    Own(Head),
    /// One whose writer still runs.
    InProgress(Head),
    /// One whose writer has committed, and where its row is now: the next
    /// version, or the target of its move, or nowhere.
    Committed(Head, Option<VersionIdBuf>),
}

/// A row lock whose holder still runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldLock {
    /// Who holds it.
    pub xid: Xid,
    /// How strong it is.
    pub strength: Strength,
    /// Whether the holder is the caller's own transaction.
    pub own: bool,
    /// Its slot, if it lies on the key's first leaf.
    pub slot: Option<usize>,
}

/// What a walk from the newest entry down to a named version learned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// The named version's head and its slot, if that is on the first leaf.
    pub named: Option<(Head, Option<usize>)>,
    /// The next newer version that did not abort (rule 3).
    pub newer: Newer,
    /// The next newer one of those that end the row or change its key: what a
    /// KEY SHARE lock has to mind, of however many updates in between.
    pub newer_key: Newer,
    /// Where the row goes on: at `newer`, or where that one moved to.
    pub next: Option<VersionIdBuf>,
    /// Row locks met whose holders have ended.
    pub ended_locks: usize,
    /// The newest version's number, aborted ones included.
    pub newest: Option<Sequence>,
    /// The slot on the first leaf before which a new version goes.
    pub insert_at: usize,
    /// Whether an entry of the same key stands in that slot.
    pub key_below: bool,
    /// Row locks on the key whose holders still run.
    pub locks: Vec<HeldLock>,
}

impl<'t, S: PageStore, C: Compare, T: Transactions> Versioned<'t, S, C, T> {
    /// Visits the versions and locks of a key, newest first, from its first
    /// leaf on, which stays locked and where they begin at `start`; leaves
    /// further right are read with the lock of their left neighbour held (left
    /// before right). The visitor gets the slot where the entry is on the first
    /// leaf.
    pub(super) fn walk(
        &self,
        leaf: &Leaf<'t, S>,
        start: usize,
        key: &[u8],
        mut visit: impl FnMut(Option<usize>, LeafCell<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let compare = self.tree.compare;
        let first = self.tree.store.block_of(&leaf.guard);
        let mut right = match self.walk_page(&leaf.guard, first, key, Some(start), &mut visit)? {
            Some(block) => block,
            None => return Ok(()),
        };
        let mut held: Option<S::Shared<'_>> = None;
        loop {
            let guard = self.tree.store.read(right)?;
            drop(held.take());
            let page = Page::open(&guard, right)?;
            if page
                .low()
                .is_none_or(|low| compare.compare(low.key, key).is_ne())
            {
                return Err(Error::corrupt(
                    right,
                    "a key's versions do not go on where its first page says",
                ));
            }
            match self.walk_page(&guard, right, key, None, &mut visit)? {
                Some(block) => right = block,
                None => return Ok(()),
            }
            held = Some(guard);
        }
    }

    /// Visits a key's entries on one page; the page they go on at, if any.
    fn walk_page(
        &self,
        bytes: &[u8],
        block: BlockNumber,
        key: &[u8],
        first: Option<usize>,
        visit: &mut impl FnMut(Option<usize>, LeafCell<'_>) -> ControlFlow<()>,
    ) -> Result<Option<BlockNumber>> {
        let compare = self.tree.compare;
        let page = Page::open(bytes, block)?;
        let count = page.slot_count();
        let mut slot = first.unwrap_or(0);
        let mut same = slot < count && search::matches(page, slot, block, key, compare)?;
        while same {
            let cell = page.leaf_cell(slot, block)?;
            if visit(first.map(|_| slot), cell).is_break() {
                return Ok(None);
            }
            same = same_key_follows(page, block, slot, cell.head, compare)?;
            slot += 1;
        }
        if slot < count {
            return Ok(None);
        }
        Ok(goes_on(page, key, compare).map(|_| page.right()))
    }

    /// Walks from the newest entry of a key down to the version named by
    /// `stop`, or through all of them.
    pub(super) fn chain(
        &self,
        leaf: &Leaf<'t, S>,
        key: &[u8],
        stop: Option<VersionId<'_>>,
    ) -> Result<Chain> {
        let block = self.tree.store.block_of(&leaf.guard);
        let page = Page::open(&leaf.guard, block)?;
        let start = search::lower_bound(page, block, Target::Before(key), self.tree.compare)?;
        let mut chain = Chain {
            named: None,
            newer: Newer::None,
            newer_key: Newer::None,
            next: None,
            ended_locks: 0,
            newest: None,
            insert_at: start,
            key_below: false,
            locks: Vec::new(),
        };
        // The nearest newer version that did not abort, as it stands now.
        let mut newer: Option<(Head, XidStatus, Option<VersionIdBuf>)> = None;
        let mut newer_key: Option<(Head, XidStatus, Option<VersionIdBuf>)> = None;
        let mut bad = None;
        self.walk(leaf, start, key, |slot, cell| {
            let head = cell.head;
            if head.kind() == EntryKind::Lock {
                if let Some(slot) = slot {
                    chain.insert_at = slot + 1;
                }
                let status = self.transactions.status(head.xmin);
                if !matches!(status, XidStatus::Own | XidStatus::InProgress) {
                    chain.ended_locks += 1;
                } else {
                    match cell.body.first().and_then(|b| Strength::from_number(*b)) {
                        Some(strength) => chain.locks.push(HeldLock {
                            xid: head.xmin,
                            strength,
                            own: status == XidStatus::Own,
                            slot,
                        }),
                        None => bad = Some("a row lock has no strength"),
                    }
                }
                return ControlFlow::Continue(());
            }
            if chain.newest.is_none() {
                chain.newest = Some(head.sequence);
                // On the first leaf it stands where the next one goes.
                chain.key_below = slot.is_some();
            }
            if let Some(id) = stop
                && head.sequence <= id.sequence
            {
                if head.sequence == id.sequence && head.xmin == id.xmin {
                    chain.named = Some((head, slot));
                }
                return ControlFlow::Break(());
            }
            let status = self.version_status(head);
            if status != XidStatus::Aborted {
                let target = match head.kind() {
                    // Without a version to go on from nobody asks.
                    EntryKind::Put if stop.is_none() => None,
                    EntryKind::Put => Some(VersionIdBuf {
                        key: key.to_vec(),
                        sequence: head.sequence,
                        xmin: head.xmin,
                    }),
                    EntryKind::Moved => {
                        let to = VersionId::decode(cell.body);
                        if to.is_none() {
                            bad = Some("a move leads nowhere");
                        }
                        to.map(VersionId::to_buf)
                    }
                    _ => None,
                };
                if head.kind() != EntryKind::Put || head.has(bit::KEYS_UPDATED) {
                    newer_key = Some((head, status, target.clone()));
                }
                newer = Some((head, status, target));
                if stop.is_none() {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        if let Some(what) = bad {
            return Err(Error::corrupt(block, what));
        }
        let as_newer = |found: Option<(Head, XidStatus, Option<VersionIdBuf>)>| match found {
            None => Newer::None,
            Some((head, XidStatus::Own, _)) => Newer::Own(head),
            Some((head, XidStatus::InProgress, _)) => Newer::InProgress(head),
            Some((head, _, target)) => Newer::Committed(head, target),
        };
        chain.next = newer.as_ref().and_then(|(_, _, target)| target.clone());
        chain.newer = as_newer(newer);
        chain.newer_key = as_newer(newer_key);
        Ok(chain)
    }

    /// How a version's writer stands, by its hints where it has them.
    pub(super) fn version_status(&self, head: Head) -> XidStatus {
        if head.has(bit::FROZEN) || head.has(bit::COMMITTED) {
            XidStatus::Committed
        } else if head.has(bit::ABORTED) {
            XidStatus::Aborted
        } else {
            self.transactions.status(head.xmin)
        }
    }
}
