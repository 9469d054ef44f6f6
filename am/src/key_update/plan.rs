//! Which finished plans update one row by its whole key, and the node in their
//! place.

use crate::indexes;
use pg::ddl;
use pg::key_update::coerces_to_domain;
use pg::list::{integers, nodes};
use pg::open::storage_of;
use pg::row::IndexStorage;
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
        let scan = &*scan.cast::<pg_sys::IndexScan>();
        let target = scan.scan.scanrelid;
        let mut targets = integers(modify.resultRelations);
        if targets.next() != i32::try_from(target).ok()
            || targets.next().is_some()
            || !scan.indexorderby.is_null()
            || !scan.scan.plan.initPlan.is_null()
        {
            return None;
        }
        let entry = nodes::<pg_sys::RangeTblEntry>(statement.rtable).nth(target as usize - 1)?;
        let changed: Vec<_> = nodes::<pg_sys::List>(modify.updateColnosLists).collect();
        let [changed] = changed[..] else {
            return None;
        };
        let key = ddl::ask_ours((*entry).relid, |table| {
            (is_plain(table, changed) && columns_are_free(table, scan.indexid, changed))
                .then(|| key_of(scan))
                .flatten()
        })??;
        let values = values_of(scan);
        let is_more = |expressions: *mut pg_sys::List| {
            pg_sys::contain_volatile_functions(expressions.cast())
                || coerces_to_domain(expressions.cast())
                || names_row(expressions, target)
        };
        if is_more(values) || is_more(scan.scan.plan.qual) || is_more(key) {
            return None;
        }
        let node = pg_sys::palloc0(size_of::<pg_sys::CustomScan>()).cast::<pg_sys::CustomScan>();
        (*node).scan.plan = modify.plan;
        (*node).scan.plan.type_ = NodeTag::T_CustomScan;
        (*node).scan.plan.targetlist = ptr::null_mut();
        (*node).scan.plan.lefttree = ptr::null_mut();
        (*node).scan.scanrelid = target;
        // What EXPLAIN finds a name for.
        (*node).custom_relids = pg_sys::bms_make_singleton(target as i32);
        (*node).methods = methods;
        // As `pg/src/key_update.c` reads it.
        let mut parts = ptr::null_mut();
        for part in [root.cast(), key, values, scan.scan.plan.qual] {
            parts = pg_sys::lappend(parts, part.cast());
        }
        (*node).custom_private = parts;
        Some(node.cast())
    }
}

/// Of a scan of a table of ours: the values that the key's columns are compared
/// with, if all are, each once, by `=` with a value of its own type, and nothing
/// else.
unsafe fn key_of(scan: &pg_sys::IndexScan) -> Option<*mut pg_sys::List> {
    // SAFETY: the plan is whole; a plan's index is locked.
    unsafe {
        let index = pg_sys::RelationIdGetRelation(scan.indexid);
        if index.is_null() {
            return None;
        }
        let form = &*(*index).rd_index;
        let columns = form.indnkeyatts as usize;
        let is_table_key = form.indisprimary
            && form.indisvalid
            && form.indimmediate
            && !matches!(storage_of(index), IndexStorage::Stored(_));
        let mut key: Vec<*mut pg_sys::Node> = vec![ptr::null_mut(); columns];
        let mut is_whole = is_table_key;
        for clause in nodes::<pg_sys::Node>(scan.indexqual) {
            if !is_whole {
                break;
            }
            is_whole = match equality(clause, index) {
                Some((column, value)) if key[column].is_null() => {
                    key[column] = value;
                    true
                }
                _ => false,
            };
        }
        pg_sys::RelationClose(index);
        if !is_whole || key.iter().any(|value| value.is_null()) {
            return None;
        }
        let mut list = ptr::null_mut();
        for value in key {
            list = pg_sys::lappend(list, value.cast());
        }
        Some(list)
    }
}

/// The column of an index, from 0, that a clause compares by `=`, and the value
/// of the column's own type that it compares it with.
unsafe fn equality(
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
        let (mut strategy, mut left, mut right) = (0, pg_sys::Oid::INVALID, pg_sys::Oid::INVALID);
        pg_sys::get_op_opfamily_properties(
            clause.opno,
            *(*index).rd_opfamily.add(at),
            false,
            &mut strategy,
            &mut left,
            &mut right,
        );
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

/// Whether an update of these columns of the table is nothing but that of a row.
unsafe fn is_plain(table: pg_sys::Relation, changed: *mut pg_sys::List) -> bool {
    // SAFETY: the table is open.
    unsafe {
        let constraints = (*(*table).rd_att).constr;
        let class = &*(*table).rd_rel;
        class.relkind as u8 == pg_sys::RELKIND_RELATION
            && !class.relispartition
            && constraints.as_ref().is_none_or(|constraints| {
                !constraints.has_generated_stored && may_be_checked_twice(constraints)
            })
            && (*table)
                .trigdesc
                .as_ref()
                .is_none_or(|triggers| stay_silent(triggers, table, changed))
    }
}

/// Whether nobody could tell that a table's constraints were checked twice.
unsafe fn may_be_checked_twice(constraints: &pg_sys::TupleConstr) -> bool {
    if constraints.num_check == 0 {
        return true;
    }
    // SAFETY: there are as many as are said, each an expression in the server's
    // notation.
    unsafe {
        let checks = std::slice::from_raw_parts(constraints.check, constraints.num_check.into());
        checks.iter().all(|check| {
            let expression = pg_sys::stringToNode(check.ccbin).cast::<pg_sys::Node>();
            !pg_sys::contain_volatile_functions(expression) && !coerces_to_domain(expression)
        })
    }
}

/// Whether a table's triggers have nothing to do when these columns, which no
/// index looks at, change in a row that another transaction wrote: there are none
/// for UPDATE but those of foreign keys, which refer to the table by an index, or
/// from it by other columns.
unsafe fn stay_silent(
    triggers: &pg_sys::TriggerDesc,
    table: pg_sys::Relation,
    changed: *mut pg_sys::List,
) -> bool {
    if triggers.trig_update_before_row
        || triggers.trig_update_before_statement
        || triggers.trig_update_after_statement
        || triggers.trig_update_instead_row
        || triggers.trig_update_new_table
        || triggers.trig_update_old_table
    {
        return false;
    }
    if !triggers.trig_update_after_row {
        return true;
    }
    // SAFETY: the table is open, and has as many triggers as are said.
    unsafe {
        let each = std::slice::from_raw_parts(triggers.triggers, triggers.numtriggers as usize);
        let is_silent = each
            .iter()
            .filter(|trigger| trigger.tgtype as u32 & pg_sys::TRIGGER_TYPE_UPDATE != 0)
            .all(|trigger| {
                pg_sys::RI_FKey_trigger_type(trigger.tgfoid) as u32 != pg_sys::RI_TRIGGER_NONE
            });
        // Of several columns some may be null, which MATCH FULL looks at although
        // they stay.
        is_silent
            && nodes::<pg_sys::ForeignKeyCacheInfo>(pg_sys::RelationGetFKeyList(table)).all(|key| {
                (*key).nkeys == 1
                    && integers(changed).all(|number| number != i32::from((*key).conkey[0]))
            })
    }
}

/// Whether no index, nor the key, looks at any of these columns.
unsafe fn columns_are_free(
    table: pg_sys::Relation,
    key: pg_sys::Oid,
    changed: *mut pg_sys::List,
) -> bool {
    // SAFETY: the table is open and the plan's index locked.
    unsafe {
        let index = pg_sys::RelationIdGetRelation(key);
        if index.is_null() {
            return false;
        }
        let form = &*(*index).rd_index;
        // INCLUDE columns of the key are the table's own.
        let columns = form.indkey.values.as_slice(form.indnkeyatts as usize);
        let is_free = integers(changed)
            .all(|number| number > 0 && columns.iter().all(|column| i32::from(*column) != number));
        pg_sys::RelationClose(index);
        is_free && indexes::indexes_of(table).ignore(changed)
    }
}
