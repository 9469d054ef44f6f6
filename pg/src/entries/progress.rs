//! How far the table was read, for `pg_stat_progress_create_index`.

use pgrx::pg_sys;

/// Parameters of the view (`commands/progress.h`).
const BLOCKS_TOTAL: i32 = 15;
const BLOCKS_DONE: i32 = 16;

fn report(parameter: i32, value: i64) {
    // SAFETY: writes a counter of this process.
    unsafe { pg_sys::pgstat_progress_update_param(parameter, value) }
}

/// The table's size.
pub fn blocks_total(blocks: u32) {
    report(BLOCKS_TOTAL, i64::from(blocks));
}

/// Leaves that were read, or are being read.
pub fn blocks_done(leaves: i64) {
    report(BLOCKS_DONE, leaves);
}
