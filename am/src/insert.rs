//! Inserting rows, one by one and in batches.

use crate::isolation;
use crate::open::open;
use crate::row_id;
use crate::table_am::TableAm;
use crate::unique;
use crate::wait;
use engine::mvcc::Writer;
use engine::mvcc::write::{Insertion, Written};
use engine::page::cell::{EntryKind, Head};
use engine::{CommandId, Xid};
use pg::error::OrRaise;
use pg::slot;
use pgrx::{pg_guard, pg_sys};

/// Encodes the row in a slot. A row without a primary key gets a hidden id
/// that nobody else has.
///
/// # Safety
/// `slot` holds a row of `relation`'s type.
pub unsafe fn encode<A: TableAm>(
    table: &A,
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    key: &mut Vec<u8>,
    payload: &mut Vec<u8>,
) {
    // SAFETY: all columns are valid once slot_getallattrs has run.
    unsafe {
        let layout = table.layout();
        let (values, isnull) = slot::columns(slot);
        if layout.is_row_id() {
            key.extend_from_slice(&row_id::next(table, relation));
        } else {
            layout.encode_key(values, isnull, key).or_raise(relation);
        }
        layout.encode_payload(values, isnull, payload);
    }
}

/// The writer that this command is. Assigns the transaction an id: one without
/// would not flush its WAL at commit.
pub fn writer(cid: pg_sys::CommandId) -> Writer {
    Writer {
        // SAFETY: no precondition within a transaction.
        xid: Xid(unsafe { pg_sys::GetCurrentTransactionId() }.into_inner()),
        cid: CommandId(cid),
    }
}

/// Inserts a row under a key that must have none; waits for whoever is at it.
///
/// # Safety
/// `relation` is open.
pub unsafe fn insert_row<A: TableAm>(
    table: &A,
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    writer: Writer,
    key: &[u8],
    payload: &[u8],
) -> Written {
    loop {
        // SAFETY: the relation is open.
        match unsafe { table.insert(writer, key, payload).or_raise(relation) } {
            Insertion::Done(written) => return written,
            // SAFETY: the slot holds the row whose key exists.
            Insertion::Exists(_) => unsafe { unique::violation(relation, slot) },
            // SAFETY: no latch is held here (rule 10).
            Insertion::Busy { xid, .. } => unsafe {
                wait::for_inserter(relation, xid);
            },
        }
    }
}

/// The `tuple_insert` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn tuple_insert<A: TableAm>(
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    cid: pg_sys::CommandId,
    _options: i32,
    _bistate: *mut pg_sys::BulkInsertStateData,
) {
    isolation::refuse_serializable(relation);
    // SAFETY: the server's arguments are live.
    unsafe {
        let table = open::<A>(relation);
        let writer = writer(cid);
        let (mut key, mut payload) = (Vec::new(), Vec::new());
        encode(&table, relation, slot, &mut key, &mut payload);
        let written = insert_row(&table, relation, slot, writer, &key, &payload);
        finish(relation, slot, writer, &key, written);
        count_inserts(relation, 1);
    }
}

/// Names the new row in its slot, for triggers and RETURNING.
unsafe fn finish(
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    writer: Writer,
    key: &[u8],
    written: Written,
) {
    let head = Head {
        flags: EntryKind::Put as u8,
        xmin: writer.xid,
        cid: writer.cid,
        sequence: written.sequence,
    };
    // SAFETY: the server's arguments are live.
    unsafe {
        let handle = pg::handles::lease_new((*relation).rd_id, key, head, written.block);
        slot::set_head(slot, head, handle);
        (*slot).tts_tableOid = (*relation).rd_id;
    }
}

unsafe fn count_inserts(relation: pg_sys::Relation, rows: i64) {
    // SAFETY: an open relation.
    unsafe { pg_sys::pgstat_count_heap_insert(relation, rows) }
}

/// The `multi_insert` callback: the rows are sorted by key, and each leaf takes
/// as many of them in one record as belong there and fit.
#[pg_guard]
pub unsafe extern "C-unwind" fn multi_insert<A: TableAm>(
    relation: pg_sys::Relation,
    slots: *mut *mut pg_sys::TupleTableSlot,
    nslots: i32,
    cid: pg_sys::CommandId,
    _options: i32,
    _bistate: *mut pg_sys::BulkInsertStateData,
) {
    isolation::refuse_serializable(relation);
    // SAFETY: the server passes nslots live slots.
    unsafe {
        let table = open::<A>(relation);
        let writer = writer(cid);
        let slots = std::slice::from_raw_parts(slots, nslots as usize);
        let mut bytes = Vec::with_capacity(slots.len() * 64);
        let mut bounds = Vec::with_capacity(slots.len());
        let (mut key, mut payload) = (Vec::new(), Vec::new());
        for (nth, slot) in slots.iter().enumerate() {
            key.clear();
            payload.clear();
            encode(&table, relation, *slot, &mut key, &mut payload);
            let start = bytes.len();
            bytes.extend_from_slice(&key);
            let middle = bytes.len();
            bytes.extend_from_slice(&payload);
            bounds.push((start, middle, bytes.len(), nth));
        }
        let order = table.layout();
        let by_key = |a: &(usize, usize, usize, usize), b: &(usize, usize, usize, usize)| {
            engine::compare::Compare::compare(&**order, &bytes[a.0..a.1], &bytes[b.0..b.1])
        };
        if !bounds.is_sorted_by(|a, b| by_key(a, b).is_le()) {
            bounds.sort_by(by_key);
        }
        let rows: Vec<(&[u8], &[u8])> = bounds
            .iter()
            .map(|at| (&bytes[at.0..at.1], &bytes[at.1..at.2]))
            .collect();
        let mut written = Vec::with_capacity(rows.len());
        let mut done = 0;
        while done < rows.len() {
            let taken = table
                .insert_run(writer, &rows[done..], &mut written)
                .or_raise(relation);
            done += taken;
            if taken == 0 {
                let (key, payload) = rows[done];
                let slot = slots[bounds[done].3];
                written.push(insert_row(&table, relation, slot, writer, key, payload));
                done += 1;
            }
        }
        for (at, place) in bounds.iter().zip(&written) {
            finish(relation, slots[at.3], writer, &bytes[at.0..at.1], *place);
        }
        count_inserts(relation, slots.len() as i64);
    }
}

/// The `tuple_insert_speculative` callback. Only ON CONFLICT leads here, which
/// is refused before it runs.
#[pg_guard]
pub unsafe extern "C-unwind" fn insert_speculative(
    _relation: pg_sys::Relation,
    _slot: *mut pg_sys::TupleTableSlot,
    _cid: pg_sys::CommandId,
    _options: i32,
    _bistate: *mut pg_sys::BulkInsertStateData,
    _token: u32,
) {
    refuse_on_conflict();
}

/// The `tuple_complete_speculative` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn complete_speculative(
    _relation: pg_sys::Relation,
    _slot: *mut pg_sys::TupleTableSlot,
    _token: u32,
    _succeeded: bool,
) {
    refuse_on_conflict();
}

fn refuse_on_conflict() -> ! {
    pg::error::unsupported(
        "INSERT … ON CONFLICT on tables of pg_rowref",
        "Use MERGE, or catch the unique violation.",
    )
}
