//! What `pg_stat_progress_create_index` shows of a build.

use pgrx::pg_sys;

/// Steps of a build; the server keeps 0 and 1 for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i64)]
pub enum Phase {
    /// Reading the table and evaluating what is indexed.
    Scan = 2,
    /// Sorting the entries.
    Sort = 3,
    /// Filling pages.
    Load = 4,
}

/// Parameters of the view (`commands/progress.h`).
const SUBPHASE: i32 = 10;
const TUPLES_DONE: i32 = 12;

fn report(parameter: i32, value: i64) {
    // SAFETY: writes a counter of this process.
    unsafe { pg_sys::pgstat_progress_update_param(parameter, value) }
}

/// Begins a step.
pub fn enter(phase: Phase) {
    report(SUBPHASE, phase as i64);
}

/// Entries laid into pages.
pub fn entries_done(entries: i64) {
    report(TUPLES_DONE, entries);
}

/// A step's name, for the view.
pub fn name(phase: i64) -> Option<&'static std::ffi::CStr> {
    Some(match phase {
        1 => c"initializing",
        2 => c"scanning table",
        3 => c"sorting live tuples",
        4 => c"loading tuples in tree",
        _ => return None,
    })
}
