//! `USING rowref` on a table that names its rows by tid: everything is
//! B-tree's. The file is a B-tree's, written, logged and replayed by the
//! server's own code; each callback asks here first whether it is its turn.

use std::cell::OnceCell;
use std::mem::transmute;

use pg::organize;
use pgrx::pg_sys;
use rowref::RowRefType;

thread_local! {
    // Leaked, so that nothing is torn down when the process exits.
    static BTREE: OnceCell<&'static pg_sys::IndexAmRoutine> = const { OnceCell::new() };
}

fn btree() -> &'static pg_sys::IndexAmRoutine {
    BTREE.with(|btree| {
        *btree.get_or_init(|| {
            // SAFETY: the server's own access method, whose routine is a plain
            // structure.
            let routine = unsafe {
                let routine = pg_sys::GetIndexAmRoutineByAmId(pg_sys::BTREE_AM_OID, false);
                let copy = *routine;
                pg_sys::pfree(routine.cast());
                copy
            };
            Box::leak(Box::new(routine))
        })
    })
}

/// How a table names its rows.
///
/// # Safety
/// `table` is open.
pub unsafe fn row_ref_type(table: pg_sys::Relation) -> RowRefType {
    // SAFETY: the caller's promise.
    if unsafe { organize::owns(table) } {
        RowRefType::Bytes
    } else {
        RowRefType::Tid
    }
}

/// B-tree's routine, if an index on `table` is its affair.
///
/// # Safety
/// `table` is open.
#[inline]
pub unsafe fn of_table(table: pg_sys::Relation) -> Option<&'static pg_sys::IndexAmRoutine> {
    // SAFETY: the caller's promise.
    match unsafe { row_ref_type(table) } {
        RowRefType::Bytes => None,
        RowRefType::Tid => Some(btree()),
    }
}

/// As [`of_table`], for where only the index is known.
///
/// # Safety
/// `index` is open, its table locked.
pub unsafe fn of_index(index: pg_sys::Relation) -> Option<&'static pg_sys::IndexAmRoutine> {
    // SAFETY: an open index has its pg_index row.
    unsafe {
        let table = pg_sys::RelationIdGetRelation((*(*index).rd_index).indrelid);
        if table.is_null() {
            return None;
        }
        let routine = of_table(table);
        pg_sys::RelationClose(table);
        routine
    }
}

/// B-tree's routine for what only a heap table's index is ever asked.
pub fn of_heap() -> &'static pg_sys::IndexAmRoutine {
    btree()
}

/// As [`of_table`], for a scan. A scan for a bitmap knows no table, and is
/// never made of a table of ours.
///
/// # Safety
/// The scan's relations are open.
#[inline]
pub unsafe fn of_scan(scan: pg_sys::IndexScanDesc) -> Option<&'static pg_sys::IndexAmRoutine> {
    // SAFETY: the caller's promise.
    unsafe {
        let table = (*scan).heapRelation;
        if table.is_null() {
            return Some(btree());
        }
        of_table(table)
    }
}

/// Builds a B-tree. Its sort insists on an index that reads as one.
///
/// # Safety
/// As `ambuild`. No frame of the caller's owns anything.
pub unsafe fn build(
    routine: &'static pg_sys::IndexAmRoutine,
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
) -> *mut pg_sys::IndexBuildResult {
    let mut result = std::ptr::null_mut();
    let place = &raw mut result;
    // SAFETY: the caller's promise; `place` outlives the call.
    unsafe {
        let build = routine.ambuild.expect("B-tree has all of its callbacks");
        pg::ddl::while_index_disguised(index, || *place = build(table, index, info));
    }
    result
}

/// Has the planner treat an index as the B-tree that it is. Parallel scans are
/// not among it: what they share is laid out without a word of the index.
pub fn describe(index: &mut pg_sys::IndexOptInfo) {
    type Typed = pg_sys::amcostestimate_function;
    type Untyped = Option<unsafe extern "C-unwind" fn()>;
    // SAFETY: the planner keeps the function without its type.
    index.amcostestimate = unsafe { transmute::<Typed, Untyped>(btree().amcostestimate) };
    index.amcanparallel = false;
}
