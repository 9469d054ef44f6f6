//! Predicate locks (rule 22): what a serializable transaction reads is told to
//! the store, and so is what anybody writes, so that the server can find out
//! which transactions depend on each other. `README.md` argues why telling it
//! at these moments misses nothing.

use crate::types::{BlockNumber, Sequence, Xid};

/// What a store is told about reads and writes. Every call but
/// [`Predicates::too_new`] comes under the lock of the leaf that it names, or
/// on which the key's entries begin; every call may unwind.
///
/// Reads are told only under a snapshot that is
/// [tracked](crate::mvcc::Snapshot::is_tracked); writes, splits and merges
/// always, because whoever makes them does not know who has read. A store
/// whose readers are never tracked needs none of it: all methods do nothing by
/// default.
pub trait Predicates {
    /// A key was looked up: the number of the row's version that was seen, or
    /// `None` if no row was. Told only where equal keys are equal bytes and the
    /// answer was on the leaf where the key begins, else the leaf is told.
    fn key_read(&self, _key: &[u8], _seen: Option<Sequence>) {}

    /// A range was read as far as it lies on this leaf, gaps included.
    fn leaf_read(&self, _leaf: BlockNumber) {}

    /// The versions of these writers were met and passed over as too new. No
    /// page is locked. Called for each leaf that was read, even if there were
    /// none.
    fn too_new(&self, _writers: &[Xid]) {}

    /// A version is about to be put on top of this one of a key, or where there
    /// is no row (or could not be put there because by now there is one).
    fn key_written(&self, _key: &[u8], _over: Option<Sequence>) {}

    /// A key's row is about to end. Whoever puts a row there afterwards comes
    /// after this transaction, even if it has not seen the end: no conflict of
    /// writes says so, as there is no row for both to write.
    fn key_cleared(&self, _key: &[u8]) {}

    /// Versions are about to be put under keys that begin on this leaf.
    fn leaf_written(&self, _leaf: BlockNumber) {}

    /// The leaf `left` is about to be split: what was read there may lie on
    /// `right` from now on. Both are locked exclusively.
    fn leaf_split(&self, _left: BlockNumber, _right: BlockNumber) {}

    /// The leaf `left` is about to be merged into `right`. Both are locked
    /// exclusively.
    fn leaf_merged(&self, _left: BlockNumber, _right: BlockNumber) {}
}
