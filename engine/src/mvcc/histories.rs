//! Every key's whole history, one after the other and in the order of keys:
//! what a store is written anew from, and an index of it built.

use super::retain::{Fate, retain};
use super::{Transactions, Versioned};
use crate::btree::{Target, search::copy_key};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::Page;
use crate::page::cell::{Head, bit};
use crate::store::PageStore;
use crate::types::CommandId;

/// The entries of one key, newest first, locks before versions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// The key.
    pub key: Vec<u8>,
    /// Heads, with payload, strength or target.
    pub entries: Vec<(Head, Vec<u8>)>,
}

impl History {
    /// What pruning would leave of it, frozen as pruning would freeze: each
    /// entry's head as it is to be written, or `None` if nobody needs it.
    pub fn kept(&self, transactions: &impl Transactions, out: &mut Vec<Option<Head>>) {
        let mut fates = Vec::new();
        let heads = self.entries.iter().map(|(head, _)| *head);
        retain(heads, true, transactions, &mut fates);
        out.clear();
        out.extend(
            fates
                .iter()
                .zip(&self.entries)
                .map(|(fate, (head, _))| match fate {
                    Fate::Remove => None,
                    Fate::Keep => Some(*head),
                    Fate::Freeze => Some(Head {
                        flags: (head.flags | bit::FROZEN | bit::COMMITTED)
                            & !(bit::ABORTED | bit::SPECULATIVE),
                        cid: CommandId(0),
                        ..*head
                    }),
                }),
        );
    }
}

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Visits every key's history. Nobody may write meanwhile. Neither `visit`
    /// nor `pause`, which is called between leaves, finds a page locked.
    pub fn each_history(
        &self,
        mut pause: impl FnMut(),
        mut visit: impl FnMut(&History) -> Result<()>,
    ) -> Result<()> {
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
            // A leaf at a time is copied out, so that the visitor may write,
            // wait and run whatever it likes.
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
            for history in &ended {
                visit(history)?;
            }
            pause();
            if place.is_none() {
                if !history.entries.is_empty() {
                    visit(&history)?;
                }
                return Ok(());
            }
        }
    }
}
