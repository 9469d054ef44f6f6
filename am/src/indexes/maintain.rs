//! After a row was written: which entries end, and which have to be made.

use std::cell::RefCell;
use std::rc::Rc;

use engine::BlockNumber;
use engine::compare::Compare;
use engine::mvcc::batch::Batch;
use engine::mvcc::index::Before;
use engine::mvcc::{VersionId, Writer};
use engine::page::cell::Head;
use pg::error::{self, OrRaise};
use pg::evaluate::{Evaluator, IndexValues};
use pg::memory::in_temporary_context;
use pg::open::OpenIndex;
use pg::pending;
use pg::row::{IndexLayout, TableLayout, same_image};
use pg::slot;
use pgrx::pg_sys;

use super::facts::{IndexFacts, TableIndexes, indexes_of};
use crate::table_am::TableAm;

/// A row that a command has just superseded: who did it, and where it was.
#[derive(Clone, Copy)]
pub struct Replaced<'k> {
    /// Writer and command of the version that came after it.
    pub writer: Writer,
    /// The version.
    pub id: VersionId<'k>,
    /// Where it was last seen.
    pub near: BlockNumber,
}

/// Writes the tombstones of a row that was deleted.
///
/// # Safety
/// `relation` is open, and the row's tombstone written; no page is locked.
pub unsafe fn deleted<A: TableAm>(table: &A, relation: pg_sys::Relation, old: Replaced<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        let facts = indexes_of(relation);
        if facts.indexes.is_empty() {
            return;
        }
        with_old_row(&facts, table, relation, old, |row, version| {
            end_entries(&facts, relation, old.writer, old.id.key, (row, version));
        });
    }
}

/// Writes the tombstones of a row that was deleted, or has them written with
/// others': the row is at hand, and its version.
///
/// # Safety
/// `relation` is open, `facts` are its own, the slot holds the row, whose key
/// this is and whose tombstone is written; no page is locked.
pub unsafe fn end_entries(
    facts: &TableIndexes,
    relation: pg_sys::Relation,
    writer: Writer,
    key: &[u8],
    (row, version): (*mut pg_sys::TupleTableSlot, Head),
) {
    // SAFETY: the caller's promise.
    unsafe {
        let table = (*relation).rd_id;
        let is_late = pending::is_open();
        if is_late {
            end_late(facts, table, writer, key, row);
            if facts.are_late {
                return;
            }
        }
        for of in &facts.indexes {
            if is_late && of.late(table).is_some() {
                continue;
            }
            with_index(of, relation, |index| {
                let mut before = Entry::default();
                let had =
                    of.evaluating(|evaluator| before.make(evaluator, index.layout(), row, key));
                if had {
                    end(of, index, relation, writer, &before, version);
                }
            });
        }
    }
}

/// Has the entries of a deleted row ended together with others, in the indexes
/// where that may be.
///
/// # Safety
/// `pending::is_open`; the slot holds the row, `reference` is its key, and no
/// page is locked.
unsafe fn end_late(
    facts: &TableIndexes,
    table: pg_sys::Oid,
    writer: Writer,
    reference: &[u8],
    row: *mut pg_sys::TupleTableSlot,
) {
    let mut values = IndexValues::default();
    // SAFETY: the caller's promise. Nothing that a key is made of is used once
    // it is there.
    unsafe {
        // All columns in one go, instead of those of each index.
        slot::columns_upto(row, facts.columns_end);
        in_temporary_context(|| {
            for of in &facts.indexes {
                let Some(plain) = of.late(table) else {
                    continue;
                };
                if of.evaluating(|evaluator| evaluator.evaluate(row, &mut values)) {
                    let (values, isnull) = (&values.values, &values.isnull);
                    pending::collect(plain, writer, |key| {
                        plain.layout.key_of(values, isnull, reference, key)
                    })
                    .or_raise_here(plain.layout);
                }
            }
        });
    }
}

/// Removes the entries of a row that was inserted speculatively and is taken
/// back, as they were put: whether its index found a conflict or not, and
/// without asking expressions again.
///
/// # Safety
/// `relation` is open and its indexes are locked; no page is.
pub unsafe fn taken_back(relation: pg_sys::Relation, writer: Writer) {
    pg::conflict::take_entries(|index, key| {
        // SAFETY: the caller's promise.
        unsafe {
            with_open_index(index, relation, |index| {
                let open = index.store().relation();
                let removed = index
                    .store()
                    .with(|versions| versions.take_back_index_entry(writer, key))
                    .or_raise(open);
                if !removed {
                    error::entry_is_missing(relation, open);
                }
            });
        }
    });
}

/// Whether an update changes columns that a foreign key may refer to by a stored
/// index (rule 9): whoever refers to the row as it is has to be waited for, and
/// has to wait. A row that is not there is not changed.
///
/// # Safety
/// `relation` is open, `facts` are its own, and `old` names the version that is
/// to be superseded by `new_row`; no page is locked.
pub unsafe fn changes_key<A: TableAm>(
    facts: &TableIndexes,
    table: &A,
    relation: pg_sys::Relation,
    old: Replaced<'_>,
    new_row: *mut pg_sys::TupleTableSlot,
) -> bool {
    let Some(last) = facts.key_columns.last() else {
        return false;
    };
    let mut is_changed = false;
    // SAFETY: the caller's promise.
    unsafe {
        try_old_row(facts, table, relation, old, |old_row, _| {
            let changes = Changes::between(table.layout(), old_row, new_row, last + 1);
            is_changed = (facts.key_columns.iter()).any(|column| changes.is_changed(*column));
        });
    }
    is_changed
}

/// Writes the tombstones of entries that an updated row has no longer, and
/// notes where it needs a new one, for `aminsert`. Whether it does anywhere.
///
/// # Safety
/// `relation` is open, `facts` are its own, and the new version, whose key and row these are,
/// written; no page is locked.
pub unsafe fn updated<A: TableAm>(
    facts: &TableIndexes,
    table: &A,
    relation: pg_sys::Relation,
    old: Replaced<'_>,
    key: &[u8],
    new_row: *mut pg_sys::TupleTableSlot,
    handle: pg_sys::ItemPointerData,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        if facts.indexes.is_empty() {
            return false;
        }
        let layout = table.layout();
        let moved = layout.compare(old.id.key, key).is_ne();
        let mut needs: [pg_sys::Oid; PUTS_MAX] = [pg_sys::Oid::INVALID; PUTS_MAX];
        let mut more: Vec<pg_sys::Oid> = Vec::new();
        let mut count = 0;
        with_old_row(facts, table, relation, old, |old_row, version| {
            let changes = Changes::between(layout, old_row, new_row, facts.columns_end);
            for of in &facts.indexes {
                if !moved && !of.looks_at(|column| changes.is_changed(column)) {
                    continue;
                }
                let needs_put = with_index(of, relation, |index| {
                    change(of, index, relation, (old, version), key, old_row, new_row)
                });
                if needs_put {
                    match needs.get_mut(count) {
                        Some(place) => *place = of.index,
                        None => more.push(of.index),
                    }
                    count += 1;
                }
            }
        });
        if count > 0 {
            let few = needs[..count.min(PUTS_MAX)].iter().copied();
            pg::needs_put::note(handle, few.chain(more));
        }
        count > 0
    }
}

/// More indexes than this cost an allocation.
const PUTS_MAX: usize = 16;

/// Which columns of a row changed.
struct Changes<'r> {
    layout: &'r TableLayout,
    old: (&'r [pg_sys::Datum], &'r [bool]),
    new: (&'r [pg_sys::Datum], &'r [bool]),
}

impl<'r> Changes<'r> {
    unsafe fn between(
        layout: &'r Rc<TableLayout>,
        old: *mut pg_sys::TupleTableSlot,
        new: *mut pg_sys::TupleTableSlot,
        columns_end: usize,
    ) -> Changes<'r> {
        // SAFETY: both hold rows of the table.
        unsafe {
            Changes {
                layout,
                old: slot::columns_upto(old, columns_end),
                new: slot::columns(new),
            }
        }
    }

    /// Whether a column's bytes changed. What did not cannot change an index.
    fn is_changed(&self, column: usize) -> bool {
        if self.old.1[column] || self.new.1[column] {
            return self.old.1[column] != self.new.1[column];
        }
        let attribute = &self.layout.attributes()[column];
        // SAFETY: both are values of the column's type.
        unsafe {
            !same_image(
                self.old.0[column],
                self.new.0[column],
                attribute.length,
                attribute.by_value,
            )
        }
    }
}

/// An entry's bytes.
#[derive(Default)]
struct Entry {
    key: Vec<u8>,
    payload: Vec<u8>,
}

impl Entry {
    /// The entry of the row in a slot; false if the index leaves it out.
    unsafe fn make(
        &mut self,
        evaluator: &mut Evaluator,
        layout: &IndexLayout,
        row: *mut pg_sys::TupleTableSlot,
        reference: &[u8],
    ) -> bool {
        self.key.clear();
        self.payload.clear();
        let mut values = IndexValues::default();
        // SAFETY: the slot holds a row of the index's table; bytes are copied
        // out of the context before it goes.
        unsafe {
            in_temporary_context(|| {
                evaluator.evaluate(row, &mut values) && {
                    let made = layout.entry_of(
                        &values.values,
                        &values.isnull,
                        reference,
                        &mut self.key,
                        &mut self.payload,
                    );
                    made.or_raise_here(layout);
                    true
                }
            })
        }
    }
}

/// Compares the old and the new entry of one index, ends the old one if it is
/// another, and says whether the new one has to be put.
unsafe fn change(
    of: &IndexFacts,
    index: &OpenIndex,
    relation: pg_sys::Relation,
    (old, version): (Replaced<'_>, Head),
    key: &[u8],
    old_row: *mut pg_sys::TupleTableSlot,
    new_row: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: the relations are open; the slots hold rows of the table.
    unsafe {
        let layout = index.layout();
        let (mut before, mut after) = (Entry::default(), Entry::default());
        let (had, has) = of.evaluating(|evaluator| {
            (
                before.make(evaluator, layout, old_row, old.id.key),
                after.make(evaluator, layout, new_row, key),
            )
        });
        let stays = had && has && layout.layout().compare(&before.key, &after.key).is_eq();
        if stays && before.payload == after.payload {
            return false;
        }
        // In an index that is being built an entry is always ended before it is
        // put again: `end` sees to it that there was one.
        if had && (!stays || !of.is_valid) {
            end(of, index, relation, old.writer, &before, version);
        }
        has
    }
}

/// Ends an entry. One that a whole index does not hold is corruption, of the
/// index or of an expression's promise to be immutable (rule 14).
unsafe fn end(
    of: &IndexFacts,
    index: &OpenIndex,
    relation: pg_sys::Relation,
    writer: Writer,
    entry: &Entry,
    version: Head,
) {
    let before = (!of.is_valid).then_some(Before {
        version,
        body: &entry.payload,
    });
    // SAFETY: the relations are open.
    unsafe {
        let ended = index
            .store()
            .with(|versions| versions.end_index_entry(writer, &entry.key, before))
            .or_raise(index.store().relation());
        if !ended {
            error::entry_is_missing(relation, index.store().relation());
        }
    }
}

/// Opens an index for a moment. It is locked already.
unsafe fn with_index<R>(
    of: &IndexFacts,
    relation: pg_sys::Relation,
    work: impl FnOnce(&OpenIndex) -> R,
) -> R {
    // SAFETY: the caller's promise.
    unsafe { with_open_index(of.index, relation, work) }
}

unsafe fn with_open_index<R>(
    index: pg_sys::Oid,
    relation: pg_sys::Relation,
    work: impl FnOnce(&OpenIndex) -> R,
) -> R {
    // SAFETY: a locked index does not go away; after an ERROR the server
    // closes what is open.
    unsafe {
        let open = pg_sys::RelationIdGetRelation(index);
        assert!(!open.is_null(), "a locked index is there");
        let index = OpenIndex::open(open, relation).expect("a stored index stays one while locked");
        let result = work(&index);
        drop(index);
        pg_sys::RelationClose(open);
        result
    }
}

/// Fetches the version that was superseded, whatever became of it since.
unsafe fn with_old_row<A: TableAm>(
    facts: &TableIndexes,
    table: &A,
    relation: pg_sys::Relation,
    old: Replaced<'_>,
    work: impl FnOnce(*mut pg_sys::TupleTableSlot, Head),
) {
    // SAFETY: the caller's promise.
    unsafe {
        if !try_old_row(facts, table, relation, old, work) {
            error::vanished(relation);
        }
    }
}

/// As [`with_old_row`]; false if the version is not there.
unsafe fn try_old_row<A: TableAm>(
    facts: &TableIndexes,
    table: &A,
    relation: pg_sys::Relation,
    old: Replaced<'_>,
    work: impl FnOnce(*mut pg_sys::TupleTableSlot, Head),
) -> bool {
    // Room that is used again: this is called for each row.
    thread_local!(static ROOM: RefCell<Batch> = RefCell::default());
    // Taken out while it is used: an expression's function may lead back here.
    let mut batch = ROOM.take();
    batch.clear();
    // SAFETY: the relation is open; the slot is the table's. It is cleared
    // before the bytes go that it borrows.
    unsafe {
        let found = table
            .version(old.id, old.near, &mut batch)
            .or_raise(relation);
        if !found {
            return false;
        }
        facts.with_slot(|row_slot| {
            let row = batch.row(0);
            slot::store_borrowed(
                row_slot,
                table.layout(),
                row.key,
                row.payload,
                row.head,
                slot::INVALID_TID,
            );
            work(row_slot, row.head);
            slot::clear_any(row_slot);
        });
    }
    ROOM.set(batch);
    true
}

/// An entry that cannot be laid out is the index's affair.
trait OrRaiseHere {
    unsafe fn or_raise_here(self, layout: &IndexLayout);
}

impl<T> OrRaiseHere for Result<T, pg::row::Error> {
    unsafe fn or_raise_here(self, layout: &IndexLayout) {
        if self.is_ok() {
            return;
        }
        // SAFETY: the index is locked; the ERROR closes it.
        unsafe {
            let index = pg_sys::RelationIdGetRelation(layout.layout().relation());
            self.map(drop).or_raise(index);
        }
    }
}
