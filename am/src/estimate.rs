//! Sizes, for the planner and for people.

use pgrx::{pg_guard, pg_sys};

/// Bytes that a row takes beside its columns: slot, header, key length.
const ROW_OVERHEAD_BYTES: usize = 18;
/// Bytes of a page that rows can use: it is filled to nine tenths, less
/// header, special space and fences.
const PAGE_BYTES: usize = (pg_sys::BLCKSZ as usize - 150) * 9 / 10;

/// The `relation_size` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn relation_size(
    relation: pg_sys::Relation,
    fork: pg_sys::ForkNumber::Type,
) -> u64 {
    // SAFETY: an open relation.
    unsafe { pg_sys::table_block_relation_size(relation, fork) }
}

/// The `relation_estimate_size` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn estimate_size(
    relation: pg_sys::Relation,
    widths: *mut i32,
    pages: *mut pg_sys::BlockNumber,
    tuples: *mut f64,
    all_visible: *mut f64,
) {
    // SAFETY: the server's arguments are live.
    unsafe {
        pg_sys::table_block_relation_estimate_size(
            relation,
            widths,
            pages,
            tuples,
            all_visible,
            ROW_OVERHEAD_BYTES,
            PAGE_BYTES,
        );
        // A metapage and an empty root are no ten pages of rows.
        if (*pages) <= 10 && (*(*relation).rd_rel).reltuples < 0.0 {
            let real =
                pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
            if real <= 2 {
                *pages = 10;
            }
        }
        // Index-only scans never visit the table to judge a row.
        *all_visible = 1.0;
    }
}
