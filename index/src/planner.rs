//! The planner's two hooks, one place for all that it is told beyond the access
//! method's routine. The hook before ours is called without a guard, so that its
//! errors pass untouched (`pg::hook`); these frames own nothing.

use pgrx::pg_guard;
use pgrx::pg_sys;

use crate::{covering, row_comparison, set};

static mut PREVIOUS_INFO: pg_sys::get_relation_info_hook_type = None;
static mut PREVIOUS_PATHS: pg_sys::set_rel_pathlist_hook_type = None;

/// # Safety
/// Called once, from `_PG_init`.
pub unsafe fn install() {
    // SAFETY: single-threaded start-up; each hook calls the one before it.
    unsafe {
        set::register();
        PREVIOUS_INFO = pg_sys::get_relation_info_hook;
        pg_sys::get_relation_info_hook = Some(relation_info);
        PREVIOUS_PATHS = pg_sys::set_rel_pathlist_hook;
        pg_sys::set_rel_pathlist_hook = Some(relation_paths);
    }
}

/// The planner has collected what it knows of a relation.
#[pg_guard]
unsafe extern "C-unwind" fn relation_info(
    root: *mut pg_sys::PlannerInfo,
    relation: pg_sys::Oid,
    is_parent: bool,
    info: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: the server's arguments, handed on.
    unsafe {
        if let Some(previous) = PREVIOUS_INFO {
            previous(root, relation, is_parent, info);
        }
        covering::describe(relation, info);
        set::allow(relation, is_parent, info);
    }
}

/// The planner has made the paths of a relation, and not chosen yet.
#[pg_guard]
unsafe extern "C-unwind" fn relation_paths(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    number: pg_sys::Index,
    entry: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the server's arguments, handed on.
    unsafe {
        if let Some(previous) = PREVIOUS_PATHS {
            previous(root, relation, number, entry);
        }
        row_comparison::add_paths(root, relation);
        // Last, for it replaces bitmap paths that were made here.
        set::replace_paths(relation, entry);
    }
}
