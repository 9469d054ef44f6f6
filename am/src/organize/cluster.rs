//! CLUSTER of a table of hidden row ids by one of its indexes: the rows are
//! numbered anew, in the index's order, each with its history.
//!
//! A row's place is that of its newest version, with which its whole history is
//! sorted. Rows that have ended, and are kept for older snapshots, come last.

use crate::open::open;
use crate::table_am::TableAm;
use crate::toast::carry_over;
use engine::compare::Compare;
use engine::mvcc::histories::History;
use engine::mvcc::rebuild::Rebuilt;
use engine::page::cell::{EntryKind, Head};
use pg::error::{OrRaise, spill_failed};
use pg::evaluate::{Evaluator, IndexValues};
use pg::handles::TemporaryFile;
use pg::memory::in_temporary_context;
use pg::open::OpenIndex;
use pg::row::{IndexLayout, TableLayout, row_id_key};
use pg::slot;
use pg::sort::{Failure, Item, Sorter};
use pg::store::RelationStore;
use pgrx::pg_sys;
use std::rc::Rc;

const WHAT: &str = "the rows of a table";

/// Says where a row stands in the index.
struct Places<'l> {
    table: pg_sys::Relation,
    rows: &'l Rc<TableLayout>,
    index: &'l IndexLayout,
    evaluator: Evaluator,
    slot: *mut pg_sys::TupleTableSlot,
    payload: Vec<u8>,
}

impl Places<'_> {
    /// Writes the key of a row's entry to `place`.
    unsafe fn find(&mut self, row: (&[u8], &[u8]), head: Head, place: &mut Vec<u8>) {
        let (key, payload) = row;
        // SAFETY: the slot is the table's, key and payload are a row of it, and
        // no page is locked.
        unsafe {
            slot::store_borrowed(self.slot, self.rows, key, payload, head, slot::INVALID_TID);
            let mut values = IndexValues::default();
            let is_in = self.evaluator.evaluate(self.slot, &mut values);
            assert!(is_in, "core refuses to cluster by a partial index");
            place.clear();
            self.payload.clear();
            let attributes = self.index.attributes();
            self.index
                .entry_of(
                    &values.values[..attributes],
                    &values.isnull[..attributes],
                    key,
                    place,
                    &mut self.payload,
                )
                .or_raise(self.table);
        }
    }
}

/// Writes a table's rows into the storage of `new`, which is empty, in the
/// order of an index. `None` if the index has no order of its own, because the
/// table is organized by it.
///
/// # Safety
/// All three are open, the table of row ids and its index locked exclusively.
pub unsafe fn in_index_order<A: TableAm>(
    old: pg_sys::Relation,
    new: pg_sys::Relation,
    index: pg_sys::Relation,
) -> Option<Rebuilt> {
    // SAFETY: the caller's promise.
    unsafe {
        let table = open::<A>(old);
        let open_index = OpenIndex::open(index, old)?;
        let index_layout = open_index.layout();
        let order: &TableLayout = index_layout.layout();
        let memory = usize::try_from(pg_sys::maintenance_work_mem).unwrap_or(1 << 10) << 10;
        let mut sorter = Sorter::new(order, TemporaryFile::of_transaction(), memory);
        let mut places = Places {
            table: old,
            rows: table.layout(),
            index: index_layout,
            evaluator: Evaluator::new(pg_sys::BuildIndexInfo(index)),
            slot: pg_sys::MakeSingleTupleTableSlot((*old).rd_att, &raw const slot::OPS),
            payload: Vec::new(),
        };
        let mut rebuilt = Rebuilt::default();
        let mut place = Vec::new();
        let (mut rows, mut ended) = (0u64, 0u64);
        let read = table.each_history(pause, |history, heads| {
            rebuilt.removed += heads.iter().filter(|head| head.is_none()).count() as u64;
            let Some((newest, head)) = live_row(heads) else {
                ended += u64::from(heads.iter().any(Option::is_some));
                return Ok(());
            };
            rows += 1;
            in_temporary_context(|| {
                let row = (&history.key[..], history.body(newest));
                places.find(row, head, &mut place);
            });
            carry(new, table.layout(), history, heads, |head_now, body| {
                rebuilt.count(head_now, head_now.sequence == head.sequence);
                let item = Item {
                    head: head_now,
                    key: &place,
                    body,
                    mark: false,
                };
                let added = sorter.add(item);
                added.unwrap_or_else(|error| spill_failed(WHAT, &error));
                Ok(())
            })
        });
        let horizon = read.or_raise(old);
        places.evaluator.rest();
        pg_sys::ExecDropSingleTupleTableSlot(places.slot);
        let sealed = sorter.seal();
        sealed.unwrap_or_else(|error| spill_failed(WHAT, &error));

        let store = RelationStore::new(new);
        let next = rows + ended + 1;
        let layout = table.layout();
        let loaded = A::load(
            &store,
            layout,
            next,
            horizon,
            |add| -> Result<(), Failure> {
                let (mut id, mut count) = (0, 0u64);
                let mut place = Vec::new();
                sorter.drain(|item| -> Result<(), Failure> {
                    count += 1;
                    if count.is_multiple_of(1024) {
                        pause();
                    }
                    if id == 0 || order.compare(&place, item.key).is_ne() {
                        id += 1;
                        place.clear();
                        place.extend_from_slice(item.key);
                    }
                    Ok(add(item.head, &row_id_key(id), item.body)?)
                })?;
                assert_eq!(id, rows, "an entry belongs to one row");
                if ended == 0 {
                    return Ok(());
                }
                let rest = table.each_history(pause, |history, heads| {
                    if live_row(heads).is_some() || heads.iter().all(Option::is_none) {
                        return Ok(());
                    }
                    id += 1;
                    carry(new, table.layout(), history, heads, |head, body| {
                        rebuilt.count(head, false);
                        add(head, &row_id_key(id), body)
                    })
                });
                Ok(rest.map(drop)?)
            },
        );
        match loaded.map_err(|failure| failure.raise_common(new, WHAT)) {
            Ok(()) => Some(rebuilt),
        }
    }
}

/// The newest version, and which entry it is, if it is a row.
fn live_row(heads: &[Option<Head>]) -> Option<(usize, Head)> {
    let is_version = |head: &Head| head.is_version();
    let newest = heads
        .iter()
        .position(|head| head.as_ref().is_some_and(is_version))?;
    heads[newest]
        .filter(|head| head.kind() == EntryKind::Put)
        .map(|head| (newest, head))
}

/// Gives each entry of a history that is kept to `add`, newest first, as it is
/// to stand in `new`.
unsafe fn carry(
    new: pg_sys::Relation,
    layout: &TableLayout,
    history: &History,
    heads: &[Option<Head>],
    mut add: impl FnMut(Head, &[u8]) -> engine::Result<()>,
) -> engine::Result<()> {
    for (head, (_, body)) in heads.iter().zip(history.entries()) {
        let Some(head) = *head else { continue };
        let carried = if head.kind() == EntryKind::Put {
            // SAFETY: the caller's relations; what is carried is in no context.
            unsafe { carry_over(new, layout, &history.key, body) }
        } else {
            None
        };
        add(head, carried.as_deref().unwrap_or(body))?;
    }
    Ok(())
}

fn pause() {
    pgrx::check_for_interrupts!();
}
