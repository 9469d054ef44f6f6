//! Sequential scans below UPDATE and DELETE, leaf by leaf: `README.md`,
//! "Sweeps". Which plans are swept is decided in `pg::sweep`.

use crate::indexes;
use crate::insert::writer;
use crate::row_handle;
use crate::scan;
use crate::table_am::TableAm;
use engine::BlockNumber;
use engine::mvcc::VersionId;
use engine::mvcc::batch::Row;
use engine::mvcc::scan::{Direction, Place, Range};
use pg::error::OrRaise;
use pg::row::has_pointers;
use pg::slot;
use pg::sweep::{count_ended, passes, project};
use pg::wal::change;
use pgrx::{pg_guard, pg_sys};

/// Where a sweep stands.
pub struct Sweep {
    place: Place,
    /// The rows of the leaf at hand that satisfy the condition.
    hits: Vec<u32>,
    /// How many of them are done with.
    done: usize,
}

impl Default for Sweep {
    fn default() -> Sweep {
        Sweep {
            place: Place::Start,
            hits: Vec::new(),
            done: 0,
        }
    }
}

/// The next row that satisfies the node's condition.
///
/// # Safety
/// The executor's: `node` is a sequential scan of a table of `A`.
#[pg_guard]
pub unsafe extern "C-unwind" fn pass<A: TableAm>(
    node: *mut pg_sys::PlanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the caller's promise.
    unsafe { next::<A>(node, false) }
}

/// The next row that satisfies the condition of a DELETE's node and could not
/// be ended at once; all before it were.
///
/// # Safety
/// As for [`pass`].
#[pg_guard]
pub unsafe extern "C-unwind" fn end<A: TableAm>(
    node: *mut pg_sys::PlanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the caller's promise.
    unsafe { next::<A>(node, true) }
}

/// The condition may raise errors past this frame, which owns nothing.
unsafe fn next<A: TableAm>(
    node: *mut pg_sys::PlanState,
    ends: bool,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the caller's promise; the scan that is opened here is closed with
    // the node.
    unsafe {
        let open = scan_of::<A>(node);
        loop {
            let state = scan::state_of::<A>(open);
            if ends && state.sweep.done < state.sweep.hits.len() {
                state.end_hits(node, (*open).rs_rd);
            }
            if let Some(nth) = state.sweep.hits.get(state.sweep.done) {
                let nth = *nth as usize;
                state.sweep.done += 1;
                return state.hand_on(node, (*open).rs_rd, nth);
            }
            if !state.next_leaf((*open).rs_rd) {
                slot::clear_any((*node.cast::<pg_sys::ScanState>()).ss_ScanTupleSlot);
                return std::ptr::null_mut();
            }
            let pgstat = (*(*open).rs_rd).pgstat_info;
            if !pgstat.is_null() {
                (*pgstat).t_counts.t_tuples_returned += state.batch.len() as i64;
            }
            state.find_hits(node);
        }
    }
}

/// The node's scan, begun as the node itself would.
unsafe fn scan_of<A: TableAm>(node: *mut pg_sys::PlanState) -> pg_sys::TableScanDesc {
    // SAFETY: a sequential scan's node, by the caller.
    unsafe {
        let of = &mut *node.cast::<pg_sys::ScanState>();
        if of.ss_currentScanDesc.is_null() {
            use pg_sys::ScanOptions::*;
            of.ss_currentScanDesc = scan::begin::<A>(
                of.ss_currentRelation,
                (*of.ps.state).es_snapshot,
                0,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                SO_TYPE_SEQSCAN | SO_ALLOW_STRAT | SO_ALLOW_SYNC | SO_ALLOW_PAGEMODE,
            );
        }
        of.ss_currentScanDesc
    }
}

impl<A: TableAm> scan::ScanState<A> {
    /// Copies the rows of the next leaf; whether there was one.
    unsafe fn next_leaf(&mut self, relation: pg_sys::Relation) -> bool {
        let read = self.table.next_leaf(
            &Range::default(),
            Direction::Forward,
            &mut self.sweep.place,
            &self.snapshot,
            &mut self.batch,
        );
        // SAFETY: the scan's relation is open.
        unsafe { read.or_raise(relation) }
    }

    /// Puts the node's condition to the rows at hand.
    unsafe fn find_hits(&mut self, node: *mut pg_sys::PlanState) {
        self.sweep.hits.clear();
        self.sweep.done = 0;
        let rows = self.batch.len();
        // SAFETY: the node's slot is of our kind, and the rows are at hand.
        unsafe {
            if (*node).qual.is_null() {
                self.sweep.hits.extend(0..rows as u32);
                return;
            }
            let slot = (*node.cast::<pg_sys::ScanState>()).ss_ScanTupleSlot;
            self.sweep.hits.reserve(rows);
            for nth in 0..rows {
                self.show(slot, self.batch.row(nth), row_handle::nobody());
                if passes(node, slot) {
                    self.sweep.hits.push(nth as u32);
                }
            }
        }
    }

    /// Ends the hits that are left, up to the first one that somebody is at.
    unsafe fn end_hits(&mut self, node: *mut pg_sys::PlanState, relation: pg_sys::Relation) {
        // SAFETY: the scan's relation is open, and no page locked.
        unsafe {
            if change::is_wanted(relation) {
                return;
            }
            let rows = self.sweep.hits[self.sweep.done..]
                .iter()
                .map(|nth| (*nth as usize, self.batch.row(*nth as usize)))
                .take_while(|(_, row)| !has_pointers(row.payload))
                .map(|(nth, row)| {
                    let id = VersionId {
                        key: row.key,
                        sequence: row.head.sequence,
                        xmin: row.head.xmin,
                    };
                    (nth, id)
                });
            let near = BlockNumber(self.batch.block);
            let writer = writer((*(*node).state).es_output_cid);
            let ended = self.table.end_run(writer, rows, near).or_raise(relation);
            if ended == 0 {
                return;
            }
            let facts = indexes::indexes_of(relation);
            if !facts.indexes.is_empty() {
                let slot = (*node.cast::<pg_sys::ScanState>()).ss_ScanTupleSlot;
                for nth in &self.sweep.hits[self.sweep.done..][..ended] {
                    let row = self.batch.row(*nth as usize);
                    self.show(slot, row, row_handle::nobody());
                    indexes::end_entries(&facts, relation, writer, row.key, (slot, row.head));
                }
            }
            self.sweep.done += ended;
            count_ended(node, relation, ended);
        }
    }

    /// Hands a row to the node above, under a handle.
    unsafe fn hand_on(
        &self,
        node: *mut pg_sys::PlanState,
        relation: pg_sys::Relation,
        nth: usize,
    ) -> *mut pg_sys::TupleTableSlot {
        let row = self.batch.row(nth);
        // SAFETY: the scan's relation is open; as for `find_hits`.
        unsafe {
            let near = BlockNumber(self.batch.block);
            let handle = row_handle::lease(relation, row, near);
            let slot = (*node.cast::<pg_sys::ScanState>()).ss_ScanTupleSlot;
            self.show(slot, row, handle);
            project(node, slot)
        }
    }

    /// Puts a row of the leaf at hand into the node's slot.
    unsafe fn show(
        &self,
        slot: *mut pg_sys::TupleTableSlot,
        row: Row<'_>,
        handle: pg_sys::ItemPointerData,
    ) {
        // SAFETY: the slot is of our kind; the row stays where it is until the
        // next leaf is read, and what the slot borrows is replaced or cleared by
        // then.
        unsafe {
            slot::store_borrowed(
                slot,
                self.table.layout(),
                row.key,
                row.payload,
                row.head,
                handle,
            );
        }
    }
}
