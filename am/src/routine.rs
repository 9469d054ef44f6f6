//! The one `TableAmRoutine`, assembled for an access method.

use crate::owed;
use crate::table_am::TableAm;
use crate::{
    create, estimate, fetch, indexes, insert, modify, parallel, sample, scan, speculate, vacuum,
};
use pg::error::unsupported;
use pgrx::{pg_guard, pg_sys};

/// The callbacks of access method `A`. Those that PostgreSQL calls without
/// looking are all there; the four for bitmap scans and tid ranges, which it
/// looks for first, are not, so that the planner makes no such plans.
pub const fn routine<A: TableAm>() -> pg_sys::TableAmRoutine {
    pg_sys::TableAmRoutine {
        type_: pg_sys::NodeTag::T_TableAmRoutine,
        slot_callbacks: Some(slot_callbacks),
        scan_begin: Some(scan::begin::<A>),
        scan_end: Some(scan::end::<A>),
        scan_rescan: Some(scan::rescan::<A>),
        scan_getnextslot: Some(scan::next::<A>),
        scan_set_tidrange: None,
        scan_getnextslot_tidrange: None,
        parallelscan_estimate: Some(parallel::estimate),
        parallelscan_initialize: Some(parallel::initialize),
        parallelscan_reinitialize: Some(parallel::reinitialize),
        index_fetch_begin: Some(fetch::index_begin),
        index_fetch_reset: Some(fetch::index_reset),
        index_fetch_end: Some(fetch::index_end),
        index_fetch_tuple: Some(fetch::index_fetch::<A>),
        tuple_fetch_row_version: Some(fetch::row_version::<A>),
        tuple_tid_valid: Some(fetch::tid_valid),
        tuple_get_latest_tid: Some(fetch::latest_tid::<A>),
        tuple_satisfies_snapshot: Some(fetch::satisfies_snapshot::<A>),
        index_delete_tuples: Some(index_delete_tuples),
        tuple_insert: Some(insert::tuple_insert::<A>),
        tuple_insert_speculative: Some(speculate::insert_speculative::<A>),
        tuple_complete_speculative: Some(speculate::complete_speculative::<A>),
        multi_insert: Some(insert::multi_insert::<A>),
        tuple_delete: Some(modify::tuple_delete::<A>),
        tuple_update: Some(modify::tuple_update::<A>),
        tuple_lock: Some(modify::tuple_lock::<A>),
        finish_bulk_insert: Some(owed::finish_bulk_insert),
        relation_set_new_filenode: Some(create::set_new_file::<A>),
        relation_nontransactional_truncate: Some(create::truncate::<A>),
        relation_copy_data: Some(create::copy_data),
        relation_copy_for_cluster: Some(create::copy_for_cluster::<A>),
        relation_vacuum: Some(vacuum::relation_vacuum::<A>),
        scan_analyze_next_block: Some(sample::analyze_block::<A>),
        scan_analyze_next_tuple: Some(sample::analyze_tuple::<A>),
        index_build_range_scan: Some(index_build_range_scan),
        index_validate_scan: Some(index_validate_scan),
        relation_size: Some(estimate::relation_size),
        relation_needs_toast_table: Some(needs_toast_table),
        relation_toast_am: Some(toast_am),
        relation_fetch_toast_slice: Some(fetch_toast_slice),
        relation_estimate_size: Some(estimate::estimate_size),
        scan_bitmap_next_block: None,
        scan_bitmap_next_tuple: None,
        scan_sample_next_block: Some(sample::sample_block::<A>),
        scan_sample_next_tuple: Some(sample::sample_tuple::<A>),
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn slot_callbacks(
    _relation: pg_sys::Relation,
) -> *const pg_sys::TupleTableSlotOps {
    &raw const pg::slot::OPS
}

/// Secondary indexes are refused when they are made; these are for whoever
/// comes here all the same.
fn no_secondary_indexes() -> ! {
    unsupported(
        "secondary indexes on its tables",
        "Only a primary key is supported so far.",
    )
}

#[pg_guard]
unsafe extern "C-unwind" fn index_delete_tuples(
    _relation: pg_sys::Relation,
    _state: *mut pg_sys::TM_IndexDeleteOp,
) -> pg_sys::TransactionId {
    no_secondary_indexes()
}

#[pg_guard]
#[expect(clippy::too_many_arguments, reason = "the server's signature")]
unsafe extern "C-unwind" fn index_build_range_scan(
    _table: pg_sys::Relation,
    _index: pg_sys::Relation,
    _info: *mut pg_sys::IndexInfo,
    _allow_sync: bool,
    _any_visible: bool,
    _progress: bool,
    _start: pg_sys::BlockNumber,
    _blocks: pg_sys::BlockNumber,
    _callback: pg_sys::IndexBuildCallback,
    _state: *mut std::ffi::c_void,
    _scan: pg_sys::TableScanDesc,
) -> f64 {
    // What is refused when it is made does not come here; what a heap table
    // had when it became one of ours does.
    unsupported(
        "building an index of another access method on an index-organized table",
        "Before SET ACCESS METHOD drop the table's indexes, its primary key too; add the primary \
         key again afterwards.",
    )
}

/// What an index lacks that was built while others wrote.
#[pg_guard]
unsafe extern "C-unwind" fn index_validate_scan(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    snapshot: pg_sys::Snapshot,
    state: *mut pg_sys::ValidateIndexState,
) {
    // SAFETY: the server's arguments; the index is one of ours since the table
    // is.
    unsafe { indexes::validate(table, index, info, snapshot, state) }
}

#[pg_guard]
unsafe extern "C-unwind" fn needs_toast_table(relation: pg_sys::Relation) -> bool {
    // SAFETY: the server passes an open relation.
    unsafe {
        // Any ALTER TABLE of a table that has none (made by an early version,
        // or a partition as it was) asks, and fails on a yes under a lock that
        // does not suffice to make one.
        let may_be_made = (*relation).rd_createSubid != 0
            || pg_sys::CheckRelationLockedByMe(
                relation,
                pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE,
                true,
            );
        may_be_made && pg::toast::needs_table(relation)
    }
}

/// Long values lie in heap tables, as heap's do.
#[pg_guard]
unsafe extern "C-unwind" fn toast_am(_relation: pg_sys::Relation) -> pg_sys::Oid {
    pg_sys::HEAP_TABLE_AM_OID
}

#[pg_guard]
unsafe extern "C-unwind" fn fetch_toast_slice(
    _toast: pg_sys::Relation,
    _value: pg_sys::Oid,
    _size: i32,
    _offset: i32,
    _length: i32,
    _result: *mut pg_sys::varlena,
) {
    unsupported(
        "TOAST tables of its own",
        "This table's long values cannot be read; restore it from a backup.",
    )
}
