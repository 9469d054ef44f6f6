//! UPDATE of one row by its whole key, in one node: `README.md`, "Updates by
//! key". Which plans those are is decided in `plan`; `run` finds the row and
//! writes its successor, called by `pg::key_update`.

mod allow;
mod direct;
mod explain;
mod plan;
mod run;

use crate::table_am::TableAm;
use pg::handles;
use pg::hook::standard_planner;
use pg::key_update;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, c_char, c_int};

/// The name in EXPLAIN.
const NAME: &CStr = c"RowRef Update";

/// Methods, which the server only reads.
struct Static<T>(T);

// SAFETY: never written; the pointers in them are to static functions and names.
unsafe impl<T> Sync for Static<T> {}

static SCAN_METHODS: Static<pg_sys::CustomScanMethods> = Static(pg_sys::CustomScanMethods {
    CustomName: NAME.as_ptr(),
    CreateCustomScanState: Some(create_state::<crate::Iot>),
});

static EXEC_METHODS: Static<pg_sys::CustomExecMethods> =
    Static(key_update::methods(NAME, explain::explain));

#[pg_guard]
unsafe extern "C-unwind" fn create_state<A: TableAm>(
    _plan: *mut pg_sys::CustomScan,
) -> *mut pg_sys::Node {
    // SAFETY: static methods; this frame owns nothing.
    unsafe { key_update::create(&raw const EXEC_METHODS.0, run::find::<A>, run::write::<A>) }
}

static mut PREVIOUS_PLANNER: pg_sys::planner_hook_type = None;

/// # Safety
/// Called once, from `_PG_init`.
pub unsafe fn install() {
    // SAFETY: single-threaded start-up.
    unsafe {
        key_update::register(&raw const SCAN_METHODS.0);
        PREVIOUS_PLANNER = pg_sys::planner_hook;
        pg_sys::planner_hook = Some(planner);
    }
}

/// A plan that is finished gets our node if it is an UPDATE of one row by its
/// key.
#[pg_guard]
unsafe extern "C-unwind" fn planner(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: the server's arguments, handed on without a guard, for this frame
    // owns nothing; the plan is whole.
    unsafe {
        // Whoever plans before us is asked.
        if handles::plans_first()
            && let Some(statement) = direct::plan(query, &raw const SCAN_METHODS.0)
        {
            return statement;
        }
        let statement = match PREVIOUS_PLANNER {
            Some(previous) => previous(query, text, options, parameters),
            None => standard_planner(query, text, options, parameters),
        };
        if (*statement).commandType == pg_sys::CmdType::CMD_UPDATE
            && let Some(node) = plan::of(&*statement, &raw const SCAN_METHODS.0)
        {
            (*statement).planTree = node;
        }
        statement
    }
}
