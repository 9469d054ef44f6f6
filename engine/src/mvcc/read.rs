//! Reading one key: under a snapshot, or one named version of it.

use super::batch::Batch;
use super::{Judgement, Sight, Snapshot, Transactions, VersionId, Versioned};
use crate::btree::{Target, search};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::Page;
use crate::page::cell::{EntryKind, Head, LeafCell};
use crate::store::{Hint, PageStore};
use crate::types::{BlockNumber, Sequence, SlotNumber, Xid};

/// What a walk along one key's versions found on one page.
pub(super) enum Found<'p> {
    /// The version that decides.
    Version(usize, LeafCell<'p>),
    /// None here, and the key has no older versions elsewhere.
    None,
    /// None here; the key goes on at this sequence on a page to the right.
    GoesOn(Sequence),
}

/// Where a page's last key goes on beyond it, if it is this one.
pub(super) fn goes_on<C: Compare>(page: Page<'_>, key: &[u8], compare: &C) -> Option<Sequence> {
    let high = page.high()?;
    let sequence = high.within_key()?;
    (compare.compare(high.key, key).is_eq()).then_some(sequence)
}

/// What the judgements on a page taught, at most a page's worth, to be handed
/// over once it is let go of ([`Versioned::note`]).
pub(super) struct Lessons {
    hints: Vec<Hint>,
    /// Whether the store wants to hear of versions that were passed over.
    tracked: bool,
    /// The writers of those that were too new.
    too_new: Vec<Xid>,
}

impl Lessons {
    pub fn of(snapshot: &impl Snapshot) -> Lessons {
        Lessons {
            hints: Vec::new(),
            tracked: snapshot.is_tracked(),
            too_new: Vec::new(),
        }
    }

    /// Notes how a version was judged; whether it is the one that is seen.
    #[inline]
    pub fn note(&mut self, slot: usize, head: Head, judgement: Judgement) -> bool {
        if let Some(committed) = judgement.learned {
            self.hints.push(Hint {
                slot: SlotNumber(slot as u16),
                xid: head.xmin,
                committed,
            });
        }
        let seen = judgement.sight == Sight::Seen;
        if !seen && self.tracked {
            self.pass(head, judgement.sight);
        }
        seen
    }

    /// Notes a version that was passed over.
    #[cold]
    pub fn pass(&mut self, head: Head, sight: Sight) {
        if sight == Sight::TooNew && !self.too_new.contains(&head.xmin) {
            self.too_new.push(head.xmin);
        }
    }
}

/// Judges the entries of one key from `slot` on, as far as this page goes.
pub(super) fn newest_seen<'p, C: Compare>(
    page: Page<'p>,
    block: BlockNumber,
    mut slot: usize,
    key: &[u8],
    snapshot: &impl Snapshot,
    compare: &C,
    lessons: &mut Lessons,
) -> Result<Found<'p>> {
    let count = page.slot_count();
    let mut same = slot < count && search::matches(page, slot, block, key, compare)?;
    while same {
        let cell = page.leaf_cell(slot, block)?;
        if cell.head.is_version() {
            let judgement = snapshot.judge(cell.head);
            if lessons.note(slot, cell.head, judgement) {
                return Ok(Found::Version(slot, cell));
            }
        }
        same = same_key_follows(page, block, slot, cell.head, compare)?;
        slot += 1;
    }
    if slot < count {
        return Ok(Found::None);
    }
    Ok(match goes_on(page, key, compare) {
        Some(sequence) => Found::GoesOn(sequence),
        None => Found::None,
    })
}

/// Whether the slot behind this one has the same key. A version without
/// `KEY_BELOW` is the last of its key on the page, for versions only ever go
/// before the others; behind a lock a first version may have been put, and that
/// one's key may be other bytes that compare as equal. So keys are compared
/// behind locks alone.
#[inline]
pub(super) fn same_key_follows(
    page: Page<'_>,
    block: BlockNumber,
    slot: usize,
    head: Head,
    compare: &impl Compare,
) -> Result<bool> {
    if page.slot(slot).key_below {
        return Ok(true);
    }
    if head.is_version() || slot + 1 >= page.slot_count() {
        return Ok(false);
    }
    search::same_key(page, slot, block, compare)
}

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Copies the row that a snapshot sees under a key to `into`; whether
    /// there is one. No lock is held on return.
    pub fn get(&self, key: &[u8], snapshot: &impl Snapshot, into: &mut Batch) -> Result<bool> {
        let mut target = Target::Before(key);
        let mut lessons = Lessons::of(snapshot);
        loop {
            let guard = self.tree.leaf(target)?;
            let block = self.tree.store.block_of_shared(&guard);
            let page = Page::open(&guard, block)?;
            let slot = search::lower_bound(page, block, target, self.tree.compare)?;
            let found = newest_seen(
                page,
                block,
                slot,
                key,
                snapshot,
                self.tree.compare,
                &mut lessons,
            )?;
            self.key_is_read(key, block, &found, snapshot);
            let (done, next) = match found {
                Found::Version(slot, cell) if cell.head.kind() == EntryKind::Put => {
                    into.block = block.0;
                    if self.tree.compare.ordered() {
                        into.push(key, &[], cell.body, cell.head);
                    } else {
                        // Keys that compare as equal may differ in their bytes;
                        // a row has one name, the stored one.
                        into.push(&[], page.suffix(slot, block)?, cell.body, cell.head);
                    }
                    (Some(true), None)
                }
                Found::Version(..) | Found::None => (Some(false), None),
                Found::GoesOn(sequence) => (None, Some(sequence)),
            };
            drop(guard);
            self.note(block, &mut lessons);
            if let Some(found) = done {
                return Ok(found);
            }
            if let Some(sequence) = next {
                target = Target::At(key, sequence);
            }
        }
    }

    /// Copies one named version to `into`, whatever its writer's fate; whether
    /// it is still there. Only a `Put` has columns, so nothing else is found.
    pub fn version(&self, id: VersionId<'_>, into: &mut Batch) -> Result<bool> {
        let target = Target::At(id.key, id.sequence);
        let guard = self.tree.leaf(target)?;
        let block = self.tree.store.block_of_shared(&guard);
        let page = Page::open(&guard, block)?;
        let slot = search::lower_bound(page, block, target, self.tree.compare)?;
        if slot >= page.slot_count()
            || !search::matches(page, slot, block, id.key, self.tree.compare)?
        {
            return Ok(false);
        }
        let cell = page.leaf_cell(slot, block)?;
        if cell.head.sequence != id.sequence
            || cell.head.xmin != id.xmin
            || cell.head.kind() != EntryKind::Put
        {
            return Ok(false);
        }
        into.block = block.0;
        into.push(id.key, &[], cell.body, cell.head);
        Ok(true)
    }

    /// Tells the store what was found under a key on a leaf that is locked
    /// (rule 22). It has to be found on the key's first leaf, for that is where
    /// the next version is put; else that leaf was told before it was let go of.
    #[inline]
    pub(super) fn key_is_read(
        &self,
        key: &[u8],
        leaf: BlockNumber,
        found: &Found<'_>,
        snapshot: &impl Snapshot,
    ) {
        if !snapshot.is_tracked() {
            return;
        }
        let store = self.tree.store;
        match found {
            Found::GoesOn(_) => store.leaf_read(leaf),
            Found::Version(_, cell) if cell.head.kind() == EntryKind::Put => {
                self.key_is_read_as(key, leaf, cell.head, snapshot);
            }
            _ if !self.tree.compare.ordered() => store.leaf_read(leaf),
            Found::Version(..) | Found::None => store.key_read(key, None),
        }
    }

    /// As [`Versioned::key_is_read`], for a row that was found.
    #[inline]
    pub(super) fn key_is_read_as(
        &self,
        key: &[u8],
        leaf: BlockNumber,
        head: Head,
        snapshot: &impl Snapshot,
    ) {
        if !snapshot.is_tracked() {
            return;
        }
        let store = self.tree.store;
        if self.tree.compare.ordered() {
            store.key_read(key, Some(head.sequence));
        } else {
            store.leaf_read(leaf);
        }
    }

    /// Hands over what was learned of writers, with no lock held.
    #[inline]
    pub(super) fn note(&self, block: BlockNumber, lessons: &mut Lessons) {
        if !lessons.hints.is_empty() {
            self.tree.store.hint(block, &lessons.hints);
            lessons.hints.clear();
        }
        if lessons.tracked {
            self.tree.store.too_new(&lessons.too_new);
            lessons.too_new.clear();
        }
    }
}
