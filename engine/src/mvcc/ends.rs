//! Tombstones for rows of one leaf, gathered for one record.

use super::Writer;
use crate::page::SLOT_BYTES;
use crate::page::cell::{EntryKind, bit};
use crate::page::op::{Ops, Tombstone};
use crate::types::{Sequence, SlotNumber};

/// Rows of a leaf that are about to end, in the order of their slots.
#[derive(Default)]
pub(super) struct Ends {
    ops: Ops,
    /// Who ends the rows in `slots`.
    writer: Option<Writer>,
    slots: Vec<SlotNumber>,
    /// How many rows the operations so far end: the slots behind have moved on
    /// by as many.
    before: usize,
}

fn tombstone(writer: Writer) -> Tombstone {
    Tombstone {
        flags: EntryKind::Tombstone as u8 | bit::KEYS_UPDATED,
        xmin: writer.xid,
        cid: writer.cid,
    }
}

impl Ends {
    /// Bytes that the tombstone takes on top of a version, slot included.
    #[inline]
    pub fn bytes(&self, writer: Writer, version: Sequence) -> usize {
        let head = tombstone(writer).above(version);
        head.expect("a version is no lock").encode_keyless().1 + SLOT_BYTES
    }

    /// Adds a row behind all others, by its slot as the page is now.
    #[inline]
    pub fn push(&mut self, writer: Writer, slot: usize) {
        if self.writer != Some(writer) {
            self.flush();
            self.writer = Some(writer);
        }
        self.slots.push(SlotNumber((slot + self.before) as u16));
    }

    fn flush(&mut self) {
        if let Some(writer) = self.writer.take() {
            self.ops = std::mem::take(&mut self.ops).end(tombstone(writer), &self.slots);
            self.before += self.slots.len();
            self.slots.clear();
        }
    }

    /// The operations that end them.
    pub fn ops(mut self) -> Ops {
        self.flush();
        self.ops
    }
}
