//! The errors of a key that exists already.

use crate::owed;
use engine::page::cell::{EntryKind, Head};
use engine::{CommandId, Sequence, Xid};
use pg::row::TableLayout;
use pg::slot;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::CStr;
use std::rc::Rc;

/// Raises the violation of the primary key by the row in `slot`.
///
/// # Safety
/// `relation` is open and `slot` holds a row of its type.
pub unsafe fn violation(relation: pg_sys::Relation, slot: *mut pg_sys::TupleTableSlot) -> ! {
    // SAFETY: the caller's promise; what is opened here stays so until the
    // transaction ends, which the error sees to.
    unsafe {
        let primary_key = pg_sys::RelationGetPrimaryKeyIndex(relation);
        if primary_key == pg_sys::Oid::INVALID {
            // An event trigger of the command that drops the key: the table is
            // organized anew when that command ends.
            pg::error::raise_with(
                PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
                "duplicate key value violates the primary key that is being dropped".into(),
                None,
                Some("Insert the row when the command that drops the key has ended."),
            )
        }
        let index = pg_sys::index_open(primary_key, pg_sys::AccessShareLock as i32);
        let described = describe(index, slot);
        pg::error::duplicate_key(relation, index, described)
    }
}

/// Leaves the violation of the primary key by the row in `slot`, which is not
/// stored, to the key's `aminsert`.
///
/// # Safety
/// As for [`violation`].
pub unsafe fn leave_to_index(relation: pg_sys::Relation, slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the caller's promise.
    unsafe {
        let primary_key = pg_sys::RelationGetPrimaryKeyIndex(relation);
        if primary_key == pg_sys::Oid::INVALID {
            violation(relation, slot);
        }
        let index = pg_sys::index_open(primary_key, pg_sys::AccessShareLock as i32);
        let described = describe(index, slot);
        let words = (!described.is_null()).then(|| CStr::from_ptr(described));
        owed::note((*relation).rd_id, primary_key, words);
        pg_sys::index_close(index, pg_sys::NoLock as i32);
        (*slot).tts_tid = pg::conflict::TAKEN;
        (*slot).tts_tableOid = (*relation).rd_id;
    }
}

/// The index's columns of the row in a slot, in words; null where the user may
/// not see them.
unsafe fn describe(
    index: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
) -> *mut std::ffi::c_char {
    // SAFETY: an open index on the table of the slot's row.
    unsafe {
        let form = &*(*index).rd_index;
        let columns = form.indkey.values.as_slice(form.indnatts as usize);
        let (row_values, row_nulls) = slot::columns(slot);
        let mut values: Vec<_> = columns
            .iter()
            .map(|column| row_values[*column as usize - 1])
            .collect();
        let mut nulls: Vec<_> = columns
            .iter()
            .map(|column| row_nulls[*column as usize - 1])
            .collect();
        pg_sys::BuildIndexValueDescription(index, values.as_mut_ptr(), nulls.as_mut_ptr())
    }
}

/// Fails if a column of a primary key that is being made is null in this row.
///
/// # Safety
/// The relations are open, and `slot` holds a row of the table.
pub unsafe fn demand_no_nulls(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let form = &*(*index).rd_index;
        let columns = form.indkey.values.as_slice(form.indnkeyatts as usize);
        let (_, nulls) = slot::columns(slot);
        if let Some(&null) = columns.iter().find(|column| nulls[**column as usize - 1]) {
            pg::error::contains_nulls(table, null)
        }
    }
}

/// Raises the failure of a primary key to be made: two rows have this key.
///
/// # Safety
/// The relations are open, and key and payload are a row of the layout.
pub unsafe fn duplicated(
    table: pg_sys::Relation,
    index: Option<pg_sys::Relation>,
    layout: &Rc<TableLayout>,
    key: &[u8],
    payload: &[u8],
) -> ! {
    let index = index.expect("hidden row ids are never given out twice");
    // SAFETY: the caller's promise; the error's clean-up drops the slot.
    unsafe {
        let row_slot = pg_sys::MakeSingleTupleTableSlot((*table).rd_att, &raw const slot::OPS);
        let head = Head {
            flags: EntryKind::Put as u8,
            xmin: Xid::NONE,
            cid: CommandId(0),
            sequence: Sequence::FIRST,
        };
        slot::store(row_slot, layout, key, payload, head, slot::INVALID_TID);
        let described = describe(index, row_slot);
        let detail = (!described.is_null()).then(|| {
            format!(
                "Key {} is duplicated.",
                CStr::from_ptr(described).to_string_lossy()
            )
        });
        let name = CStr::from_ptr((*(*index).rd_rel).relname.data.as_ptr()).to_string_lossy();
        pg::error::raise_with(
            PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
            format!("could not create unique index \"{name}\""),
            detail,
            None,
        )
    }
}
