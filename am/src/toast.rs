//! Values too long for their rows: when they are stored, and when deleted.
//! The argument is in `README.md`, "Long values".

use crate::table_am::TableAm;
use engine::BlockNumber;
use engine::mvcc::VersionId;
use engine::mvcc::batch::Batch;
use engine::page::cell::bit;
use pg::error::OrRaise;
use pg::memory::in_temporary_context;
use pg::row::{Pointer, TableLayout, has_pointers};
use pg::slot;
use pg::toast::{LongRow, delete_unshared, delete_value, is_long, shorten};
use pgrx::pg_sys;
use std::convert::Infallible;

/// Shortens the row to be inserted that is in a slot. Nobody can be in the
/// way of one that may fail: its values die with the transaction. `flags` are
/// those of its version; a frozen row's values are frozen.
///
/// # Safety
/// `slot` holds a row of `relation`'s type, and `relation` is `table`.
#[cold]
pub unsafe fn shorten_new<A: TableAm>(
    table: &A,
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    flags: u8,
    key_bytes: usize,
    payload: &mut Vec<u8>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (values, isnull) = slot::columns(slot);
        let row = LongRow {
            values,
            isnull,
            key_bytes,
            old: &[],
            is_frozen: flags & bit::FROZEN != 0,
        };
        let Ok(()) = shorten(relation, table.layout(), row, payload, || {
            Ok::<_, Infallible>(())
        });
    }
}

/// Shortens a row of the table's own that gets another key: what it has stored
/// stays stored where it is. `payload` is the row's under its new key, of
/// `key_bytes` bytes.
///
/// # Safety
/// `slot` holds a row of `relation`'s type, and `layout` is the new one.
#[cold]
pub unsafe fn shorten_kept(
    relation: pg_sys::Relation,
    layout: &TableLayout,
    slot: *mut pg_sys::TupleTableSlot,
    key_bytes: usize,
    payload: &mut Vec<u8>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let kept = layout.pointers(payload).or_raise(relation);
        let (values, isnull) = slot::columns(slot);
        let row = LongRow {
            values,
            isnull,
            key_bytes,
            old: &kept,
            is_frozen: false,
        };
        let Ok(()) = shorten(relation, layout, row, payload, || Ok::<_, Infallible>(()));
    }
}

/// Shortens the row in a slot, which is to supersede the one named. `lock` is
/// called before anything is stored.
///
/// # Safety
/// As for [`shorten_new`].
#[cold]
pub unsafe fn shorten_successor<A: TableAm, E>(
    table: &A,
    relation: pg_sys::Relation,
    (old, near): (VersionId<'_>, BlockNumber),
    slot: *mut pg_sys::TupleTableSlot,
    key_bytes: usize,
    payload: &mut Vec<u8>,
    lock: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    // SAFETY: the caller's promise.
    unsafe {
        // A version that is gone has nothing to share; that it is gone the
        // caller will be told in due course.
        let mut batch = Batch::default();
        let found = table.version(old, near, &mut batch).or_raise(relation);
        let old = if found {
            let pointers = table.layout().pointers(batch.row(0).payload);
            pointers.or_raise(relation)
        } else {
            Vec::new()
        };
        let (values, isnull) = slot::columns(slot);
        let row = LongRow {
            values,
            isnull,
            key_bytes,
            old: &old,
            is_frozen: false,
        };
        shorten(relation, table.layout(), row, payload, lock)
    }
}

/// What a command learned of the row that it superseded, while it held its page.
#[derive(Default)]
pub enum Superseded {
    /// All its values were in the row.
    #[default]
    Whole,
    /// It has stored values; this is its payload.
    WithPointers(Vec<u8>),
    /// It lies on another page than its successor, and was not seen.
    Unseen,
}

impl Superseded {
    /// Notes the payload that is superseded.
    #[inline]
    pub fn note(&mut self, payload: Option<&[u8]>) {
        *self = match payload {
            Some(payload) if has_pointers(payload) => Superseded::WithPointers(payload.to_vec()),
            Some(_) => Superseded::Whole,
            None => Superseded::Unseen,
        };
    }

    /// Deletes the stored values that the superseded row, which was this
    /// version, does not share with the payload in its place (none for a row
    /// that was deleted).
    ///
    /// # Safety
    /// `relation` is open and `table`'s, and the version is superseded by this
    /// command.
    #[inline]
    pub unsafe fn delete_values<A: TableAm>(
        self,
        table: &A,
        relation: pg_sys::Relation,
        id: VersionId<'_>,
        new: &[u8],
    ) {
        if !matches!(self, Superseded::Whole) {
            // SAFETY: the caller's promise.
            unsafe { self.delete_stored(table, relation, id, new) }
        }
    }

    #[cold]
    unsafe fn delete_stored<A: TableAm>(
        self,
        table: &A,
        relation: pg_sys::Relation,
        id: VersionId<'_>,
        new: &[u8],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let layout: &TableLayout = table.layout();
            match self {
                Superseded::Whole => {}
                Superseded::WithPointers(old) => {
                    delete_unshared(relation, layout, &old, new).or_raise(relation);
                }
                Superseded::Unseen => {
                    // Nobody prunes what a running transaction supersedes.
                    let mut batch = Batch::default();
                    if table
                        .version(id, BlockNumber::NONE, &mut batch)
                        .or_raise(relation)
                    {
                        let old = batch.row(0).payload;
                        delete_unshared(relation, layout, old, new).or_raise(relation);
                    }
                }
            }
        }
    }
}

/// The payload of a row that CLUSTER or VACUUM FULL writes anew into `new`, if
/// it is not what it was: long values go to the TOAST table of `new`, as heap
/// has it.
///
/// # Safety
/// Both relations are open, `layout` is that of both, key and payload are a
/// row of it.
pub unsafe fn carry_over(
    new: pg_sys::Relation,
    layout: &TableLayout,
    key: &[u8],
    payload: &[u8],
) -> Option<Vec<u8>> {
    if !has_pointers(payload) && !is_long(key.len(), payload.len()) {
        return None;
    }
    // SAFETY: the caller's promise; values point into memory that lives as long
    // as they are used.
    let carry = || unsafe {
        let mut carried = Vec::new();
        let row = pg::row::Values::read(layout, key, payload).or_raise(new);
        let long = LongRow {
            values: row.values(),
            isnull: row.isnull(),
            key_bytes: key.len(),
            old: &[],
            is_frozen: false,
        };
        let Ok(()) = shorten(new, layout, long, &mut carried, || Ok::<_, Infallible>(()));
        carried
    };
    // SAFETY: the row's bytes are in no context.
    Some(unsafe { in_temporary_context(carry) })
}

/// The stored values that a row of layout `from` does without in layout `to`:
/// those of columns that are in the key, and those that were dropped.
///
/// # Safety
/// `relation` is open; payload is a row of `from`, and both layouts its.
pub unsafe fn pointers_not_kept<'l>(
    relation: pg_sys::Relation,
    from: &TableLayout,
    to: &'l TableLayout,
    payload: &[u8],
) -> impl Iterator<Item = Pointer> + 'l {
    // SAFETY: the relation is open.
    let pointers = unsafe { from.pointers(payload).or_raise(relation) };
    pointers.into_iter().filter(|pointer| {
        let attribute = to.attributes().get(pointer.column);
        attribute.is_none_or(|attribute| attribute.in_key || attribute.dropped)
    })
}

/// Deletes the stored values that a row of layout `from`, which goes into a
/// new file, does without in layout `to`.
///
/// # Safety
/// As for [`pointers_not_kept`]; the row lives.
pub unsafe fn delete_not_kept(
    relation: pg_sys::Relation,
    from: &TableLayout,
    to: &TableLayout,
    payload: &[u8],
) {
    // SAFETY: the caller's promise; a pointer is a whole datum.
    unsafe {
        for pointer in pointers_not_kept(relation, from, to, payload) {
            delete_value(relation, pointer.bytes.as_ptr().into());
        }
    }
}
