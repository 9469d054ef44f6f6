//! All that stands under one key, for whoever wants to look at it.

use super::read::{goes_on, same_key_follows};
use super::{Transactions, Versioned};
use crate::btree::{Target, search};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::Page;
use crate::page::cell::Head;
use crate::store::PageStore;
use crate::types::BlockNumber;

/// A version or a row lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The page it was read from.
    pub block: BlockNumber,
    /// Writer, number and flags.
    pub head: Head,
    /// Payload, strength or target.
    pub body: Vec<u8>,
}

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Copies the entries of a key: row locks, then versions from the newest
    /// on. Holds one page at a time; what is written or pruned meanwhile may be
    /// among them or not.
    pub fn all_under(&self, key: &[u8]) -> Result<Vec<Standing>> {
        let compare = self.tree.compare;
        let mut found = Vec::new();
        let mut target = Target::Before(key);
        loop {
            let guard = self.tree.leaf(target)?;
            let block = self.tree.store.block_of_shared(&guard);
            let page = Page::open(&guard, block)?;
            let count = page.slot_count();
            let mut slot = search::lower_bound(page, block, target, compare)?;
            let mut same = slot < count && search::matches(page, slot, block, key, compare)?;
            while same {
                let cell = page.leaf_cell(slot, block)?;
                found.push(Standing {
                    block,
                    head: cell.head,
                    body: cell.body.to_vec(),
                });
                same = same_key_follows(page, block, slot, cell.head, compare)?;
                slot += 1;
            }
            if slot < count {
                return Ok(found);
            }
            match goes_on(page, key, compare) {
                Some(sequence) => target = Target::At(key, sequence),
                None => return Ok(found),
            }
        }
    }
}
