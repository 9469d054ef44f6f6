//! Dividing a store among several readers, each key to one of them.

use super::scan::{Edge, Place, Range};
use super::{Transactions, Versioned};
use crate::btree::Target;
use crate::compare::Compare;
use crate::error::Result;
use crate::store::PageStore;
use crate::types::BlockNumber;

/// A part of a store's keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// Its keys. The edges lie between keys, never within one's history.
    pub range: Range,
    /// How many leaves they took when it was taken.
    pub leaves: usize,
}

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Takes the next share of about `leaves` leaves off what lies behind
    /// `place`, which moves behind it; `None` once nothing is left. Shares that
    /// are taken one after the other, by whomever, contain each key once,
    /// whatever becomes of leaves and entries meanwhile: each begins where the
    /// one before ends.
    pub fn next_share(&self, place: &mut Place, leaves: usize) -> Result<Option<Share>> {
        let from = match place {
            Place::End => return Ok(None),
            Place::Start => None,
            Place::At(position, _) => Some(Edge::at(position)),
        };
        self.tree.store.interruptible();
        let target = from.as_ref().map_or(Target::First, Edge::target);
        let (fence, leaves) = self.tree.fence_behind(target, leaves)?;
        let to = fence.as_ref().map(Edge::at);
        *place = match fence {
            Some(fence) => Place::At(fence, BlockNumber::NONE),
            None => Place::End,
        };
        Ok(Some(Share {
            range: Range { from, to },
            leaves,
        }))
    }
}
