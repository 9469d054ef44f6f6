//! Where pages live. The engine sees pages only through [`PageStore`]: in the
//! server that is PostgreSQL's shared buffers, in tests the `mem` store.

use std::ops::{Deref, RangeInclusive};

use crate::error::Result;
use crate::predicate::Predicates;
use crate::record::Record;
use crate::types::{BlockNumber, SlotNumber, Xid};

/// Bytes at the start of a page that belong to the store alone (PostgreSQL's
/// page LSN) and are not part of what a guard shows: they change under a
/// shared lock.
pub const LSN_BYTES: usize = 8;

/// A status bit that may be set on a version without logging: the version at
/// `slot`, if its writer is still `xid`, was written by a transaction that is
/// known to have ended so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Where the version stood when it was judged; it may have moved since.
    pub slot: SlotNumber,
    /// The writer that was judged.
    pub xid: Xid,
    /// How it ended: committed, or else aborted.
    pub committed: bool,
}

/// Pages with shared and exclusive locks, changed only by committing a record.
///
/// A guard shows the page's bytes *behind the LSN* (`page_size() - LSN_BYTES`
/// of them); [`crate::page::Page`] gives them meaning. Dropping a guard
/// releases lock and pin and does nothing else.
pub trait PageStore: Predicates {
    /// A page that others may read as well.
    type Shared<'s>: Deref<Target = [u8]>
    where
        Self: 's;
    /// A page that nobody else sees. Deliberately without `DerefMut`: the way
    /// to change a page is [`PageStore::commit`].
    type Exclusive<'s>: Deref<Target = [u8]>
    where
        Self: 's;

    /// Bytes of a whole page, the LSN included.
    fn page_size(&self) -> usize;

    /// How many blocks the relation has now.
    fn block_count(&self) -> Result<u32>;

    /// Whether a block lies within the relation: asked of blocks that are
    /// remembered from before the relation was locked, since when it may have
    /// become shorter.
    fn holds(&self, at: BlockNumber) -> Result<bool> {
        Ok(at.0 < self.block_count()?)
    }

    /// Pins and locks a page for reading.
    fn read(&self, at: BlockNumber) -> Result<Self::Shared<'_>>;

    /// Pins and locks a page for changing.
    fn lock(&self, at: BlockNumber) -> Result<Self::Exclusive<'_>>;

    /// As [`PageStore::lock`], but gives up where it would have to wait.
    fn try_lock(&self, at: BlockNumber) -> Result<Option<Self::Exclusive<'_>>>;

    /// A page that nothing refers to, locked: verified to be new (all zero) or
    /// deleted and safe to use again (rule 32), else the relation is extended.
    /// Its contents are garbage until a record formats it.
    fn allocate(&self) -> Result<Self::Exclusive<'_>>;

    /// Says that a page will be read soon: a store may begin to fetch it. No
    /// lock or pin comes of it.
    fn expect(&self, _at: BlockNumber) {}

    /// As [`PageStore::expect`], for a page of which little will be read.
    fn expect_little(&self, _at: BlockNumber) {}

    /// Says which keys will be read of a leaf that was expected a while ago: the
    /// numbers ([`crate::btree::short::number_of`]) of the first and the last
    /// one, of so many bytes each.
    fn expect_rows(&self, _at: BlockNumber, _keys: RangeInclusive<u64>, _width: usize) {}

    /// Gives the store a chance to fetch more of the page expected last: to be
    /// called between the entries of the page at hand, where there are many.
    fn expect_more(&self) {}

    /// Tells the free-space map, a hint, that a page can be used again.
    fn offer(&self, at: BlockNumber);

    /// Which block a guard holds.
    fn block_of(&self, guard: &Self::Exclusive<'_>) -> BlockNumber;

    /// As [`PageStore::block_of`], for a shared guard.
    fn block_of_shared(&self, guard: &Self::Shared<'_>) -> BlockNumber;

    /// Applies a record to the locked pages, `pages[i]` being the block that
    /// `record.changes[i]` names, and logs it. Infallible by contract: the
    /// plan that made the record has checked that it applies.
    fn commit(&self, record: &Record, pages: &mut [&mut Self::Exclusive<'_>]);

    /// Sets status bits if that can be done without waiting, and only for
    /// transactions whose commit is durable (rule 7). Never logged; losing
    /// one costs a look-up.
    fn hint(&self, at: BlockNumber, hints: &[Hint]);

    /// A transaction id that no snapshot taken from now on treats as running:
    /// stamped on a deleted page, which may be used again once nobody can
    /// still hold a link to it.
    fn recycle_stamp(&self) -> u64;

    /// A point at which no page is locked by this session, and it may be
    /// cancelled: by unwinding out of this call.
    fn interruptible(&self) {}

    /// A named point at which a test may stop this session.
    fn pace(&self, _point: &'static str) {}
}
