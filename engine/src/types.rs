//! The nouns of the engine, each with a type of its own.

use std::fmt;

/// A page's number within its relation fork.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockNumber(pub u32);

impl BlockNumber {
    /// "No page": the end of a sibling chain.
    pub const NONE: BlockNumber = BlockNumber(u32::MAX);
    /// The metapage of every relation.
    pub const META: BlockNumber = BlockNumber(0);

    /// Whether this names a page at all.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

impl fmt::Display for BlockNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An index into a page's slot array, counted from zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotNumber(pub u16);

impl SlotNumber {
    /// The slot as a plain array index.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The slot behind this one.
    #[must_use]
    pub fn next(self) -> SlotNumber {
        SlotNumber(self.0 + 1)
    }
}

/// Height above the leaves; a leaf is level 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Level(pub u8);

impl Level {
    /// The level of leaves.
    pub const LEAF: Level = Level(0);
}

/// A 32-bit transaction id. Its order wraps around; compare ids through
/// [`Xid::precedes`] and never by value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Xid(pub u32);

impl Xid {
    /// No transaction.
    pub const NONE: Xid = Xid(0);
    /// The first id that an ordinary transaction can have; those below are
    /// special and precede every ordinary one.
    pub const FIRST_NORMAL: Xid = Xid(3);

    /// Whether this is an ordinary transaction's id.
    pub fn is_normal(self) -> bool {
        self.0 >= Self::FIRST_NORMAL.0
    }

    /// Modulo-2³² order for ordinary ids, plain order where a special one is
    /// involved (as PostgreSQL's transam.c has it).
    pub fn precedes(self, other: Xid) -> bool {
        if !self.is_normal() || !other.is_normal() {
            return self.0 < other.0;
        }
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// The later of two ids; `NONE` loses to everything.
    #[must_use]
    pub fn newer_of(self, other: Xid) -> Xid {
        if self.precedes(other) { other } else { self }
    }
}

/// A command's number within its transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommandId(pub u32);

/// A version's number within its key; a newer version has a greater one.
/// `(key, sequence)` is a version's identity (rule 1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Sequence(pub u64);

impl Sequence {
    /// Behind all entries of a key; no entry has it, but a fence may.
    pub const END: Sequence = Sequence(0);
    /// What a key's first version gets.
    pub const FIRST: Sequence = Sequence(1);
    /// Row locks sort before every version of their key: the sequence of a
    /// lock is this base plus its holder's xid, so that no two are alike.
    pub const LOCK_BASE: u64 = 1 << 63;

    /// The place of `holder`'s row lock among the entries of a key.
    pub fn of_lock(holder: Xid) -> Sequence {
        Sequence(Self::LOCK_BASE | u64::from(holder.0))
    }

    /// Whether this is a lock's place and not a version's.
    pub fn is_lock(self) -> bool {
        self.0 >= Self::LOCK_BASE
    }

    /// The next newer version's number.
    #[must_use]
    pub fn successor(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}
