//! The page: header, slot array, cells, special space.
//!
//! ```text
//!   0  LSN (the store's)        8  checksum, flags   12  lower   14  upper
//!  16  special  18 size|version 20 prune xid (unused)
//!  24  slots, 8 bytes each, growing up      …lower
//!      the hole
//!      upper…  cells and fences, growing down
//! special  kind, level, flags, links, fences, prefix length (32 bytes)
//! ```
//! The first 24 bytes are PostgreSQL's page header, so that checksums, LSNs
//! and the "hole" of full-page images work as they do for any other page.
//!
//! The view types here read; only [`apply`] writes.

pub mod apply;
pub mod cell;
pub mod check;
pub mod op;
mod parts;
mod prune;

use crate::error::{Error, Result};
use crate::store::LSN_BYTES;
use crate::types::{BlockNumber, Level, Sequence};

/// Bytes of PostgreSQL's page header.
pub const HEADER_BYTES: usize = 24;
/// Bytes of one slot.
pub const SLOT_BYTES: usize = 8;
/// Bytes of the special space.
pub const SPECIAL_BYTES: usize = 32;
/// PostgreSQL's page layout version, kept in the low byte of the size field.
pub const LAYOUT_VERSION: u16 = 4;
/// Set in a slot's length: the cell has no key of its own, it is that of the
/// next slot below (an older version of the same key).
pub const KEY_BELOW: u16 = 0x8000;

pub(crate) const AT_LOWER: usize = 12;
pub(crate) const AT_UPPER: usize = 14;
pub(crate) const AT_SPECIAL: usize = 16;
pub(crate) const AT_SIZE: usize = 18;

const _: () = assert!(AT_SIZE + 2 + 4 == HEADER_BYTES);
const _: () = assert!(HEADER_BYTES.is_multiple_of(8) && SPECIAL_BYTES.is_multiple_of(8));

/// Offsets within the special space.
pub(crate) mod special {
    pub const KIND: usize = 0;
    pub const LEVEL: usize = 1;
    pub const FLAGS: usize = 2;
    pub const LEFT: usize = 4;
    pub const RIGHT: usize = 8;
    pub const GENERATION: usize = 12;
    pub const LOW_OFFSET: usize = 16;
    pub const LOW_LENGTH: usize = 18;
    pub const HIGH_OFFSET: usize = 20;
    pub const HIGH_LENGTH: usize = 22;
    pub const PREFIX: usize = 24;
    pub const GARBAGE: usize = 26;
    pub const RESERVED: usize = 28;
    const _: () = assert!(RESERVED + 4 == super::SPECIAL_BYTES);
}

/// What a page is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageKind {
    /// Block 0: where the root is and how the relation is organized.
    Meta = 0x71,
    /// Versions.
    Leaf = 0x72,
    /// Downlinks.
    Inner = 0x73,
    /// Unlinked; waits for its stamp to be old enough.
    Deleted = 0x74,
}

impl PageKind {
    /// What the pages of a level are.
    #[inline]
    pub fn of_level(level: Level) -> PageKind {
        if level == Level::LEAF {
            PageKind::Leaf
        } else {
            PageKind::Inner
        }
    }

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<PageKind> {
        Some(match number {
            0x71 => PageKind::Meta,
            0x72 => PageKind::Leaf,
            0x73 => PageKind::Inner,
            0x74 => PageKind::Deleted,
            _ => return None,
        })
    }
}

/// Page flags.
pub mod flag {
    /// The right sibling has no downlink yet; the next writer adds it.
    pub const INCOMPLETE_SPLIT: u16 = 1;
    /// The tree's root.
    pub const ROOT: u16 = 2;
    /// Keys compare as bytes: slots carry heads, the page a common prefix.
    pub const ORDERED: u16 = 4;
    /// Every version on this leaf is frozen and live (rule 43).
    pub const ALL_FROZEN: u16 = 8;
    /// Every entry on this leaf that has its key is a frozen row: whatever was
    /// written since it was [`ALL_FROZEN`] stands on top of such a row.
    pub const ROWS_FROZEN: u16 = 16;
    /// What pruning notes, and writers take back.
    pub const SETTLED: u16 = ALL_FROZEN | ROWS_FROZEN;
}

/// A position in the order of entries: a key, and for versions of it, which.
/// Without a sequence it lies before all entries of the key, with
/// [`Sequence::END`] behind all of them; a truncated key lies before all keys
/// that continue it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position<'k> {
    /// Encoded key, possibly truncated where there is no sequence.
    pub key: &'k [u8],
    /// The version, newest first.
    pub sequence: Option<Sequence>,
}

/// A [`Position`] that owns its key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PositionBuf {
    /// Encoded key.
    pub key: Vec<u8>,
    /// The version.
    pub sequence: Option<Sequence>,
}

impl PositionBuf {
    /// Borrows it.
    pub fn as_ref(&self) -> Position<'_> {
        Position {
            key: &self.key,
            sequence: self.sequence,
        }
    }
}

impl Position<'_> {
    /// Before everything: what an inner page's first downlink says, which
    /// begins where its page does.
    pub const FIRST: Position<'static> = Position {
        key: &[],
        sequence: None,
    };

    /// Copies it.
    pub fn to_buf(self) -> PositionBuf {
        PositionBuf {
            key: self.key.to_vec(),
            sequence: self.sequence,
        }
    }

    /// The version within whose key the position lies, so that older ones of
    /// the key are behind it; none if it lies before a key or behind one.
    #[inline]
    pub fn within_key(self) -> Option<Sequence> {
        self.sequence.filter(|sequence| *sequence != Sequence::END)
    }

    /// Bytes of its encoded form, in a fence or an inner cell:
    /// `[has sequence: u8][sequence: u64, if so][key]`.
    pub fn encoded_len(self) -> usize {
        1 + if self.sequence.is_some() { 8 } else { 0 } + self.key.len()
    }

    /// Appends the encoded form, leaving out the first `skip` key bytes.
    pub fn encode(self, skip: usize, out: &mut Vec<u8>) {
        match self.sequence {
            Some(sequence) => {
                out.push(1);
                out.extend_from_slice(&sequence.0.to_le_bytes());
            }
            None => out.push(0),
        }
        out.extend_from_slice(&self.key[skip.min(self.key.len())..]);
    }

    /// Reads the encoded form.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Option<Position<'_>> {
        match bytes.split_first()? {
            (0, key) => Some(Position {
                key,
                sequence: None,
            }),
            (1, rest) => {
                let (sequence, key) = rest.split_first_chunk::<8>()?;
                Some(Position {
                    key,
                    sequence: Some(Sequence(u64::from_le_bytes(*sequence))),
                })
            }
            _ => None,
        }
    }
}

/// A read-only view of a page's bytes behind the LSN.
#[derive(Clone, Copy)]
pub struct Page<'p> {
    bytes: &'p [u8],
}

/// One slot, read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Absolute offset of the cell on the page.
    pub offset: u16,
    /// Bytes of the cell.
    pub length: u16,
    /// Whether the key is that of the next slot.
    pub key_below: bool,
    /// The four key bytes behind the page's prefix, as a big-endian number;
    /// zero where keys do not compare as bytes.
    pub head: u32,
}

impl Slot {
    #[inline]
    pub(crate) fn read(raw: &[u8; SLOT_BYTES]) -> Slot {
        let length = u16::from_le_bytes([raw[2], raw[3]]);
        Slot {
            offset: u16::from_le_bytes([raw[0], raw[1]]),
            length: length & !KEY_BELOW,
            key_below: length & KEY_BELOW != 0,
            head: u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]),
        }
    }
}

#[inline]
pub(crate) fn u16_at(bytes: &[u8], absolute: usize) -> u16 {
    let at = absolute - LSN_BYTES;
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub(crate) fn u32_at(bytes: &[u8], absolute: usize) -> u32 {
    let at = absolute - LSN_BYTES;
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The head of a key behind the page's prefix.
#[inline]
pub fn head_of(suffix: &[u8]) -> u32 {
    match suffix.first_chunk::<4>() {
        Some(four) => u32::from_be_bytes(*four),
        None => {
            let mut padded = [0u8; 4];
            padded[..suffix.len()].copy_from_slice(suffix);
            u32::from_be_bytes(padded)
        }
    }
}

impl<'p> Page<'p> {
    /// A view that has been checked far enough for its accessors not to read
    /// outside it: header and special space are where they have to be, and
    /// the kind is known. Cells are checked as they are read.
    pub fn open(bytes: &'p [u8], block: BlockNumber) -> Result<Page<'p>> {
        let page = Page { bytes };
        let size = bytes.len() + LSN_BYTES;
        let special = u16_at(bytes, AT_SPECIAL) as usize;
        if special == 0 && bytes.iter().all(|b| *b == 0) {
            return Err(Error::corrupt(block, "the page is empty (all zero)"));
        }
        if special != size - SPECIAL_BYTES {
            return Err(Error::corrupt(block, "the special space is misplaced"));
        }
        let (lower, upper) = (page.lower(), page.upper());
        if lower < HEADER_BYTES || lower > upper || upper > special {
            return Err(Error::corrupt(
                block,
                "lower, upper and special are out of order",
            ));
        }
        if PageKind::from_number(page.special_u8(special::KIND)).is_none() {
            return Err(Error::corrupt(block, "the page's kind is unknown"));
        }
        if page.kind() != PageKind::Meta
            && page.kind() != PageKind::Deleted
            && !(lower - HEADER_BYTES).is_multiple_of(SLOT_BYTES)
        {
            return Err(Error::corrupt(block, "the slot array ends within a slot"));
        }
        // Whoever holds the page and goes on to lock its sibling would wait
        // for itself, and nothing could interrupt that.
        // (Whoever does not know the page's own number gives none.)
        let is_own_sibling = page.right() == block || page.left() == block;
        if is_own_sibling && block.is_some() && page.kind() != PageKind::Meta {
            return Err(Error::corrupt(block, "the page is its own sibling"));
        }
        Ok(page)
    }

    /// Whether the page was never written.
    pub fn is_new(bytes: &[u8]) -> bool {
        u16_at(bytes, AT_UPPER) == 0
    }

    /// The bytes behind the LSN.
    pub fn bytes(self) -> &'p [u8] {
        self.bytes
    }

    /// Bytes of the whole page.
    #[inline]
    pub fn size(self) -> usize {
        self.bytes.len() + LSN_BYTES
    }

    #[inline]
    pub(crate) fn special_at(self) -> usize {
        self.size() - SPECIAL_BYTES
    }

    /// Offset, length and name of both fences.
    pub fn fence_extents(self) -> [(usize, usize, &'static str); 2] {
        [
            (special::LOW_OFFSET, special::LOW_LENGTH, "low"),
            (special::HIGH_OFFSET, special::HIGH_LENGTH, "high"),
        ]
        .map(|(offset, length, name)| {
            (
                self.special_u16(offset) as usize,
                self.special_u16(length) as usize,
                name,
            )
        })
    }

    #[inline]
    fn special_u8(self, at: usize) -> u8 {
        self.bytes[self.special_at() + at - LSN_BYTES]
    }

    #[inline]
    fn special_u16(self, at: usize) -> u16 {
        u16_at(self.bytes, self.special_at() + at)
    }

    #[inline]
    fn special_u32(self, at: usize) -> u32 {
        u32_at(self.bytes, self.special_at() + at)
    }

    /// End of the slot array.
    #[inline]
    pub fn lower(self) -> usize {
        u16_at(self.bytes, AT_LOWER) as usize
    }

    /// Start of the cells.
    #[inline]
    pub fn upper(self) -> usize {
        u16_at(self.bytes, AT_UPPER) as usize
    }

    /// What the page is for.
    #[inline]
    pub fn kind(self) -> PageKind {
        PageKind::from_number(self.special_u8(special::KIND)).unwrap_or(PageKind::Deleted)
    }

    /// Height above the leaves.
    #[inline]
    pub fn level(self) -> Level {
        Level(self.special_u8(special::LEVEL))
    }

    /// Flags, of [`flag`].
    #[inline]
    pub fn flags(self) -> u16 {
        self.special_u16(special::FLAGS)
    }

    /// Whether all of these flags are set.
    #[inline]
    pub fn has(self, flags: u16) -> bool {
        self.flags() & flags == flags
    }

    /// The left sibling.
    #[inline]
    pub fn left(self) -> BlockNumber {
        BlockNumber(self.special_u32(special::LEFT))
    }

    /// The right sibling.
    #[inline]
    pub fn right(self) -> BlockNumber {
        BlockNumber(self.special_u32(special::RIGHT))
    }

    /// Which tree of an lsm relation the page belongs to; 0 in an iot.
    pub fn generation(self) -> u32 {
        self.special_u32(special::GENERATION)
    }

    #[inline]
    fn fence(self, offset: usize, length: usize) -> Option<Position<'p>> {
        let length = self.special_u16(length) as usize;
        if length == 0 {
            return None;
        }
        let start = (self.special_u16(offset) as usize).checked_sub(LSN_BYTES)?;
        Position::decode(self.bytes.get(start..start + length)?)
    }

    /// The lower fence: nothing on this page lies before it. `None` is minus
    /// infinity.
    #[inline]
    pub fn low(self) -> Option<Position<'p>> {
        self.fence(special::LOW_OFFSET, special::LOW_LENGTH)
    }

    /// The upper fence: everything on this page lies before it. `None` is plus
    /// infinity.
    #[inline]
    pub fn high(self) -> Option<Position<'p>> {
        self.fence(special::HIGH_OFFSET, special::HIGH_LENGTH)
    }

    /// Length of the prefix that all keys of this page share.
    #[inline]
    pub fn prefix_len(self) -> usize {
        self.special_u16(special::PREFIX) as usize
    }

    /// The prefix that all keys of this page share: the start of its low fence.
    #[inline]
    pub fn prefix(self) -> &'p [u8] {
        let length = self.prefix_len();
        if length == 0 {
            return &[];
        }
        self.low()
            .and_then(|low| low.key.get(..length))
            .unwrap_or(&[])
    }

    /// Bytes among the cells that nothing refers to.
    pub fn garbage(self) -> usize {
        self.special_u16(special::GARBAGE) as usize
    }

    /// Bytes that a new cell and its slot can have, once the page is compacted.
    #[inline]
    pub fn free(self) -> usize {
        self.upper() - self.lower() + self.garbage()
    }

    /// [`Page::free`], as far as the cells bear it out: for a planner about to
    /// rely on the count of garbage, since applying a record may not fail any
    /// more. Costs a look at every slot where there is garbage.
    pub fn free_for_certain(self) -> usize {
        if self.garbage() == 0 {
            return self.free();
        }
        let slots: usize = (0..self.slot_count())
            .map(|slot| usize::from(self.slot(slot).length))
            .sum();
        let fences = usize::from(self.special_u16(special::LOW_LENGTH))
            + usize::from(self.special_u16(special::HIGH_LENGTH));
        let unused = (self.special_at() - self.lower()).saturating_sub(slots + fences);
        self.free().min(unused)
    }

    /// Whether a cell and its slot of so many bytes find room.
    #[inline]
    pub fn fits(self, need: usize) -> bool {
        need <= self.upper() - self.lower()
            || need <= self.free() && need <= self.free_for_certain()
    }

    /// Number of slots.
    #[inline]
    pub fn slot_count(self) -> usize {
        (self.lower() - HEADER_BYTES) / SLOT_BYTES
    }

    /// Reads a slot.
    ///
    /// # Panics
    /// If there is no such slot.
    #[inline]
    pub fn slot(self, slot: usize) -> Slot {
        let at = HEADER_BYTES + slot * SLOT_BYTES - LSN_BYTES;
        let raw = self.bytes[at..at + SLOT_BYTES]
            .try_into()
            .expect("a slot has eight bytes");
        Slot::read(raw)
    }

    /// All slots, as they stand on the page.
    #[inline]
    pub(crate) fn slot_bytes(self) -> &'p [[u8; SLOT_BYTES]] {
        let from = HEADER_BYTES - LSN_BYTES;
        let end = from + self.slot_count() * SLOT_BYTES;
        self.bytes[from..end].as_chunks().0
    }

    /// All slots, as they are stored.
    #[inline]
    pub(crate) fn slots(self) -> &'p [[u8; SLOT_BYTES]] {
        self.bytes[HEADER_BYTES - LSN_BYTES..self.lower() - LSN_BYTES]
            .as_chunks()
            .0
    }

    /// The bytes of a slot's cell; empty where the slot points nowhere, which
    /// every decoder of cells treats as corruption.
    #[inline]
    pub fn cell_bytes(self, slot: Slot) -> &'p [u8] {
        let start = (slot.offset as usize).wrapping_sub(LSN_BYTES);
        self.bytes
            .get(start..start.wrapping_add(slot.length as usize))
            .unwrap_or(&[])
    }

    /// The slot that holds the key of `slot`: itself, or the first one below
    /// it that has a key of its own.
    #[inline]
    pub fn key_holder(self, mut slot: usize) -> usize {
        let count = self.slot_count();
        while slot + 1 < count && self.slot(slot).key_below {
            slot += 1;
        }
        slot
    }

    /// The body of a metapage.
    pub fn meta_body(self) -> &'p [u8] {
        &self.bytes[HEADER_BYTES - LSN_BYTES..self.lower() - LSN_BYTES]
    }

    /// The stamp of a deleted page.
    pub fn deleted_stamp(self) -> u64 {
        let at = HEADER_BYTES - LSN_BYTES;
        self.bytes[at..at + 8]
            .try_into()
            .map(u64::from_le_bytes)
            .unwrap_or(u64::MAX)
    }
}

/// The most bytes that the encoded form of a position with a key of so many
/// bytes takes.
pub const fn position_bytes_max(key_bytes: usize) -> usize {
    9 + key_bytes
}

/// The most bytes a key may have: an inner page has room for two fences and
/// two downlinks, the first of which needs no key (`page_size` of 8192:
/// 2,694). `btree/README.md` shows that this is enough.
pub const fn key_bytes_max(page_size: usize) -> usize {
    let fixed = 2 * (SLOT_BYTES + 4) + 1;
    (page_size - HEADER_BYTES - SPECIAL_BYTES - fixed) / 3 - position_bytes_max(0)
}

/// The most bytes a cell with a key of so many bytes may have, header and key
/// included: what remains of a page beside the cell's slot and two fences that
/// are as long as its key.
pub const fn cell_bytes_max(page_size: usize, key_bytes: usize) -> usize {
    (page_size - HEADER_BYTES - SPECIAL_BYTES - SLOT_BYTES)
        .saturating_sub(2 * position_bytes_max(key_bytes))
}
