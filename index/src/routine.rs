//! The routine that the handler function returns, and its C callbacks: each
//! converts its arguments, calls one function and converts back.

use std::ffi::{c_int, c_void};

use pg::open::storage_of;
use pg::row::IndexStorage;
use pgrx::pg_guard;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::scan::{Scan, parallel};
use crate::{build, cost, insert, vacuum};

/// What B-tree operator classes have: `BTMaxStrategyNumber`, `BTNProcs` and
/// `BTOPTIONS_PROC`. Our indexes keep those classes, and the relation cache
/// lays out their support functions by these numbers.
const STRATEGIES: u16 = 5;
const SUPPORT_FUNCTIONS: u16 = 5;
const OPTIONS_FUNCTION: u16 = 5;

/// The access method, in memory of the server's.
pub fn routine() -> *mut pg_sys::IndexAmRoutine {
    // SAFETY: the structure is a node with this tag.
    let mut am =
        unsafe { PgBox::<pg_sys::IndexAmRoutine>::alloc_node(pg_sys::NodeTag::T_IndexAmRoutine) };
    am.amstrategies = STRATEGIES;
    am.amsupport = SUPPORT_FUNCTIONS;
    am.amoptsprocnum = OPTIONS_FUNCTION;
    am.amcanorder = true;
    am.amcanorderbyop = false;
    am.amcanbackward = true;
    am.amcanunique = true;
    am.amcanmulticol = true;
    am.amoptionalkey = true;
    am.amsearcharray = true;
    am.amsearchnulls = true;
    am.amstorage = false;
    am.amclusterable = true;
    am.ampredlocks = true;
    am.amcanparallel = true;
    // INCLUDE is refused by `build`, with a better message than core has.
    am.amcaninclude = true;
    am.amusemaintenanceworkmem = false;
    am.amparallelvacuumoptions = 0;
    am.amkeytype = pg_sys::InvalidOid;

    am.ambuild = Some(ambuild);
    am.ambuildempty = Some(ambuildempty);
    am.aminsert = Some(aminsert);
    am.ambulkdelete = Some(ambulkdelete);
    am.amvacuumcleanup = Some(amvacuumcleanup);
    am.amcanreturn = Some(amcanreturn);
    am.amcostestimate = Some(amcostestimate);
    am.amoptions = Some(amoptions);
    am.amproperty = None;
    am.ambuildphasename = Some(ambuildphasename);
    am.amvalidate = Some(amvalidate);
    am.amadjustmembers = None;
    am.ambeginscan = Some(ambeginscan);
    am.amrescan = Some(amrescan);
    am.amgettuple = Some(amgettuple);
    am.amgetbitmap = None;
    am.amendscan = Some(amendscan);
    am.ammarkpos = Some(ammarkpos);
    am.amrestrpos = Some(amrestrpos);
    am.amestimateparallelscan = Some(amestimateparallelscan);
    am.aminitparallelscan = Some(aminitparallelscan);
    am.amparallelrescan = Some(amparallelrescan);
    am.into_pg()
}

#[pg_guard]
unsafe extern "C-unwind" fn ambuild(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
) -> *mut pg_sys::IndexBuildResult {
    // SAFETY: the server builds with both relations open and locked.
    unsafe {
        let built = build::build(table, index, info);
        let result = pg_sys::palloc0(size_of::<pg_sys::IndexBuildResult>())
            .cast::<pg_sys::IndexBuildResult>();
        (*result).heap_tuples = built.rows;
        (*result).index_tuples = built.entries;
        result
    }
}

/// The init fork of an unlogged index, made after the index itself.
#[pg_guard]
unsafe extern "C-unwind" fn ambuildempty(index: pg_sys::Relation) {
    // SAFETY: the server passes an open index with an init fork.
    unsafe { build::build_empty(index) }
}

#[pg_guard]
unsafe extern "C-unwind" fn ambuildphasename(phase: i64) -> *mut std::ffi::c_char {
    build::phase_name(phase).map_or(std::ptr::null_mut(), |name| name.as_ptr().cast_mut())
}

#[pg_guard]
#[expect(clippy::too_many_arguments, reason = "the server's signature")]
unsafe extern "C-unwind" fn aminsert(
    index: pg_sys::Relation,
    values: *mut pg_sys::Datum,
    isnull: *mut bool,
    handle: pg_sys::ItemPointer,
    table: pg_sys::Relation,
    check: pg_sys::IndexUniqueCheck::Type,
    _unchanged: bool,
    _info: *mut pg_sys::IndexInfo,
) -> bool {
    // SAFETY: the server passes open relations, the handle of the row, and a
    // value for each of the index's columns.
    unsafe {
        insert::insert(&insert::Insertion {
            index,
            table,
            values,
            isnull,
            handle: *handle,
            check,
        })
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn ambulkdelete(
    info: *mut pg_sys::IndexVacuumInfo,
    stats: *mut pg_sys::IndexBulkDeleteResult,
    _callback: pg_sys::IndexBulkDeleteCallback,
    _state: *mut c_void,
) -> *mut pg_sys::IndexBulkDeleteResult {
    // SAFETY: the server passes an open index and statistics of its own.
    unsafe { vacuum::statistics(info, stats) }
}

#[pg_guard]
unsafe extern "C-unwind" fn amvacuumcleanup(
    info: *mut pg_sys::IndexVacuumInfo,
    stats: *mut pg_sys::IndexBulkDeleteResult,
) -> *mut pg_sys::IndexBulkDeleteResult {
    // SAFETY: as for ambulkdelete.
    unsafe { vacuum::statistics(info, stats) }
}

/// Every column can be given back, from the key or, where that is not exact,
/// from the payload. A key without storage that has INCLUDE columns is not read
/// by index-only scans at all: a plain scan of it has the whole row at hand, and
/// an index tuple has no room for a long value.
#[pg_guard]
unsafe extern "C-unwind" fn amcanreturn(index: pg_sys::Relation, _attribute: c_int) -> bool {
    // SAFETY: the planner passes an open index.
    unsafe {
        let form = &*(*index).rd_index;
        form.indnkeyatts == form.indnatts || matches!(storage_of(index), IndexStorage::Stored(_))
    }
}

#[pg_guard]
#[expect(clippy::too_many_arguments, reason = "the server's signature")]
pub unsafe extern "C-unwind" fn amcostestimate(
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    loop_count: f64,
    startup: *mut pg_sys::Cost,
    total: *mut pg_sys::Cost,
    selectivity: *mut pg_sys::Selectivity,
    correlation: *mut f64,
    pages: *mut f64,
) {
    // SAFETY: the planner passes a path over one of our indexes, and places
    // for the results.
    unsafe {
        let cost = cost::estimate(root, path, loop_count);
        *startup = cost.startup;
        *total = cost.total;
        *selectivity = cost.selectivity;
        *correlation = cost.correlation;
        *pages = cost.pages;
    }
}

unsafe extern "C-unwind" {
    /// The server's own parser of a B-tree's storage parameters.
    fn btoptions(reloptions: pg_sys::Datum, validate: bool) -> *mut pg_sys::bytea;
}

/// What a B-tree accepts, so that definitions carry over in both directions.
/// Nothing is stored, so nothing comes of them.
#[pg_guard]
unsafe extern "C-unwind" fn amoptions(
    reloptions: pg_sys::Datum,
    validate: bool,
) -> *mut pg_sys::bytea {
    // SAFETY: the arguments are passed through.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| btoptions(reloptions, validate)) }
}

/// There are no operator classes of ours; B-tree's are validated as B-tree's.
#[pg_guard]
unsafe extern "C-unwind" fn amvalidate(_class: pg_sys::Oid) -> bool {
    true
}

#[pg_guard]
unsafe extern "C-unwind" fn ambeginscan(
    index: pg_sys::Relation,
    keys: c_int,
    orderings: c_int,
) -> pg_sys::IndexScanDesc {
    // SAFETY: the server passes an open index.
    unsafe {
        let descriptor = pg_sys::RelationGetIndexScan(index, keys, orderings);
        Scan::begin(descriptor);
        descriptor
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn amrescan(
    descriptor: pg_sys::IndexScanDesc,
    keys: pg_sys::ScanKey,
    _key_count: c_int,
    _orderings: pg_sys::ScanKey,
    _ordering_count: c_int,
) {
    // SAFETY: the scan was begun by us. The new keys, if any, are as many as
    // it was begun with, and may be the very array they are copied to.
    unsafe {
        let count = (*descriptor).numberOfKeys;
        if !keys.is_null() && count > 0 {
            std::ptr::copy(keys, (*descriptor).keyData, count as usize);
        }
        Scan::of(descriptor).restart(descriptor);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn amgettuple(
    descriptor: pg_sys::IndexScanDesc,
    direction: pg_sys::ScanDirection::Type,
) -> bool {
    // SAFETY: the scan was begun by us.
    unsafe { Scan::of(descriptor).next(descriptor, direction) }
}

#[pg_guard]
unsafe extern "C-unwind" fn amendscan(descriptor: pg_sys::IndexScanDesc) {
    // SAFETY: the scan was begun by us and is not used again.
    unsafe { Scan::end(descriptor) }
}

#[pg_guard]
unsafe extern "C-unwind" fn ammarkpos(descriptor: pg_sys::IndexScanDesc) {
    // SAFETY: the scan was begun by us.
    unsafe { Scan::of(descriptor).mark() }
}

#[pg_guard]
unsafe extern "C-unwind" fn amrestrpos(descriptor: pg_sys::IndexScanDesc) {
    // SAFETY: the scan was begun by us.
    unsafe { Scan::of(descriptor).restore() }
}

#[pg_guard]
unsafe extern "C-unwind" fn amestimateparallelscan() -> pg_sys::Size {
    parallel::SHARED_BYTES
}

#[pg_guard]
unsafe extern "C-unwind" fn aminitparallelscan(target: *mut c_void) {
    // SAFETY: the server gives as much memory as was asked for.
    unsafe { parallel::initialize(target) }
}

#[pg_guard]
unsafe extern "C-unwind" fn amparallelrescan(descriptor: pg_sys::IndexScanDesc) {
    // SAFETY: the scan was begun by us, and is a parallel one.
    unsafe {
        if let Some(participant) = parallel::Participant::of(descriptor) {
            participant.restart();
        }
    }
}
