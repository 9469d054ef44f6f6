//! Leaf cells taken apart and written in another way: with a key, with less of
//! one, or frozen.

use super::apply::Mismatch;
use super::cell::{LeafCell, bit};

/// A key behind a new prefix, in the two pieces it is made of: what the old
/// prefix gives back, and the rest.
pub(super) fn suffix_pieces<'k>(
    old_prefix: &'k [u8],
    suffix: &'k [u8],
    prefix_len: usize,
) -> Result<(&'k [u8], &'k [u8]), Mismatch> {
    if prefix_len <= old_prefix.len() {
        Ok((&old_prefix[prefix_len..], suffix))
    } else {
        suffix
            .get(prefix_len - old_prefix.len()..)
            .map(|rest| (&[] as &[u8], rest))
            .ok_or("a key shorter than its page's prefix")
    }
}

/// A leaf cell taken apart, to be written with another key or frozen.
pub(super) struct LeafParts<'c> {
    flags: u8,
    xmin: &'c [u8],
    cid: &'c [u8],
    sequence: &'c [u8],
    key_len: [u8; 3],
    key_len_bytes: usize,
    key: (&'c [u8], &'c [u8]),
    body: &'c [u8],
}

impl<'c> LeafParts<'c> {
    /// Of a cell that was read, with its key below or not; to be frozen or not.
    /// Without a key until it is given one.
    pub fn new(cell: &LeafCell<'c>, raw: &'c [u8], key_below: bool, freeze: bool) -> LeafParts<'c> {
        let mut at = 5;
        let cid_bytes = if cell.head.has(bit::FROZEN) {
            0
        } else {
            varint_bytes(raw, at)
        };
        let cid = &raw[at..at + cid_bytes];
        at += cid_bytes;
        let sequence_bytes = if cell.head.is_version() {
            varint_bytes(raw, at)
        } else {
            0
        };
        let sequence = &raw[at..at + sequence_bytes];
        debug_assert!(key_below == cell.suffix.is_none());
        let frozen = freeze && cell.head.is_version();
        LeafParts {
            flags: if frozen {
                (cell.head.flags | bit::FROZEN | bit::COMMITTED)
                    & !(bit::ABORTED | bit::SPECULATIVE)
            } else {
                cell.head.flags
            },
            xmin: &raw[1..5],
            cid: if frozen { &[] } else { cid },
            sequence,
            key_len: [0; 3],
            key_len_bytes: 0,
            key: (&[], &[]),
            body: cell.body,
        }
    }

    /// Gives it a key: of a page with the old prefix, for one with a new prefix's
    /// length.
    pub fn key(
        &mut self,
        old_prefix: &'c [u8],
        suffix: &'c [u8],
        prefix_len: usize,
    ) -> Result<(), Mismatch> {
        self.key = suffix_pieces(old_prefix, suffix, prefix_len)?;
        let mut length = self.key.0.len() + self.key.1.len();
        loop {
            let more = length >= 0x80;
            self.key_len[self.key_len_bytes] = (length & 0x7f) as u8 | if more { 0x80 } else { 0 };
            self.key_len_bytes += 1;
            length >>= 7;
            if !more {
                return Ok(());
            }
        }
    }

    fn pieces(&self) -> [&[u8]; 7] {
        [
            self.xmin,
            self.cid,
            self.sequence,
            &self.key_len[..self.key_len_bytes],
            self.key.0,
            self.key.1,
            self.body,
        ]
    }

    /// Bytes of the cell.
    pub fn size(&self) -> usize {
        1 + self.pieces().iter().map(|piece| piece.len()).sum::<usize>()
    }

    /// Writes the cell.
    pub fn write(&self, bytes: &mut [u8], at: usize) {
        bytes[at] = self.flags;
        let mut to = at + 1;
        for piece in self.pieces() {
            bytes[to..to + piece.len()].copy_from_slice(piece);
            to += piece.len();
        }
    }
}

fn varint_bytes(raw: &[u8], at: usize) -> usize {
    raw[at..]
        .iter()
        .position(|byte| byte & 0x80 == 0)
        .map_or(raw.len() - at, |last| last + 1)
}
