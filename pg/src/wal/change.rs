//! Row changes as logical decoding wants them: whole rows, which the physical
//! records are not. See "Logical decoding" in `README.md`.
//!
//! Written by the table AM right behind the physical change, only with
//! `wal_level = logical`; read back by `super::decode`.

use std::rc::Rc;

use engine::record::RecordKind;
use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};

use super::MANAGER_ID;
use crate::ffi;
use crate::memory::in_temporary_context;
use crate::row::TableLayout;
use crate::slot;
use crate::version::server;

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Action {
    Insert = 0,
    Update = 1,
    Delete = 2,
}

impl Action {
    fn from_number(number: u8) -> Option<Action> {
        [Action::Insert, Action::Update, Action::Delete]
            .get(usize::from(number))
            .copied()
    }
}

/// A row change as its record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowChange<'r> {
    /// Tablespace, database and file number of the table.
    pub file: [u32; 3],
    pub action: Action,
    /// The values out of line that came before are those of rows that follow,
    /// too: of a batch, all rows' values are stored before the first row is.
    pub keeps_values: bool,
    /// The old row, or of it what identifies it; tuple bytes.
    pub old: Option<&'r [u8]>,
    /// The new row; tuple bytes.
    pub new: Option<&'r [u8]>,
}

/// `[tablespace][database][file] u32, [action] u8, [old bytes] u32`, then the
/// old tuple and the new one; no bytes stand for none. The action's highest bit
/// is `keeps_values`.
const HEADER_BYTES: usize = 3 * 4 + 1 + 4;
const KEEPS_VALUES: u8 = 0x80;

impl<'r> RowChange<'r> {
    pub fn encode(&self) -> Vec<u8> {
        let (old, new) = (self.old.unwrap_or_default(), self.new.unwrap_or_default());
        let mut bytes = Vec::with_capacity(HEADER_BYTES + old.len() + new.len());
        for number in self.file {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let flag = if self.keeps_values { KEEPS_VALUES } else { 0 };
        bytes.push(self.action as u8 | flag);
        bytes.extend_from_slice(&(old.len() as u32).to_le_bytes());
        bytes.extend_from_slice(old);
        bytes.extend_from_slice(new);
        bytes
    }

    pub fn decode(bytes: &'r [u8]) -> Option<RowChange<'r>> {
        let (header, tuples) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let word = |at: usize| {
            let bytes = header[at..at + 4].first_chunk().expect("four bytes");
            u32::from_le_bytes(*bytes)
        };
        let (old, new) = tuples.split_at_checked(word(13) as usize)?;
        let some = |tuple: &'r [u8]| (!tuple.is_empty()).then_some(tuple);
        Some(RowChange {
            file: [word(0), word(4), word(8)],
            action: Action::from_number(header[12] & !KEEPS_VALUES)?,
            keeps_values: header[12] & KEEPS_VALUES != 0,
            old: some(old),
            new: some(new),
        })
    }
}

/// Whether logical decoding is to be told of changes of a table.
///
/// # Safety
/// `table` is open.
#[inline]
pub unsafe fn is_wanted(table: pg_sys::Relation) -> bool {
    // SAFETY: a setting, and the caller's promise.
    unsafe {
        pg_sys::wal_level >= pg_sys::WalLevel::WAL_LEVEL_LOGICAL as i32
            && ffi::rowref_needs_wal(table, pg_sys::ForkNumber::MAIN_FORKNUM)
    }
}

/// A stored row: its layout, key and payload.
#[derive(Clone, Copy)]
pub struct Stored<'s> {
    /// How it is laid out.
    pub layout: &'s Rc<TableLayout>,
    /// Its key.
    pub key: &'s [u8],
    /// Its payload.
    pub payload: &'s [u8],
}

/// Tells of an insertion. `keeps_values` says that values out of line which were
/// stored before belong to rows told of next.
///
/// # Safety
/// `table` is open, [`is_wanted`], and the row was stored in it by this
/// transaction.
pub unsafe fn inserted(table: pg_sys::Relation, new: Stored<'_>, keeps_values: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        in_temporary_context(|| {
            let new = form(table, new);
            log(table, Action::Insert, keeps_values, None, Some(new));
        });
    }
}

/// Tells of a deletion.
///
/// # Safety
/// As [`inserted`]; the row was deleted by this transaction.
pub unsafe fn deleted(table: pg_sys::Relation, old: Stored<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        in_temporary_context(|| {
            let old = identity(table, form(table, old), None);
            log(table, Action::Delete, false, old, None);
        });
    }
}

/// Tells of an update.
///
/// # Safety
/// As [`inserted`]; the old row was superseded by the new one.
pub unsafe fn updated(table: pg_sys::Relation, old: Stored<'_>, new: Stored<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        in_temporary_context(|| {
            let new = form(table, new);
            let old = identity(table, form(table, old), Some(new));
            log(table, Action::Update, false, old, Some(new));
        });
    }
}

/// The stored row as a tuple of the server's. It holds what is stored, so that
/// a value out of line is one of this table's own.
unsafe fn form(table: pg_sys::Relation, row: Stored<'_>) -> pg_sys::HeapTuple {
    // SAFETY: the slot lives in the caller's temporary context.
    unsafe {
        let slot = pg_sys::MakeSingleTupleTableSlot((*table).rd_att, &raw const slot::OPS);
        slot::store_borrowed(
            slot,
            row.layout,
            row.key,
            row.payload,
            slot::NO_HEAD,
            slot::INVALID_TID,
        );
        let mut copied = false;
        let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, &mut copied);
        // It would hold on to the descriptor beyond the context's end.
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        tuple
    }
}

/// What is logged of an old row, by the table's REPLICA IDENTITY: all of it,
/// nothing, or the identity's columns alone and, of an update, only where one
/// of them changes.
unsafe fn identity(
    table: pg_sys::Relation,
    old: pg_sys::HeapTuple,
    new: Option<pg_sys::HeapTuple>,
) -> Option<pg_sys::HeapTuple> {
    // SAFETY: the relation is open, and the tuples are of its type.
    unsafe {
        let descriptor = (*table).rd_att;
        let whole = match (*(*table).rd_rel).relreplident as u8 {
            pg_sys::REPLICA_IDENTITY_NOTHING => return None,
            pg_sys::REPLICA_IDENTITY_FULL => true,
            _ => false,
        };
        if whole {
            return Some(flat(old, descriptor));
        }
        let columns = pg_sys::RelationGetIndexAttrBitmap(
            table,
            pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_IDENTITY_KEY,
        );
        if columns.is_null() {
            return None;
        }
        let (mut values, mut nulls) = deform(old, descriptor);
        let fresh = new.map(|new| deform(new, descriptor));
        let mut changed = fresh.is_none();
        let attributes = (*descriptor).attrs.as_slice(values.len());
        for (nth, attribute) in attributes.iter().enumerate() {
            let member = nth as i32 + 1 - pg_sys::FirstLowInvalidHeapAttributeNumber;
            if !pg_sys::bms_is_member(member, columns) {
                nulls[nth] = true;
                continue;
            }
            let Some((new_values, new_nulls)) = &fresh else {
                continue;
            };
            changed |= nulls[nth] != new_nulls[nth]
                || !nulls[nth] && !same(values[nth], new_values[nth], attribute);
        }
        if !changed {
            return None;
        }
        let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        Some(flat(tuple, descriptor))
    }
}

/// Whether two values that are not null have the same bytes, detoasted.
unsafe fn same(
    left: pg_sys::Datum,
    right: pg_sys::Datum,
    attribute: &pg_sys::FormData_pg_attribute,
) -> bool {
    unsafe extern "C-unwind" {
        fn datum_image_eq(
            left: pg_sys::Datum,
            right: pg_sys::Datum,
            by_value: bool,
            length: std::ffi::c_int,
        ) -> bool;
    }
    // SAFETY: both are values of the attribute's type.
    unsafe { guarded(|| datum_image_eq(left, right, attribute.attbyval, attribute.attlen.into())) }
}

unsafe fn deform(
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
) -> (Vec<pg_sys::Datum>, Vec<bool>) {
    // SAFETY: a descriptor has natts columns; the vectors have room for them.
    unsafe {
        let natts = usize::try_from((*descriptor).natts).unwrap_or(0);
        let mut values = vec![pg_sys::Datum::null(); natts];
        let mut nulls = vec![true; natts];
        pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        (values, nulls)
    }
}

/// A copy without values out of line: whoever reads the old row in the log has
/// nowhere to fetch them from.
unsafe fn flat(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> pg_sys::HeapTuple {
    unsafe extern "C-unwind" {
        fn toast_flatten_tuple(
            tuple: pg_sys::HeapTuple,
            descriptor: pg_sys::TupleDesc,
        ) -> pg_sys::HeapTuple;
    }
    // SAFETY: a tuple of this type.
    unsafe {
        if (*(*tuple).t_data).t_infomask & pg_sys::HEAP_HASEXTERNAL as u16 == 0 {
            return tuple;
        }
        guarded(|| toast_flatten_tuple(tuple, descriptor))
    }
}

unsafe fn log(
    table: pg_sys::Relation,
    action: Action,
    keeps_values: bool,
    old: Option<pg_sys::HeapTuple>,
    new: Option<pg_sys::HeapTuple>,
) {
    // SAFETY: the relation is open, the tuples whole; XLogInsert copies.
    unsafe {
        let bytes = |tuple: pg_sys::HeapTuple| {
            std::slice::from_raw_parts((*tuple).t_data.cast::<u8>(), (*tuple).t_len as usize)
        };
        let change = RowChange {
            file: server::file_numbers(&server::file_of(table)),
            action,
            keeps_values,
            old: old.map(bytes),
            new: new.map(bytes),
        }
        .encode();
        guarded(|| {
            ffi::rowref_log_change(
                MANAGER_ID,
                (RecordKind::RowChange as u8) << 4,
                change.as_ptr(),
                change.len() as u32,
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_change_reads_back_as_written_and_cut_short_not_at_all() {
        for (action, old, new) in [
            (Action::Insert, None, Some(&b"new"[..])),
            (Action::Update, Some(&b"old row"[..]), Some(&b"new"[..])),
            (Action::Update, None, Some(&b"new"[..])),
            (Action::Delete, Some(&b"old"[..]), None),
            (Action::Delete, None, None),
        ] {
            let change = RowChange {
                file: [1663, 5, 70_000],
                action,
                keeps_values: action == Action::Insert,
                old,
                new,
            };
            let bytes = change.encode();
            assert_eq!(RowChange::decode(&bytes), Some(change));
            let cut = HEADER_BYTES + old.map_or(0, <[u8]>::len);
            assert_eq!(RowChange::decode(&bytes[..cut - 1]), None);
        }
    }

    #[test]
    fn an_unknown_action_is_refused() {
        let mut bytes = RowChange {
            file: [1, 2, 3],
            action: Action::Delete,
            keeps_values: true,
            old: None,
            new: None,
        }
        .encode();
        bytes[12] |= 3;
        assert_eq!(RowChange::decode(&bytes), None);
    }
}
