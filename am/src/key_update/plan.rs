//! Which finished plans update one row by its whole key, and the node in their
//! place.

use super::allow::allows;
use pg::ddl;
use pg::key_update::coerces_to_domain;
use pg::list::{integers, nodes};
use pgrx::pg_sys::{self, NodeTag};
use std::ptr;

/// The node in place of a finished plan, if it is an UPDATE of one row by its
/// key of which nothing is asked beyond the row's change. What could is looked
/// for here, and by `run` where it may differ from one execution to the next.
///
/// # Safety
/// The plan is whole, and its relations are locked.
pub unsafe fn of(
    statement: &pg_sys::PlannedStmt,
    methods: *const pg_sys::CustomScanMethods,
) -> Option<*mut pg_sys::Plan> {
    // SAFETY: the tags tell the nodes' types, and lists hold what their fields
    // say.
    unsafe {
        let root = statement.planTree;
        if (*root).type_ != NodeTag::T_ModifyTable
            || statement.hasReturning
            || statement.hasModifyingCTE
            || statement.parallelModeNeeded
            || !statement.subplans.is_null()
            || !statement.rowMarks.is_null()
        {
            return None;
        }
        let modify = &*root.cast::<pg_sys::ModifyTable>();
        let scan = modify.plan.lefttree;
        if modify.operation != pg_sys::CmdType::CMD_UPDATE
            || !modify.canSetTag
            || modify.rootRelation != 0
            || modify.partColsUpdated
            || modify.onConflictAction != pg_sys::OnConflictAction::ONCONFLICT_NONE
            || ![
                modify.withCheckOptionLists,
                modify.returningLists,
                modify.rowMarks,
                modify.mergeActionLists,
                modify.plan.qual,
                modify.plan.initPlan,
            ]
            .iter()
            .all(|list| list.is_null())
            || scan.is_null()
            || (*scan).type_ != NodeTag::T_IndexScan
        {
            return None;
        }
        let scan = scan.cast::<pg_sys::IndexScan>();
        let target = (*scan).scan.scanrelid;
        let mut targets = integers(modify.resultRelations);
        if targets.next() != i32::try_from(target).ok()
            || targets.next().is_some()
            || !(*scan).indexorderby.is_null()
            || !(*scan).scan.plan.initPlan.is_null()
        {
            return None;
        }
        let entry = nodes::<pg_sys::RangeTblEntry>(statement.rtable).nth(target as usize - 1)?;
        let changed: Vec<_> = nodes::<pg_sys::List>(modify.updateColnosLists).collect();
        let [changed] = changed[..] else {
            return None;
        };
        let key = ddl::ask_ours((*entry).relid, |table| {
            let index = pg_sys::RelationIdGetRelation((*scan).indexid);
            if index.is_null() {
                return None;
            }
            let key = if allows(table, index, changed) {
                key_of(scan, index)
            } else {
                None
            };
            pg_sys::RelationClose(index);
            key
        })??;
        node(root.cast(), scan, key, methods)
    }
}

/// The node in place of a ModifyTable over a scan, both as the planner makes them,
/// of a table that [`allows`] it. The scan looks for the row of this key, whose
/// values are in the order of its columns.
///
/// # Safety
/// The nodes are whole.
pub unsafe fn node(
    modify: *mut pg_sys::ModifyTable,
    scan: *mut pg_sys::IndexScan,
    key: *mut pg_sys::List,
    methods: *const pg_sys::CustomScanMethods,
) -> Option<*mut pg_sys::Plan> {
    // SAFETY: the caller's promise.
    unsafe {
        let target = (*scan).scan.scanrelid;
        let quals = (*scan).scan.plan.qual;
        let values = values_of(&*scan);
        let is_more = |expressions: *mut pg_sys::List| {
            pg_sys::contain_volatile_functions(expressions.cast())
                || coerces_to_domain(expressions.cast())
                || names_row(expressions, target)
        };
        if is_more(values) || is_more(quals) || is_more(key) {
            return None;
        }
        let node = pg_sys::palloc0(size_of::<pg_sys::CustomScan>()).cast::<pg_sys::CustomScan>();
        (*node).scan.plan = (*modify).plan;
        (*node).scan.plan.type_ = NodeTag::T_CustomScan;
        (*node).scan.plan.targetlist = ptr::null_mut();
        (*node).scan.plan.lefttree = ptr::null_mut();
        (*node).scan.scanrelid = target;
        // What EXPLAIN finds a name for.
        (*node).custom_relids = pg_sys::bms_make_singleton(target as i32);
        (*node).methods = methods;
        // As `pg/src/key_update.c` reads it.
        let mut parts = ptr::null_mut();
        for part in [modify.cast(), key, values, quals] {
            parts = pg_sys::lappend(parts, part.cast());
        }
        (*node).custom_private = parts;
        Some(node.cast())
    }
}

/// The values that a scan compares the columns of its index with, if it compares
/// all of them, each once, by `=` with a value of its own type, and nothing else.
unsafe fn key_of(
    scan: *mut pg_sys::IndexScan,
    index: pg_sys::Relation,
) -> Option<*mut pg_sys::List> {
    // SAFETY: the plan is whole, and its index open.
    unsafe {
        let columns = (*(*index).rd_index).indnkeyatts as usize;
        let mut key: Vec<*mut pg_sys::Node> = vec![ptr::null_mut(); columns];
        for clause in nodes::<pg_sys::Node>((*scan).indexqual) {
            let (column, value) = equality(clause, index)?;
            if !key[column].is_null() {
                return None;
            }
            key[column] = value;
        }
        list_of(&key)
    }
}

/// A list of nodes, if none of them is missing.
pub unsafe fn list_of(members: &[*mut pg_sys::Node]) -> Option<*mut pg_sys::List> {
    let mut list = ptr::null_mut();
    for member in members {
        if member.is_null() {
            return None;
        }
        // SAFETY: a list that is made here.
        list = unsafe { pg_sys::lappend(list, member.cast()) };
    }
    Some(list)
}

/// The column of an index, from 0, that a clause compares by `=`, and the value
/// of the column's own type that it compares it with.
///
/// # Safety
/// A condition of a scan of the index, which is open.
pub unsafe fn equality(
    clause: *mut pg_sys::Node,
    index: pg_sys::Relation,
) -> Option<(usize, *mut pg_sys::Node)> {
    // SAFETY: the tags tell the nodes' types; the index is open.
    unsafe {
        if (*clause).type_ != NodeTag::T_OpExpr {
            return None;
        }
        let clause = &*clause.cast::<pg_sys::OpExpr>();
        let mut sides = nodes::<pg_sys::Node>(clause.args);
        let (column, value) = (sides.next()?, sides.next()?);
        if (*column).type_ != NodeTag::T_Var {
            return None;
        }
        let column = &*column.cast::<pg_sys::Var>();
        if column.varno != pg_sys::INDEX_VAR {
            return None;
        }
        let at = usize::try_from(column.varattno).ok()?.checked_sub(1)?;
        if at >= (*(*index).rd_index).indnkeyatts as usize {
            return None;
        }
        let family = *(*index).rd_opfamily.add(at);
        let strategy = pg_sys::get_op_opfamily_strategy(clause.opno, family);
        let (mut left, mut right) = (pg_sys::Oid::INVALID, pg_sys::Oid::INVALID);
        pg_sys::op_input_types(clause.opno, &mut left, &mut right);
        (strategy as u32 == pg_sys::BTEqualStrategyNumber
            && right == *(*index).rd_opcintype.add(at))
        .then_some((at, value))
    }
}

/// What a scan below an UPDATE computes, without what only names the row.
unsafe fn values_of(scan: &pg_sys::IndexScan) -> *mut pg_sys::List {
    let mut values = ptr::null_mut();
    // SAFETY: a target list.
    unsafe {
        for entry in nodes::<pg_sys::TargetEntry>(scan.scan.plan.targetlist) {
            if !(*entry).resjunk {
                values = pg_sys::lappend(values, entry.cast());
            }
        }
    }
    values
}

/// Whether expressions look at the row as a whole, or at system columns.
unsafe fn names_row(expressions: *mut pg_sys::List, number: u32) -> bool {
    let mut used = ptr::null_mut();
    // SAFETY: expressions of a finished plan.
    unsafe {
        pg_sys::pull_varattnos(expressions.cast(), number, &mut used);
        let first = pg_sys::bms_next_member(used, -1);
        // An empty set's next member is -2.
        first >= 0 && first + pg_sys::FirstLowInvalidHeapAttributeNumber <= 0
    }
}
