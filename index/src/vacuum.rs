//! Vacuuming an index that has no storage: only the statistics are left to do,
//! for the table prunes itself.

use pgrx::pg_sys;

/// Fills in statistics; allocates them if there are none yet.
///
/// # Safety
/// `info` describes a vacuum of an open index; `stats` is null or the server's.
pub unsafe fn statistics(
    info: *mut pg_sys::IndexVacuumInfo,
    stats: *mut pg_sys::IndexBulkDeleteResult,
) -> *mut pg_sys::IndexBulkDeleteResult {
    // SAFETY: the caller's promise; the allocation is zeroed and as large as
    // the structure.
    unsafe {
        let stats = if stats.is_null() {
            pg_sys::palloc0(size_of::<pg_sys::IndexBulkDeleteResult>())
                .cast::<pg_sys::IndexBulkDeleteResult>()
        } else {
            stats
        };
        // The table's rows are the entries, however the table was counted.
        (*stats).num_index_tuples = (*info).num_heap_tuples.max(0.0);
        (*stats).estimated_count = (*info).estimated_count || (*info).num_heap_tuples < 0.0;
        stats
    }
}
