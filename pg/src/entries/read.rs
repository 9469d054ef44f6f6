//! Rows turned into entries.

use std::rc::Rc;

use engine::compare::Compare;
use engine::mvcc::batch::Row;
use engine::mvcc::entries::{Entry, derive};
use engine::mvcc::histories::History;
use engine::page::cell::{EntryKind, Head, bit};
use pgrx::pg_sys;

use super::{EntrySorter, spill_failed};
use crate::error::OrRaise;
use crate::evaluate::{Evaluator, IndexValues};
use crate::row::{IndexLayout, TableLayout, has_pointers};
use crate::slot;
use crate::sort::Item;
use crate::toast::StoredValues;

/// Turns rows into entries.
pub struct Reader<'l> {
    index: pg_sys::Relation,
    layout: &'l IndexLayout,
    rows: &'l Rc<TableLayout>,
    slot: *mut pg_sys::TupleTableSlot,
    evaluator: Evaluator,
    /// The table's long values, if there can be any.
    stored: Option<StoredValues>,
    /// For what encoding long values leaves; reset with each row.
    work: pg_sys::MemoryContext,
    /// For the entry of a row with one version.
    room: Entry,
    nulls_distinct: bool,
}

impl<'l> Reader<'l> {
    /// # Safety
    /// The relations are open, and `info` describes the index.
    pub unsafe fn new(
        table: pg_sys::Relation,
        index: pg_sys::Relation,
        info: *mut pg_sys::IndexInfo,
        layout: &'l IndexLayout,
        rows: &'l Rc<TableLayout>,
    ) -> Reader<'l> {
        // SAFETY: the relations are open.
        unsafe {
            Reader {
                index,
                layout,
                rows,
                slot: pg_sys::MakeSingleTupleTableSlot((*table).rd_att, &raw const slot::OPS),
                evaluator: Evaluator::new(info),
                stored: StoredValues::open(table),
                work: pg_sys::AllocSetContextCreateInternal(
                    pg_sys::CurrentMemoryContext,
                    c"rowref index build".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                ),
                room: Entry::default(),
                nulls_distinct: !(*info).ii_NullsNotDistinct,
            }
        }
    }

    /// Gives the sorter the versions of the entries of one row; how many.
    ///
    /// # Safety
    /// A row of the table; no page is locked.
    pub unsafe fn take(
        &mut self,
        history: &History,
        heads: &[Option<Head>],
        sorter: &mut EntrySorter<'_>,
    ) -> f64 {
        // SAFETY: the slot is the table's; no page is locked.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.work;
            // Most rows: one version, whose entry is the row's only one.
            if let [Some(head)] = heads
                && head.kind() == EntryKind::Put
            {
                let mut entry = std::mem::take(&mut self.room);
                let made = self.make(&history.key, history.body(0), *head, &mut entry);
                pg_sys::CurrentMemoryContext = before;
                let mut count = 0.0;
                if let Some(has_null) = made {
                    count = 1.0;
                    let kept = head.flags & (bit::FROZEN | bit::COMMITTED);
                    let item = Item {
                        head: Head {
                            flags: EntryKind::Put as u8 | kept,
                            ..*head
                        },
                        key: &entry.key,
                        body: &entry.body,
                        mark: has_null,
                    };
                    sorter
                        .add(item)
                        .unwrap_or_else(|error| spill_failed(&error));
                }
                self.room = entry;
                self.clear_work();
                return count;
            }
            let order = self.layout.layout();
            let mut any_null = Vec::new();
            let newest = heads.iter().flatten().find(|head| head.is_version());
            let newest = newest.map(|head| head.sequence);
            let kept = heads.iter().zip(history.entries()).rev();
            let mut versions = Vec::new();
            for (head, (_, payload)) in kept {
                let Some(head) = head.filter(|head| head.is_version()) else {
                    continue;
                };
                let is_row = head.kind() == EntryKind::Put
                    && (newest == Some(head.sequence) || self.is_whole(payload));
                let entry = is_row.then(|| self.entry(&history.key, payload, head));
                let entry = entry.flatten().map(|(entry, has_null)| {
                    any_null.push((entry.key.clone(), has_null));
                    entry
                });
                versions.push((head, entry));
            }
            let mut failed = None;
            let mut count = 0.0;
            derive(
                versions.into_iter(),
                |left, right| order.compare(left, right).is_eq(),
                |head, key, body| {
                    count += 1.0;
                    let mark = any_null.iter().any(|(of, null)| *null && of == key);
                    let item = Item {
                        head,
                        key,
                        body,
                        mark,
                    };
                    if let Err(error) = sorter.add(item) {
                        failed.get_or_insert(error);
                    }
                },
            );
            if let Some(error) = failed {
                spill_failed(&error);
            }
            pg_sys::CurrentMemoryContext = before;
            self.clear_work();
            count
        }
    }

    /// Gives the sorter, if any, the entry of a row that a snapshot sees; how
    /// many that are.
    ///
    /// # Safety
    /// As [`Reader::take`].
    pub unsafe fn take_seen(&mut self, row: &Row<'_>, sorter: Option<&mut EntrySorter<'_>>) -> f64 {
        // SAFETY: the caller's promise.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.work;
            let mut entry = std::mem::take(&mut self.room);
            let made = self.make(row.key, row.payload, row.head, &mut entry);
            pg_sys::CurrentMemoryContext = before;
            if let (Some(has_null), Some(sorter)) = (made, sorter) {
                let item = Item {
                    head: row.head,
                    key: &entry.key,
                    body: &entry.body,
                    mark: has_null,
                };
                sorter
                    .add(item)
                    .unwrap_or_else(|error| spill_failed(&error));
            }
            self.room = entry;
            self.clear_work();
            f64::from(u8::from(made.is_some()))
        }
    }

    /// Gives back what encoding has left; most rows leave nothing.
    unsafe fn clear_work(&self) {
        // SAFETY: the context is the reader's own.
        unsafe {
            if !(*self.work).isReset || !(*self.work).firstchild.is_null() {
                pg_sys::MemoryContextReset(self.work);
            }
        }
    }

    /// Whether all long values of a superseded version are there. The TOAST
    /// table may have been pruned by a horizon that is newer than the one by
    /// which this version was kept; then nobody sees the version any more.
    fn is_whole(&self, payload: &[u8]) -> bool {
        let Some(stored) = self.stored.as_ref().filter(|_| has_pointers(payload)) else {
            return true;
        };
        let pointers = self.rows.pointers(payload).unwrap_or_default();
        pointers
            .iter()
            .all(|pointer| stored.problem(pointer).is_none())
    }

    /// The entry of one version of a row, and whether a null in it sets it
    /// apart from all others.
    unsafe fn entry(&mut self, key: &[u8], payload: &[u8], head: Head) -> Option<(Entry, bool)> {
        let mut entry = Entry::default();
        // SAFETY: the caller's promise.
        let made = unsafe { self.make(key, payload, head, &mut entry) };
        made.map(|has_null| (entry, has_null))
    }

    /// As [`Reader::entry`], into room that is used again.
    unsafe fn make(
        &mut self,
        key: &[u8],
        payload: &[u8],
        head: Head,
        entry: &mut Entry,
    ) -> Option<bool> {
        // SAFETY: the slot is the table's, and key and payload are a row.
        unsafe {
            slot::store_borrowed(self.slot, self.rows, key, payload, head, slot::INVALID_TID);
            let mut values = IndexValues::default();
            if !self.evaluator.evaluate(self.slot, &mut values) {
                return None;
            }
            entry.key.clear();
            entry.body.clear();
            self.layout
                .entry_of(
                    &values.values,
                    &values.isnull,
                    key,
                    &mut entry.key,
                    &mut entry.body,
                )
                .or_raise(self.index);
            Some(self.nulls_distinct && self.layout.has_null(&values.isnull))
        }
    }

    /// Lets go of what was made ready.
    pub fn end(mut self) {
        self.evaluator.rest();
        if let Some(stored) = self.stored {
            stored.close();
        }
        // SAFETY: both were made by `new`.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::MemoryContextDelete(self.work);
        }
    }
}
