//! A record: all that one atomic change does to its pages.
//!
//! For each block a record holds the *encoded* operations
//! ([`crate::page::op`]). What is logged are these very bytes, and both the
//! first application and redo run [`crate::page::apply::apply`] on them, so
//! that the two cannot drift apart.

use crate::types::{BlockNumber, Xid};

/// Why a record was written; becomes the record's info byte and its name in
/// `pg_waldump`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A relation's metapage and empty root.
    Create = 0,
    /// Versions put on one leaf.
    Insert = 1,
    /// A page split in two, its downlink still missing.
    Split = 2,
    /// The downlink of a split page, which ends the split.
    Downlink = 3,
    /// A new root above two pages.
    NewRoot = 4,
    /// Versions removed or frozen.
    Prune = 5,
    /// A page emptied into its right sibling and unlinked.
    Merge = 6,
    /// A row lock taken or released.
    Lock = 7,
    /// A deleted page taken into use again.
    Reuse = 8,
    /// A change of the metapage alone.
    Meta = 9,
    /// A status change of versions in place (speculative insertion).
    Confirm = 10,
    /// A row change told to whoever reads the log for rows; it touches no page.
    RowChange = 11,
    /// A root with one child replaced by that child.
    LowerRoot = 12,
    /// A page moved to another block.
    Relocate = 13,
}

impl RecordKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [RecordKind; 14] = [
        RecordKind::Create,
        RecordKind::Insert,
        RecordKind::Split,
        RecordKind::Downlink,
        RecordKind::NewRoot,
        RecordKind::Prune,
        RecordKind::Merge,
        RecordKind::Lock,
        RecordKind::Reuse,
        RecordKind::Meta,
        RecordKind::Confirm,
        RecordKind::RowChange,
        RecordKind::LowerRoot,
        RecordKind::Relocate,
    ];

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<RecordKind> {
        Self::ALL.get(number as usize).copied()
    }

    /// The name that log readers show.
    pub fn name(self) -> &'static str {
        match self {
            RecordKind::Create => "CREATE",
            RecordKind::Insert => "INSERT",
            RecordKind::Split => "SPLIT",
            RecordKind::Downlink => "DOWNLINK",
            RecordKind::NewRoot => "NEW_ROOT",
            RecordKind::Prune => "PRUNE",
            RecordKind::Merge => "MERGE",
            RecordKind::Lock => "LOCK",
            RecordKind::Reuse => "REUSE",
            RecordKind::Meta => "META",
            RecordKind::Confirm => "CONFIRM",
            RecordKind::RowChange => "ROW_CHANGE",
            RecordKind::LowerRoot => "LOWER_ROOT",
            RecordKind::Relocate => "RELOCATE",
        }
    }
}

/// What a record does to one block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The block.
    pub block: BlockNumber,
    /// Whether the operations make the page from nothing: redo then does not
    /// read it first, and no full-page image is needed.
    pub init: bool,
    /// Encoded operations, applied in order.
    pub ops: Vec<u8>,
}

/// One atomic change of up to [`Record::BLOCKS_MAX`] pages.
///
/// The order of `changes` is the order in which redo locks (rule 27): new
/// pages first, then left before right, child before parent, metapage last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Why it was written.
    pub kind: RecordKind,
    /// The newest transaction whose removed or frozen effects a standby's
    /// snapshot might still have to tell apart (rule 30); `NONE` if none.
    pub conflict_horizon: Xid,
    /// Block by block.
    pub changes: Vec<Change>,
}

impl Record {
    /// The most blocks one record may touch (rule 28).
    pub const BLOCKS_MAX: usize = 5;

    /// A record without changes yet.
    pub fn new(kind: RecordKind) -> Record {
        Record {
            kind,
            conflict_horizon: Xid::NONE,
            changes: Vec::with_capacity(1),
        }
    }

    /// Adds the operations on an existing page.
    #[must_use]
    pub fn change(mut self, block: BlockNumber, ops: impl Into<Vec<u8>>) -> Record {
        self.changes.push(Change {
            block,
            init: false,
            ops: ops.into(),
        });
        self
    }

    /// Adds the operations that make a page from nothing.
    #[must_use]
    pub fn init(mut self, block: BlockNumber, ops: impl Into<Vec<u8>>) -> Record {
        self.changes.push(Change {
            block,
            init: true,
            ops: ops.into(),
        });
        self
    }

    /// States the conflict horizon.
    #[must_use]
    pub fn horizon(mut self, newest: Xid) -> Record {
        self.conflict_horizon = self.conflict_horizon.newer_of(newest);
        self
    }
}
