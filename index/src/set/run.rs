//! Executing a set scan: gather the references, then fetch the rows in order.

use std::ptr;

use pg::handles::UNNAMED;
use pg::handoff::{Handed, RowFetch};
use pgrx::pg_sys::{self, NodeTag, ffi::pg_guard_ffi_boundary as guarded};
use pgrx::{PgMemoryContexts, pg_guard};

use super::explain;
use super::gather::{Gathered, Gathering};
use super::plan;
use super::stream::{Ordered, Stream};
use super::tree::Tree;

unsafe extern "C-unwind" {
    fn ExecIndexBuildScanKeys(
        planstate: *mut pg_sys::PlanState,
        index: pg_sys::Relation,
        quals: *mut pg_sys::List,
        is_order_by: bool,
        keys: *mut pg_sys::ScanKey,
        key_count: *mut i32,
        runtime: *mut *mut pg_sys::IndexRuntimeKeyInfo,
        runtime_count: *mut i32,
        arrays: *mut *mut pg_sys::IndexArrayKeyInfo,
        array_count: *mut i32,
    );
    fn ExecIndexEvalRuntimeKeys(
        context: *mut pg_sys::ExprContext,
        runtime: *mut pg_sys::IndexRuntimeKeyInfo,
        runtime_count: i32,
    );
}

static EXEC_METHODS: plan::Static<pg_sys::CustomExecMethods> =
    plan::Static(pg_sys::CustomExecMethods {
        CustomName: c"RowRef Set Scan".as_ptr(),
        BeginCustomScan: Some(begin),
        ExecCustomScan: Some(execute),
        EndCustomScan: Some(end),
        ReScanCustomScan: Some(rescan),
        MarkPosCustomScan: None,
        RestrPosCustomScan: None,
        EstimateDSMCustomScan: None,
        InitializeDSMCustomScan: None,
        ReInitializeDSMCustomScan: None,
        InitializeWorkerCustomScan: None,
        ShutdownCustomScan: None,
        ExplainCustomScan: Some(explain::explain),
    });

/// The node's state, as the server allocates it by our `create_state`.
#[repr(C)]
pub(super) struct SetScanState {
    base: pg_sys::CustomScanState,
    /// Null until the scan has begun, and of an EXPLAIN without execution.
    parts: *mut Parts,
}

/// What the state points to: in a memory context whose deletion drops it.
pub(super) struct Parts {
    context: pg_sys::MemoryContext,
    tree: Tree,
    pub leaves: Vec<Leaf>,
    /// For arguments that are known only when the scan starts.
    arguments: *mut pg_sys::ExprContext,
    fetch: *mut pg_sys::IndexFetchTableData,
    stream: Option<Stream<Gathered>>,
    /// How many sets went to the external sort, for EXPLAIN.
    pub spilled: u64,
    /// How many rows were looked up.
    pub looked_up: u64,
}

/// One index scan.
pub(super) struct Leaf {
    index: pg_sys::Relation,
    keys: pg_sys::ScanKey,
    key_count: i32,
    runtime: *mut pg_sys::IndexRuntimeKeyInfo,
    runtime_count: i32,
    /// How many references it has found, for EXPLAIN.
    pub found: u64,
}

impl SetScanState {
    /// # Safety
    /// `node` was made by [`create_state`]; nobody else holds its parts.
    pub unsafe fn parts<'p>(node: *mut pg_sys::CustomScanState) -> Option<&'p mut Parts> {
        // SAFETY: the caller's promise.
        unsafe { (*node.cast::<SetScanState>()).parts.as_mut() }
    }
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn create_state(
    _plan: *mut pg_sys::CustomScan,
) -> *mut pg_sys::Node {
    // SAFETY: zeros but for tag and methods are what the server wants.
    unsafe {
        let state = pg_sys::palloc0(size_of::<SetScanState>()).cast::<SetScanState>();
        (*state).base.ss.ps.type_ = NodeTag::T_CustomScanState;
        (*state).base.methods = &raw const EXEC_METHODS.0;
        state.cast()
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(
    node: *mut pg_sys::CustomScanState,
    estate: *mut pg_sys::EState,
    flags: i32,
) {
    // SAFETY: the server's node, whose relation is open and whose plan is ours.
    unsafe {
        let scan = &mut (*node).ss;
        let table = scan.ss_currentRelation;
        let plan = scan.ps.plan.cast::<pg_sys::CustomScan>();
        // The server has prepared for virtual rows; ours have their own slots,
        // with system columns.
        pg_sys::ExecInitScanTupleSlot(
            estate,
            scan,
            (*table).rd_att,
            pg_sys::table_slot_callbacks(table),
        );
        pg_sys::ExecAssignScanProjectionInfoWithVarno(scan, (*plan).scan.scanrelid as i32);
        scan.ps.qual = pg_sys::ExecInitQual((*plan).scan.plan.qual, &mut scan.ps);
        if flags as u32 & pg_sys::EXEC_FLAG_EXPLAIN_ONLY != 0 {
            return;
        }
        let context = pg_sys::AllocSetContextCreateInternal(
            (*estate).es_query_cxt,
            c"rowref set scan".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let entry = (*(*estate).es_range_table)
            .elements
            .add((*plan).scan.scanrelid as usize - 1);
        let lock = (*(*entry).ptr_value.cast::<pg_sys::RangeTblEntry>()).rellockmode;
        let mut leaves = Vec::new();
        for condition in plan::conditions_of(plan) {
            let index = pg_sys::index_open(condition.index, lock);
            let mut leaf = Leaf {
                index,
                keys: ptr::null_mut(),
                key_count: 0,
                runtime: ptr::null_mut(),
                runtime_count: 0,
                found: 0,
            };
            guarded(|| {
                ExecIndexBuildScanKeys(
                    &mut scan.ps,
                    index,
                    condition.condition,
                    false,
                    &mut leaf.keys,
                    &mut leaf.key_count,
                    &mut leaf.runtime,
                    &mut leaf.runtime_count,
                    ptr::null_mut(),
                    ptr::null_mut(),
                );
            });
            leaves.push(leaf);
        }
        let routine = &*(*table).rd_tableam;
        let begin_fetch = routine.index_fetch_begin.expect("a table AM fetches rows");
        let parts = Parts {
            context,
            tree: plan::tree_of(plan),
            leaves,
            arguments: pg_sys::CreateExprContext(estate),
            fetch: guarded(|| begin_fetch(table)),
            stream: None,
            spilled: 0,
            looked_up: 0,
        };
        (*node.cast::<SetScanState>()).parts =
            PgMemoryContexts::For(context).leak_and_drop_on_delete(parts);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn execute(
    node: *mut pg_sys::CustomScanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the server's node.
    unsafe { pg_sys::ExecScan(&mut (*node).ss, Some(next), Some(recheck)) }
}

/// Every clause is tested by the node itself, of a row that was fetched anew,
/// too.
#[pg_guard]
unsafe extern "C-unwind" fn recheck(
    _node: *mut pg_sys::ScanState,
    _slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    true
}

/// The next row that the snapshot sees; an empty slot behind the last one.
#[pg_guard]
unsafe extern "C-unwind" fn next(scan: *mut pg_sys::ScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the server's node, which has begun; nothing else uses its parts.
    unsafe {
        let slot = (*scan).ss_ScanTupleSlot;
        let parts = SetScanState::parts(scan.cast()).expect("the scan has begun");
        if parts.stream.is_none() {
            let stream = parts.gather(scan);
            parts.stream = Some(stream);
        }
        let stream = parts.stream.as_mut().expect("gathered just now");
        let snapshot = (*(*scan).ps.state).es_snapshot;
        let routine = &*(*(*scan).ss_currentRelation).rd_tableam;
        let fetch_row = routine.index_fetch_tuple.expect("a table AM fetches rows");
        while let Some(reference) = stream.head() {
            pgrx::check_for_interrupts!();
            parts.looked_up += 1;
            RowFetch::of_table(parts.fetch).put_reference(reference, None);
            stream.advance();
            let mut tid = UNNAMED;
            let (mut again, mut all_dead) = (false, false);
            let found = guarded(|| {
                fetch_row(
                    parts.fetch,
                    &mut tid,
                    snapshot,
                    slot,
                    &mut again,
                    &mut all_dead,
                )
            });
            if found {
                return slot;
            }
        }
        pg::slot::clear_any(slot);
        slot
    }
}

impl Parts {
    /// Evaluates the tree.
    ///
    /// # Safety
    /// `scan` is the node.
    unsafe fn gather(&mut self, scan: *mut pg_sys::ScanState) -> Stream<Gathered> {
        let leaves = self.leaves.len().max(1);
        // SAFETY: a setting, read by the only thread.
        let share = unsafe { pg_sys::work_mem } as usize * 1024 / leaves;
        let tree = self.tree.clone();
        // SAFETY: the context lives as long as the parts.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.context;
            pg_sys::ReScanExprContext(self.arguments);
            let stream = self.stream_of(scan, &tree, share);
            pg_sys::CurrentMemoryContext = before;
            stream
        }
    }

    unsafe fn stream_of(
        &mut self,
        scan: *mut pg_sys::ScanState,
        tree: &Tree,
        share: usize,
    ) -> Stream<Gathered> {
        // SAFETY: the caller's promise.
        unsafe {
            match tree {
                Tree::Leaf(nth) => {
                    let mut set = Gathering::new(share);
                    self.search(scan, *nth, &mut set);
                    self.sorted(set)
                }
                Tree::And(branches) => Stream::intersection(
                    branches
                        .iter()
                        .map(|branch| self.stream_of(scan, branch, share))
                        .collect(),
                ),
                Tree::Or(branches) => {
                    // What several index scans find is one set from the start.
                    let mut streams = Vec::new();
                    let mut together = None;
                    for branch in branches {
                        if let Tree::Leaf(nth) = branch {
                            let set = together
                                .get_or_insert_with(|| Gathering::new(share * branches.len()));
                            self.search(scan, *nth, set);
                        } else {
                            streams.push(self.stream_of(scan, branch, share));
                        }
                    }
                    if let Some(set) = together {
                        streams.push(self.sorted(set));
                    }
                    Stream::union(streams)
                }
            }
        }
    }

    unsafe fn sorted(&mut self, set: Gathering) -> Stream<Gathered> {
        // SAFETY: `gather` has made the long-lived context current.
        let (gathered, spilled) = unsafe { set.finish() };
        self.spilled += u64::from(spilled);
        Stream::Set(gathered)
    }

    /// Runs one index scan and keeps the references that it finds.
    unsafe fn search(&mut self, scan: *mut pg_sys::ScanState, nth: usize, set: &mut Gathering) {
        let leaf = &mut self.leaves[nth];
        // SAFETY: table and index are open; the hand-off is of our table.
        unsafe {
            if leaf.runtime_count > 0 {
                (*self.arguments).ecxt_outertuple = (*(*scan).ps.ps_ExprContext).ecxt_outertuple;
                guarded(|| {
                    ExecIndexEvalRuntimeKeys(self.arguments, leaf.runtime, leaf.runtime_count);
                });
            }
            let descriptor = pg_sys::index_beginscan(
                (*scan).ss_currentRelation,
                leaf.index,
                (*(*scan).ps.state).es_snapshot,
                leaf.key_count,
                0,
            );
            pg_sys::index_rescan(descriptor, leaf.keys, leaf.key_count, ptr::null_mut(), 0);
            loop {
                let tid = pg_sys::index_getnext_tid(
                    descriptor,
                    pg_sys::ScanDirection::ForwardScanDirection,
                );
                if tid.is_null() {
                    break;
                }
                match RowFetch::of_table((*descriptor).xs_heapfetch).take() {
                    Handed::Row { key, .. } | Handed::Reference { key, .. } => set.add(key),
                    Handed::Nothing | Handed::Visible { .. } => {
                        unreachable!("a scan that wants no tuples hands references over")
                    }
                }
                leaf.found += 1;
            }
            pg_sys::index_endscan(descriptor);
        }
    }

    /// Gives the sets up.
    unsafe fn forget(&mut self) {
        let mut sets = Vec::new();
        if let Some(stream) = self.stream.take() {
            stream.into_sets(&mut sets);
        }
        for set in sets {
            // SAFETY: the context is live.
            unsafe { set.end() };
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn rescan(node: *mut pg_sys::CustomScanState) {
    // SAFETY: the server's node.
    unsafe {
        if let Some(parts) = SetScanState::parts(node) {
            parts.forget();
        }
        pg_sys::ExecScanReScan(&mut (*node).ss);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end(node: *mut pg_sys::CustomScanState) {
    // SAFETY: the server's node; its parts are used no more, and dropped with
    // their context.
    unsafe {
        let Some(parts) = SetScanState::parts(node) else {
            return;
        };
        parts.forget();
        for leaf in &parts.leaves {
            pg_sys::index_close(leaf.index, pg_sys::NoLock as i32);
        }
        let routine = &*(*(*node).ss.ss_currentRelation).rd_tableam;
        let end_fetch = routine.index_fetch_end.expect("a table AM fetches rows");
        guarded(|| end_fetch(parts.fetch));
        (*node.cast::<SetScanState>()).parts = ptr::null_mut();
        pg_sys::MemoryContextDelete(parts.context);
    }
}
