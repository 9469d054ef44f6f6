//! Writing a store anew, bottom-up and compact, with the histories that
//! somebody may still need: CLUSTER and VACUUM FULL.

use super::retain::{Fate, retain};
use super::{Transactions, Versioned};
use crate::btree::{Bulk, Target, search::copy_key};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::Page;
use crate::page::cell::{EntryKind, Head, bit};
use crate::store::PageStore;
use crate::types::{CommandId, Xid};

/// What a rebuild kept and left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rebuilt {
    /// Rows that the newest version of their key is.
    pub live: u64,
    /// Entries kept that are no live row.
    pub dead: u64,
    /// Entries left behind.
    pub removed: u64,
    /// The oldest transaction id kept unfrozen.
    pub oldest_xid: Option<Xid>,
}

/// The entries of one key, newest first.
#[derive(Default)]
struct History {
    key: Vec<u8>,
    entries: Vec<(Head, Vec<u8>)>,
}

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Adds every entry that is to be kept to `bulk`, in order. Nobody may
    /// write meanwhile; `pause` is called between leaves with no lock held.
    pub fn rebuild<N: PageStore, D: Compare>(
        &self,
        bulk: &mut Bulk<'_, N, D>,
        mut pause: impl FnMut(),
    ) -> Result<Rebuilt> {
        let mut rebuilt = Rebuilt::default();
        let mut history = History::default();
        let mut key = Vec::new();
        let mut place = None;
        loop {
            let guard = match &place {
                None => self.tree.leaf(Target::First)?,
                Some((high, hint)) => {
                    let high: &crate::page::PositionBuf = high;
                    self.tree.right_leaf(high.as_ref(), *hint)?
                }
            };
            let block = self.tree.store.block_of_shared(&guard);
            let page = Page::open(&guard, block)?;
            // A leaf at a time is copied out, so that nothing is written to
            // the new store with a page of the old one locked.
            let mut ended: Vec<History> = Vec::new();
            for slot in 0..page.slot_count() {
                copy_key(page, slot, block, &mut key)?;
                if !history.entries.is_empty() && key != history.key {
                    ended.push(std::mem::take(&mut history));
                }
                if history.entries.is_empty() {
                    history.key.clone_from(&key);
                }
                let cell = page.leaf_cell(slot, block)?;
                history.entries.push((cell.head, cell.body.to_vec()));
            }
            place = page.high().map(|high| (high.to_buf(), page.right()));
            drop(guard);
            for history in ended {
                self.keep(&history, bulk, &mut rebuilt)?;
            }
            pause();
            if place.is_none() {
                self.keep(&history, bulk, &mut rebuilt)?;
                return Ok(rebuilt);
            }
        }
    }

    /// Adds what is to be kept of one key's whole history.
    fn keep<N: PageStore, D: Compare>(
        &self,
        history: &History,
        bulk: &mut Bulk<'_, N, D>,
        rebuilt: &mut Rebuilt,
    ) -> Result<()> {
        let mut fates = Vec::new();
        let heads = history.entries.iter().map(|(head, _)| *head);
        retain(heads, true, self.transactions, &mut fates);
        let mut newest = true;
        for (fate, (head, body)) in fates.iter().zip(&history.entries) {
            let mut head = *head;
            match fate {
                Fate::Remove => {
                    rebuilt.removed += 1;
                    continue;
                }
                Fate::Freeze => {
                    head.flags |= bit::FROZEN | bit::COMMITTED;
                    head.flags &= !(bit::ABORTED | bit::SPECULATIVE);
                    head.cid = CommandId(0);
                }
                Fate::Keep if head.has(bit::FROZEN) => {}
                Fate::Keep => {
                    rebuilt.oldest_xid = Some(match rebuilt.oldest_xid {
                        Some(oldest) if oldest.precedes(head.xmin) => oldest,
                        _ => head.xmin,
                    });
                }
            }
            if head.kind() == EntryKind::Put && newest {
                rebuilt.live += 1;
            } else {
                rebuilt.dead += 1;
            }
            newest &= !head.is_version();
            bulk.add(head, &history.key, body)?;
        }
        Ok(())
    }
}
