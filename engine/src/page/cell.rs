//! Cells: the entries that slots point to.
//!
//! ```text
//! leaf   flags u8 | xmin u32 | cid varint, unless FROZEN | sequence varint, unless a lock |
//!        key length varint, key behind the page's prefix: both absent where the slot says KEY_BELOW |
//!        body: payload of a Put, lock strength, target of a Moved
//! inner  child u32 | has sequence u8 | sequence u64, if so | key behind the page's prefix
//! ```

use super::{Page, Position, Slot, flag};
use crate::error::{Error, Result};
use crate::types::{BlockNumber, CommandId, Sequence, Xid};

/// What an entry of a leaf is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// A row.
    Put = 0,
    /// No row: deleted.
    Tombstone = 1,
    /// No row here: an UPDATE changed its key; the body names the new version.
    Moved = 2,
    /// No row here: an UPDATE moved it to another partition.
    MovedPartition = 3,
    /// A row lock on the key; the body is its strength.
    Lock = 4,
}

/// Bits of a leaf cell's first byte above the three of its kind.
pub mod bit {
    /// Seen by everybody; the command id is not stored.
    pub const FROZEN: u8 = 0x08;
    /// The writer is known to have committed (a hint).
    pub const COMMITTED: u8 = 0x10;
    /// The writer is known to have aborted (a hint).
    pub const ABORTED: u8 = 0x20;
    /// The version deletes the row, or changes a column that a foreign key
    /// could refer to (rule 9).
    pub const KEYS_UPDATED: u8 = 0x40;
    /// A speculative insertion that was not confirmed yet.
    pub const SPECULATIVE: u8 = 0x80;
    /// The bits that may change without a record.
    pub const HINTS: u8 = COMMITTED | ABORTED;
}

/// Mask of the kind in the first byte.
const KIND: u8 = 0x07;

/// What can be told of a version without its key and body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The cell's first byte.
    pub flags: u8,
    /// The writing transaction; kept when frozen (rule 6).
    pub xmin: Xid,
    /// The writing command; `CommandId(0)` when frozen.
    pub cid: CommandId,
    /// The version's number within its key.
    pub sequence: Sequence,
}

/// The most bytes of a cell without key and body.
const KEYLESS_BYTES_MAX: usize = 20;

/// Appends the first `len` of some bytes. All are copied and the rest cut off: a
/// copy of known length is no call.
#[inline(always)]
fn put_part<const N: usize>(bytes: &[u8; N], len: usize, out: &mut Vec<u8>) {
    let end = out.len() + len;
    out.extend_from_slice(bytes);
    out.truncate(end);
}

impl Head {
    /// The entry's kind. Unknown kinds were refused on decoding.
    #[inline]
    pub fn kind(self) -> EntryKind {
        match self.flags & KIND {
            0 => EntryKind::Put,
            1 => EntryKind::Tombstone,
            2 => EntryKind::Moved,
            3 => EntryKind::MovedPartition,
            _ => EntryKind::Lock,
        }
    }

    /// Whether all of these bits are set.
    #[inline]
    pub fn has(self, bits: u8) -> bool {
        self.flags & bits == bits
    }

    /// Whether it is a version and not a lock.
    #[inline]
    pub fn is_version(self) -> bool {
        self.kind() != EntryKind::Lock
    }

    /// Appends the cell's bytes: `suffix` is the key behind the page's prefix,
    /// `None` where the next slot holds it.
    #[inline]
    pub fn encode(self, suffix: Option<&[u8]>, body: &[u8], out: &mut Vec<u8>) {
        let key_bytes = suffix.map_or(0, |suffix| 3 + suffix.len());
        out.reserve(KEYLESS_BYTES_MAX + key_bytes + body.len());
        let numbers_are_small = self.cid.0 < 0x80 && self.sequence.0 < 0x80 && self.is_version();
        match suffix {
            // Nearly all that is written: the counterpart of
            // [`LeafCell::decode_small`].
            Some(suffix) if numbers_are_small && suffix.len() < 0x80 => {
                let numbers = self.sequence.0 | (suffix.len() as u64) << 8;
                let (numbers, len) = if self.has(bit::FROZEN) {
                    (numbers, 7)
                } else {
                    (numbers << 8 | u64::from(self.cid.0), 8)
                };
                let header = u64::from(self.flags) | u64::from(self.xmin.0) << 8 | numbers << 40;
                put_part(&header.to_le_bytes(), len, out);
                out.extend_from_slice(suffix);
            }
            _ => {
                let (keyless, len) = self.encode_keyless();
                put_part(&keyless, len, out);
                if let Some(suffix) = suffix {
                    put_varint(suffix.len() as u64, out);
                    out.extend_from_slice(suffix);
                }
            }
        }
        out.extend_from_slice(body);
    }

    /// As [`Head::encode`], of an entry without key and body: the bytes, and how
    /// many they are.
    #[inline]
    pub fn encode_keyless(self) -> ([u8; KEYLESS_BYTES_MAX], usize) {
        let mut bytes = [0; KEYLESS_BYTES_MAX];
        bytes[0] = self.flags;
        bytes[1..5].copy_from_slice(&self.xmin.0.to_le_bytes());
        let mut at = 5;
        let mut put = |mut value: u64| {
            while value >= 0x80 {
                bytes[at] = value as u8 | 0x80;
                value >>= 7;
                at += 1;
            }
            bytes[at] = value as u8;
            at += 1;
        };
        if !self.has(bit::FROZEN) {
            put(u64::from(self.cid.0));
        }
        if self.is_version() {
            put(self.sequence.0);
        }
        (bytes, at)
    }

    /// An upper bound of the bytes that [`Head::encode`] appends.
    pub fn encoded_len_max(suffix_len: usize, body_len: usize) -> usize {
        5 + 5 + 10 + 3 + suffix_len + body_len
    }
}

/// A leaf cell, decoded but not copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafCell<'p> {
    /// Writer, number and flags.
    pub head: Head,
    /// The key behind the page's prefix; `None` where the next slot holds it.
    pub suffix: Option<&'p [u8]>,
    /// Payload, strength or target.
    pub body: &'p [u8],
}

impl<'p> LeafCell<'p> {
    /// Decodes a cell's bytes; `None` if they are not one.
    ///
    /// Always inlined: a scan does this for every row, and what it does not
    /// look at then costs nothing.
    #[inline(always)]
    pub fn decode(bytes: &'p [u8], key_below: bool) -> Option<LeafCell<'p>> {
        let (&flags, rest) = bytes.split_first()?;
        if flags & KIND > EntryKind::Lock as u8 {
            return None;
        }
        let (xmin, mut rest) = rest.split_first_chunk::<4>()?;
        let xmin = Xid(u32::from_le_bytes(*xmin));
        let cid = if flags & bit::FROZEN == 0 {
            CommandId(u32::try_from(take_varint(&mut rest)?).ok()?)
        } else {
            CommandId(0)
        };
        let sequence = if flags & KIND == EntryKind::Lock as u8 {
            Sequence::of_lock(xmin)
        } else {
            Sequence(take_varint(&mut rest)?)
        };
        let suffix = if key_below {
            None
        } else {
            let length = usize::try_from(take_varint(&mut rest)?).ok()?;
            if length > rest.len() {
                return None;
            }
            let (suffix, body) = rest.split_at(length);
            rest = body;
            Some(suffix)
        };
        Some(LeafCell {
            head: Head {
                flags,
                xmin,
                cid,
                sequence,
            },
            suffix,
            body: rest,
        })
    }

    /// Decodes a version with a key of its own whose numbers take one byte
    /// each, which nearly all are: its header is read in one piece. `None` for
    /// any other bytes.
    #[inline(always)]
    pub fn decode_small(bytes: &'p [u8]) -> Option<LeafCell<'p>> {
        let header = u64::from_le_bytes(*bytes.first_chunk()?);
        let flags = header as u8;
        let numbers = (header >> 40) as u32;
        let frozen = flags & bit::FROZEN != 0;
        let large = if frozen { 0x8080 } else { 0x0080_8080 };
        if flags & KIND >= EntryKind::Lock as u8 || numbers & large != 0 {
            return None;
        }
        let (cid, numbers, header_bytes) = if frozen {
            (0, numbers, 7)
        } else {
            (numbers & 0xff, numbers >> 8, 8)
        };
        let (suffix, body) =
            bytes[header_bytes..].split_at_checked((numbers >> 8 & 0xff) as usize)?;
        Some(LeafCell {
            head: Head {
                flags,
                xmin: Xid((header >> 8) as u32),
                cid: CommandId(cid),
                sequence: Sequence(u64::from(numbers & 0xff)),
            },
            suffix: Some(suffix),
            body,
        })
    }
}

/// An inner cell, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InnerCell<'p> {
    /// The page that holds what lies from here on.
    pub child: BlockNumber,
    /// Where it begins; the key lacks the page's prefix.
    pub position: Position<'p>,
}

impl<'p> InnerCell<'p> {
    /// Decodes a cell's bytes; `None` if they are not one.
    #[inline]
    pub fn decode(bytes: &'p [u8]) -> Option<InnerCell<'p>> {
        let (child, rest) = bytes.split_first_chunk::<4>()?;
        Some(InnerCell {
            child: BlockNumber(u32::from_le_bytes(*child)),
            position: Position::decode(rest)?,
        })
    }

    /// Appends a cell: `position` whole, of which the first `prefix` bytes are
    /// left out.
    pub fn encode(child: BlockNumber, position: Position<'_>, prefix: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&child.0.to_le_bytes());
        position.encode(prefix, out);
    }
}

/// The first byte of a cell that is a frozen row, as far as it is one.
const FROZEN_ROW: u8 = EntryKind::Put as u8 | bit::FROZEN;

impl<'p> Page<'p> {
    /// How many slots of a leaf from `slot` on, up to `most`, are each all there
    /// is of a key: a frozen row with its key. They are told by the slot and the
    /// cell's first byte alone, or, where all rows are frozen, by the slot.
    #[inline]
    pub fn frozen_rows(self, slot: usize, most: usize) -> usize {
        let slots = self.slot_bytes();
        let end = slots.len().min(slot.saturating_add(most));
        if self.has(flag::ROWS_FROZEN) {
            return slots[slot..end]
                .iter()
                .take_while(|raw| !Slot::read(raw).key_below)
                .count();
        }
        slots[slot..end]
            .iter()
            .take_while(|raw| {
                let slot = Slot::read(raw);
                !slot.key_below
                    && self
                        .cell_bytes(slot)
                        .first()
                        .is_some_and(|flags| flags & (KIND | bit::FROZEN) == FROZEN_ROW)
            })
            .count()
    }

    /// The leaf cell in a slot.
    #[inline]
    pub fn leaf_cell(self, slot: usize, block: BlockNumber) -> Result<LeafCell<'p>> {
        let slot = self.slot(slot);
        LeafCell::decode(self.cell_bytes(slot), slot.key_below)
            .ok_or_else(|| Error::corrupt(block, "a leaf entry cannot be read"))
    }

    /// The key behind the page's prefix of the entry in a slot.
    #[inline]
    pub fn suffix(self, slot: usize, block: BlockNumber) -> Result<&'p [u8]> {
        let holder = self.key_holder(slot);
        self.leaf_cell(holder, block)?
            .suffix
            .ok_or_else(|| Error::corrupt(block, "the last entry of a page has no key"))
    }

    /// The inner cell in a slot.
    #[inline]
    pub fn inner_cell(self, slot: usize, block: BlockNumber) -> Result<InnerCell<'p>> {
        InnerCell::decode(self.cell_bytes(self.slot(slot)))
            .ok_or_else(|| Error::corrupt(block, "a downlink cannot be read"))
    }
}

/// Appends an LEB128 number.
#[inline]
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes an LEB128 number off the front. Nearly all of them are below 128, so
/// the loop for the others stays out of the way.
#[inline(always)]
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    match bytes.split_first() {
        Some((&byte, rest)) if byte & 0x80 == 0 => {
            *bytes = rest;
            Some(u64::from(byte))
        }
        _ => take_long_varint(bytes),
    }
}

#[inline(never)]
fn take_long_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_leaf_cell_reads_back_as_written(
            kind in 0u8..4, bits in any::<u8>(), xmin in any::<u32>(), cid in any::<u32>(),
            sequence in 0..(1u64 << 62), suffix in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            body in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let flags = kind | (bits & !KIND);
            let cid = if flags & bit::FROZEN != 0 { 0 } else { cid };
            let head = Head { flags, xmin: Xid(xmin), cid: CommandId(cid), sequence: Sequence(sequence) };
            let mut bytes = Vec::new();
            head.encode(suffix.as_deref(), &body, &mut bytes);
            prop_assert!(bytes.len() <= Head::encoded_len_max(suffix.as_ref().map_or(0, Vec::len), body.len()));
            let cell = LeafCell::decode(&bytes, suffix.is_none()).unwrap();
            prop_assert_eq!(cell.head, head);
            prop_assert_eq!(cell.suffix, suffix.as_deref());
            prop_assert_eq!(cell.body, &body[..]);
        }

        #[test]
        fn a_small_header_reads_the_same_in_one_piece(
            kind in 0u8..4, bits in any::<u8>(), xmin in any::<u32>(), cid in 0u32..200,
            sequence in 0u64..200, suffix in proptest::collection::vec(any::<u8>(), 0..150),
            body in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let flags = kind | (bits & !KIND);
            let head = Head { flags, xmin: Xid(xmin), cid: CommandId(cid), sequence: Sequence(sequence) };
            let mut bytes = Vec::new();
            head.encode(Some(&suffix), &body, &mut bytes);
            // And is written the same.
            let (keyless, len) = head.encode_keyless();
            let mut pieces = keyless[..len].to_vec();
            put_varint(suffix.len() as u64, &mut pieces);
            pieces.extend_from_slice(&suffix);
            pieces.extend_from_slice(&body);
            prop_assert_eq!(&bytes, &pieces);
            let small = sequence < 128
                && suffix.len() < 128
                && (head.has(bit::FROZEN) || cid < 128)
                && bytes.len() >= 8;
            let cell = LeafCell::decode_small(&bytes);
            prop_assert_eq!(cell.is_some(), small);
            if small {
                prop_assert_eq!(cell, LeafCell::decode(&bytes, false));
            }
        }

        #[test]
        fn decoding_arbitrary_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60), below in any::<bool>()) {
            let _ = LeafCell::decode(&bytes, below);
            let _ = InnerCell::decode(&bytes);
        }
    }

    #[test]
    fn a_tombstone_of_an_existing_key_takes_at_most_twenty_bytes() {
        let head = Head {
            flags: EntryKind::Tombstone as u8,
            xmin: Xid(u32::MAX),
            cid: CommandId(100),
            sequence: Sequence(10_000),
        };
        let mut bytes = Vec::new();
        head.encode(None, &[], &mut bytes);
        assert!(bytes.len() + super::super::SLOT_BYTES <= 20);
    }
}
