//! The plan of such an UPDATE, made straight from the query: `README.md`, "Updates
//! by key", says why that is the plan that the planner would have come to.

use super::allow::allows;
use super::plan::{equality, list_of, node};
use pg::ddl;
use pg::list::nodes;
use pg::unguarded::server::eval_const_expressions;
use pgrx::pg_sys::{self, NodeTag};
use std::ptr;

/// The one table's number.
const TARGET: pg_sys::Index = 1;

/// The finished plan of a query that updates one row by its whole key; `None` if
/// the planner has to look at it. The query is as it was then.
///
/// # Safety
/// The query is whole, as the planner gets it. An ERROR may go past the caller's
/// frame, which owns nothing.
pub unsafe fn plan(
    query: *mut pg_sys::Query,
    methods: *const pg_sys::CustomScanMethods,
) -> Option<*mut pg_sys::PlannedStmt> {
    // SAFETY: the tags tell the nodes' types, and lists hold what their fields
    // say. Up to the first guarded call no frame owns anything.
    unsafe {
        let query = &*query;
        let entry = target_of(query)?;
        if !pg_sys::enable_indexscan {
            return None;
        }
        // In the planner's order, for each may raise an error.
        let values = values_of(query.targetList)?;
        let condition = eval_const_expressions(ptr::null_mut(), (*query.jointree).quals);
        let conditions = ddl::ask_ours((*entry).relid, |table| {
            // An inherited table's rows are its children's too.
            if (*entry).inh && (*(*table).rd_rel).relhassubclass {
                return None;
            }
            let oid = pg_sys::RelationGetPrimaryKeyIndex(table);
            if oid == pg_sys::Oid::INVALID {
                return None;
            }
            let index = pg_sys::index_open(oid, (*entry).rellockmode);
            let conditions = if allows(table, index, values.columns) {
                conditions_of(condition, index)
            } else {
                None
            };
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
            conditions
        })??;
        let (oids, is_all) = dependencies(query);
        if !is_all {
            return None;
        }
        let scan = scan(&conditions, values.entries);
        let modify = modify(query, scan, values.columns);
        let root = node(modify, scan, conditions.key, methods)?;

        // As the planner has it of a table without children.
        (*entry).inh = false;

        let statement = make::<pg_sys::PlannedStmt>(NodeTag::T_PlannedStmt);
        (*statement).commandType = query.commandType;
        (*statement).queryId = query.queryId;
        (*statement).canSetTag = query.canSetTag;
        (*statement).planTree = root;
        (*statement).rtable = query.rtable;
        (*statement).resultRelations = (*modify).resultRelations;
        (*statement).relationOids = oids;
        // ModifyTable's, by which EvalPlanQual starts a scan again.
        (*statement).paramExecTypes = pg_sys::lappend_oid(ptr::null_mut(), pg_sys::Oid::INVALID);
        (*statement).stmt_location = query.stmt_location;
        (*statement).stmt_len = query.stmt_len;
        Some(statement)
    }
}

/// The table that a query updates, if it looks at nothing else, and may be ours.
unsafe fn target_of(query: &pg_sys::Query) -> Option<*mut pg_sys::RangeTblEntry> {
    let lists = [
        query.cteList,
        query.mergeActionList,
        query.returningList,
        query.groupClause,
        query.groupingSets,
        query.windowClause,
        query.distinctClause,
        query.sortClause,
        query.rowMarks,
        query.constraintDeps,
        query.withCheckOptions,
    ];
    let is_plain = query.commandType == pg_sys::CmdType::CMD_UPDATE
        && query.resultRelation == TARGET as i32
        // What it does is counted as the statement's.
        && query.canSetTag
        && !query.hasAggs
        && !query.hasWindowFuncs
        && !query.hasTargetSRFs
        && !query.hasSubLinks
        && !query.hasRecursive
        && !query.hasModifyingCTE
        && !query.hasForUpdate
        && !query.hasRowSecurity
        && query.onConflict.is_null()
        && query.havingQual.is_null()
        && query.limitOffset.is_null()
        && query.limitCount.is_null()
        && query.setOperations.is_null()
        && lists.iter().all(|list| list.is_null());
    if !is_plain {
        return None;
    }
    // SAFETY: the query is whole.
    unsafe {
        let mut entries = nodes::<pg_sys::RangeTblEntry>(query.rtable);
        let first = entries.next()?;
        let entry = &*first;
        let mut sources = nodes::<pg_sys::RangeTblRef>((*query.jointree).fromlist);
        let source = &*sources.next()?;
        (entries.next().is_none()
            && sources.next().is_none()
            && source.type_ == NodeTag::T_RangeTblRef
            && source.rtindex == TARGET as i32
            && entry.rtekind == pg_sys::RTEKind::RTE_RELATION
            && entry.relkind as u8 == pg_sys::RELKIND_RELATION
            && entry.tablesample.is_null()
            && entry.securityQuals.is_null()
            && ddl::may_hold_ours(entry.relid))
        .then_some(first)
    }
}

/// What a query sets.
struct Values {
    /// The numbers of the columns.
    columns: *mut pg_sys::List,
    /// What the scan computes for them, and the row's ctid.
    entries: *mut pg_sys::List,
}

/// Raises what constant parts of the values raise.
unsafe fn values_of(targets: *mut pg_sys::List) -> Option<Values> {
    let mut values = Values {
        columns: ptr::null_mut(),
        entries: ptr::null_mut(),
    };
    let mut number = 0;
    // SAFETY: an UPDATE's target list; no frame here owns anything.
    unsafe {
        for target in nodes::<pg_sys::TargetEntry>(targets) {
            if (*target).resjunk {
                return None;
            }
            number += 1;
            let entry = pg_sys::flatCopyTargetEntry(target);
            (*entry).resno = number;
            (*entry).expr = eval_const_expressions(ptr::null_mut(), (*target).expr.cast()).cast();
            values.columns = pg_sys::lappend_int(values.columns, (*target).resno.into());
            values.entries = pg_sys::lappend(values.entries, entry.cast());
        }
        let ctid = pg_sys::makeVar(
            TARGET as _,
            pg_sys::SelfItemPointerAttributeNumber as _,
            pg_sys::TIDOID,
            -1,
            pg_sys::Oid::INVALID,
            0,
        );
        let name = pg_sys::pstrdup(c"ctid".as_ptr());
        let entry = pg_sys::makeTargetEntry(ctid.cast(), number + 1, name, true);
        values.entries = pg_sys::lappend(values.entries, entry.cast());
    }
    Some(values)
}

/// The relations that the plan depends on, and whether that is all: a function
/// that is not the server's own may be replaced.
unsafe fn dependencies(query: &pg_sys::Query) -> (*mut pg_sys::List, bool) {
    let (mut relations, mut others) = (ptr::null_mut(), ptr::null_mut());
    let mut has_row_security = false;
    // SAFETY: the query is whole, and the places are there to be written.
    unsafe {
        pg_sys::extract_query_dependencies(
            ptr::from_ref(query).cast_mut().cast(),
            &mut relations,
            &mut others,
            &mut has_row_security,
        );
    }
    (relations, others.is_null() && !has_row_security)
}

/// A query's condition, taken apart.
struct Conditions {
    index: pg_sys::Oid,
    /// The values of the key's columns.
    key: *mut pg_sys::List,
    /// What compares them, of the index's columns and of the table's.
    indexed: *mut pg_sys::List,
    original: *mut pg_sys::List,
    /// What else is asked.
    rest: *mut pg_sys::List,
}

/// Takes a condition apart. `None` if not every column of the key is compared with
/// one value.
unsafe fn conditions_of(
    condition: *mut pg_sys::Node,
    index: pg_sys::Relation,
) -> Option<Conditions> {
    // SAFETY: null or a whole condition, after its constant parts; an open index.
    unsafe {
        if condition.is_null() {
            return None;
        }
        let is_and = (*condition).type_ == NodeTag::T_BoolExpr
            && (*condition.cast::<pg_sys::BoolExpr>()).boolop == pg_sys::BoolExprType::AND_EXPR;
        let parts = if is_and {
            (*condition.cast::<pg_sys::BoolExpr>()).args
        } else {
            pg_sys::lappend(ptr::null_mut(), condition.cast())
        };
        let mut conditions = Conditions {
            index: (*index).rd_id,
            key: ptr::null_mut(),
            indexed: ptr::null_mut(),
            original: ptr::null_mut(),
            rest: ptr::null_mut(),
        };
        let columns = (*(*index).rd_index).indnkeyatts as usize;
        let mut key: Vec<*mut pg_sys::Node> = vec![ptr::null_mut(); columns];
        for part in nodes::<pg_sys::Node>(parts) {
            match of_index(part, index) {
                Some((clause, column, value)) => {
                    // Twice: no row, or one value too many.
                    if !key[column].is_null() {
                        return None;
                    }
                    key[column] = value;
                    conditions.indexed = pg_sys::lappend(conditions.indexed, clause.cast());
                    conditions.original = pg_sys::lappend(conditions.original, part.cast());
                }
                None => conditions.rest = pg_sys::lappend(conditions.rest, part.cast()),
            }
        }
        // In which order several are tested, and what a constant one means, the
        // planner decides.
        let mut rest = nodes::<pg_sys::Node>(conditions.rest);
        if let Some(first) = rest.next()
            && (rest.next().is_some() || !pg_sys::contain_var_clause(first))
        {
            return None;
        }
        conditions.key = list_of(&key)?;
        Some(conditions)
    }
}

/// A comparison of a column of an index's key with a value, as one of the index's
/// column, which is numbered from 0; and the value.
unsafe fn of_index(
    part: *mut pg_sys::Node,
    index: pg_sys::Relation,
) -> Option<(*mut pg_sys::Node, usize, *mut pg_sys::Node)> {
    // SAFETY: the tags tell the nodes' types, and an operator has one argument or
    // two; the index is open, and has as many columns as it says.
    unsafe {
        if (*part).type_ != NodeTag::T_OpExpr {
            return None;
        }
        let operation = part.cast::<pg_sys::OpExpr>();
        let mut sides = nodes::<pg_sys::Node>((*operation).args);
        let (mut left, right) = (sides.next()?, sides.next()?);
        if (*left).type_ == NodeTag::T_RelabelType {
            left = (*left.cast::<pg_sys::RelabelType>()).arg.cast();
        }
        if (*left).type_ != NodeTag::T_Var {
            return None;
        }
        let form = &*(*index).rd_index;
        let key = form.indkey.values.as_slice(form.indnkeyatts as usize);
        let number = (*left.cast::<pg_sys::Var>()).varattno;
        let column = key.iter().position(|column| *column == number)?;
        let collation = *(*index).rd_indcollation.add(column);
        let is_same_order =
            collation == pg_sys::Oid::INVALID || collation == (*operation).inputcollid;
        if !is_same_order || pg_sys::contain_var_clause(right) {
            return None;
        }
        let clause = pg_sys::copyObjectImpl(part.cast()).cast::<pg_sys::OpExpr>();
        let variable = pg_sys::copyObjectImpl(left.cast()).cast::<pg_sys::Var>();
        (*variable).varno = pg_sys::INDEX_VAR;
        (*variable).varattno = column as i16 + 1;
        (*(*(*clause).args).elements).ptr_value = variable.cast();
        let (column, value) = equality(clause.cast(), index)?;
        Some((clause.cast(), column, value))
    }
}

/// The scan that finds the row.
unsafe fn scan(conditions: &Conditions, entries: *mut pg_sys::List) -> *mut pg_sys::IndexScan {
    // SAFETY: a node is made with its size and tag.
    unsafe {
        let scan = make::<pg_sys::IndexScan>(NodeTag::T_IndexScan);
        let plan = &mut (*scan).scan.plan;
        // There is nothing to choose by it.
        plan.total_cost = pg_sys::random_page_cost + pg_sys::cpu_tuple_cost;
        plan.plan_rows = 1.0;
        plan.targetlist = entries;
        plan.qual = conditions.rest;
        // ModifyTable's parameter, below.
        plan.extParam = pg_sys::bms_make_singleton(0);
        plan.allParam = pg_sys::bms_make_singleton(0);
        (*scan).scan.scanrelid = TARGET;
        (*scan).indexid = conditions.index;
        (*scan).indexqual = conditions.indexed;
        (*scan).indexqualorig = conditions.original;
        (*scan).indexorderdir = pg_sys::ScanDirection::ForwardScanDirection;
        scan
    }
}

/// The ModifyTable over it.
unsafe fn modify(
    query: &pg_sys::Query,
    scan: *mut pg_sys::IndexScan,
    columns: *mut pg_sys::List,
) -> *mut pg_sys::ModifyTable {
    // SAFETY: a node is made with its size and tag.
    unsafe {
        let modify = make::<pg_sys::ModifyTable>(NodeTag::T_ModifyTable);
        (*modify).plan.total_cost = (*scan).scan.plan.total_cost;
        (*modify).plan.lefttree = scan.cast();
        (*modify).operation = pg_sys::CmdType::CMD_UPDATE;
        (*modify).canSetTag = query.canSetTag;
        (*modify).nominalRelation = TARGET;
        (*modify).resultRelations = pg_sys::lappend_int(ptr::null_mut(), TARGET as i32);
        (*modify).updateColnosLists = pg_sys::lappend(ptr::null_mut(), columns.cast());
        // Of the one table, which is not foreign: none.
        (*modify).fdwPrivLists = pg_sys::lappend(ptr::null_mut(), ptr::null_mut());
        (*modify).epqParam = 0;
        (*modify).onConflictAction = pg_sys::OnConflictAction::ONCONFLICT_NONE;
        modify
    }
}

/// A node of zeros.
unsafe fn make<T>(tag: NodeTag) -> *mut T {
    // SAFETY: a node begins with its tag.
    unsafe {
        let node = pg_sys::palloc0(size_of::<T>());
        *node.cast::<NodeTag>() = tag;
        node.cast()
    }
}
