//! The planner's side: bitmap paths are allowed, and become set scans.

use pg::ddl;
use pg::list::nodes;
use pg::open::OpenStore;
use pg::row::TableLayout;
use pgrx::pg_sys::{self, NodeTag, ffi::pg_guard_ffi_boundary as guarded};

use super::plan;
use super::tree::Tree;
use crate::cost;

/// CPU of looking a row up by its reference beyond what a bitmap scan costs, in
/// operators. The leaves come in order, and mostly several rows on each.
const LOOK_UP_OPERATORS: f64 = 3.0;

unsafe extern "C-unwind" {
    fn cost_bitmap_tree_node(path: *mut pg_sys::Path, cost: *mut f64, selectivity: *mut f64);
}

/// Tells the planner that our indexes have bitmaps. The paths that it makes of
/// them are replaced before it chooses; none becomes a plan.
///
/// # Safety
/// Called from the planner's hook, with its arguments.
pub unsafe fn allow(relation: pg_sys::Oid, is_parent: bool, info: *mut pg_sys::RelOptInfo) {
    // SAFETY: the server's arguments are whole.
    unsafe {
        let has_sets = || {
            ddl::ask_ours(relation, |table| {
                one_row_has_one_reference(OpenStore::table(table).layout())
            })
        };
        if is_parent || (*info).indexlist.is_null() || has_sets() != Some(true) {
            return;
        }
        let Some(ours) = ddl::index_am_oid() else {
            return;
        };
        for index in nodes::<pg_sys::IndexOptInfo>((*info).indexlist) {
            // A bitmap's cost has in it what is set right for an index scan of a
            // small table (`cost::jump_discount`), and would drive that out.
            let is_small_table = (*index).pages == 0 && cost::is_read_at_once(info);
            if (*index).relam == ours && (*index).amhasgettuple && !is_small_table {
                (*index).amhasgetbitmap = true;
            }
        }
    }
}

/// Whether a row is always named by the same bytes, so that sets may be compared
/// by them. Of a key of `numeric`, 1.0 and 1.00 are the same row.
fn one_row_has_one_reference(layout: &TableLayout) -> bool {
    layout
        .order()
        .columns()
        .iter()
        .all(|column| column.form.is_ordered() || column.lossless)
}

/// Puts a set scan in the place of each bitmap path of a table of ours.
///
/// # Safety
/// Called from the planner's hook, with its arguments.
pub unsafe fn replace_paths(relation: *mut pg_sys::RelOptInfo, entry: *mut pg_sys::RangeTblEntry) {
    // SAFETY: the server's arguments are whole.
    unsafe {
        let has_bitmaps = |paths: *mut pg_sys::List| {
            nodes::<pg_sys::Node>(paths).any(|path| (*path).type_ == NodeTag::T_BitmapHeapPath)
        };
        if (*entry).rtekind != pg_sys::RTEKind::RTE_RELATION
            || !(has_bitmaps((*relation).pathlist) || has_bitmaps((*relation).partial_pathlist))
            || !ddl::holds_ours((*entry).relid)
        {
            return;
        }
        let bitmaps = take_bitmap_paths(&mut (*relation).pathlist);
        for path in bitmaps {
            let set = set_path(relation, path);
            pg_sys::add_path(relation, set.cast());
        }
        // A set is gathered by one process.
        take_bitmap_paths(&mut (*relation).partial_pathlist);
    }
}

/// Takes the bitmap paths out of a list.
unsafe fn take_bitmap_paths(paths: &mut *mut pg_sys::List) -> Vec<*mut pg_sys::BitmapHeapPath> {
    let mut taken = Vec::new();
    let mut kept = std::ptr::null_mut();
    // SAFETY: a list of paths, which are nodes.
    unsafe {
        for path in nodes::<pg_sys::Node>(*paths) {
            if (*path).type_ == NodeTag::T_BitmapHeapPath {
                taken.push(path.cast());
            } else {
                kept = pg_sys::lappend(kept, path.cast());
            }
        }
    }
    *paths = kept;
    taken
}

/// The custom path that does what a bitmap path would.
unsafe fn set_path(
    relation: *mut pg_sys::RelOptInfo,
    bitmap: *mut pg_sys::BitmapHeapPath,
) -> *mut pg_sys::CustomPath {
    // SAFETY: the planner's own path; a node is made with its size and tag.
    unsafe {
        let mut leaves = Leaves::default();
        let tree = tree_of((*bitmap).bitmapqual, &mut leaves);
        let (mut index_cost, mut selectivity) = (0.0, 0.0);
        guarded(|| {
            cost_bitmap_tree_node((*bitmap).bitmapqual, &mut index_cost, &mut selectivity);
        });
        // A bitmap's part costs what an index scan does, which is estimated with
        // its fetches; here the set alone fetches.
        let fetches: f64 = nodes::<pg_sys::IndexPath>(leaves.list)
            .map(|leaf| cost::fetches(&*(*leaf).indexinfo, (*leaf).indexselectivity))
            .sum();
        let fetched = selectivity * (*relation).tuples;
        let set = pg_sys::palloc0(size_of::<pg_sys::CustomPath>()).cast::<pg_sys::CustomPath>();
        (*set).path = (*bitmap).path;
        (*set).path.type_ = NodeTag::T_CustomPath;
        (*set).path.pathtype = NodeTag::T_CustomScan;
        (*set).path.startup_cost = ((*set).path.startup_cost - fetches).max(0.0);
        (*set).path.total_cost -= fetches;
        (*set).path.total_cost += fetched * LOOK_UP_OPERATORS * pg_sys::cpu_operator_cost;
        (*set).flags = pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
        (*set).custom_paths = leaves.list;
        (*set).custom_private = plan::encode(&tree);
        (*set).methods = plan::path_methods();
        set
    }
}

/// Index paths, from the left.
struct Leaves {
    list: *mut pg_sys::List,
    count: usize,
}

impl Default for Leaves {
    fn default() -> Leaves {
        Leaves {
            list: std::ptr::null_mut(),
            count: 0,
        }
    }
}

/// The tree of a bitmap path; its index paths are appended to `leaves`.
unsafe fn tree_of(path: *mut pg_sys::Path, leaves: &mut Leaves) -> Tree {
    // SAFETY: the tags tell the nodes' types.
    unsafe {
        let (branches, combine): (_, fn(Vec<Tree>) -> Tree) =
            match (*path.cast::<pg_sys::Node>()).type_ {
                NodeTag::T_BitmapAndPath => {
                    let path = path.cast::<pg_sys::BitmapAndPath>();
                    ((*path).bitmapquals, Tree::And)
                }
                NodeTag::T_BitmapOrPath => {
                    let path = path.cast::<pg_sys::BitmapOrPath>();
                    ((*path).bitmapquals, Tree::Or)
                }
                _ => {
                    leaves.list = pg_sys::lappend(leaves.list, path.cast());
                    leaves.count += 1;
                    return Tree::Leaf(leaves.count - 1);
                }
            };
        combine(
            nodes::<pg_sys::Path>(branches)
                .map(|branch| tree_of(branch, leaves))
                .collect(),
        )
    }
}
