//! What a plan needs handles for.

use std::ffi::{c_int, c_void};
use std::ptr;

use pgrx::pg_guard;
use pgrx::pg_sys::{self, NodeTag, ffi::pg_guard_ffi_boundary as guarded};

use super::{Need, Needs};
use crate::list::{integers, nodes};
use crate::{ddl, hook, key_update};

type Walker = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool;

unsafe extern "C-unwind" {
    fn expression_tree_walker(
        node: *mut pg_sys::Node,
        walker: Walker,
        context: *mut c_void,
    ) -> bool;
    fn query_tree_walker(
        query: *mut pg_sys::Query,
        walker: Walker,
        context: *mut c_void,
        flags: c_int,
    ) -> bool;
}

const CTID: i16 = pg_sys::SelfItemPointerAttributeNumber as i16;

/// The needs of a query that is about to start. One that looks at ctids of
/// ours is kept from running in several processes.
///
/// # Safety
/// `query` is whole, as `ExecutorStart` gets it.
pub(super) unsafe fn needs(query: *mut pg_sys::QueryDesc) -> Needs {
    // SAFETY: the caller vouches for the tree; all pointers in it are null or
    // whole nodes of the type their tag says.
    unsafe {
        let plan = &*(*query).plannedstmt;
        if key_update::is_one(plan.planTree) {
            // What it cannot do itself ModifyTable does for it, to one row; a
            // foreign key's trigger may come back for that. Such plans name no
            // ctid.
            return Needs {
                read: Need::Retained,
                write: Need::Retained,
                reads_again: true,
            };
        }
        if !nodes::<pg_sys::RangeTblEntry>(plan.rtable)
            .any(|entry| is_relation(entry) && ddl::may_hold_ours((*entry).relid))
        {
            return Needs::NOTHING;
        }
        let mut work = Work::default();
        for root in std::iter::once(plan.planTree).chain(nodes::<pg_sys::Plan>(plan.subplans)) {
            work.add(plan, root);
        }
        let has_marks = nodes::<c_void>(plan.rowMarks).next().is_some();
        let names_junk = has_marks || work.writes;
        // The frames that the walk passes through own nothing.
        if guarded(|| names_ctid(plan, names_junk)) {
            // A plan for several processes does its work in one as well. What
            // is changed is this session's copy, for good if it is a cached
            // plan: it will not name any less another time.
            (*(*query).plannedstmt).parallelModeNeeded = false;
            return Needs {
                read: Need::Canonical,
                write: Need::Canonical,
                reads_again: work.updates,
            };
        }
        Needs {
            read: match (work.addresses, work.fires) {
                (true, true) => Need::Retained,
                (true, false) => Need::Run(None),
                (false, _) if has_marks || is_cursor() => Need::Run(None),
                (false, _) => Need::Nothing,
            },
            write: match (work.writes, work.fires) {
                (false, _) => Need::Nothing,
                // Indexes take it at once, and a batch is smaller than the ring.
                (true, false) => Need::Ring,
                (true, true) => Need::Retained,
            },
            reads_again: work.updates,
        }
    }
}

/// Whether the query that starts is a named portal's: `WHERE CURRENT OF` may
/// come back for its current row.
unsafe fn is_cursor() -> bool {
    // SAFETY: the portal that is being started is the active one, and has no
    // query yet; a query run *by* a portal's query finds it set.
    unsafe {
        let portal = pg_sys::ActivePortal;
        !portal.is_null() && (*portal).queryDesc.is_null() && *(*portal).name != 0
    }
}

unsafe fn is_relation(entry: *mut pg_sys::RangeTblEntry) -> bool {
    // SAFETY: the caller's entry is whole.
    unsafe { (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION }
}

/// What the ModifyTable nodes of a plan do.
#[derive(Default)]
struct Work {
    writes: bool,
    /// Finds existing rows by their tid.
    addresses: bool,
    /// Changes existing rows, which are fetched by their tids for that.
    updates: bool,
    /// Queues tids for AFTER ROW triggers.
    fires: bool,
}

impl Work {
    unsafe fn add(&mut self, plan: &pg_sys::PlannedStmt, root: *mut pg_sys::Plan) {
        // SAFETY: the caller's tree is whole; result relations are numbers of
        // entries of its range table.
        unsafe {
            if root.is_null() || (*root).type_ != NodeTag::T_ModifyTable {
                return;
            }
            let modify = &*root.cast::<pg_sys::ModifyTable>();
            let is_speculative =
                modify.onConflictAction != pg_sys::OnConflictAction::ONCONFLICT_NONE;
            self.writes = true;
            self.updates |= matches!(
                modify.operation,
                pg_sys::CmdType::CMD_UPDATE | pg_sys::CmdType::CMD_MERGE
            );
            self.addresses |= modify.operation != pg_sys::CmdType::CMD_INSERT || is_speculative;
            let entry = |number: c_int| {
                let place = usize::try_from(number).ok()?.checked_sub(1)?;
                nodes::<pg_sys::RangeTblEntry>(plan.rtable).nth(place)
            };
            for entry in integers(modify.resultRelations)
                .chain(std::iter::once(modify.rootRelation as c_int))
                .filter_map(entry)
            {
                self.fires |= ddl::may_fire_after_row((*entry).relid);
            }
        }
    }
}

/// Whether somebody other than the executor itself looks at a ctid. Where it
/// carries ctids of its own up the plan (`names_junk`), columns that do nothing
/// but pass one on do not count.
unsafe fn names_ctid(plan: &pg_sys::PlannedStmt, names_junk: bool) -> bool {
    let walk = Walk { names_junk };
    // SAFETY: the caller's tree is whole.
    unsafe {
        walk.plan(plan.planTree, true)
            || nodes::<pg_sys::Plan>(plan.subplans).any(|root| walk.plan(root, true))
    }
}

struct Walk {
    names_junk: bool,
}

impl Walk {
    /// `is_top` if users see what the node returns.
    unsafe fn plan(&self, plan: *mut pg_sys::Plan, is_top: bool) -> bool {
        if plan.is_null() {
            return false;
        }
        // SAFETY: the tag says what the node is, and plans begin with a Plan.
        unsafe {
            let base = &*plan;
            if self.columns(base.targetlist, is_top) || mentions(base.qual) {
                return true;
            }
            let node = plan.cast::<c_void>();
            let special = match base.type_ {
                NodeTag::T_ModifyTable => {
                    let modify = &*node.cast::<pg_sys::ModifyTable>();
                    mentions(modify.returningLists)
                        || mentions(modify.withCheckOptionLists)
                        || mentions(modify.onConflictSet)
                        || mentions(modify.onConflictWhere)
                        || mentions(modify.mergeActionLists)
                        || self.plan(base.lefttree, true)
                }
                NodeTag::T_LockRows | NodeTag::T_Limit => {
                    let limits = base.type_ == NodeTag::T_Limit && {
                        let limit = &*node.cast::<pg_sys::Limit>();
                        mentions(limit.limitOffset) || mentions(limit.limitCount)
                    };
                    limits || self.plan(base.lefttree, is_top)
                }
                NodeTag::T_IndexScan => {
                    let scan = &*node.cast::<pg_sys::IndexScan>();
                    mentions(scan.indexqual) || mentions(scan.indexorderby)
                }
                NodeTag::T_IndexOnlyScan => {
                    let scan = &*node.cast::<pg_sys::IndexOnlyScan>();
                    mentions(scan.indexqual) || mentions(scan.indexorderby)
                }
                NodeTag::T_BitmapIndexScan => {
                    mentions((*node.cast::<pg_sys::BitmapIndexScan>()).indexqual)
                }
                NodeTag::T_BitmapAnd => self.plans((*node.cast::<pg_sys::BitmapAnd>()).bitmapplans),
                NodeTag::T_BitmapOr => self.plans((*node.cast::<pg_sys::BitmapOr>()).bitmapplans),
                // They exist for ctids only.
                NodeTag::T_TidScan | NodeTag::T_TidRangeScan => true,
                NodeTag::T_ValuesScan => {
                    mentions((*node.cast::<pg_sys::ValuesScan>()).values_lists)
                }
                NodeTag::T_FunctionScan => {
                    mentions((*node.cast::<pg_sys::FunctionScan>()).functions)
                }
                NodeTag::T_TableFuncScan => {
                    mentions((*node.cast::<pg_sys::TableFuncScan>()).tablefunc)
                }
                NodeTag::T_SampleScan => mentions((*node.cast::<pg_sys::SampleScan>()).tablesample),
                NodeTag::T_SubqueryScan => {
                    self.plan((*node.cast::<pg_sys::SubqueryScan>()).subplan, true)
                }
                NodeTag::T_Append => self.plans((*node.cast::<pg_sys::Append>()).appendplans),
                NodeTag::T_MergeAppend => {
                    self.plans((*node.cast::<pg_sys::MergeAppend>()).mergeplans)
                }
                NodeTag::T_NestLoop => {
                    let join = &*node.cast::<pg_sys::NestLoop>();
                    mentions(join.join.joinqual)
                        || nodes::<pg_sys::NestLoopParam>(join.nestParams)
                            .any(|parameter| mentions((*parameter).paramval))
                }
                NodeTag::T_MergeJoin => {
                    let join = &*node.cast::<pg_sys::MergeJoin>();
                    mentions(join.join.joinqual) || mentions(join.mergeclauses)
                }
                NodeTag::T_HashJoin => {
                    let join = &*node.cast::<pg_sys::HashJoin>();
                    mentions(join.join.joinqual) || mentions(join.hashclauses)
                }
                NodeTag::T_Memoize => mentions((*node.cast::<pg_sys::Memoize>()).param_exprs),
                NodeTag::T_Agg => self.plans((*node.cast::<pg_sys::Agg>()).chain),
                NodeTag::T_WindowAgg => {
                    let window = &*node.cast::<pg_sys::WindowAgg>();
                    mentions(window.startOffset)
                        || mentions(window.endOffset)
                        || mentions(window.runCondition)
                }
                NodeTag::T_Result => mentions((*node.cast::<pg_sys::Result>()).resconstantqual),
                NodeTag::T_CustomScan => {
                    let custom = &*node.cast::<pg_sys::CustomScan>();
                    mentions(custom.custom_exprs) || self.plans(custom.custom_plans)
                }
                NodeTag::T_ForeignScan => mentions((*node.cast::<pg_sys::ForeignScan>()).fdw_exprs),
                _ => false,
            };
            // ModifyTable's and LockRows' input was walked above, as what it is.
            let walked = matches!(
                base.type_,
                NodeTag::T_ModifyTable | NodeTag::T_LockRows | NodeTag::T_Limit
            );
            special
                || (!walked && self.plan(base.lefttree, is_top && passes_on(base.type_)))
                || self.plan(base.righttree, false)
        }
    }

    unsafe fn plans(&self, plans: *mut pg_sys::List) -> bool {
        // SAFETY: a list of plans.
        unsafe { nodes::<pg_sys::Plan>(plans).any(|plan| self.plan(plan, false)) }
    }

    unsafe fn columns(&self, columns: *mut pg_sys::List, is_top: bool) -> bool {
        // SAFETY: a list of target entries.
        unsafe {
            nodes::<pg_sys::TargetEntry>(columns).any(|column| {
                let passes_on = self.names_junk
                    && is_ctid((*column).expr.cast())
                    && (*column).ressortgroupref == 0
                    && ((*column).resjunk || !is_top);
                !passes_on && mentions((*column).expr)
            })
        }
    }
}

/// Whether a node's input has the same columns with the same meaning, junk
/// marks included, so that the input's must be judged likewise.
fn passes_on(tag: NodeTag) -> bool {
    matches!(
        tag,
        NodeTag::T_Sort | NodeTag::T_IncrementalSort | NodeTag::T_Material | NodeTag::T_Unique
    )
}

/// A ctid, at whatever height of the plan: there `varno` says the input, and
/// only the syntactic numbers still say the column.
unsafe fn is_ctid(node: *mut pg_sys::Node) -> bool {
    // SAFETY: null or a whole node.
    unsafe {
        if node.is_null() || (*node).type_ != NodeTag::T_Var {
            return false;
        }
        let var = &*node.cast::<pg_sys::Var>();
        var.varattno == CTID || (var.varnosyn > 0 && var.varattnosyn == CTID)
    }
}

/// Whether an expression, or a list of them, names a ctid.
///
/// # Safety
/// The node is null or whole. The server's walkers may raise an error: the
/// caller has a guard around this, and no frame in between owns anything.
#[inline]
unsafe fn mentions<T>(node: *mut T) -> bool {
    // SAFETY: the caller's promise.
    unsafe { !node.is_null() && ctid_walker(node.cast(), ptr::null_mut()) }
}

unsafe extern "C-unwind" fn ctid_walker(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: null or a whole node, as the server's walkers pass it.
    unsafe {
        if node.is_null() {
            return false;
        }
        if is_ctid(node) {
            return true;
        }
        if (*node).type_ == NodeTag::T_Query {
            return query_tree_walker(node.cast(), ctid_walker, context, 0);
        }
        expression_tree_walker(node, ctid_walker, context)
    }
}

/// Whether a table of ours is named at any depth of a query: the ctid may be a
/// sublink's or a subquery's.
unsafe extern "C-unwind" fn ours_walker(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: null or a whole node, as the server's walkers pass it.
    unsafe {
        if node.is_null() {
            return false;
        }
        if (*node).type_ != NodeTag::T_Query {
            return expression_tree_walker(node, ours_walker, context);
        }
        let query = node.cast::<pg_sys::Query>();
        nodes::<pg_sys::RangeTblEntry>((*query).rtable)
            .any(|entry| is_relation(entry) && ddl::may_hold_ours((*entry).relid))
            || query_tree_walker(query, ours_walker, context, 0)
    }
}

static mut PREVIOUS_PLANNER: pg_sys::planner_hook_type = None;

/// # Safety
/// Called once, from `_PG_init`.
pub(super) unsafe fn install() {
    // SAFETY: single-threaded start-up.
    unsafe {
        PREVIOUS_PLANNER = pg_sys::planner_hook;
        pg_sys::planner_hook = Some(planner);
    }
}

/// Whether no library that was loaded before this one has a planner of its own,
/// so that a plan may be made without asking further.
pub fn plans_first() -> bool {
    // SAFETY: written at start-up only.
    let previous = unsafe { PREVIOUS_PLANNER };
    previous.is_none()
}

/// Handles mean nothing in another process, so a query that looks at ctids of
/// ours is not planned for several. What the planner brings in later (the body
/// of an inlined function) is left to [`needs`].
#[pg_guard]
unsafe extern "C-unwind" fn planner(
    query: *mut pg_sys::Query,
    text: *const std::ffi::c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    const PARALLEL: c_int = pg_sys::CURSOR_OPT_PARALLEL_OK as c_int;
    // SAFETY: the server's arguments, handed on; the query is whole.
    unsafe {
        let serial = options & PARALLEL != 0
            && pg_sys::max_parallel_workers_per_gather > 0
            && guarded(|| mentions(query) && ours_walker(query.cast(), ptr::null_mut()));
        let options = if serial { options & !PARALLEL } else { options };
        match PREVIOUS_PLANNER {
            Some(previous) => previous(query, text, options, parameters),
            None => hook::standard_planner(query, text, options, parameters),
        }
    }
}
