//! Writing an index's entries: a key is the index's columns followed by the
//! *reference*, the table's key. A row's writers follow one another, and an
//! entry belongs to one row; so of one entry there is never more than one
//! writer. Writers of different rows meet only where an index is unique.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::chain::Newer;
use super::write::Written;
use super::{Transactions, VersionId, VersionIdBuf, Versioned, Writer, XidStatus};
use crate::btree::{Leaf, Target, search};
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::page::Page;
use crate::page::cell::{EntryKind, Head, bit};
use crate::record::RecordKind;
use crate::store::PageStore;
use crate::types::Sequence;

/// What a writer wants to know of other entries with the same columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Uniqueness {
    /// Put the entry only if there is none.
    Demanded,
    /// Put it in any case, and say whether there may be one.
    Noted,
    /// Put nothing, and say whether there is one.
    Asked,
}

/// The entry of a row as it was.
#[derive(Clone, Copy, Debug)]
pub struct Before<'e> {
    /// The row's version.
    pub version: Head,
    /// What the key does not give back.
    pub body: &'e [u8],
}

/// What became of an entry of a unique index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// The columns are nobody else's, and the entry is in ([`Uniqueness::Asked`]:
    /// stays as it is).
    Unique,
    /// The entry is in, and another may have the same columns
    /// ([`Uniqueness::Noted`] alone).
    Doubtful,
    /// A live entry has the same columns.
    Exists(VersionIdBuf),
    /// The answer depends on a transaction that still runs.
    Busy {
        /// The entry's version in question, with whom to wait for.
        version: VersionIdBuf,
        /// Whether it is a speculative insertion.
        speculative: bool,
    },
}

/// What a look at all entries with the same columns has found.
struct Survey {
    /// The newest version of the writer's own entry.
    own: Option<Sequence>,
    /// The first entry of another row that is live or may be.
    other: Option<Admission>,
    /// The key whose versions are passing, and whether its state is known.
    key: Vec<u8>,
    is_decided: bool,
}

/// What is known of an entry, set against what it should say.
struct Standing {
    head: Head,
    is_same: bool,
}

/// The number of an entry's newest version, if the entry is live.
fn live(newer: &Newer) -> Option<Sequence> {
    match newer {
        Newer::Own(head) | Newer::Committed(head, _) if head.kind() == EntryKind::Put => {
            Some(head.sequence)
        }
        // A running writer would have to hold the row that the caller holds.
        _ => None,
    }
}

impl<'t, S: PageStore, C: Compare, T: Transactions> Versioned<'t, S, C, T> {
    /// Puts an entry's version on top of whatever is known of the entry.
    pub fn put_index_entry(
        &self,
        writer: Writer,
        key: &[u8],
        body: &[u8],
        flags: u8,
    ) -> Result<Written> {
        let leaf = self.tree.leaf_exclusive(Target::Before(key))?;
        let chain = self.chain(&leaf, key, None)?;
        self.is_written(&leaf, key, live(&chain.newer));
        let head = Head {
            flags: EntryKind::Put as u8 | flags,
            xmin: writer.xid,
            cid: writer.cid,
            sequence: chain.newest.map_or(Sequence::FIRST, Sequence::successor),
        };
        self.put(leaf, chain, head, key, body, None)
    }

    /// Ends an entry: puts a tombstone on it. False if there is no live entry:
    /// in a whole index that is corruption (rule 14), and nothing is written. In
    /// one that is being built it is not; there `before` is the entry that the
    /// row had so far, and is put first, so that whoever does not see the
    /// tombstone finds it. It is put as frozen: the row may have had it for
    /// longer than its last version (`settle`). If a live entry says something
    /// else than the row did, for somebody who does not fill the index has
    /// changed the row, `before` goes on top of it, for whoever sees the entry.
    pub fn end_index_entry(
        &self,
        writer: Writer,
        key: &[u8],
        before: Option<Before<'_>>,
    ) -> Result<bool> {
        let leaf = self.tree.leaf_exclusive(Target::Before(key))?;
        let chain = self.chain(&leaf, key, None)?;
        let live = live(&chain.newer);
        let next = chain.newest.map_or(Sequence::FIRST, Sequence::successor);
        let due = match (live, before) {
            (None, None) => return Ok(false),
            (None, Some(before)) => Some((before.version, bit::FROZEN, before.body)),
            (Some(_), Some(before)) => self
                .standing(&leaf, key, before.body)?
                .filter(|standing| !standing.is_same)
                .map(|standing| {
                    let frozen = standing.head.flags & bit::FROZEN;
                    (standing.head, frozen, before.body)
                }),
            (Some(_), None) => None,
        };
        if let Some((version, flags, body)) = due {
            let head = Head {
                flags: EntryKind::Put as u8 | flags,
                sequence: next,
                ..version
            };
            self.put(leaf, chain, head, key, body, None)?;
            return self.end_index_entry(writer, key, None);
        }
        self.is_written(&leaf, key, live);
        let head = Head {
            flags: EntryKind::Tombstone as u8 | bit::KEYS_UPDATED,
            xmin: writer.xid,
            cid: writer.cid,
            sequence: next,
        };
        self.put(leaf, chain, head, key, &[], None)?;
        Ok(true)
    }

    /// The newest version of an entry that did not abort, and whether it says
    /// the same as `body`.
    fn standing(&self, leaf: &Leaf<'t, S>, key: &[u8], body: &[u8]) -> Result<Option<Standing>> {
        let block = leaf.block(self.tree.store);
        let page = Page::open(&leaf.guard, block)?;
        let start = search::lower_bound(page, block, Target::Before(key), self.tree.compare)?;
        let mut standing = None;
        self.walk(leaf, start, key, |_, cell| {
            if !cell.head.is_version() || self.version_status(cell.head) == XidStatus::Aborted {
                return ControlFlow::Continue(());
            }
            standing = Some(Standing {
                head: cell.head,
                is_same: cell.body == body,
            });
            ControlFlow::Break(())
        })?;
        Ok(standing)
    }

    /// Removes the entry that a speculative insertion has put last, whose row is
    /// taken back. False if there is none.
    pub fn take_back_index_entry(&self, writer: Writer, key: &[u8]) -> Result<bool> {
        let newest = {
            let leaf = self.tree.leaf_exclusive(Target::Before(key))?;
            self.chain(&leaf, key, None)?.newest
        };
        // Nobody else writes this entry, so it is still the newest.
        let Some(sequence) = newest else {
            return Ok(false);
        };
        let id = VersionId {
            key,
            sequence,
            xmin: writer.xid,
        };
        self.finish_speculative(id, false)
    }

    /// Puts an entry into a unique index, whose columns are the first
    /// `columns_len` bytes of the key, with the check that no other row has
    /// them.
    ///
    /// Check and insertion are one critical region (rule 15): the first leaf
    /// that can hold the columns is locked exclusively from the first look to
    /// the last byte. Whoever else comes with these columns comes there first,
    /// so of two of them one sees the other's entry. Leaves to the right of it
    /// are looked at by coupling (left before right), and the entry may go to
    /// one of them while the first stays locked; what a split of that one locks
    /// are pages further right and parents, which whoever waits for the first
    /// leaf does not hold.
    pub fn put_unique_entry(
        &self,
        writer: Writer,
        key: &[u8],
        columns_len: usize,
        body: &[u8],
        flags: u8,
        uniqueness: Uniqueness,
    ) -> Result<Admission> {
        let columns = &key[..columns_len];
        let gate = self.tree.leaf_exclusive(Target::Before(columns))?;
        let survey = self.survey(&gate, columns, key)?;
        let verdict = match (survey.other, uniqueness) {
            (None, Uniqueness::Asked) => return Ok(Admission::Unique),
            (None, _) => Admission::Unique,
            (Some(_), Uniqueness::Noted) => Admission::Doubtful,
            (Some(found), _) => {
                if matches!(found, Admission::Exists(_)) {
                    // As with a key that is taken (`Versioned::insert`).
                    self.is_written(&gate, key, None);
                }
                return Ok(found);
            }
        };
        let head = Head {
            flags: EntryKind::Put as u8 | flags,
            xmin: writer.xid,
            cid: writer.cid,
            sequence: survey.own.map_or(Sequence::FIRST, Sequence::successor),
        };
        let target = Target::At(key, head.sequence);
        let mut further: Option<Leaf<'t, S>> = None;
        loop {
            let leaf = further.as_ref().unwrap_or(&gate);
            let block = leaf.block(self.tree.store);
            let page = Page::open(&leaf.guard, block)?;
            let lies_here = page.high().is_none_or(|high| {
                search::compare_position(high, target, self.tree.compare).is_gt()
            });
            if lies_here {
                break;
            }
            further = self.tree.right_exclusive(leaf)?;
            if further.is_none() {
                return Err(Error::corrupt(
                    block,
                    "a page with an upper fence has no right sibling",
                ));
            }
        }
        self.is_written(further.as_ref().unwrap_or(&gate), key, None);
        let kind = RecordKind::Insert;
        match further {
            None => self.put_entry(gate, head, key, body, None, kind)?,
            Some(leaf) => {
                let block = self.put_entry(leaf, head, key, body, None, kind)?;
                drop(gate);
                block
            }
        };
        Ok(verdict)
    }

    /// Looks at every entry with these columns, from the first leaf that can
    /// hold one, which stays locked, to the right.
    fn survey(&self, gate: &Leaf<'t, S>, columns: &[u8], own: &[u8]) -> Result<Survey> {
        let mut survey = Survey {
            own: None,
            other: None,
            key: Vec::new(),
            is_decided: false,
        };
        let compare = self.tree.compare;
        let block = gate.block(self.tree.store);
        let page = Page::open(&gate.guard, block)?;
        let start = search::lower_bound(page, block, Target::Before(columns), compare)?;
        let goes_on = self.survey_page(page, block, start, columns, own, &mut survey)?;
        let mut right = match goes_on {
            ControlFlow::Continue(()) => page.right(),
            ControlFlow::Break(()) => return Ok(survey),
        };
        let mut held: Option<S::Shared<'_>> = None;
        loop {
            let guard = self.tree.store.read(right)?;
            drop(held.take());
            let page = Page::open(&guard, right)?;
            if page.kind() != crate::page::PageKind::Leaf {
                return Err(Error::corrupt(right, "a leaf's right sibling is no leaf"));
            }
            match self.survey_page(page, right, 0, columns, own, &mut survey)? {
                ControlFlow::Continue(()) => right = page.right(),
                ControlFlow::Break(()) => return Ok(survey),
            }
            held = Some(guard);
        }
    }

    /// Looks at one page; whether entries with these columns may go on behind
    /// it.
    fn survey_page(
        &self,
        page: Page<'_>,
        block: crate::types::BlockNumber,
        start: usize,
        columns: &[u8],
        own: &[u8],
        survey: &mut Survey,
    ) -> Result<ControlFlow<()>> {
        let compare = self.tree.compare;
        let mut key = Vec::new();
        for slot in start..page.slot_count() {
            search::copy_key(page, slot, block, &mut key)?;
            let is_new = survey.key.is_empty() || compare.compare(&survey.key, &key).is_ne();
            if is_new {
                if compare.compare_bound(&key, columns, true) == Ordering::Greater {
                    return Ok(ControlFlow::Break(()));
                }
                survey.key.clone_from(&key);
                survey.is_decided = false;
            } else if survey.is_decided {
                continue;
            }
            let head = page.leaf_cell(slot, block)?.head;
            if compare.compare(&key, own).is_eq() {
                // The row's own entry is in nobody's way.
                survey.own = Some(head.sequence);
                survey.is_decided = true;
                continue;
            }
            if !head.is_version() {
                continue;
            }
            let version = || VersionIdBuf {
                key: key.clone(),
                sequence: head.sequence,
                xmin: head.xmin,
            };
            match self.version_status(head) {
                XidStatus::Aborted => continue,
                XidStatus::InProgress => {
                    survey.other.get_or_insert_with(|| Admission::Busy {
                        version: version(),
                        speculative: head.has(bit::SPECULATIVE),
                    });
                }
                XidStatus::Own | XidStatus::Committed if head.kind() == EntryKind::Put => {
                    survey
                        .other
                        .get_or_insert_with(|| Admission::Exists(version()));
                }
                XidStatus::Own | XidStatus::Committed => {}
            }
            survey.is_decided = true;
        }
        let ends_here = page.high().is_none_or(|high| {
            search::compare_position(high, Target::After(columns), compare).is_ge()
        });
        if ends_here {
            return Ok(ControlFlow::Break(()));
        }
        if !page.right().is_some() {
            return Err(Error::corrupt(
                block,
                "a page with an upper fence has no right sibling",
            ));
        }
        Ok(ControlFlow::Continue(()))
    }
}
