//! Executing a set scan: gather the references, then fetch the rows in order.

use std::ptr;

use engine::BlockNumber;
use engine::mvcc::Snapshot;
use engine::mvcc::batch::Batch;
use engine::mvcc::fetch::Keys;
use pg::error::OrRaise;
use pg::handles::{self, UNNAMED};
use pg::open::OpenStore;
use pg::slot;
use pg::unguarded::catching;
use pg::xact::ServerSnapshot;
use pgrx::pg_sys::{self, NodeTag, ffi::pg_guard_ffi_boundary as guarded};
use pgrx::{PgMemoryContexts, pg_guard};

use super::explain;
use super::gather::{Gathered, Gathering};
use super::plan;
use super::stream::{Ordered, Stream};
use super::tree::Tree;
use crate::scan::Scan;

unsafe extern "C-unwind" {
    fn ExecScan(
        node: *mut pg_sys::ScanState,
        access: unsafe extern "C-unwind" fn(*mut pg_sys::ScanState) -> *mut pg_sys::TupleTableSlot,
        recheck: unsafe extern "C-unwind" fn(
            *mut pg_sys::ScanState,
            *mut pg_sys::TupleTableSlot,
        ) -> bool,
    ) -> *mut pg_sys::TupleTableSlot;
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
    stream: Option<Stream<Gathered>>,
    /// What all rows of the set fulfil.
    condition: *mut pg_sys::ExprState,
    /// Some index may have found more rows than it was asked for.
    is_vague: bool,
    pub rows: Rows,
    /// How many sets went to the external sort, for EXPLAIN.
    pub spilled: u64,
}

/// The rows of the references, fetched leaf by leaf.
pub(super) struct Rows {
    table: OpenStore,
    snapshot: ServerSnapshot<'static>,
    /// The bytes of a reference, if all have as many.
    width: Option<usize>,
    /// The next references, and how many of them were looked up.
    wanted: Keys,
    looked_up: usize,
    /// How many are taken at a time: few at first, for few rows may be asked for.
    step: usize,
    /// How many leaves the store is told of in advance.
    ahead: usize,
    /// Rows of a leaf, and how many of them were served.
    batch: Batch,
    served: usize,
    /// The rest of the batch only has to be put into the slot, which has held a
    /// row of the table: nobody needs handles, and no condition is tested.
    is_ready: bool,
    /// How many references were looked up in all, for EXPLAIN.
    pub references: u64,
}

/// The most references that are taken at a time.
const STEP_MAX: usize = 4096;

/// The fewest leaves that the store is told of in advance: for the processor's
/// cache, if not for the disk.
const AHEAD_MIN: usize = 2;

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
        let rows = OpenStore::table(table);
        let width = rows.layout().key_width();
        let parts = Parts {
            context,
            tree: plan::tree_of(plan),
            leaves,
            arguments: pg_sys::CreateExprContext(estate),
            stream: None,
            condition: pg_sys::ExecInitQual((*plan).custom_exprs, &mut scan.ps),
            is_vague: false,
            rows: Rows {
                width,
                ahead: rows.store().io_concurrency().max(AHEAD_MIN),
                table: rows,
                snapshot: ServerSnapshot::from_pg((*estate).es_snapshot, table),
                wanted: Keys::of_width(width),
                looked_up: 0,
                step: 1,
                batch: Batch::default(),
                served: 0,
                is_ready: false,
                references: 0,
            },
            spilled: 0,
        };
        (*node.cast::<SetScanState>()).parts =
            PgMemoryContexts::For(context).leak_and_drop_on_delete(parts);
    }
}

/// Called without guards on either side, for each row: an ERROR of the
/// server's passes this frame, which owns nothing.
unsafe extern "C-unwind" fn execute(
    node: *mut pg_sys::CustomScanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the server's node.
    unsafe { ExecScan(&mut (*node).ss, next, recheck) }
}

/// Whether a row is one of the set, which was not found through it: one that
/// was fetched anew after a concurrent update.
#[pg_guard]
unsafe extern "C-unwind" fn recheck(
    scan: *mut pg_sys::ScanState,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: the server's node, which has begun.
    unsafe {
        let parts = SetScanState::parts(scan.cast()).expect("the scan has begun");
        parts.holds((*scan).ps.ps_ExprContext, slot)
    }
}

/// The next row that the snapshot sees; an empty slot behind the last one. Most
/// rows lie ready; nothing that could raise an ERROR is called for those.
unsafe extern "C-unwind" fn next(scan: *mut pg_sys::ScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the server's node, which has begun; nothing else uses its parts,
    // and no frame here owns anything.
    unsafe {
        let is_there = catching(|| match SetScanState::parts(scan.cast()) {
            Some(parts) => parts.rows.serve_ready((*scan).ss_ScanTupleSlot),
            None => false,
        });
        if is_there {
            return (*scan).ss_ScanTupleSlot;
        }
        next_guarded(scan)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn next_guarded(
    scan: *mut pg_sys::ScanState,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: as in `next`.
    unsafe {
        let slot = (*scan).ss_ScanTupleSlot;
        let parts = SetScanState::parts(scan.cast()).expect("the scan has begun");
        if parts.stream.is_none() {
            let stream = parts.gather(scan);
            parts.stream = Some(stream);
        }
        while let Some(stream) = parts.stream.as_mut()
            && parts.rows.next(stream, slot)
        {
            if !parts.is_vague {
                parts.rows.is_ready = !handles::needed();
                return slot;
            }
            if parts.holds((*scan).ps.ps_ExprContext, slot) {
                return slot;
            }
        }
        slot::clear_any(slot);
        slot
    }
}

impl Rows {
    /// Puts the next row of the set into a slot, where it stays until the next
    /// call; whether there is one.
    ///
    /// # Safety
    /// The slot is one of the table's, and nobody uses the row in it any more.
    unsafe fn next(
        &mut self,
        stream: &mut Stream<Gathered>,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool {
        while self.served == self.batch.len() {
            if !self.load(stream) {
                return false;
            }
        }
        let row = self.batch.row(self.served);
        let handle = if handles::needed() {
            // SAFETY: the table is open.
            let relation = unsafe { (*self.table.relation()).rd_id };
            handles::lease(relation, row.key, row.head, BlockNumber(self.batch.block))
        } else {
            UNNAMED
        };
        // SAFETY: the caller's promise.
        unsafe { self.serve(slot, handle) };
        true
    }

    /// Puts the batch's next row into a slot.
    ///
    /// # Safety
    /// As [`Rows::next`].
    #[inline(always)]
    unsafe fn serve(&mut self, slot: *mut pg_sys::TupleTableSlot, handle: pg_sys::ItemPointerData) {
        let row = self.batch.row(self.served);
        self.served += 1;
        let layout = self.table.layout();
        // SAFETY: the caller's promise; the batch stays as it is until the next
        // row is asked for.
        unsafe { slot::store_borrowed(slot, layout, row.key, row.payload, row.head, handle) };
    }

    /// Puts the batch's next row into a slot, if there is one and nothing more
    /// is to be done about it; whether it did.
    ///
    /// # Safety
    /// As [`Rows::next`].
    #[inline(always)]
    unsafe fn serve_ready(&mut self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        let is_there = self.is_ready && self.served < self.batch.len();
        if is_there {
            // SAFETY: the caller's promise.
            unsafe { self.serve(slot, UNNAMED) };
        }
        is_there
    }

    /// Copies the rows of the next references that lie on one leaf, if any of
    /// them is seen; whether there are references left.
    fn load(&mut self, stream: &mut Stream<Gathered>) -> bool {
        pgrx::check_for_interrupts!();
        if self.looked_up == self.wanted.len() {
            self.looked_up = 0;
            self.wanted.clear();
            // Other snapshots judge a row when it is returned (rule 24).
            let step = if self.snapshot.is_stable() {
                self.step
            } else {
                1
            };
            self.step = (self.step * 2).min(STEP_MAX);
            stream.take(step, &mut self.wanted);
        }
        self.served = 0;
        self.is_ready = false;
        if self.wanted.is_empty() {
            self.batch.clear();
            return false;
        }
        let (keys, from, batch) = (&mut self.wanted, self.looked_up, &mut self.batch);
        let ahead = self.ahead;
        let done = self.table.with(|store| match &self.snapshot {
            ServerSnapshot::Mvcc(snapshot) => store.get_run(keys, from, ahead, snapshot, batch),
            snapshot => store.get_run(keys, from, ahead, snapshot, batch),
        });
        // SAFETY: the table is open.
        let done = unsafe { done.or_raise(self.table.relation()) };
        self.looked_up += done;
        self.references += done as u64;
        true
    }

    /// Forgets everything but its room.
    fn restart(&mut self) {
        self.wanted.clear();
        self.looked_up = 0;
        self.step = 1;
        self.batch.clear();
        self.served = 0;
        self.is_ready = false;
    }
}

impl Parts {
    /// Whether a row fulfils the condition of the set.
    ///
    /// # Safety
    /// The slot holds a row of the table; the context is the node's.
    unsafe fn holds(
        &self,
        context: *mut pg_sys::ExprContext,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool {
        if self.condition.is_null() {
            return true;
        }
        // SAFETY: a qualification yields a boolean that is never null; the
        // context's memory is that of one row.
        unsafe {
            let evaluate = (*self.condition).evalfunc.expect("it was made ready");
            (*context).ecxt_scantuple = slot;
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = (*context).ecxt_per_tuple_memory;
            let mut is_null = false;
            let holds = guarded(|| evaluate(self.condition, context, &mut is_null));
            pg_sys::CurrentMemoryContext = before;
            pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            holds.value() != 0
        }
    }

    /// Evaluates the tree.
    ///
    /// # Safety
    /// `scan` is the node.
    unsafe fn gather(&mut self, scan: *mut pg_sys::ScanState) -> Stream<Gathered> {
        let leaves = self.leaves.len().max(1);
        // SAFETY: a setting, read by the only thread.
        let share = unsafe { pg_sys::work_mem } as usize * 1024 / leaves;
        let tree = self.tree.clone();
        self.is_vague = false;
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
                    let mut set = Gathering::new(share, self.rows.width);
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
                    let width = self.rows.width;
                    for branch in branches {
                        if let Tree::Leaf(nth) = branch {
                            let set = together.get_or_insert_with(|| {
                                Gathering::new(share * branches.len(), width)
                            });
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
            leaf.found += Scan::of(descriptor).each_reference(descriptor, |one| set.add(one));
            self.is_vague |= (*descriptor).xs_recheck;
            pg_sys::index_endscan(descriptor);
        }
    }

    /// Gives the sets up.
    unsafe fn forget(&mut self) {
        self.rows.restart();
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
        (*node.cast::<SetScanState>()).parts = ptr::null_mut();
        pg_sys::MemoryContextDelete(parts.context);
    }
}
