//! What is known of a table's stored indexes, found once for as long as their
//! definitions stay what they are.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use pg::evaluate::Evaluator;
use pg::list::integers;
use pg::open::storage_of;
use pg::pending::PlainIndex;
use pg::row::{IndexLayout, IndexStorage};
use pg::slot;
use pg::store::file_number;
use pg::xact::{
    SubtransactionEvent, TransactionEvent, on_subtransaction_event, on_transaction_event,
};
use pgrx::{pg_guard, pg_sys};

const LOCK: pg_sys::LOCKMODE = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;

/// One stored index that rows have to be entered in.
pub struct IndexFacts {
    /// The index.
    pub index: pg_sys::Oid,
    /// Whether it holds all rows; one that is being built may lack some.
    pub is_valid: bool,
    /// What its entries are made of, if they may end a little later than their
    /// rows: whole, and nothing is checked by it.
    late: Option<(Rc<IndexLayout>, u32)>,
    /// The table's columns, from 0, that its columns, expressions and
    /// predicate look at, in ascending order.
    columns: Box<[usize]>,
    /// Its columns made ready; taken out while they are in use, for an
    /// expression may lead back here.
    evaluator: Cell<Option<Evaluator>>,
}

/// The stored indexes of one table.
pub struct TableIndexes {
    /// In the order in which core goes through them.
    pub indexes: Box<[IndexFacts]>,
    /// Whether entries in all of them may end a little later than their rows.
    pub are_late: bool,
    /// One more than the greatest column that any of them looks at.
    pub columns_end: usize,
    /// The table's columns, from 0, that a foreign key may refer to by one of
    /// them. Those of the table's own key are not among them on its account.
    pub key_columns: Box<[usize]>,
    old_row: Cell<Option<RowSlot>>,
    descriptor: pg_sys::TupleDesc,
    /// The transactions' count when the indexes were last locked.
    locked: Cell<u64>,
    memory: Memory,
}

/// A slot in the facts' memory.
#[derive(Clone, Copy)]
struct RowSlot(*mut pg_sys::TupleTableSlot);

/// A memory context beside the server's caches that dies with its owner.
struct Memory(pg_sys::MemoryContext);

impl Memory {
    fn new() -> Memory {
        // SAFETY: CacheMemoryContext is there once a backend runs.
        Memory(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::CacheMemoryContext,
                c"rowref table indexes".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        })
    }

    /// Works with it as the current context.
    fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        struct Back(pg_sys::MemoryContext);
        impl Drop for Back {
            fn drop(&mut self) {
                // SAFETY: it was current before.
                unsafe { pg_sys::CurrentMemoryContext = self.0 };
            }
        }
        // SAFETY: the context lives as long as `self`.
        unsafe {
            let _back = Back(pg_sys::CurrentMemoryContext);
            pg_sys::CurrentMemoryContext = self.0;
            work()
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: made by `new` and deleted only here.
        unsafe { pg_sys::MemoryContextDelete(self.0) }
    }
}

struct Known {
    tables: RefCell<HashMap<u32, Rc<TableIndexes>>>,
    /// Forgotten while they may have been in use.
    retired: RefCell<Vec<Rc<TableIndexes>>>,
    /// Counts ends of transactions and rollbacks of subtransactions, with
    /// which locks go.
    ends: Cell<u64>,
    invalidations: Cell<u64>,
    is_hooked: Cell<bool>,
}

thread_local! {
    // Leaked, so that nothing is torn down when the process exits.
    static KNOWN: &'static Known = Box::leak(Box::new(Known {
        tables: RefCell::default(),
        retired: RefCell::default(),
        ends: Cell::new(1),
        invalidations: Cell::new(0),
        is_hooked: Cell::new(false),
    }));
}

fn known() -> &'static Known {
    KNOWN.with(|known| *known)
}

fn ended() {
    let known = known();
    known.ends.set(known.ends.get() + 1);
}

/// Has what is known forgotten when it changes.
fn hook(known: &Known) {
    if known.is_hooked.replace(true) {
        return;
    }
    on_transaction_event(|event: TransactionEvent| {
        if event.is_end() {
            ended();
        }
    });
    on_subtransaction_event(|event, _, _| {
        if event == SubtransactionEvent::Abort {
            ended();
        }
    });
    // SAFETY: a function that lives as long as the library.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::null());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    let known = known();
    known.invalidations.set(known.invalidations.get() + 1);
    let mut tables = known.tables.borrow_mut();
    let mut retired = known.retired.borrow_mut();
    tables.retain(|table, facts| {
        let is_hit = relation == pg_sys::Oid::INVALID
            || *table == relation.to_u32()
            || facts.indexes.iter().any(|facts| facts.index == relation);
        if is_hit {
            retired.push(Rc::clone(facts));
        }
        !is_hit
    });
}

/// The stored indexes of an open table that is locked for writing; each of
/// them is locked too, to the end of the transaction.
///
/// # Safety
/// `table` is open.
pub unsafe fn indexes_of(table: pg_sys::Relation) -> Rc<TableIndexes> {
    let known = known();
    hook(known);
    // SAFETY: the caller's promise.
    let relation = unsafe { (*table).rd_id.to_u32() };
    loop {
        // Freed outside of the callback: freeing calls the server.
        if !known.retired.borrow().is_empty() {
            let gone = std::mem::take(&mut *known.retired.borrow_mut());
            drop(gone);
        }
        let found = known.tables.borrow().get(&relation).cloned();
        let Some(facts) = found else {
            // SAFETY: the caller's promise.
            unsafe { find(table) };
            continue;
        };
        if facts.locked.get() == known.ends.get() {
            return facts;
        }
        // What somebody has changed since becomes known with the locks.
        let before = known.invalidations.get();
        for index in &facts.indexes {
            // SAFETY: an index of a locked table does not go away.
            unsafe { pg_sys::LockRelationOid(index.index, LOCK) };
            // What functions keep between calls ends with the transaction. One
            // that is in use is not here.
            if let Some(mut evaluator) = index.evaluator.take() {
                evaluator.rest();
                index.evaluator.set(Some(evaluator));
            }
        }
        facts.locked.set(known.ends.get());
        if known.invalidations.get() == before {
            return facts;
        }
    }
}

/// Finds out about a table's indexes. If they change meanwhile, what was found
/// is not kept, and the caller comes again.
unsafe fn find(table: pg_sys::Relation) {
    let known = known();
    let before = known.invalidations.get();
    let memory = Memory::new();
    // SAFETY: the table is open; what is made here lies in `memory`.
    unsafe {
        let list = pg_sys::RelationGetIndexList(table);
        let count = list.as_ref().map_or(0, |list| list.length);
        let mut indexes = Vec::new();
        let mut key_columns = Vec::new();
        for at in 0..count as usize {
            let oid = (*(*list).elements.add(at)).oid_value;
            let index = pg_sys::index_open(oid, LOCK);
            let form = &*(*index).rd_index;
            let is_stored = form.indisready && matches!(storage_of(index), IndexStorage::Stored(_));
            if is_stored {
                key_columns.extend(referable_columns(index));
                indexes.push(memory.enter(|| facts_of(table, index)));
            }
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
        pg_sys::list_free(list);
        let columns_end = indexes
            .iter()
            .filter_map(|facts| facts.columns.last())
            .max()
            .map_or(0, |last| last + 1);
        key_columns.sort_unstable();
        key_columns.dedup();
        let descriptor = memory.enter(|| pg_sys::CreateTupleDescCopyConstr((*table).rd_att));
        let facts = Rc::new(TableIndexes {
            are_late: indexes.iter().all(|facts| facts.late.is_some()),
            indexes: indexes.into(),
            columns_end,
            key_columns: key_columns.into(),
            old_row: Cell::new(None),
            descriptor,
            locked: Cell::new(known.ends.get()),
            memory,
        });
        if known.invalidations.get() == before {
            let relation = (*table).rd_id.to_u32();
            known.tables.borrow_mut().insert(relation, facts);
        }
    }
}

/// The columns of an index that a foreign key may refer to: as core has it, of
/// any that is unique and neither partial nor on expressions.
///
/// # Safety
/// `index` is open.
unsafe fn referable_columns(index: pg_sys::Relation) -> Vec<usize> {
    // SAFETY: the caller's promise.
    unsafe {
        let form = &*(*index).rd_index;
        let is_referable = form.indisunique
            && pg_sys::RelationGetIndexPredicate(index).is_null()
            && pg_sys::RelationGetIndexExpressions(index).is_null();
        let columns = form.indkey.values.as_slice(form.indnkeyatts as usize);
        columns
            .iter()
            .filter(|column| is_referable && **column > 0)
            .map(|column| *column as usize - 1)
            .collect()
    }
}

/// # Safety
/// Both are open; the current context is where the facts will live.
unsafe fn facts_of(table: pg_sys::Relation, index: pg_sys::Relation) -> IndexFacts {
    // SAFETY: the caller's promise; the server's structures hold what they say.
    unsafe {
        let info = pg_sys::BuildIndexInfo(index);
        let mut used = std::ptr::null_mut();
        pg_sys::pull_varattnos((*info).ii_Expressions.cast(), 1, &mut used);
        pg_sys::pull_varattnos((*info).ii_Predicate.cast(), 1, &mut used);
        let mut columns = Vec::new();
        let mut member = -1;
        loop {
            member = pg_sys::bms_next_member(used, member);
            if member < 0 {
                break;
            }
            let number = member + pg_sys::FirstLowInvalidHeapAttributeNumber;
            match usize::try_from(number) {
                // The row as a whole.
                Ok(0) => columns.extend(0..(*(*table).rd_att).natts as usize),
                Ok(number) => columns.push(number - 1),
                Err(_) => {}
            }
        }
        let numbers = &(&(*info).ii_IndexAttrNumbers)[..(*info).ii_NumIndexAttrs as usize];
        columns.extend(
            numbers
                .iter()
                .filter(|number| **number > 0)
                .map(|number| *number as usize - 1),
        );
        columns.sort_unstable();
        columns.dedup();
        IndexFacts {
            index: (*index).rd_id,
            is_valid: (*(*index).rd_index).indisvalid,
            late: late_of(index),
            columns: columns.into(),
            evaluator: Cell::new(Some(Evaluator::new(info))),
        }
    }
}

/// See [`IndexFacts::late`].
///
/// # Safety
/// `index` is open.
unsafe fn late_of(index: pg_sys::Relation) -> Option<(Rc<IndexLayout>, u32)> {
    // SAFETY: the caller's promise.
    unsafe {
        let form = &*(*index).rd_index;
        let is_plain = form.indisvalid && form.indisready && form.indislive && !form.indisexclusion;
        match storage_of(index) {
            IndexStorage::Stored(layout) if is_plain => Some((layout, file_number(index))),
            _ => None,
        }
    }
}

impl IndexFacts {
    /// The index as one whose entries may end a little later than their rows,
    /// if it is one.
    #[inline]
    pub fn late(&self, table: pg_sys::Oid) -> Option<PlainIndex<'_>> {
        self.late.as_ref().map(|(layout, file)| PlainIndex {
            index: self.index,
            table,
            file: *file,
            layout,
        })
    }

    /// Whether it looks at a column that `changed` knows to differ.
    #[inline]
    pub fn looks_at(&self, mut changed: impl FnMut(usize) -> bool) -> bool {
        self.columns.iter().any(|column| changed(*column))
    }

    /// Works with its columns made ready.
    ///
    /// # Safety
    /// The index is locked.
    pub unsafe fn evaluating<R>(&self, work: impl FnOnce(&mut Evaluator) -> R) -> R {
        if let Some(mut evaluator) = self.evaluator.take() {
            // After an ERROR it is not used again: it may have stopped midway.
            let result = work(&mut evaluator);
            self.evaluator.set(Some(evaluator));
            return result;
        }
        // SAFETY: the index is locked, and open while it is described.
        let mut evaluator = unsafe {
            let index = pg_sys::index_open(self.index, pg_sys::NoLock as pg_sys::LOCKMODE);
            let evaluator = Evaluator::new(pg_sys::BuildIndexInfo(index));
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
            evaluator
        };
        let result = work(&mut evaluator);
        evaluator.rest();
        result
    }
}

impl TableIndexes {
    /// Whether none of them looks at any of the columns that a list numbers.
    ///
    /// # Safety
    /// `columns` is a list of integers, or none.
    pub unsafe fn ignore(&self, columns: *mut pg_sys::List) -> bool {
        !self.indexes.iter().any(|index| {
            // SAFETY: the caller's promise.
            index.looks_at(|column| unsafe {
                integers(columns).any(|number| number as usize == column + 1)
            })
        })
    }

    /// Works with a slot for an old row.
    pub fn with_slot<R>(&self, work: impl FnOnce(*mut pg_sys::TupleTableSlot) -> R) -> R {
        let row = self.old_row.take().unwrap_or_else(|| {
            // SAFETY: the descriptor lives as long as the slot, and nobody
            // counts references to it.
            RowSlot(self.memory.enter(|| unsafe {
                pg_sys::MakeSingleTupleTableSlot(self.descriptor, &raw const slot::OPS)
            }))
        });
        let result = work(row.0);
        self.old_row.set(Some(row));
        result
    }
}
