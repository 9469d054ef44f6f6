//! The versioned store: what a key's history means to a snapshot, to a writer
//! and to a pruner. The rules it cites are the numbered ones of `README.md`.

pub mod batch;
pub mod chain;
mod condense;
pub mod cursor;
pub mod divide;
pub mod end;
pub mod end_entries;
mod ends;
pub mod entries;
pub mod fetch;
pub mod histories;
pub mod index;
mod keys;
pub mod look;
pub mod prune;
pub mod read;
pub mod rebuild;
pub mod rekey;
pub mod retain;
pub mod run;
pub mod scan;
pub mod settle;
pub mod vacuum;
pub mod write;

use crate::btree::Tree;
use crate::compare::Compare;
use crate::page::cell::{Head, put_varint, take_varint};
use crate::store::PageStore;
use crate::types::{CommandId, Sequence, Xid};

/// How a transaction stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XidStatus {
    /// The caller's own transaction or one of its live subtransactions.
    Own,
    /// Somebody else's, still running (or prepared).
    InProgress,
    /// Ended, and its effects stay.
    Committed,
    /// Ended, by abort or crash.
    Aborted,
}

/// Transaction status, asked of the server. In-progress is tested before
/// did-commit (rule 5), so that a transaction which is just ending counts as
/// running.
pub trait Transactions {
    /// The status of a transaction.
    fn status(&self, xid: Xid) -> XidStatus;

    /// Whether every snapshot, of now or of the future, sees this committed
    /// transaction's effects.
    fn visible_to_all(&self, xid: Xid) -> bool;
}

/// What a snapshot makes of one version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight {
    /// It is the newest this snapshot sees: it decides.
    Seen,
    /// It lies in the snapshot's future, or its writer still runs.
    TooNew,
    /// Its writer aborted; it counts for nobody.
    Aborted,
}

/// A snapshot's judgement, and what was learned of the writer on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// The judgement.
    pub sight: Sight,
    /// `Some(committed)` if the writer's end was looked up and can be noted
    /// as a hint.
    pub learned: Option<bool>,
}

impl Judgement {
    /// A judgement that taught nothing new.
    pub fn known(sight: Sight) -> Judgement {
        Judgement {
            sight,
            learned: None,
        }
    }
}

/// A snapshot, of whichever kind.
pub trait Snapshot {
    /// Judges one version by its writer.
    fn judge(&self, version: Head) -> Judgement;

    /// Whether the versions it sees never change while it lives (an MVCC
    /// snapshot). Others are judged when a row is returned (rule 24).
    fn is_stable(&self) -> bool {
        true
    }

    /// Whether what is read under it is told to the store (rule 22): a
    /// serializable transaction's snapshot.
    fn is_tracked(&self) -> bool {
        false
    }
}

/// Row lock strengths, weakest first, as PostgreSQL has them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Strength {
    /// FOR KEY SHARE.
    KeyShare = 0,
    /// FOR SHARE.
    Share = 1,
    /// FOR NO KEY UPDATE, and what an UPDATE of other columns takes.
    NoKeyExclusive = 2,
    /// FOR UPDATE, and what DELETE or a key UPDATE takes.
    Exclusive = 3,
}

impl Strength {
    /// The strength with this number.
    pub fn from_number(number: u8) -> Option<Strength> {
        Some(match number {
            0 => Strength::KeyShare,
            1 => Strength::Share,
            2 => Strength::NoKeyExclusive,
            3 => Strength::Exclusive,
            _ => return None,
        })
    }

    /// Whether two holders exclude each other (the conflict table of the
    /// manual's "Explicit Locking").
    pub fn conflicts(self, other: Strength) -> bool {
        use Strength::*;
        match (self.min(other), self.max(other)) {
            (KeyShare, Exclusive) => true,
            (KeyShare, _) => false,
            (Share, Share) => false,
            (Share, _) => true,
            _ => true,
        }
    }
}

/// Who writes: the transaction id that versions and locks carry, and the
/// number of the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writer {
    /// The (sub)transaction.
    pub xid: Xid,
    /// The command within it.
    pub cid: CommandId,
}

/// Names one version for ever: its key, its number, and, since numbers start
/// anew once a key was pruned away whole, its writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionId<'k> {
    /// The key.
    pub key: &'k [u8],
    /// The version's number.
    pub sequence: Sequence,
    /// Its writer.
    pub xmin: Xid,
}

/// A [`VersionId`] that owns its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionIdBuf {
    /// The key.
    pub key: Vec<u8>,
    /// The version's number.
    pub sequence: Sequence,
    /// Its writer.
    pub xmin: Xid,
}

impl VersionIdBuf {
    /// Borrows it.
    pub fn as_ref(&self) -> VersionId<'_> {
        VersionId {
            key: &self.key,
            sequence: self.sequence,
            xmin: self.xmin,
        }
    }
}

impl VersionId<'_> {
    /// Copies it.
    pub fn to_buf(self) -> VersionIdBuf {
        VersionIdBuf {
            key: self.key.to_vec(),
            sequence: self.sequence,
            xmin: self.xmin,
        }
    }

    /// Appends the body of a `Moved` that leads here.
    pub fn encode(self, out: &mut Vec<u8>) {
        put_varint(self.sequence.0, out);
        out.extend_from_slice(&self.xmin.0.to_le_bytes());
        out.extend_from_slice(self.key);
    }
}

impl<'k> VersionId<'k> {
    /// Reads the body of a `Moved`.
    pub fn decode(mut body: &'k [u8]) -> Option<VersionId<'k>> {
        let sequence = Sequence(take_varint(&mut body)?);
        let (xmin, key) = body.split_first_chunk::<4>()?;
        Some(VersionId {
            key,
            sequence,
            xmin: Xid(u32::from_le_bytes(*xmin)),
        })
    }
}

/// A versioned store: a tree, and the transactions that its versions speak of.
pub struct Versioned<'t, S: PageStore, C: Compare, T: Transactions> {
    /// Where the versions are.
    pub tree: &'t Tree<'t, S, C>,
    /// How their writers stand.
    pub transactions: &'t T,
}
