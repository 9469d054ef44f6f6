//! What is known of each row of a set, so that it need not be tested.

use pg::list::nodes;
use pgrx::pg_sys;

use super::tree::Tree;

/// The condition that a tree of index scans stands for, as a list of clauses
/// that all hold.
pub(super) struct Condition {
    /// In the query's words.
    pub said: *mut pg_sys::List,
    /// As the indexes are asked, which may be less: of `LIKE 'a%'` a range.
    pub indexed: *mut pg_sys::List,
}

/// The condition of a tree over index paths.
///
/// # Safety
/// The paths are the planner's, one for each leaf.
pub(super) unsafe fn of(tree: &Tree, paths: &[*mut pg_sys::IndexPath]) -> Condition {
    // SAFETY: the caller's promise.
    unsafe {
        let branches = match tree {
            Tree::Leaf(nth) => return of_scan(&*paths[*nth]),
            Tree::And(branches) | Tree::Or(branches) => {
                branches.iter().map(|branch| of(branch, paths))
            }
        };
        let (said, indexed): (Vec<_>, Vec<_>) =
            branches.map(|branch| (branch.said, branch.indexed)).unzip();
        let combine = match tree {
            Tree::Or(_) => any,
            _ => all,
        };
        Condition {
            said: combine(said),
            indexed: combine(indexed),
        }
    }
}

/// # Safety
/// As [`of`].
unsafe fn of_scan(path: &pg_sys::IndexPath) -> Condition {
    // SAFETY: the planner's lists hold what their names say.
    unsafe {
        let (mut said, mut indexed) = (std::ptr::null_mut(), std::ptr::null_mut());
        for clause in nodes::<pg_sys::IndexClause>(path.indexclauses) {
            said = pg_sys::lappend(said, (*(*clause).rinfo).clause.cast());
            let quals = pg_sys::get_actual_clauses((*clause).indexquals);
            indexed = pg_sys::list_concat(indexed, quals);
        }
        // A partial index holds no other rows.
        for predicate in nodes::<pg_sys::Node>((*path.indexinfo).indpred) {
            said = pg_sys::lappend(said, predicate.cast());
            indexed = pg_sys::lappend(indexed, predicate.cast());
        }
        Condition { said, indexed }
    }
}

unsafe fn all(lists: Vec<*mut pg_sys::List>) -> *mut pg_sys::List {
    let lists = lists.into_iter();
    // SAFETY: lists of nodes.
    lists.fold(std::ptr::null_mut(), |all, list| unsafe {
        pg_sys::list_concat_unique(all, list)
    })
}

unsafe fn any(lists: Vec<*mut pg_sys::List>) -> *mut pg_sys::List {
    // A branch without a condition has all rows.
    if lists.iter().any(|list| list.is_null()) {
        return std::ptr::null_mut();
    }
    // SAFETY: lists of nodes.
    unsafe {
        let mut branches = std::ptr::null_mut();
        for list in lists {
            branches = pg_sys::lappend(branches, pg_sys::make_ands_explicit(list).cast());
        }
        pg_sys::lappend(std::ptr::null_mut(), pg_sys::make_orclause(branches).cast())
    }
}

/// The clauses that do not follow from a condition: what is left to be tested.
///
/// # Safety
/// `clauses` are restrictions, `condition` clauses that all hold.
pub(super) unsafe fn beyond(
    clauses: *mut pg_sys::List,
    condition: *mut pg_sys::List,
) -> *mut pg_sys::List {
    // SAFETY: the caller's promise.
    unsafe {
        let mut left = std::ptr::null_mut();
        for restriction in nodes::<pg_sys::RestrictInfo>(clauses) {
            if (*restriction).pseudoconstant {
                continue;
            }
            let clause = (*restriction).clause;
            let one = pg_sys::lappend(std::ptr::null_mut(), clause.cast());
            let follows = pg_sys::list_member(condition, clause.cast())
                || !pg_sys::contain_mutable_functions(clause.cast())
                    && pg_sys::predicate_implied_by(one, condition, false);
            if !follows {
                left = pg_sys::lappend(left, clause.cast());
            }
        }
        left
    }
}
