//! What the planner is told of a scan.
//!
//! An index that is stored beside its table costs what a B-tree does, and
//! `btcostestimate` says it. Each row that is then fetched costs a descent of
//! the table, which `cost_index` knows nothing of; its pages it charges.
//!
//! Of the index that is its table the leaf pages that a scan reads are the table's own, and `cost_index`
//! charges those by selectivity and correlation; of an index-only scan, which
//! it believes to stay away from the table, they are charged here. Key order is
//! the table's physical order, so the correlation is 1; and the index itself
//! costs the descent and the CPU of looking at its rows. Which quals bound the scan is
//! judged as `scan::ranges` does (and as btcostestimate in selfuncs.c judges it
//! for B-trees): equality on the leading columns, and whatever is said of the
//! next one.

use std::ffi::c_int;

use pg::list::nodes;
use pgrx::pg_sys;

/// What `amcostestimate` returns.
pub struct Cost {
    /// Before the first row.
    pub startup: f64,
    /// For all rows.
    pub total: f64,
    /// The fraction of the table's rows that come out.
    pub selectivity: f64,
    /// Of key order with physical order.
    pub correlation: f64,
    /// Leaves that are read: what parallel workers could share.
    pub pages: f64,
}

/// What bounds a scan.
struct Bounds {
    quals: *mut pg_sys::List,
    /// All index quals, bounding or not.
    qual_count: f64,
    is_point: bool,
    /// Ranges that IN lists make.
    scans: f64,
}

/// The pages that one inner page leads to, roughly.
const FANOUT: f64 = 250.0;
/// What a page on the way down costs, in operators: btcostestimate's figure.
const OPERATORS_FOR_PAGE: f64 = 50.0;

/// What a page on the way to a row that an entry names costs, in operators. The
/// upper pages and often the leaf are those of the row before, so it is less
/// than at the start of a scan.
const OPERATORS_FOR_FETCH_PAGE: f64 = 10.0;

unsafe extern "C-unwind" {
    /// The server's own estimate for B-trees.
    fn btcostestimate(
        root: *mut pg_sys::PlannerInfo,
        path: *mut pg_sys::IndexPath,
        loop_count: f64,
        startup: *mut pg_sys::Cost,
        total: *mut pg_sys::Cost,
        selectivity: *mut pg_sys::Selectivity,
        correlation: *mut f64,
        pages: *mut f64,
    );
}

/// Estimates a scan.
///
/// # Safety
/// `path` is an index path of the planner `root`.
pub unsafe fn estimate(
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    loop_count: f64,
) -> Cost {
    // SAFETY: the planner's structures are whole, as the caller promises.
    unsafe {
        // An index without storage has no pages; one that is stored begins
        // with its metapage.
        if (*(*path).indexinfo).pages == 0 {
            of_table(root, path, loop_count)
        } else {
            of_entries(root, path, loop_count)
        }
    }
}

/// # Safety
/// As [`estimate`].
unsafe fn of_entries(
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    loop_count: f64,
) -> Cost {
    // SAFETY: the caller's promise.
    unsafe {
        let index = &mut *(*path).indexinfo;
        if index.tree_height < 0 {
            index.tree_height = height(index.pages) as c_int;
        }
        let mut cost = Cost {
            startup: 0.0,
            total: 0.0,
            selectivity: 0.0,
            correlation: 0.0,
            pages: 0.0,
        };
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            btcostestimate(
                root,
                path,
                loop_count,
                &mut cost.startup,
                &mut cost.total,
                &mut cost.selectivity,
                &mut cost.correlation,
                &mut cost.pages,
            );
        });
        if (*path).path.pathtype == pg_sys::NodeTag::T_IndexScan {
            cost.total += fetches(index, cost.selectivity);
        }
        cost
    }
}

/// The CPU that it costs to fetch the rows that a stored index's entries name:
/// what an estimate has on top of the index's own cost. Nothing where the rows
/// are the entries.
///
/// # Safety
/// The index has its table.
pub unsafe fn fetches(index: &pg_sys::IndexOptInfo, selectivity: f64) -> f64 {
    if index.pages == 0 {
        return 0.0;
    }
    // SAFETY: the caller's promise, and a variable of the server's.
    unsafe {
        let table = &*index.rel;
        let rows = (selectivity * table.tuples).max(1.0);
        let comparisons = table.tuples.max(1.0).log2().ceil();
        let pages = (height(table.pages) + 1.0) * OPERATORS_FOR_FETCH_PAGE;
        rows * (comparisons + pages) * pg_sys::cpu_operator_cost
    }
}

/// The levels above the leaves of a tree of so many pages, roughly.
fn height(pages: u32) -> f64 {
    f64::from(pages.max(1)).log(FANOUT).ceil()
}

/// # Safety
/// As [`estimate`].
unsafe fn of_table(
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    loop_count: f64,
) -> Cost {
    // SAFETY: the planner's structures are whole, as the caller promises.
    unsafe {
        let index = (*path).indexinfo;
        let table = (*index).rel;
        let bounds = bounds(path);
        let rows = if bounds.is_point {
            1.0
        } else {
            let selectivity = pg_sys::clauselist_selectivity(
                root,
                bounds.quals,
                (*table).relid as c_int,
                pg_sys::JoinType::JOIN_INNER,
                std::ptr::null_mut(),
            );
            (selectivity * (*table).tuples / bounds.scans).round_ties_even()
        };
        let mut generic = pg_sys::GenericCosts {
            numIndexTuples: rows,
            ..Default::default()
        };
        pg_sys::genericcostestimate(root, path, loop_count, &mut generic);

        let operator = pg_sys::cpu_operator_cost;
        let comparisons = (*table).tuples.max(1.0).log2().ceil();
        let height = height((*table).pages);
        let descent = comparisons * operator + (height + 1.0) * OPERATORS_FOR_PAGE * operator;
        let row = pg_sys::cpu_index_tuple_cost + operator * bounds.qual_count;
        // Built up from its parts, because genericcostestimate's total charges
        // a page for an index that has none. Its startup is the evaluation of
        // the quals' arguments.
        let startup = generic.indexStartupCost + descent;
        let pages = if (*path).path.pathtype == pg_sys::NodeTag::T_IndexOnlyScan {
            leaf_pages(root, path, &bounds, generic.indexSelectivity, loop_count)
        } else if loop_count <= 1.0 {
            -jump_discount(table, &bounds)
        } else {
            0.0
        };
        Cost {
            startup,
            total: generic.indexStartupCost
                + generic.num_sa_scans * descent
                + generic.numIndexTuples * generic.num_sa_scans * row
                + pages,
            selectivity: generic.indexSelectivity,
            correlation: 1.0,
            pages: (generic.indexSelectivity * f64::from((*table).pages)).ceil(),
        }
    }
}

/// What it costs to read the leaves of an index-only scan, as `cost_index` has
/// it for a table that is in the order of the index: one jump, then pages in a
/// row; and if the scan is repeated, pages that are in the cache already.
///
/// # Safety
/// `path` is an index path of the planner's, and has these bounds.
unsafe fn leaf_pages(
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    bounds: &Bounds,
    selectivity: f64,
    loop_count: f64,
) -> f64 {
    // SAFETY: the caller's promise; both places are there to be written.
    unsafe {
        let table = (*(*path).indexinfo).rel;
        let (mut random, mut sequential) = (0.0, 0.0);
        pg_sys::get_tablespace_page_costs((*table).reltablespace, &mut random, &mut sequential);
        let pages = (selectivity * f64::from((*table).pages)).ceil().max(1.0);
        if loop_count > 1.0 {
            let fetched =
                pg_sys::index_pages_fetched(pages * loop_count, (*table).pages, 0.0, root);
            return fetched * random / loop_count;
        }
        random + (pages - 1.0) * sequential - jump_discount(table, bounds)
    }
}

/// What `cost_index` takes too much for the jump to where a scan with bounds
/// begins: to find one leaf of a table costs no more than to read all of them one
/// after the other, which in a table of a leaf or two is what a sequential scan
/// does, and judges every row besides. The metapage is read by neither. (A scan
/// without bounds reads everything too, and has no such advantage.)
///
/// # Safety
/// `table` is one of the planner's relations.
unsafe fn jump_discount(table: *mut pg_sys::RelOptInfo, bounds: &Bounds) -> f64 {
    if bounds.quals.is_null() {
        return 0.0;
    }
    // SAFETY: the caller's promise.
    unsafe { excess_of_jump(table) }
}

/// Whether all leaves of a table are read as cheaply as one of them is found.
///
/// # Safety
/// `table` is one of the planner's relations.
pub unsafe fn is_read_at_once(table: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: the caller's promise.
    unsafe { excess_of_jump(table) > 0.0 }
}

/// # Safety
/// As [`is_read_at_once`].
unsafe fn excess_of_jump(table: *mut pg_sys::RelOptInfo) -> f64 {
    let (mut random, mut sequential) = (0.0, 0.0);
    // SAFETY: the caller's promise; both places are there to be written.
    let leaves = unsafe {
        pg_sys::get_tablespace_page_costs((*table).reltablespace, &mut random, &mut sequential);
        f64::from((*table).pages) - 1.0
    };
    (random - leaves.max(1.0) * sequential).max(0.0)
}

/// # Safety
/// `path` is an index path; its clauses are in the order of the columns.
unsafe fn bounds(path: *mut pg_sys::IndexPath) -> Bounds {
    // SAFETY: the planner's lists hold what their names say, and index quals
    // are of the four kinds below.
    unsafe {
        let index = (*path).indexinfo;
        let mut bounds = Bounds {
            quals: std::ptr::null_mut(),
            qual_count: 0.0,
            is_point: false,
            scans: 1.0,
        };
        let (mut column, mut has_equality, mut ended) = (0, false, false);
        let mut is_point = true;
        for clause in nodes::<pg_sys::IndexClause>((*path).indexclauses) {
            if column != (*clause).indexcol {
                ended |= !has_equality || column + 1 != (*clause).indexcol;
                has_equality = false;
                column = (*clause).indexcol;
            }
            for qual in nodes::<pg_sys::RestrictInfo>((*clause).indexquals) {
                bounds.qual_count += 1.0;
                if ended {
                    continue;
                }
                let expression = (*qual).clause.cast::<pg_sys::Node>();
                let operator = match (*expression).type_ {
                    pg_sys::NodeTag::T_OpExpr => (*expression.cast::<pg_sys::OpExpr>()).opno,
                    pg_sys::NodeTag::T_ScalarArrayOpExpr => {
                        let list = expression.cast::<pg_sys::ScalarArrayOpExpr>();
                        let array = nodes::<pg_sys::Node>((*list).args).nth(1);
                        let length = array.map_or(1, |array| pg_sys::estimate_array_length(array));
                        bounds.scans *= f64::from(length.max(1));
                        is_point = false;
                        (*list).opno
                    }
                    // A NULL test; row comparisons are not for us.
                    _ => {
                        let test = expression.cast::<pg_sys::NullTest>();
                        has_equality |= (*expression).type_ == pg_sys::NodeTag::T_NullTest
                            && (*test).nulltesttype == pg_sys::NullTestType::IS_NULL;
                        is_point = false;
                        pg_sys::InvalidOid
                    }
                };
                if operator != pg_sys::InvalidOid {
                    let family = *(*index).opfamily.add(column as usize);
                    has_equality |= pg_sys::get_op_opfamily_strategy(operator, family)
                        == pg_sys::BTEqualStrategyNumber as c_int;
                }
                bounds.quals = pg_sys::lappend(bounds.quals, qual.cast());
            }
        }
        bounds.is_point = is_point
            && !ended
            && has_equality
            && (*index).unique
            && c_int::from(column) == (*index).nkeycolumns - 1;
        bounds
    }
}
