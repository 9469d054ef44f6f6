//! Every key's whole history, one after the other and in the order of keys:
//! what a store is written anew from, and an index of it built.

use super::read::same_key_follows;
use super::retain::{Fate, retain};
use super::scan::{Edge, Range};
use super::{Transactions, Versioned};
use crate::btree::{Target, search, search::copy_key};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::Page;
use crate::page::cell::{EntryKind, Head, bit};
use crate::store::PageStore;
use crate::types::{CommandId, Xid};

/// What pruning would leave of a history ([`History::kept`]): each entry's head
/// as it is to be written, or `None` if nobody needs it. Its room is used again, for
/// a whole build's histories.
#[derive(Clone, Default, Debug)]
pub struct Kept {
    heads: Vec<Option<Head>>,
    fates: Vec<Fate>,
    horizon: Xid,
}

impl Kept {
    /// The conflict horizon of all histories that it was used for: what is built of
    /// them lacks what older snapshots of a standby may see, and shows them rows that
    /// are frozen (rule 30).
    pub fn horizon(&self) -> Xid {
        self.horizon
    }
}

impl std::ops::Deref for Kept {
    type Target = [Option<Head>];

    fn deref(&self) -> &[Option<Head>] {
        &self.heads
    }
}

/// The entries of one key, newest first, locks before versions. Its room is
/// used again for another key: a build asks for one history per row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// The key, in the bytes of its first entry: others may have other bytes
    /// that compare as equal.
    pub key: Vec<u8>,
    heads: Vec<Head>,
    /// Where each entry's body ends in `bodies`.
    ends: Vec<usize>,
    bodies: Vec<u8>,
}

impl History {
    /// The entries' heads.
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// Payload, strength or target of an entry.
    pub fn body(&self, nth: usize) -> &[u8] {
        let start = nth.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bodies[start..self.ends[nth]]
    }

    /// Each entry's head with its body.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (Head, &[u8])> + ExactSizeIterator {
        (0..self.heads.len()).map(|nth| (self.heads[nth], self.body(nth)))
    }

    fn clear(&mut self) {
        self.heads.clear();
        self.ends.clear();
        self.bodies.clear();
    }

    fn push(&mut self, head: Head, body: &[u8]) {
        self.heads.push(head);
        self.bodies.extend_from_slice(body);
        self.ends.push(self.bodies.len());
    }

    /// What pruning would leave of it, frozen as pruning would freeze.
    pub fn kept(&self, transactions: &impl Transactions, out: &mut Kept) {
        out.heads.clear();
        // Most rows of a table at rest.
        if let [head] = self.heads[..]
            && head.kind() == EntryKind::Put
            && head.has(bit::FROZEN)
        {
            out.heads.push(Some(head));
            return;
        }
        let heads = self.heads.iter();
        let horizon = retain(heads.clone().copied(), true, transactions, &mut out.fates);
        out.horizon = out.horizon.newer_of(horizon);
        let kept = out.fates.iter().zip(heads).map(|(fate, head)| match fate {
            Fate::Remove => None,
            Fate::Keep => Some(*head),
            Fate::Freeze => Some(Head {
                flags: (head.flags | bit::FROZEN | bit::COMMITTED)
                    & !(bit::ABORTED | bit::SPECULATIVE),
                cid: CommandId(0),
                ..*head
            }),
        });
        out.heads.extend(kept);
    }
}

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Visits every key's history. Nobody may write meanwhile. Neither `visit`
    /// nor `pause`, which is called between leaves, finds a page locked.
    pub fn each_history(
        &self,
        pause: impl FnMut(),
        visit: impl FnMut(&History) -> Result<()>,
    ) -> Result<()> {
        self.each_history_of(&Range::default(), pause, visit)
    }

    /// As [`Versioned::each_history`], for the keys of a range. Its edges lie
    /// between keys, so each history is visited whole, wherever it ends.
    pub fn each_history_of(
        &self,
        range: &Range,
        mut pause: impl FnMut(),
        mut visit: impl FnMut(&History) -> Result<()>,
    ) -> Result<()> {
        let compare = self.tree.compare;
        let mut history = History::default();
        let mut place = None;
        // A leaf's histories; as many of them as were needed so far.
        let mut room: Vec<History> = Vec::new();
        loop {
            let guard = match &place {
                None => {
                    let from = range.from.as_ref();
                    self.tree.leaf(from.map_or(Target::First, Edge::target))?
                }
                Some((high, hint)) => {
                    let high: &crate::page::PositionBuf = high;
                    self.tree.right_leaf(high.as_ref(), *hint)?
                }
            };
            let block = self.tree.store.block_of_shared(&guard);
            let page = Page::open(&guard, block)?;
            // A leaf at a time is copied out, so that the visitor may write,
            // wait and run whatever it likes.
            let mut ended = 0;
            let from = match &range.from {
                Some(edge) if place.is_none() => {
                    search::lower_bound(page, block, edge.target(), compare)?
                }
                _ => 0,
            };
            let (to, goes_on) = self.end_on(page, block, range)?;
            let mut is_same = !history.heads.is_empty()
                && from < to
                && search::matches(page, from, block, &history.key, compare)?;
            for slot in from..to {
                if !is_same && !history.heads.is_empty() {
                    if ended == room.len() {
                        room.push(History::default());
                    }
                    std::mem::swap(&mut room[ended], &mut history);
                    history.clear();
                    ended += 1;
                }
                if history.heads.is_empty() {
                    copy_key(page, slot, block, &mut history.key)?;
                }
                let cell = page.leaf_cell(slot, block)?;
                history.push(cell.head, cell.body);
                is_same = same_key_follows(page, block, slot, cell.head, compare)?;
            }
            let high = page.high().filter(|_| goes_on);
            place = high.map(|high| (high.to_buf(), page.right()));
            drop(guard);
            for history in &room[..ended] {
                visit(history)?;
            }
            pause();
            if place.is_none() {
                if !history.heads.is_empty() {
                    visit(&history)?;
                }
                return Ok(());
            }
        }
    }
}
