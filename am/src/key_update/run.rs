//! Finding the row and writing its successor.

use crate::decoding;
use crate::indexes;
use crate::insert::{row_room, writer};
use crate::open::open;
use crate::row_handle;
use crate::table_am::TableAm;
use engine::BlockNumber;
use engine::mvcc::batch::Batch;
use engine::mvcc::write::{Outcome, Successor};
use engine::mvcc::{Snapshot, VersionId};
use engine::page::cell::EntryKind;
use pg::error::OrRaise;
use pg::key_update::Found;
use pg::row::has_pointers;
use pg::slot;
use pg::xact::ServerSnapshot;
use pgrx::{pg_guard, pg_sys};
use std::ffi::c_int;

/// The `find` step.
#[pg_guard]
pub unsafe extern "C-unwind" fn find<A: TableAm>(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    key: *const pg_sys::Datum,
    columns: c_int,
    row: *mut pg_sys::TupleTableSlot,
    near: *mut pg_sys::BlockNumber,
) -> Found {
    // SAFETY: the executor's table is open, its snapshot alive, the slot one of
    // the table's, and there are as many values as are said.
    unsafe {
        let table = open::<A>(relation);
        let values = std::slice::from_raw_parts(key, columns as usize);
        let layout = table.layout();
        let order = layout.order();
        if layout.is_row_id() || order.columns().len() != values.len() {
            return Found::Else;
        }
        let (mut key, _) = row_room();
        let mut scratch = Vec::new();
        for (column, value) in values.iter().enumerate() {
            // One that no key can hold is not here, which the scan finds, too.
            let encoded = order.encode_column(column, *value, false, &mut scratch, &mut key);
            if encoded.is_err() {
                return Found::Else;
            }
        }
        let snapshot = ServerSnapshot::from_pg(snapshot, relation);
        if snapshot.is_tracked() || !matches!(snapshot, ServerSnapshot::Mvcc(_)) {
            return Found::Else;
        }
        let mut batch = Batch::default();
        let found = table.get_near(&key, BlockNumber::NONE, &snapshot, &mut batch);
        if !found.or_raise(relation) {
            return Found::Nothing;
        }
        let found = batch.row(0);
        if has_pointers(found.payload) {
            return Found::Else;
        }
        let handle = row_handle::nobody();
        slot::store(row, layout, found.key, found.payload, found.head, handle);
        *near = batch.block;
        Found::Row
    }
}

/// The `write` step: one attempt, as `modify` makes it first. Whoever is at the
/// row, or whatever has become of it, is ModifyTable's to look at.
#[pg_guard]
pub unsafe extern "C-unwind" fn write<A: TableAm>(
    relation: pg_sys::Relation,
    command: pg_sys::CommandId,
    old: *mut pg_sys::TupleTableSlot,
    near: pg_sys::BlockNumber,
    new: *mut pg_sys::TupleTableSlot,
    changed: *mut pg_sys::List,
) -> bool {
    // SAFETY: the executor's table is open; `find` has filled the old row's
    // slot, and the new one holds values of the table's columns.
    unsafe {
        let Some(old) = slot::row(old) else {
            return false;
        };
        // The trigger of a foreign key that the row's insertion has queued looks at
        // nothing that was updated since: it is queued anew.
        let xmin = old.head.xmin.0;
        if !(*relation).trigdesc.is_null()
            && pg_sys::TransactionIdIsCurrentTransactionId(xmin.into())
        {
            return false;
        }
        if !indexes::indexes_of(relation).ignore(changed) {
            return false;
        }
        let table = open::<A>(relation);
        let (_, mut payload) = row_room();
        let (values, isnull) = slot::columns(new);
        let layout = table.layout();
        let has_pointers = layout.encode_payload_with_pointers(values, isnull, &mut payload);
        if has_pointers || pg::toast::is_long(old.key.len(), payload.len()) {
            return false;
        }
        let id = VersionId {
            key: old.key,
            sequence: old.head.sequence,
            xmin: old.head.xmin,
        };
        let near = BlockNumber(near);
        let successor = Successor {
            kind: EntryKind::Put,
            keys_updated: false,
            body: &payload,
        };
        let writer = writer(command);
        let done = table.supersede(writer, id, near, successor, None, &mut |_| {});
        if !matches!(done.or_raise(relation), Outcome::Done(_)) {
            return false;
        }
        decoding::updated(&table, relation, (id, near), old.key, &payload);
        true
    }
}
