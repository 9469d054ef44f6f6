//! Sweeps: how UPDATE and DELETE find their rows by a sequential scan.
//!
//! Core's node asks the scan for row after row, and each gets a handle before
//! the node knows whether it is wanted. A *sweep* stands in its place below a
//! ModifyTable: it puts the node's own condition to all rows of a leaf, and only
//! those that satisfy it get handles. Where nothing but the deletion itself is
//! to happen to them, it ends them there and then, a leaf's with one record, and
//! hands to ModifyTable only those that somebody else is at.
//!
//! Which plans are swept is decided here, by what could tell the difference;
//! `am/README.md`, "Sweeps", has the argument.

use std::ffi::c_int;
use std::sync::OnceLock;

use pgrx::pg_sys::{self, NodeTag};

use crate::ddl;
use crate::handles::{Need, Needs};

/// What an executor's node calls for its next row.
pub type NextRow =
    unsafe extern "C-unwind" fn(*mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot;

/// What the table AM offers.
#[derive(Clone, Copy)]
pub struct Sweeper {
    /// Hands on the rows that satisfy the node's condition.
    pub pass: NextRow,
    /// Ends them, and hands on those that it could not end.
    pub end: NextRow,
}

static SWEEPER: OnceLock<Sweeper> = OnceLock::new();

/// Registers the table AM; to be called once, when the library is loaded.
pub fn set(sweeper: Sweeper) {
    assert!(SWEEPER.set(sweeper).is_ok(), "one table AM sweeps");
}

unsafe extern "C-unwind" {
    fn rowref_passes(node: *mut pg_sys::PlanState, row: *mut pg_sys::TupleTableSlot) -> bool;
    fn rowref_project(
        node: *mut pg_sys::PlanState,
        row: *mut pg_sys::TupleTableSlot,
    ) -> *mut pg_sys::TupleTableSlot;
    fn rowref_count_deletes(relation: pg_sys::Relation, rows: i64);
}

/// Whether a row satisfies a scan node's condition.
///
/// # Safety
/// The node's query runs, and `row` holds a row of its table. The condition may
/// raise errors past our frames, which own nothing.
#[inline]
pub unsafe fn passes(node: *mut pg_sys::PlanState, row: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: the caller's promise.
    unsafe { rowref_passes(node, row) }
}

/// What a scan node makes of a row.
///
/// # Safety
/// As for [`passes`].
pub unsafe fn project(
    node: *mut pg_sys::PlanState,
    row: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the caller's promise.
    unsafe { rowref_project(node, row) }
}

/// Counts rows that a sweep has ended: for the command's tag, for EXPLAIN and
/// for the statistics.
///
/// # Safety
/// The node's query runs.
pub unsafe fn count_ended(node: *mut pg_sys::PlanState, relation: pg_sys::Relation, rows: usize) {
    // SAFETY: the caller's promise; the count begins with a guarded call's
    // work on memory that the transaction's first change has made.
    unsafe {
        (*(*node).state).es_processed += rows as u64;
        if let Some(instrument) = (*node).instrument.as_mut() {
            instrument.tuplecount += rows as f64;
        }
        pg_sys::ffi::pg_guard_ffi_boundary(|| rowref_count_deletes(relation, rows as i64));
    }
}

/// Has the rows of a query that was just started found by a sweep, if it may.
///
/// # Safety
/// `ExecutorStart` has returned for `query`, which had these flags.
pub(crate) unsafe fn prepare(query: *mut pg_sys::QueryDesc, flags: c_int, needs: Needs) {
    if flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int != 0 {
        return;
    }
    // SAFETY: a started query has its executor's state; nodes are what their
    // tags say.
    unsafe {
        let plan = &*(*query).plannedstmt;
        // A WITH query, or a subquery, may do or find anything in between.
        if !matches!(
            plan.commandType,
            pg_sys::CmdType::CMD_UPDATE | pg_sys::CmdType::CMD_DELETE
        ) || plan.hasModifyingCTE
            || !plan.subplans.is_null()
            || !plan.rowMarks.is_null()
            // Users may see ctids, or the query finds its rows otherwise.
            || !matches!(needs.read, Need::Run(_) | Need::Retained)
        {
            return;
        }
        let (state, Some(sweeper)) = ((*query).planstate, SWEEPER.get()) else {
            return;
        };
        if (*state).type_ != NodeTag::T_ModifyTableState {
            return;
        }
        let source = (*state).lefttree;
        let state = &*state.cast::<pg_sys::ModifyTableState>();
        if (*source).type_ != NodeTag::T_SeqScanState
            || state.mt_nrels != 1
            || state.rootResultRelInfo != state.resultRelInfo
            || !state.canSetTag
        {
            return;
        }
        let target = &*state.resultRelInfo;
        let table = (*source.cast::<pg_sys::ScanState>()).ss_currentRelation;
        let estate = &*(*query).estate;
        if table != target.ri_RelationDesc
            || !ddl::is_ours(table)
            || estate.es_snapshot.is_null()
            || (*estate.es_snapshot).snapshot_type != pg_sys::SnapshotType::SNAPSHOT_MVCC
            || pg_sys::contain_volatile_functions((*(*source).plan).qual.cast())
        {
            return;
        }
        let nothing_else = state.operation == pg_sys::CmdType::CMD_DELETE
            && matches!(needs.read, Need::Run(_))
            && !fires(target.ri_TrigDesc)
            && target.ri_projectReturning.is_null()
            && state.mt_transition_capture.is_null()
            && estate.es_crosscheck_snapshot.is_null();
        (*source).ExecProcNodeReal = Some(if nothing_else {
            sweeper.end
        } else {
            sweeper.pass
        });
    }
}

/// Whether a table has a trigger that has to be told of each row deleted.
unsafe fn fires(triggers: *mut pg_sys::TriggerDesc) -> bool {
    // SAFETY: null, or a table's triggers.
    unsafe {
        triggers.as_ref().is_some_and(|triggers| {
            triggers.trig_delete_before_row
                || triggers.trig_delete_after_row
                || triggers.trig_delete_instead_row
                || triggers.trig_delete_old_table
        })
    }
}
