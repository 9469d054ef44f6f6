//! Handles: 48 bits that stand for a wide row reference for a while.
//!
//! The server passes rows around as a block and an offset. A [`HandleTable`]
//! leases such pairs for versions of rows and finds the version again. The
//! block is an *epoch*, a number that no other backend and no earlier lease
//! ever had; so a handle that has outlived its lease finds nothing, and never
//! a wrong row. README, section "Handles", argues this.

mod arena;
mod epoch;
mod intern;
mod resolve;
mod ring;
mod segment;
mod spill;
mod table;

use thiserror::Error;

use crate::{RowRef, RowRefBuf};

pub use epoch::EpochSource;
pub use spill::SpillFile;
pub use table::{HandleTable, LeaseMode, RING_CAPACITY, RING_CAPACITY_MIN, ScopeId};

/// PostgreSQL's invalid block number, which no epoch may be.
pub const INVALID_BLOCK: u32 = u32::MAX;

/// The greatest offset of a handle, and so the number of handles of an epoch.
/// PostgreSQL's range checks accept no more offsets than a page could have
/// line pointers; it keeps 0, 0xfffd and 0xfffe for marks of its own.
pub const OFFSET_MAX: u16 = 2048;

/// What a slot's `tts_tid` holds in the place of a physical row address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    epoch: u32,
    offset: u16,
}

impl Handle {
    /// The handle that a block and an offset spell, or `None` if they are no
    /// handle's, as is true of the server's marks and of invalid tids.
    #[inline]
    pub fn from_tid(block: u32, offset: u16) -> Option<Handle> {
        (block != INVALID_BLOCK && (1..=OFFSET_MAX).contains(&offset)).then_some(Handle {
            epoch: block,
            offset,
        })
    }

    /// The block number to put into a tid.
    #[inline]
    pub fn block(self) -> u32 {
        self.epoch
    }

    /// The offset to put into a tid.
    #[inline]
    pub fn offset(self) -> u16 {
        self.offset
    }
}

/// A version of a row that is leased: what a handle stands for.
///
/// Its identity is everything but `block_hint` and `cid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRef<'a> {
    /// The relation, as its object id.
    pub relation: u32,
    /// The row in the relation.
    pub reference: RowRef<'a>,
    /// The version among the row's.
    pub sequence: u64,
    /// Who wrote the version.
    pub xmin: u32,
    /// Where it was seen. The row may have moved since; verify before use.
    pub block_hint: u32,
    /// The command that wrote it, for whoever makes index entries of a version
    /// just written; of others it may be anything.
    pub cid: u32,
}

impl LeaseRef<'_> {
    /// An owned copy.
    pub fn to_owned(self) -> Lease {
        Lease {
            relation: self.relation,
            reference: self.reference.to_owned(),
            sequence: self.sequence,
            xmin: self.xmin,
            block_hint: self.block_hint,
            cid: self.cid,
        }
    }

    /// Whether both are the same version of the same row.
    #[inline]
    pub fn is_same_version(self, other: LeaseRef<'_>) -> bool {
        self.sequence == other.sequence
            && self.xmin == other.xmin
            && self.relation == other.relation
            && self.reference == other.reference
    }
}

/// An owned [`LeaseRef`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The relation, as its object id.
    pub relation: u32,
    /// The row in the relation.
    pub reference: RowRefBuf,
    /// The version among the row's.
    pub sequence: u64,
    /// Who wrote the version.
    pub xmin: u32,
    /// Where it was seen.
    pub block_hint: u32,
    /// The command that wrote it.
    pub cid: u32,
}

impl Lease {
    /// Borrows the lease.
    pub fn as_ref(&self) -> LeaseRef<'_> {
        LeaseRef {
            relation: self.relation,
            reference: self.reference.as_ref(),
            sequence: self.sequence,
            xmin: self.xmin,
            block_hint: self.block_hint,
            cid: self.cid,
        }
    }
}

/// Why a handle could not be leased or resolved. Nothing that was leased
/// before is lost by any of these.
#[derive(Debug, Error)]
pub enum HandleError {
    /// All epochs of this server's lifetime are used up.
    #[error("no handles are left")]
    EpochsExhausted,
    /// The source broke its promise; to go on would risk a wrong row.
    #[error("epoch {epoch} was leased a second time")]
    EpochReused {
        /// The epoch that came again, or out of order.
        epoch: u32,
    },
    /// The reference is longer than any key can be.
    #[error("a row reference of {length_bytes} bytes is too long for a handle")]
    ReferenceTooLong {
        /// Its length.
        length_bytes: usize,
    },
    /// Writing, reading or cutting the spill file failed.
    #[error("spilling handles failed")]
    Spill(#[from] std::io::Error),
    /// The spill file returned other bytes than were written.
    #[error("the file of spilled handles is damaged at byte {at}")]
    SpillDamaged {
        /// Where the damaged segment begins.
        at: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_forbidden_tid_is_a_handle() {
        for offset in [0, OFFSET_MAX + 1, 0xFFFD, 0xFFFE, 0xFFFF] {
            assert_eq!(Handle::from_tid(1, offset), None);
        }
        assert_eq!(Handle::from_tid(INVALID_BLOCK, 1), None);
        for (block, offset) in [(0, 1), (0xFFFF_FFFE, OFFSET_MAX)] {
            let handle = Handle::from_tid(block, offset).unwrap();
            assert_eq!((handle.block(), handle.offset()), (block, offset));
        }
    }

    #[test]
    fn versions_that_differ_in_any_part_but_hint_and_command_are_different() {
        let lease = LeaseRef {
            relation: 1,
            reference: RowRef(b"k"),
            sequence: 2,
            xmin: 3,
            block_hint: 4,
            cid: 5,
        };
        let others = [
            LeaseRef {
                relation: 9,
                ..lease
            },
            LeaseRef {
                reference: RowRef(b"kk"),
                ..lease
            },
            LeaseRef {
                sequence: 9,
                ..lease
            },
            LeaseRef { xmin: 9, ..lease },
        ];
        assert!(lease.is_same_version(LeaseRef {
            block_hint: 9,
            cid: 9,
            ..lease
        }));
        for other in others {
            assert!(!lease.is_same_version(other), "{other:?}");
        }
    }
}
