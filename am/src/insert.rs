//! Inserting rows, one by one and in batches.

use crate::decoding;
use crate::open::open;
use crate::row_id;
use crate::table_am::TableAm;
use crate::toast;
use crate::unique;
use engine::mvcc::Writer;
use engine::mvcc::write::{Insertion, Written};
use engine::page::cell::{EntryKind, Head, bit};
use engine::{CommandId, Xid};
use pg::error::OrRaise;
use pg::slot;
use pg::xact::wait_for_inserter;
use pgrx::{pg_guard, pg_sys};

/// Encodes the new row in a slot, whose version gets the flags, and stores what
/// is too long for it. A row
/// without a primary key gets a hidden id that nobody else has. Whoever does
/// not insert the row after all has to take back what was stored
/// ([`pg::toast::take_back`]).
///
/// # Safety
/// `slot` holds a row of `relation`'s type.
pub unsafe fn encode<A: TableAm>(
    table: &A,
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    flags: u8,
    key: &mut Vec<u8>,
    payload: &mut Vec<u8>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if encode_as_is(table, relation, slot, key, payload) {
            toast::shorten_new(table, relation, slot, flags, key.len(), payload);
        }
    }
}

/// As [`encode`], but stores nothing. Whether the row cannot stay so: it is
/// long, or has pointers to values that may be another table's.
///
/// # Safety
/// As for [`encode`].
pub unsafe fn encode_as_is<A: TableAm>(
    table: &A,
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    key: &mut Vec<u8>,
    payload: &mut Vec<u8>,
) -> bool {
    // SAFETY: all columns are valid once slot_getallattrs has run.
    unsafe {
        let layout = table.layout();
        let (values, isnull) = slot::columns(slot);
        if layout.is_row_id() {
            key.extend_from_slice(&row_id::next(table, relation));
        } else {
            layout.encode_key(values, isnull, key).or_raise(relation);
        }
        let has_pointers = layout.encode_payload_with_pointers(values, isnull, payload);
        has_pointers || pg::toast::is_long(key.len(), payload.len())
    }
}

/// Room for the key and the payload of most rows, so that it need not grow
/// while they are put together.
pub fn row_room() -> (Vec<u8>, Vec<u8>) {
    (Vec::with_capacity(64), Vec::with_capacity(256))
}

/// The writer that this command is. Assigns the transaction an id: one without
/// would not flush its WAL at commit.
pub fn writer(cid: pg_sys::CommandId) -> Writer {
    // SAFETY: no precondition within a transaction.
    let xid = unsafe {
        match pg::unguarded::server::GetCurrentTransactionIdIfAny() {
            pg_sys::InvalidTransactionId => pg_sys::GetCurrentTransactionId(),
            xid => xid,
        }
    };
    Writer {
        xid: Xid(xid.into_inner()),
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
    (writer, flags): (Writer, u8),
    key: &[u8],
    payload: &[u8],
) -> Written {
    // SAFETY: the relation is open; the slot holds the row whose key exists.
    unsafe {
        match patiently(relation, || table.insert(writer, key, payload, flags)) {
            Some(written) => written,
            None => unique::violation(relation, slot),
        }
    }
}

/// Tries an insertion, waits for whoever is at its key, and tries again;
/// `None` if the key is taken.
///
/// # Safety
/// `relation` is open.
pub(crate) unsafe fn patiently(
    relation: pg_sys::Relation,
    once: impl Fn() -> engine::Result<Insertion>,
) -> Option<Written> {
    let mut looked_again = false;
    loop {
        // SAFETY: the relation is open.
        match unsafe { once().or_raise(relation) } {
            Insertion::Done(written) => return Some(written),
            Insertion::Exists(_) => return None,
            // SAFETY: no latch is held here (rule 10).
            Insertion::Busy { xid, speculative } => unsafe {
                let nobody = pg::slot::INVALID_TID;
                wait_for_inserter(relation, xid, speculative, &mut looked_again, nobody);
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
    options: i32,
    _bistate: *mut pg_sys::BulkInsertStateData,
) {
    // SAFETY: the server's arguments are live.
    unsafe {
        let table = open::<A>(relation);
        let writer = (writer(cid), flags_of(options));
        let (mut key, mut payload) = row_room();
        encode(&table, relation, slot, writer.1, &mut key, &mut payload);
        let written = insert_row(&table, relation, slot, writer, &key, &payload);
        decoding::inserted(&table, relation, &key, &payload, false);
        name_row(relation, slot, writer, &key, written);
        count_inserts(relation, 1);
    }
}

/// What the options of an insertion make of the row's version. FREEZE: everybody
/// sees it at once, in a table that nobody else can see before we commit.
fn flags_of(options: i32) -> u8 {
    if options & pg_sys::TABLE_INSERT_FROZEN as i32 != 0 {
        bit::FROZEN | bit::COMMITTED
    } else {
        0
    }
}

/// Names the new row in its slot, for triggers and RETURNING.
///
/// # Safety
/// `relation` is open, and `slot` holds the row.
pub(crate) unsafe fn name_row(
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    (writer, flags): (Writer, u8),
    key: &[u8],
    written: Written,
) {
    let head = Head {
        flags: EntryKind::Put as u8 | flags,
        xmin: writer.xid,
        cid: writer.cid,
        sequence: written.sequence,
    };
    // SAFETY: the server's arguments are live.
    unsafe {
        let lease = if (*(*relation).rd_rel).relhasindex {
            pg::handles::lease_new
        } else {
            pg::handles::lease_new_unindexed
        };
        let handle = lease((*relation).rd_id, key, head, written.block);
        slot::set_head(slot, head, handle);
        (*slot).tts_tableOid = (*relation).rd_id;
    }
}

/// # Safety
/// `relation` is open.
pub(crate) unsafe fn count_inserts(relation: pg_sys::Relation, rows: i64) {
    // SAFETY: an open relation.
    unsafe { pg_sys::pgstat_count_heap_insert(relation, rows) }
}

/// The `multi_insert` callback: the rows are sorted by key, and each leaf takes
/// as many of them in one record as belong there and fit. One whose key is taken
/// is not stored (`owed`).
#[pg_guard]
pub unsafe extern "C-unwind" fn multi_insert<A: TableAm>(
    relation: pg_sys::Relation,
    slots: *mut *mut pg_sys::TupleTableSlot,
    nslots: i32,
    cid: pg_sys::CommandId,
    options: i32,
    _bistate: *mut pg_sys::BulkInsertStateData,
) {
    // SAFETY: the server passes nslots live slots.
    unsafe {
        let table = open::<A>(relation);
        let writer = (writer(cid), flags_of(options));
        let slots = std::slice::from_raw_parts(slots, nslots as usize);
        let mut batch = InsertBatch::default();
        for slot in slots {
            batch.add(&table, relation, *slot, writer.1);
        }
        let written = batch.insert(&table, relation, writer);
        let mut count = 0;
        let mut written = written.peekable();
        while let Some((nth, (key, payload), place)) = written.next() {
            let Some(place) = place else {
                unique::leave_to_index(relation, slots[nth]);
                continue;
            };
            // One that is not stored raises an error in the end.
            let more = written.peek().is_some();
            decoding::inserted(&table, relation, key, payload, more);
            name_row(relation, slots[nth], writer, key, place);
            count += 1;
        }
        count_inserts(relation, count);
    }
}

/// Rows encoded and waiting to be inserted together, in the order of their
/// keys: each leaf takes as many of them in one record as belong there and fit.
#[derive(Default)]
struct InsertBatch {
    bytes: Vec<u8>,
    rows: Vec<Encoded>,
    key: Vec<u8>,
    payload: Vec<u8>,
}

/// A row in a batch's bytes, key before payload.
#[derive(Clone, Copy)]
struct Encoded {
    start: usize,
    middle: usize,
    end: usize,
    nth: usize,
}

impl InsertBatch {
    /// Adds the row in a slot.
    ///
    /// # Safety
    /// `slot` holds a row of `relation`'s type.
    unsafe fn add<A: TableAm>(
        &mut self,
        table: &A,
        relation: pg_sys::Relation,
        slot: *mut pg_sys::TupleTableSlot,
        flags: u8,
    ) {
        self.key.clear();
        self.payload.clear();
        // SAFETY: the caller's promise.
        unsafe {
            let (key, payload) = (&mut self.key, &mut self.payload);
            encode(table, relation, slot, flags, key, payload);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&self.key);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(&self.payload);
        self.rows.push(Encoded {
            start,
            middle,
            end: self.bytes.len(),
            nth: self.rows.len(),
        });
    }

    /// Inserts the rows, waiting for whoever is at a key. Returns number in the
    /// order of [`InsertBatch::add`], key with payload, and place of each, which
    /// is nowhere if the key is taken.
    ///
    /// # Safety
    /// `relation` is open.
    unsafe fn insert<A: TableAm>(
        &mut self,
        table: &A,
        relation: pg_sys::Relation,
        (writer, flags): (Writer, u8),
    ) -> impl Iterator<Item = (usize, (&[u8], &[u8]), Option<Written>)> {
        let bytes = &self.bytes;
        let order = table.layout();
        let by_key = |a: &Encoded, b: &Encoded| {
            engine::compare::Compare::compare(
                &**order,
                &bytes[a.start..a.middle],
                &bytes[b.start..b.middle],
            )
        };
        if !self.rows.is_sorted_by(|a, b| by_key(a, b).is_le()) {
            self.rows.sort_by(by_key);
        }
        let rows: Vec<(&[u8], &[u8])> = self
            .rows
            .iter()
            .map(|at| (&bytes[at.start..at.middle], &bytes[at.middle..at.end]))
            .collect();
        let mut written: Vec<Option<Written>> = Vec::with_capacity(rows.len());
        let mut run = Vec::with_capacity(rows.len());
        while written.len() < rows.len() {
            let rest = &rows[written.len()..];
            // SAFETY: the relation is open.
            unsafe {
                let taken = table.insert_run(writer, flags, rest, &mut run);
                if taken.or_raise(relation) > 0 {
                    written.extend(run.drain(..).map(Some));
                } else {
                    let (key, payload) = rest[0];
                    let once = || table.insert(writer, key, payload, flags);
                    written.push(patiently(relation, once));
                }
            }
        }
        self.rows.iter().zip(written).map(|(at, place)| {
            let row = (
                &self.bytes[at.start..at.middle],
                &self.bytes[at.middle..at.end],
            );
            (at.nth, row, place)
        })
    }
}
