//! From path to plan, and from plan to executor state.

use std::ffi::CStr;
use std::ptr;

use pg::error::{self, unsupported};
use pg::list::{integers, nodes};
use pgrx::pg_guard;
use pgrx::pg_sys::{self, NodeTag};

use super::tree::Tree;
use super::{condition, run};

/// The name in EXPLAIN, and by which a parallel worker finds the methods.
const NAME: &CStr = c"RowRef Set Scan";

/// Methods, which the server only reads.
pub(super) struct Static<T>(pub T);

// SAFETY: never written; the pointers in them are to static functions and names.
unsafe impl<T> Sync for Static<T> {}

static PATH_METHODS: Static<pg_sys::CustomPathMethods> = Static(pg_sys::CustomPathMethods {
    CustomName: NAME.as_ptr(),
    PlanCustomPath: Some(plan_path),
    ReparameterizeCustomPathByChild: None,
});

static SCAN_METHODS: Static<pg_sys::CustomScanMethods> = Static(pg_sys::CustomScanMethods {
    CustomName: NAME.as_ptr(),
    CreateCustomScanState: Some(run::create_state),
});

pub(super) fn path_methods() -> *const pg_sys::CustomPathMethods {
    &raw const PATH_METHODS.0
}

/// Registers the custom scan.
///
/// # Safety
/// Called once, from `_PG_init`.
pub unsafe fn register() {
    // SAFETY: the methods are static.
    unsafe { pg_sys::RegisterCustomScanMethods(&raw const SCAN_METHODS.0) };
}

/// The plan of a set scan. The index scans beneath it are planned as if they
/// were to be executed, for that is how the planner makes index conditions fit
/// for execution; only their conditions are used.
#[pg_guard]
unsafe extern "C-unwind" fn plan_path(
    _root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::CustomPath,
    targets: *mut pg_sys::List,
    clauses: *mut pg_sys::List,
    scans: *mut pg_sys::List,
) -> *mut pg_sys::Plan {
    // SAFETY: the planner's own nodes; a node is made with its size and tag.
    unsafe {
        let scan = pg_sys::palloc0(size_of::<pg_sys::CustomScan>()).cast::<pg_sys::CustomScan>();
        (*scan).scan.plan.type_ = NodeTag::T_CustomScan;
        (*scan).scan.plan.targetlist = targets;
        let tree = Tree::decode(&integers((*path).custom_private).collect::<Vec<_>>());
        let paths: Vec<_> = nodes::<pg_sys::IndexPath>((*path).custom_paths).collect();
        let set = condition::of(&tree.expect("encoded by us"), &paths);
        (*scan).scan.plan.qual = condition::beyond(clauses, set.indexed);
        // What a row in the set fulfils, for rows that were not found by it,
        // or by an index that says less than its whole condition.
        (*scan).custom_exprs = set.said;
        (*scan).scan.scanrelid = (*relation).relid;
        (*scan).flags = (*path).flags;
        (*scan).custom_plans = scans;
        (*scan).custom_private = (*path).custom_private;
        (*scan).methods = &raw const SCAN_METHODS.0;
        scan.cast()
    }
}

/// A tree as a list of numbers.
pub(super) fn encode(tree: &Tree) -> *mut pg_sys::List {
    let mut numbers = Vec::new();
    tree.encode(&mut numbers);
    let mut list = ptr::null_mut();
    for number in numbers {
        // SAFETY: an integer list, or none yet.
        list = unsafe { pg_sys::lappend_int(list, number) };
    }
    list
}

/// The tree of a plan.
///
/// # Safety
/// `scan` is a plan of ours.
pub(super) unsafe fn tree_of(scan: *const pg_sys::CustomScan) -> Tree {
    // SAFETY: its private list is one of integers.
    let numbers: Vec<i32> = unsafe { integers((*scan).custom_private).collect() };
    Tree::decode(&numbers).unwrap_or_else(|| {
        error::raise_with(
            pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "the plan of a row set scan cannot be read".into(),
            None,
            None,
        )
    })
}

/// One index scan of a plan: the index, and the condition, of which the second
/// form is for people to read.
#[derive(Clone, Copy)]
pub(super) struct IndexCondition {
    pub plan: *mut pg_sys::Plan,
    pub index: pg_sys::Oid,
    pub condition: *mut pg_sys::List,
    pub readable: *mut pg_sys::List,
}

/// The index scans of a plan, from the left.
///
/// # Safety
/// `scan` is a plan of ours.
pub(super) unsafe fn conditions_of(scan: *const pg_sys::CustomScan) -> Vec<IndexCondition> {
    // SAFETY: the tags tell the nodes' types.
    unsafe {
        nodes((*scan).custom_plans)
            .map(|plan| condition_of(plan))
            .collect()
    }
}

unsafe fn condition_of(mut plan: *mut pg_sys::Plan) -> IndexCondition {
    // SAFETY: as in `conditions_of`.
    unsafe {
        // A clause without columns stands above the scan; it stands above us,
        // too, and is tested there.
        while (*plan).type_ == NodeTag::T_Result {
            plan = (*plan).lefttree;
        }
        match (*plan).type_ {
            NodeTag::T_IndexScan => {
                let scan = plan.cast::<pg_sys::IndexScan>();
                IndexCondition {
                    plan,
                    index: (*scan).indexid,
                    condition: (*scan).indexqual,
                    readable: (*scan).indexqualorig,
                }
            }
            NodeTag::T_IndexOnlyScan => {
                let scan = plan.cast::<pg_sys::IndexOnlyScan>();
                IndexCondition {
                    plan,
                    index: (*scan).indexid,
                    condition: (*scan).indexqual,
                    readable: (*scan).indexqual,
                }
            }
            _ => unsupported(
                "a row set scan over anything but index scans",
                "Set enable_bitmapscan to off for this query.",
            ),
        }
    }
}
