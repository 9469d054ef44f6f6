//! Leaves that tuple routing finds: core opens each at its first row, and there
//! the disguise has to be on.
//!
//! The row's leaf is found by a second router, a *shadow* of the first: it
//! opens the leaf as COPY would, without a thought of conflicts. If the leaf is
//! ours, the first router is asked for the same row while the leaf's indexes
//! read as B-trees, and has it open from then on.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ptr;

use pgrx::pg_guard;
use pgrx::pg_sys::{self, NodeTag, ffi::pg_guard_ffi_boundary as guarded};

use crate::ddl;
use crate::memory::ContextOwned;

unsafe extern "C-unwind" {
    // Guarded.
    fn ExecSetupPartitionTupleRouting(
        estate: *mut pg_sys::EState,
        table: pg_sys::Relation,
    ) -> *mut pg_sys::PartitionTupleRouting;
    // Called bare: what it raises concerns the row, and is core's to word.
    fn ExecFindPartition(
        state: *mut pg_sys::ModifyTableState,
        root: *mut pg_sys::ResultRelInfo,
        router: *mut pg_sys::PartitionTupleRouting,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
    ) -> *mut pg_sys::ResultRelInfo;
    // Guarded.
    fn ExecCleanupTupleRouting(
        state: *mut pg_sys::ModifyTableState,
        router: *mut pg_sys::PartitionTupleRouting,
    );
}

/// One ModifyTable whose rows are routed.
struct Route {
    /// Where its rows come from, and the function that makes them.
    source: *mut pg_sys::PlanState,
    next: pg_sys::ExecProcNodeMtd,
    state: *mut pg_sys::ModifyTableState,
    shadow: Option<Shadow>,
    /// The shadow's name of the last row's leaf, and of all that the first
    /// router has open.
    last: *mut pg_sys::ResultRelInfo,
    open: HashSet<usize>,
}

#[derive(Clone, Copy)]
struct Shadow {
    state: *mut pg_sys::ModifyTableState,
    router: *mut pg_sys::PartitionTupleRouting,
}

thread_local! {
    /// By the address of the source. A query's memory ends its routes.
    static ROUTES: RefCell<HashMap<usize, *mut Route>> = RefCell::default();
}

impl Drop for Route {
    fn drop(&mut self) {
        ROUTES.with_borrow_mut(|routes| routes.remove(&(self.source as usize)));
    }
}

/// Stands in front of the node that a routing ModifyTable gets its rows from.
///
/// # Safety
/// `state` is a ModifyTable with ON CONFLICT of a query that was just started.
pub(super) unsafe fn watch(state: *mut pg_sys::ModifyTableState) {
    // SAFETY: the caller's promise; what is made here lives as long as the
    // query, whose nodes are not asked for rows after that.
    unsafe {
        if (*state).mt_partition_tuple_routing.is_null() || ddl::index_am_oid().is_none() {
            return;
        }
        let source = (*state).ps.lefttree;
        let route = Route {
            source,
            next: (*source).ExecProcNodeReal,
            state,
            shadow: None,
            last: ptr::null_mut(),
            open: HashSet::new(),
        };
        let context = (*(*state).ps.state).es_query_cxt;
        let route = (*ContextOwned::new_in(context, route))
            .get()
            .expect("it was put there just now");
        (*source).ExecProcNodeReal = Some(next_row);
        ROUTES.with_borrow_mut(|routes| routes.insert(source as usize, route));
    }
}

/// Gives back what the shadows of a query have open.
///
/// # Safety
/// `query` is about to end.
pub(super) unsafe fn finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the routes of a query that lives are alive.
    unsafe {
        let estate = (*query).estate;
        let of_query = |route: &*mut Route| (*(**route).state).ps.state == estate;
        let routes: Vec<*mut Route> = ROUTES.with_borrow(|routes| {
            let routes = routes.values().copied();
            routes.filter(of_query).collect()
        });
        for route in routes {
            if let Some(shadow) = (*route).shadow.take() {
                let estate = (*shadow.state).ps.state;
                pg_sys::ExecResetTupleTable((*estate).es_tupleTable, false);
                guarded(|| ExecCleanupTupleRouting(shadow.state, shadow.router));
                pg_sys::FreeExecutorState(estate);
            }
        }
    }
}

/// Gets the next row, and has its leaf opened.
#[pg_guard]
unsafe extern "C-unwind" fn next_row(
    source: *mut pg_sys::PlanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: only nodes with a route lead here; it lives as long as they do.
    // Errors pass by this frame, which owns nothing.
    unsafe {
        let route = ROUTES.with_borrow(|routes| routes[&(source as usize)]);
        let next = (*route).next.expect("a node has a function");
        let slot = next(source);
        if !slot.is_null() && (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 == 0 {
            open_leaf_of(route, slot);
        }
        slot
    }
}

/// Has the leaf of a row opened by the first router, if it is ours. What the
/// plan returns besides the table's columns stands behind them, and is not
/// looked at.
///
/// # Safety
/// The route's query runs, and `slot` holds a row of it.
unsafe fn open_leaf_of(route: *mut Route, slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: the caller's promise.
    unsafe {
        let Shadow {
            state: shadow,
            router,
        } = *(*route).shadow.get_or_insert_with(|| cast((*route).state));
        let estate = (*shadow).ps.state;
        let root = (*shadow).rootResultRelInfo;
        let leaf = ExecFindPartition(shadow, root, router, slot, estate);
        if leaf != (*route).last {
            let table = (*leaf).ri_RelationDesc;
            if ddl::is_ours(table) && !(*route).open.contains(&(leaf as usize)) {
                let state = (*route).state;
                ddl::while_disguised((*table).rd_id, || {
                    ExecFindPartition(
                        state,
                        (*state).rootResultRelInfo,
                        (*state).mt_partition_tuple_routing,
                        slot,
                        (*state).ps.state,
                    );
                });
                (*route).open.insert(leaf as usize);
            }
            (*route).last = leaf;
        }
        let expressions = (*estate).es_per_tuple_exprcontext;
        if !expressions.is_null() {
            pg_sys::MemoryContextReset((*expressions).ecxt_per_tuple_memory);
        }
    }
}

/// Makes the shadow of a ModifyTable, as COPY makes the state for its routing.
///
/// # Safety
/// `state` routes rows.
unsafe fn cast(state: *mut pg_sys::ModifyTableState) -> Shadow {
    // SAFETY: nodes of zeros with their tags, which is how core makes them; all
    // of it is in memory of the query's.
    unsafe {
        let real = (*state).ps.state;
        let root = (*state).rootResultRelInfo;
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = (*real).es_query_cxt;
        let estate = pg_sys::CreateExecutorState();
        pg_sys::CurrentMemoryContext = (*estate).es_query_cxt;
        pg_sys::ExecInitRangeTable(estate, (*real).es_range_table);
        let target = node::<pg_sys::ResultRelInfo>(NodeTag::T_ResultRelInfo);
        pg_sys::InitResultRelInfo(
            target,
            (*root).ri_RelationDesc,
            (*root).ri_RangeTableIndex,
            ptr::null_mut(),
            0,
        );
        let shadow = node::<pg_sys::ModifyTableState>(NodeTag::T_ModifyTableState);
        (*shadow).ps.state = estate;
        (*shadow).operation = pg_sys::CmdType::CMD_INSERT;
        (*shadow).mt_nrels = 1;
        (*shadow).resultRelInfo = target;
        (*shadow).rootResultRelInfo = target;
        let table = (*root).ri_RelationDesc;
        let router = guarded(|| ExecSetupPartitionTupleRouting(estate, table));
        pg_sys::CurrentMemoryContext = before;
        Shadow {
            state: shadow,
            router,
        }
    }
}

/// A node of zeros in the current memory context.
unsafe fn node<T>(tag: NodeTag) -> *mut T {
    // SAFETY: every node begins with its tag.
    unsafe {
        let node = pg_sys::palloc0(size_of::<T>()).cast::<pg_sys::Node>();
        (*node).type_ = tag;
        node.cast()
    }
}
