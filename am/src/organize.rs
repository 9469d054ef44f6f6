//! Organizing a table anew: by a primary key that was added, or by hidden row
//! ids once it was dropped. What ALTER TABLE rewrites comes here too, when core
//! rebuilds the primary key on rows that were put in without it.
//!
//! The rows are read out, the table gets new storage (so that a rollback brings
//! the old back), and they are put in again, in sorted batches. They are then
//! rows of this transaction: as with any rewrite, a snapshot older than it sees
//! none of them.

use crate::create::replace;
use crate::indexes;
use crate::insert::{InsertBatch, writer};
use crate::open::open;
use crate::table_am::TableAm;
use crate::toast;
use crate::unique;
use engine::mvcc::cursor::Cursor;
use engine::mvcc::scan::{Direction, Range};
use engine::mvcc::write::Written;
use pg::error::{OrRaise, unsupported};
use pg::row::Organization;
use pg::slot;
use pg::store::lose_pages;
use pg::xact::{SelfSnapshot, ServerSnapshot};
use pgrx::{pg_sys, pg_sys::ffi::pg_guard_ffi_boundary as guarded};

/// Bytes of rows that are sorted and put in together.
const BATCH_BYTES: usize = 16 << 20;

/// Organizes a table by its primary key, for `ambuild` of the index that
/// stands for it. Returns the number of rows.
///
/// # Safety
/// Both relations are open and locked as index builds demand.
pub unsafe fn by_primary_key<A: TableAm>(table: pg_sys::Relation, index: pg_sys::Relation) -> f64 {
    // SAFETY: the caller's promise.
    unsafe {
        let wanted = Organization::of_index(table, index).to_bytes();
        if open::<A>(table).layout().organization().to_bytes() == wanted {
            // TRUNCATE, REINDEX: the rows are in their order already.
            return f64::from((*(*table).rd_rel).reltuples.max(0.0));
        }
        anew::<A>(table, &wanted, Some(index))
    }
}

/// Organizes a table whose primary key is gone by hidden row ids.
///
/// # Safety
/// `table` is open and locked exclusively.
pub unsafe fn by_row_id<A: TableAm>(table: pg_sys::Relation) {
    // SAFETY: the caller's promise.
    unsafe {
        if !open::<A>(table).layout().is_row_id() {
            anew::<A>(table, &Organization::RowId.to_bytes(), None);
        }
    }
}

/// Reads all rows out, makes new storage and puts them in again.
unsafe fn anew<A: TableAm>(
    table: pg_sys::Relation,
    wanted: &[u8],
    index: Option<pg_sys::Relation>,
) -> f64 {
    // SAFETY: the caller's promise; the rows in the tuple store are copies.
    unsafe {
        let own = pg_sys::GetCurrentSubTransactionId();
        let is_new = (*table).rd_createSubid == own || (*table).rd_newRelfilenodeSubid == own;
        // Others must neither write to the old storage nor read a new one that
        // may vanish. Storage of this very subtransaction nobody else can see.
        if !is_new && !is_locked_exclusively(table) {
            unsupported(
                "organizing a table that others may be using",
                "Add the primary key with ALTER TABLE, which locks the table.",
            );
        }
        lose_pages(table);
        pg::version::server::await_class_row((*table).rd_id);
        let spool = read_out::<A>(table);
        // Always new storage, even where the old one is new itself: only so
        // does an unlogged table's init fork know the key as well.
        replace(table, wanted.to_vec());
        let rows = put_in::<A>(table, spool, index);
        pg_sys::tuplestore_end(spool);
        indexes::rebuild(table, index.map(|index| (*index).rd_id));
        rows
    }
}

unsafe fn is_locked_exclusively(table: pg_sys::Relation) -> bool {
    // SAFETY: an open relation.
    unsafe {
        pg_sys::CheckRelationLockedByMe(
            table,
            pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE,
            true,
        )
    }
}

/// Copies every live row to a tuple store, which spills to disk by itself.
unsafe fn read_out<A: TableAm>(table: pg_sys::Relation) -> *mut pg_sys::Tuplestorestate {
    // SAFETY: the relation is open; the slot is dropped at the end, or with
    // its memory context by an ERROR.
    unsafe {
        let spool = pg_sys::tuplestore_begin_heap(false, false, pg_sys::maintenance_work_mem);
        let opened = open::<A>(table);
        let snapshot = ServerSnapshot::Own(SelfSnapshot::new(table));
        let mut cursor = Cursor::new(Range::default());
        let row_slot = pg_sys::MakeSingleTupleTableSlot((*table).rd_att, &raw const slot::OPS);
        while opened
            .step(&mut cursor, &snapshot, Direction::Forward)
            .or_raise(table)
        {
            pgrx::check_for_interrupts!();
            let row = cursor.row().expect("the cursor stands on a row");
            slot::store_borrowed(
                row_slot,
                opened.layout(),
                row.key,
                row.payload,
                row.head,
                slot::INVALID_TID,
            );
            pg_sys::tuplestore_puttupleslot(spool, row_slot);
        }
        pg_sys::ExecDropSingleTupleTableSlot(row_slot);
        spool
    }
}

/// Puts the rows of a tuple store into a table that is empty; how many.
unsafe fn put_in<A: TableAm>(
    table: pg_sys::Relation,
    spool: *mut pg_sys::Tuplestorestate,
    index: Option<pg_sys::Relation>,
) -> f64 {
    // SAFETY: the relation is open; the slot is dropped at the end, or with
    // its memory context by an ERROR.
    unsafe {
        let opened = open::<A>(table);
        let writer = writer(pg_sys::GetCurrentCommandId(true));
        let row_slot = pg_sys::MakeSingleTupleTableSlot(
            (*table).rd_att,
            &raw const pg_sys::TTSOpsMinimalTuple,
        );
        // Values that have to be read in from elsewhere are left behind by the
        // encoder; they go with each batch.
        let work = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"rowref organize".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = work;
        // The TOAST table stays as it is, and so do the rows' pointers.
        let mut batch = InsertBatch::keeping_pointers();
        let mut rows = 0.0;
        loop {
            let more = guarded(|| pg_sys::tuplestore_gettupleslot(spool, true, false, row_slot));
            if more {
                pgrx::check_for_interrupts!();
                rows += 1.0;
                if let Some(index) = index {
                    unique::demand_no_nulls(table, index, row_slot);
                }
                batch.add(&opened, table, row_slot);
                toast::delete_not_kept(table, opened.layout(), row_slot);
            }
            if !more || batch.bytes() >= BATCH_BYTES {
                let inserted = batch.insert(&opened, table, writer, |_, key, payload| {
                    put_one(&opened, table, writer, key, payload, index)
                });
                drop(inserted);
                batch.clear();
                slot::clear_any(row_slot);
                pg_sys::MemoryContextReset(work);
            }
            if !more {
                break;
            }
        }
        pg_sys::CurrentMemoryContext = before;
        pg_sys::MemoryContextDelete(work);
        pg_sys::ExecDropSingleTupleTableSlot(row_slot);
        rows
    }
}

/// Puts one row in whose key may be there already.
unsafe fn put_one<A: TableAm>(
    opened: &A,
    table: pg_sys::Relation,
    writer: engine::mvcc::Writer,
    key: &[u8],
    payload: &[u8],
    index: Option<pg_sys::Relation>,
) -> Written {
    use engine::mvcc::write::Insertion;
    // SAFETY: both relations are open.
    unsafe {
        match opened.insert(writer, key, payload).or_raise(table) {
            Insertion::Done(written) => written,
            Insertion::Exists(_) | Insertion::Busy { .. } => {
                unique::duplicated(table, index, opened.layout(), key, payload)
            }
        }
    }
}
