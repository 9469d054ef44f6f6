//! The operations that change a page, encoded: what a record holds, what is
//! logged, and what [`super::apply`] carries out.
//!
//! Operations are physical and local to their page (rule 27): they name slots
//! and carry bytes, compare no keys and read no other page.

use super::cell::Head;
use super::{KEY_BELOW, PageKind, Position};
use crate::types::{BlockNumber, CommandId, Level, Sequence, SlotNumber, Xid};

/// A fence in an operation: `None` is infinity.
pub type Fence<'a> = Option<Position<'a>>;

/// How a page begins its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format<'a> {
    /// What it is for.
    pub kind: PageKind,
    /// Height above the leaves.
    pub level: Level,
    /// Flags of [`super::flag`].
    pub flags: u16,
    /// Left sibling.
    pub left: BlockNumber,
    /// Right sibling.
    pub right: BlockNumber,
    /// Tree within an lsm relation; 0 in an iot.
    pub generation: u32,
    /// Bytes of the low fence's key that all keys share.
    pub prefix_len: u16,
    /// Lower fence.
    pub low: Fence<'a>,
    /// Upper fence.
    pub high: Fence<'a>,
}

/// One decoded operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Makes an empty page.
    Format(Format<'a>),
    /// Puts a cell before the one in `slot`.
    Insert {
        /// Where.
        slot: u16,
        /// Whether the cell takes its key from the slot behind it.
        key_below: bool,
        /// The cell.
        cell: &'a [u8],
    },
    /// Puts consecutive cells, `count` of them, from `slot` on.
    InsertRun {
        /// Where the first one goes.
        slot: u16,
        /// How many.
        count: u16,
        /// Each `[length u16 with KEY_BELOW][bytes]`.
        cells: &'a [u8],
    },
    /// Puts a cell whose body is alike that of another cell of this page: a
    /// new version that differs from the old one in the middle.
    InsertLike {
        /// Where.
        slot: u16,
        /// The cell it resembles, by its slot before this operation.
        base: u16,
        /// Bytes shared at the start of the body.
        prefix: u16,
        /// Bytes shared at its end.
        suffix: u16,
        /// The cell up to its body.
        header: &'a [u8],
        /// The body between them.
        middle: &'a [u8],
        /// Whether the cell takes its key from the slot behind it.
        key_below: bool,
    },
    /// Puts another cell in place of the one in `slot`, which keeps its key.
    Replace {
        /// Which.
        slot: u16,
        /// The cell, with its key if the slot holds it.
        cell: &'a [u8],
    },
    /// Removes some slots and freezes others; both lists ascend.
    Prune {
        /// Slots to remove, `u16` each.
        remove: &'a [u8],
        /// Slots to freeze, `u16` each.
        freeze: &'a [u8],
    },
    /// Makes the speculative version in `slot` one like any other.
    Confirm {
        /// Which.
        slot: u16,
    },
    /// Keeps the first `keep` slots under a new upper fence.
    Cut {
        /// How many slots stay.
        keep: u16,
        /// The new prefix's length.
        prefix_len: u16,
        /// The new upper fence.
        high: Fence<'a>,
    },
    /// Sets both fences, and encodes all keys anew for the prefix.
    Fences {
        /// The new prefix's length.
        prefix_len: u16,
        /// The new lower fence.
        low: Fence<'a>,
        /// The new upper fence.
        high: Fence<'a>,
    },
    /// Sets one or both siblings.
    Links {
        /// The new left sibling.
        left: Option<BlockNumber>,
        /// The new right sibling.
        right: Option<BlockNumber>,
    },
    /// Sets and clears flags.
    Flags {
        /// Flags to set.
        set: u16,
        /// Flags to clear.
        clear: u16,
    },
    /// Writes a metapage's body.
    Meta {
        /// The body.
        body: &'a [u8],
    },
    /// Turns the page into a deleted one that still links to its siblings.
    Delete {
        /// When it may be used again.
        stamp: u64,
    },
    /// Puts a tombstone on each of some rows: before its slot, with the number
    /// after its own and without a key.
    End {
        /// What the tombstones have in common.
        tombstone: Tombstone,
        /// Slots of the rows, `u16` each, which ascend.
        slots: &'a [u8],
    },
}

/// What the tombstones of rows that end together have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The cells' first byte.
    pub flags: u8,
    /// Who ends the rows.
    pub xmin: Xid,
    /// By which command.
    pub cid: CommandId,
}

impl Tombstone {
    /// The entry that it is on top of a version with this number; `None` if
    /// there is no greater one.
    pub fn above(self, version: Sequence) -> Option<Head> {
        Some(Head {
            flags: self.flags,
            xmin: self.xmin,
            cid: self.cid,
            sequence: Sequence(version.0.checked_add(1)?),
        })
    }
}

const FORMAT: u8 = 1;
const INSERT: u8 = 2;
const INSERT_RUN: u8 = 3;
const INSERT_LIKE: u8 = 4;
const REPLACE: u8 = 5;
const PRUNE: u8 = 6;
const CUT: u8 = 7;
const FENCES: u8 = 8;
const LINKS: u8 = 9;
const FLAGS: u8 = 10;
const META: u8 = 11;
const DELETE: u8 = 12;
const CONFIRM: u8 = 13;
const END: u8 = 14;

/// Appends operations to the bytes of one block's change.
#[derive(Default, Clone, Debug)]
pub struct Ops {
    bytes: Vec<u8>,
}

impl From<Ops> for Vec<u8> {
    fn from(ops: Ops) -> Vec<u8> {
        ops.bytes
    }
}

impl Ops {
    /// No operations yet.
    pub fn new() -> Ops {
        // Room for an operation or two: most records have no more, and one is
        // made for each row that is written.
        Ops {
            bytes: Vec::with_capacity(96),
        }
    }

    /// As [`Ops::new`], with room for as many bytes.
    pub fn with_room(bytes: usize) -> Ops {
        Ops {
            bytes: Vec::with_capacity(bytes),
        }
    }

    /// The encoded operations.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn run(&mut self, bytes: &[u8]) {
        self.u16(u16::try_from(bytes.len()).expect("operands are shorter than a page"));
        self.bytes.extend_from_slice(bytes);
    }

    fn fence(&mut self, fence: Fence<'_>) {
        match fence {
            None => self.u16(0),
            Some(position) => {
                self.u16(
                    u16::try_from(position.encoded_len()).expect("fences are shorter than a page"),
                );
                position.encode(0, &mut self.bytes);
            }
        }
    }

    /// Appends [`Op::Format`].
    #[must_use]
    pub fn format(mut self, format: &Format<'_>) -> Ops {
        self.u8(FORMAT);
        self.u8(format.kind as u8);
        self.u8(format.level.0);
        self.u16(format.flags);
        self.u32(format.left.0);
        self.u32(format.right.0);
        self.u32(format.generation);
        self.u16(format.prefix_len);
        self.fence(format.low);
        self.fence(format.high);
        self
    }

    /// Appends [`Op::Insert`].
    #[must_use]
    pub fn insert(mut self, slot: SlotNumber, key_below: bool, cell: &[u8]) -> Ops {
        self.u8(INSERT);
        self.u16(slot.0);
        self.u8(u8::from(key_below));
        self.run(cell);
        self
    }

    /// Appends [`Op::InsertRun`]: `cells` yields `(key_below, cell)`.
    #[must_use]
    pub fn insert_run<'c>(
        mut self,
        slot: SlotNumber,
        cells: impl Iterator<Item = (bool, &'c [u8])>,
    ) -> Ops {
        self.u8(INSERT_RUN);
        self.u16(slot.0);
        let at = self.bytes.len();
        self.u16(0);
        let mut count = 0u16;
        for (key_below, cell) in cells {
            let length = u16::try_from(cell.len()).expect("cells are shorter than a page");
            self.u16(length | if key_below { KEY_BELOW } else { 0 });
            self.bytes.extend_from_slice(cell);
            count += 1;
        }
        self.bytes[at..at + 2].copy_from_slice(&count.to_le_bytes());
        self
    }

    /// Appends [`Op::InsertRun`] of `count` cells: `make` appends the one with
    /// this number, and says whether its key is below.
    #[must_use]
    pub fn insert_made(
        mut self,
        slot: SlotNumber,
        count: usize,
        mut make: impl FnMut(usize, &mut Vec<u8>) -> bool,
    ) -> Ops {
        self.u8(INSERT_RUN);
        self.u16(slot.0);
        self.u16(u16::try_from(count).expect("a page has fewer slots than bytes"));
        for nth in 0..count {
            let at = self.bytes.len();
            self.u16(0);
            let key_below = make(nth, &mut self.bytes);
            let length = self.bytes.len() - at - 2;
            let length = u16::try_from(length).expect("cells are shorter than a page");
            let length = length | if key_below { KEY_BELOW } else { 0 };
            self.bytes[at..at + 2].copy_from_slice(&length.to_le_bytes());
        }
        self
    }

    /// Appends [`Op::InsertLike`].
    #[must_use]
    #[expect(
        clippy::too_many_arguments,
        reason = "one operation has these operands"
    )]
    pub fn insert_like(
        mut self,
        slot: SlotNumber,
        key_below: bool,
        base: SlotNumber,
        prefix: u16,
        suffix: u16,
        header: &[u8],
        middle: &[u8],
    ) -> Ops {
        self.u8(INSERT_LIKE);
        self.u16(slot.0);
        self.u8(u8::from(key_below));
        self.u16(base.0);
        self.u16(prefix);
        self.u16(suffix);
        self.run(header);
        self.run(middle);
        self
    }

    /// Appends [`Op::Replace`].
    #[must_use]
    pub fn replace(mut self, slot: SlotNumber, cell: &[u8]) -> Ops {
        self.u8(REPLACE);
        self.u16(slot.0);
        self.run(cell);
        self
    }

    /// Appends [`Op::Prune`]; both lists ascend and share no slot.
    #[must_use]
    pub fn prune(mut self, remove: &[SlotNumber], freeze: &[SlotNumber]) -> Ops {
        self.u8(PRUNE);
        self.slots(remove);
        self.slots(freeze);
        self
    }

    /// Appends [`Op::Confirm`].
    #[must_use]
    pub fn confirm(mut self, slot: SlotNumber) -> Ops {
        self.u8(CONFIRM);
        self.u16(slot.0);
        self
    }

    /// Appends [`Op::Cut`].
    #[must_use]
    pub fn cut(mut self, keep: u16, prefix_len: u16, high: Fence<'_>) -> Ops {
        self.u8(CUT);
        self.u16(keep);
        self.u16(prefix_len);
        self.fence(high);
        self
    }

    /// Appends [`Op::Fences`].
    #[must_use]
    pub fn fences(mut self, prefix_len: u16, low: Fence<'_>, high: Fence<'_>) -> Ops {
        self.u8(FENCES);
        self.u16(prefix_len);
        self.fence(low);
        self.fence(high);
        self
    }

    /// Appends [`Op::Links`].
    #[must_use]
    pub fn links(mut self, left: Option<BlockNumber>, right: Option<BlockNumber>) -> Ops {
        self.u8(LINKS);
        self.u8(u8::from(left.is_some()) | u8::from(right.is_some()) << 1);
        self.u32(left.unwrap_or(BlockNumber::NONE).0);
        self.u32(right.unwrap_or(BlockNumber::NONE).0);
        self
    }

    /// Appends [`Op::Flags`].
    #[must_use]
    pub fn flags(mut self, set: u16, clear: u16) -> Ops {
        self.u8(FLAGS);
        self.u16(set);
        self.u16(clear);
        self
    }

    /// Appends [`Op::Meta`].
    #[must_use]
    pub fn meta(mut self, body: &[u8]) -> Ops {
        self.u8(META);
        self.run(body);
        self
    }

    /// Appends [`Op::Delete`].
    #[must_use]
    pub fn delete(mut self, stamp: u64) -> Ops {
        self.u8(DELETE);
        self.bytes.extend_from_slice(&stamp.to_le_bytes());
        self
    }

    /// Appends [`Op::End`]; the slots ascend.
    #[must_use]
    pub fn end(mut self, tombstone: Tombstone, slots: &[SlotNumber]) -> Ops {
        self.u8(END);
        self.u8(tombstone.flags);
        self.u32(tombstone.xmin.0);
        self.u32(tombstone.cid.0);
        self.slots(slots);
        self
    }

    fn slots(&mut self, list: &[SlotNumber]) {
        self.u16(u16::try_from(list.len() * 2).expect("a page has few slots"));
        let bytes = list.iter().flat_map(|slot| slot.0.to_le_bytes());
        self.bytes.extend(bytes);
    }
}

/// Reads operations one by one; `None` inside is a malformed record.
pub struct Reader<'a> {
    bytes: &'a [u8],
}

/// The operations in a block's change, each `None` if it is malformed.
pub fn read(bytes: &[u8]) -> Reader<'_> {
    Reader { bytes }
}

impl<'a> Reader<'a> {
    fn u8(&mut self) -> Option<u8> {
        let (&value, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(value)
    }

    fn u16(&mut self) -> Option<u16> {
        let (value, rest) = self.bytes.split_first_chunk::<2>()?;
        self.bytes = rest;
        Some(u16::from_le_bytes(*value))
    }

    fn u32(&mut self) -> Option<u32> {
        let (value, rest) = self.bytes.split_first_chunk::<4>()?;
        self.bytes = rest;
        Some(u32::from_le_bytes(*value))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        if length > self.bytes.len() {
            return None;
        }
        let (taken, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Some(taken)
    }

    fn run(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()? as usize;
        self.take(length)
    }

    fn fence(&mut self) -> Option<Fence<'a>> {
        let bytes = self.run()?;
        if bytes.is_empty() {
            return Some(None);
        }
        Position::decode(bytes).map(Some)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn op(&mut self) -> Option<Op<'a>> {
        Some(match self.u8()? {
            FORMAT => Op::Format(Format {
                kind: PageKind::from_number(self.u8()?)?,
                level: Level(self.u8()?),
                flags: self.u16()?,
                left: BlockNumber(self.u32()?),
                right: BlockNumber(self.u32()?),
                generation: self.u32()?,
                prefix_len: self.u16()?,
                low: self.fence()?,
                high: self.fence()?,
            }),
            INSERT => Op::Insert {
                slot: self.u16()?,
                key_below: self.flag()?,
                cell: self.run()?,
            },
            INSERT_RUN => {
                let slot = self.u16()?;
                let count = self.u16()?;
                let cells = self.bytes;
                for _ in 0..count {
                    let length = self.u16()? & !KEY_BELOW;
                    self.take(length as usize)?;
                }
                Op::InsertRun {
                    slot,
                    count,
                    cells: &cells[..cells.len() - self.bytes.len()],
                }
            }
            INSERT_LIKE => Op::InsertLike {
                slot: self.u16()?,
                key_below: self.flag()?,
                base: self.u16()?,
                prefix: self.u16()?,
                suffix: self.u16()?,
                header: self.run()?,
                middle: self.run()?,
            },
            REPLACE => Op::Replace {
                slot: self.u16()?,
                cell: self.run()?,
            },
            PRUNE => Op::Prune {
                remove: self.run().filter(|list| list.len().is_multiple_of(2))?,
                freeze: self.run().filter(|list| list.len().is_multiple_of(2))?,
            },
            CONFIRM => Op::Confirm { slot: self.u16()? },
            CUT => Op::Cut {
                keep: self.u16()?,
                prefix_len: self.u16()?,
                high: self.fence()?,
            },
            FENCES => Op::Fences {
                prefix_len: self.u16()?,
                low: self.fence()?,
                high: self.fence()?,
            },
            LINKS => {
                let which = self.u8()?;
                let (left, right) = (BlockNumber(self.u32()?), BlockNumber(self.u32()?));
                Op::Links {
                    left: (which & 1 != 0).then_some(left),
                    right: (which & 2 != 0).then_some(right),
                }
            }
            FLAGS => Op::Flags {
                set: self.u16()?,
                clear: self.u16()?,
            },
            META => Op::Meta { body: self.run()? },
            DELETE => {
                let (stamp, rest) = self.bytes.split_first_chunk::<8>()?;
                self.bytes = rest;
                Op::Delete {
                    stamp: u64::from_le_bytes(*stamp),
                }
            }
            END => Op::End {
                tombstone: Tombstone {
                    flags: self.u8()?,
                    xmin: Xid(self.u32()?),
                    cid: CommandId(self.u32()?),
                },
                slots: self.run().filter(|list| list.len().is_multiple_of(2))?,
            },
            _ => return None,
        })
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Option<Op<'a>>;

    fn next(&mut self) -> Option<Option<Op<'a>>> {
        if self.bytes.is_empty() {
            return None;
        }
        let op = self.op();
        if op.is_none() {
            self.bytes = &[];
        }
        Some(op)
    }
}

/// The slot numbers in a list operand.
pub fn slots(list: &[u8]) -> impl DoubleEndedIterator<Item = u16> + ExactSizeIterator + Clone + '_ {
    list.as_chunks::<2>()
        .0
        .iter()
        .map(|pair| u16::from_le_bytes(*pair))
}
