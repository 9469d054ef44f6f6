//! Telling logical decoding what became of a row, right behind the change.
//!
//! With a lower `wal_level` than `logical` each of these is one test.

use crate::table_am::TableAm;
use engine::BlockNumber;
use engine::mvcc::VersionId;
use engine::mvcc::batch::Batch;
use pg::error::OrRaise;
use pg::wal::change::{self, Stored};
use pgrx::pg_sys;

/// A row was inserted; with `keeps_values` as one of a batch whose values out of
/// line were all stored before, and not the last of it.
///
/// # Safety
/// `relation` is open, and the row was stored in it by this transaction.
#[inline]
pub unsafe fn inserted<A: TableAm>(
    table: &A,
    relation: pg_sys::Relation,
    key: &[u8],
    payload: &[u8],
    keeps_values: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if change::is_wanted(relation) {
            change::inserted(relation, stored(table, key, payload), keeps_values);
        }
    }
}

/// A row that was inserted speculatively was confirmed: before, it is none.
///
/// # Safety
/// `relation` is open, and this transaction has confirmed the version.
#[inline]
pub unsafe fn confirmed<A: TableAm>(
    table: &A,
    relation: pg_sys::Relation,
    (id, near): (VersionId<'_>, BlockNumber),
) {
    // SAFETY: the caller's promise.
    unsafe {
        if change::is_wanted(relation) {
            let new = version_at_hand(table, relation, id, near);
            let row = new.row(0);
            change::inserted(relation, stored(table, row.key, row.payload), false);
        }
    }
}

/// A version was superseded by the row's end.
///
/// # Safety
/// `relation` is open, and this transaction has written the version's successor.
#[inline]
pub unsafe fn deleted<A: TableAm>(
    table: &A,
    relation: pg_sys::Relation,
    (id, near): (VersionId<'_>, BlockNumber),
) {
    // SAFETY: the caller's promise.
    unsafe {
        if change::is_wanted(relation) {
            let old = version_at_hand(table, relation, id, near);
            let row = old.row(0);
            change::deleted(relation, stored(table, row.key, row.payload));
        }
    }
}

/// A version was superseded by another one, under the same key or another.
///
/// # Safety
/// As [`deleted`]; the new row was stored by this transaction.
#[inline]
pub unsafe fn updated<A: TableAm>(
    table: &A,
    relation: pg_sys::Relation,
    (id, near): (VersionId<'_>, BlockNumber),
    key: &[u8],
    payload: &[u8],
) {
    // SAFETY: the caller's promise.
    unsafe {
        if change::is_wanted(relation) {
            let old = version_at_hand(table, relation, id, near);
            let row = old.row(0);
            change::updated(
                relation,
                stored(table, row.key, row.payload),
                stored(table, key, payload),
            );
        }
    }
}

fn stored<'s, A: TableAm>(table: &'s A, key: &'s [u8], payload: &'s [u8]) -> Stored<'s> {
    Stored {
        layout: table.layout(),
        key,
        payload,
    }
}

/// A version that this transaction has just superseded or confirmed. As long as
/// it runs nobody prunes what it would need after an abort, so the version is
/// there.
unsafe fn version_at_hand<A: TableAm>(
    table: &A,
    relation: pg_sys::Relation,
    id: VersionId<'_>,
    near: BlockNumber,
) -> Batch {
    let mut batch = Batch::default();
    // SAFETY: the relation is open.
    let found = unsafe { table.version(id, near, &mut batch).or_raise(relation) };
    assert!(found, "a version outlives the transaction that is at it");
    batch
}
