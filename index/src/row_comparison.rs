//! `(a, b) > (x, y)` through an index: how applications turn pages.
//!
//! The planner makes a row comparison an index condition for B-tree alone, and
//! so does the executor, each by the access method's oid. What follows from it,
//! `a >= x`, is a condition that any index can have. It is added to what the
//! planner may use of the restrictions, the paths of our indexes are made anew,
//! and the comparison itself stays where it is, a filter over the rows that come
//! out. (Made beside the old ones they would lose: the planner thinks the rows
//! that pass the filter evenly spread, so that for the first few of them it
//! costs nothing to begin at the wrong end.)

use std::ptr;

use pg::list::nodes;
use pgrx::pg_sys::{self, NodeTag, RowCompareType};

use crate::covering::is_ours;

/// Makes the paths of our indexes anew where a row comparison bounds them.
///
/// # Safety
/// Called from the planner's hook, with its arguments.
pub unsafe fn add_paths(root: *mut pg_sys::PlannerInfo, relation: *mut pg_sys::RelOptInfo) {
    // SAFETY: the server's arguments are whole. The lists that are put in the
    // place of others go back before this returns; after an ERROR in between
    // nobody looks at them again, for the planner's memory goes with it.
    unsafe {
        let mut ours = ptr::null_mut();
        for index in nodes::<pg_sys::IndexOptInfo>((*relation).indexlist) {
            if is_ours(&*index) {
                ours = pg_sys::lappend(ours, index.cast());
            }
        }
        if ours.is_null() {
            return;
        }
        let mut implied = ptr::null_mut();
        for restriction in nodes::<pg_sys::RestrictInfo>((*relation).baserestrictinfo) {
            if let Some(clause) = implied_by(root, restriction) {
                implied = pg_sys::lappend(implied, clause.cast());
            }
        }
        if implied.is_null() {
            return;
        }
        let all = std::mem::replace(&mut (*relation).indexlist, ours);
        let before: Vec<_> = nodes::<pg_sys::IndexOptInfo>(ours)
            .map(|index| {
                let restrictions = (*index).indrestrictinfo;
                let copy = pg_sys::list_copy(restrictions);
                (*index).indrestrictinfo = pg_sys::list_concat(copy, implied);
                restrictions
            })
            .collect();
        take_index_paths(&mut (*relation).pathlist);
        take_index_paths(&mut (*relation).partial_pathlist);
        pg_sys::create_index_paths(root, relation);
        for (index, restrictions) in nodes::<pg_sys::IndexOptInfo>(ours).zip(before) {
            (*index).indrestrictinfo = restrictions;
        }
        (*relation).indexlist = all;
    }
}

/// Takes the scans of our indexes out of a list of paths.
///
/// # Safety
/// A list of paths.
unsafe fn take_index_paths(paths: &mut *mut pg_sys::List) {
    let mut kept = ptr::null_mut();
    // SAFETY: paths are nodes, and their tags tell their types.
    unsafe {
        for path in nodes::<pg_sys::Node>(*paths) {
            let is_ours = (*path).type_ == NodeTag::T_IndexPath
                && is_ours(&*(*path.cast::<pg_sys::IndexPath>()).indexinfo);
            if !is_ours {
                kept = pg_sys::lappend(kept, path.cast());
            }
        }
    }
    *paths = kept;
}

/// What a row comparison says of its first columns alone.
///
/// # Safety
/// A restriction of the planner `root`.
unsafe fn implied_by(
    root: *mut pg_sys::PlannerInfo,
    restriction: *mut pg_sys::RestrictInfo,
) -> Option<*mut pg_sys::RestrictInfo> {
    // SAFETY: the tags tell the nodes' types; a row comparison has as many
    // operators, families and collations as it has columns, one at least.
    unsafe {
        let clause = (*restriction).clause.cast::<pg_sys::Node>();
        if (*clause).type_ != NodeTag::T_RowCompareExpr {
            return None;
        }
        let comparison = &*clause.cast::<pg_sys::RowCompareExpr>();
        let strategy = match comparison.rctype {
            RowCompareType::ROWCOMPARE_LT | RowCompareType::ROWCOMPARE_LE => {
                pg_sys::BTLessEqualStrategyNumber
            }
            RowCompareType::ROWCOMPARE_GT | RowCompareType::ROWCOMPARE_GE => {
                pg_sys::BTGreaterEqualStrategyNumber
            }
            _ => return None,
        };
        let first = |list: *mut pg_sys::List| (*(*list).elements).oid_value;
        let (mut left, mut right) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        pg_sys::op_input_types(first(comparison.opnos), &mut left, &mut right);
        let family = first(comparison.opfamilies);
        let operator = pg_sys::get_opfamily_member(family, left, right, strategy as i16);
        if operator == pg_sys::InvalidOid {
            return None;
        }
        let argument = |list: *mut pg_sys::List| {
            pg_sys::copyObjectImpl((*(*list).elements).ptr_value).cast::<pg_sys::Expr>()
        };
        let implied = pg_sys::make_opclause(
            operator,
            pg_sys::BOOLOID,
            false,
            argument(comparison.largs),
            argument(comparison.rargs),
            pg_sys::InvalidOid,
            first(comparison.inputcollids),
        );
        pg_sys::set_opfuncid(implied.cast());
        let of = &*restriction;
        Some(pg_sys::make_restrictinfo(
            root,
            implied,
            of.is_pushed_down,
            of.outerjoin_delayed,
            false,
            of.security_level,
            of.required_relids,
            of.outer_relids,
            of.nullable_relids,
        ))
    }
}
