//! Predicate locks, as PostgreSQL keeps them for SERIALIZABLE: "Predicate
//! locks" in `README.md` says what is locked and why that suffices.

use engine::predicate::Predicates;
use engine::{BlockNumber, Sequence, Xid};
use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};

use super::RelationStore;
use crate::xact::{hash_of, is_serializable, to_server};

/// Where the numbers begin that stand for keys: they stay positive where the
/// server shows them as integers. A relation with so many blocks (8 TB) sees a
/// conflict now and then that is none.
const KEYS_BEGIN: u32 = 1 << 30;

/// The "page" that stands for a version of a key, or for its having no row.
fn page_of(key: &[u8], version: Option<Sequence>) -> pg_sys::BlockNumber {
    // Small numbers spread over the upper bits, which then are the lower ones.
    let number = version.map_or(0, |sequence| sequence.0.wrapping_add(1));
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    KEYS_BEGIN + ((hash_of(key) ^ spread) >> 32) as u32 % KEYS_BEGIN
}

// Bound by no crate; all may raise an ERROR.
unsafe extern "C-unwind" {
    fn PredicateLockPage(
        relation: pg_sys::Relation,
        block: pg_sys::BlockNumber,
        snapshot: pg_sys::Snapshot,
    );
    fn PredicateLockRelation(relation: pg_sys::Relation, snapshot: pg_sys::Snapshot);
    fn PredicateLockPageSplit(
        relation: pg_sys::Relation,
        old: pg_sys::BlockNumber,
        new: pg_sys::BlockNumber,
    );
    fn PredicateLockPageCombine(
        relation: pg_sys::Relation,
        old: pg_sys::BlockNumber,
        new: pg_sys::BlockNumber,
    );
    fn TransferPredicateLocksToHeapRelation(relation: pg_sys::Relation);
    fn CheckForSerializableConflictIn(
        relation: pg_sys::Relation,
        tid: pg_sys::ItemPointer,
        block: pg_sys::BlockNumber,
    );
    fn CheckForSerializableConflictOutNeeded(
        relation: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
    ) -> bool;
    fn CheckForSerializableConflictOut(
        relation: pg_sys::Relation,
        xid: pg_sys::TransactionId,
        snapshot: pg_sys::Snapshot,
    );
}

/// Locks a whole relation for a scan that reads all of it.
///
/// # Safety
/// `relation` is open, and `snapshot` live.
pub unsafe fn lock_relation(relation: pg_sys::Relation, snapshot: pg_sys::Snapshot) {
    if is_serializable() {
        // SAFETY: the caller's promise.
        unsafe { guarded(|| PredicateLockRelation(relation, snapshot)) }
    }
}

/// Makes relation locks of all locks on a table's pages and keys, whoever has
/// them: its pages are about to be others, or its keys.
///
/// # Safety
/// `relation` is open and locked exclusively.
pub unsafe fn lose_pages(relation: pg_sys::Relation) {
    // SAFETY: the caller's promise.
    unsafe { guarded(|| TransferPredicateLocksToHeapRelation(relation)) }
}

impl RelationStore {
    fn lock_page(&self, page: pg_sys::BlockNumber) {
        // SAFETY: the relation is open, and a transaction that reads has its
        // snapshot; the server asks no more of it than of what kind it is.
        unsafe {
            let snapshot = pg_sys::GetTransactionSnapshot();
            guarded(|| PredicateLockPage(self.relation(), page, snapshot));
        }
    }

    #[cold]
    fn check_page(&self, page: pg_sys::BlockNumber) {
        // SAFETY: the relation is open.
        unsafe {
            guarded(|| {
                CheckForSerializableConflictIn(self.relation(), std::ptr::null_mut(), page);
            });
        }
    }
}

impl Predicates for RelationStore {
    fn key_read(&self, key: &[u8], seen: Option<Sequence>) {
        self.lock_page(page_of(key, seen));
    }

    fn leaf_read(&self, leaf: BlockNumber) {
        self.lock_page(leaf.0);
    }

    fn too_new(&self, writers: &[Xid]) {
        // SAFETY: the relation is open; the ids are of this snapshot's time or
        // later, so that the server can still tell what became of them.
        unsafe {
            let snapshot = pg_sys::GetTransactionSnapshot();
            if !guarded(|| CheckForSerializableConflictOutNeeded(self.relation(), snapshot)) {
                return;
            }
            for writer in writers {
                let xid = to_server(*writer);
                // A subtransaction may have aborted while its parent goes on.
                if is_too_old(xid) || pg_sys::TransactionIdDidAbort(xid) {
                    continue;
                }
                let top = pg_sys::SubTransGetTopmostTransaction(xid);
                if !is_too_old(top) {
                    guarded(|| CheckForSerializableConflictOut(self.relation(), top, snapshot));
                }
            }
        }
    }

    #[inline]
    fn key_written(&self, key: &[u8], over: Option<Sequence>) {
        if is_serializable() {
            self.check_page(page_of(key, over));
        }
    }

    #[inline]
    fn key_cleared(&self, key: &[u8]) {
        if is_serializable() {
            self.key_read(key, None);
        }
    }

    #[inline]
    fn leaf_written(&self, leaf: BlockNumber) {
        if is_serializable() {
            self.check_page(leaf.0);
        }
    }

    fn leaf_split(&self, left: BlockNumber, right: BlockNumber) {
        // SAFETY: the relation is open.
        unsafe { guarded(|| PredicateLockPageSplit(self.relation(), left.0, right.0)) }
    }

    fn leaf_merged(&self, left: BlockNumber, right: BlockNumber) {
        // SAFETY: the relation is open.
        unsafe { guarded(|| PredicateLockPageCombine(self.relation(), left.0, right.0)) }
    }
}

/// Whether a transaction had ended before any that could conflict began.
fn is_too_old(xid: pg_sys::TransactionId) -> bool {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::TransactionIdPrecedes(xid, pg_sys::TransactionXmin) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_keys_are_no_blocks_and_rarely_the_same() {
        let mut pages = std::collections::BTreeSet::new();
        for key in 0..10_000u32 {
            let versions = [None].into_iter().chain((1..4).map(|n| Some(Sequence(n))));
            pages.extend(versions.map(|version| page_of(&key.to_be_bytes(), version)));
        }
        assert!(
            pages
                .iter()
                .all(|page| (KEYS_BEGIN..2 * KEYS_BEGIN).contains(page))
        );
        assert!(pages.len() > 39_990, "{} of 40000", pages.len());
    }
}
