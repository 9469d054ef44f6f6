//! Sequential scans, parallel ones too.

use crate::open::open_with;
use crate::parallel;
use crate::row_handle;
use crate::sweep::Sweep;
use crate::table_am::TableAm;
use engine::mvcc::Snapshot as _;
use engine::mvcc::batch::{Batch, Row};
use engine::mvcc::cursor::Cursor;
use engine::mvcc::scan::{Direction, Range};
use pg::error::OrRaise;
use pg::memory::ContextOwned;
use pg::slot;
use pg::store::{expect_more, lock_relation};
use pg::unguarded::catching;
use pg::xact::{SelfSnapshot, ServerSnapshot};
use pgrx::{pg_guard, pg_sys};

/// A scan as the server sees it, and what is ours behind it.
#[repr(C)]
pub struct ScanDescriptor<A: TableAm> {
    base: pg_sys::TableScanDescData,
    state: *mut ContextOwned<ScanState<A>>,
}

/// What a scan of any kind needs.
pub struct ScanState<A: TableAm> {
    /// The table.
    pub table: A,
    /// What the scan sees.
    pub snapshot: ServerSnapshot<'static>,
    /// Where it stands; unused by parallel and sample scans.
    pub cursor: Cursor,
    /// Rows of the block or leaf at hand, for parallel and sample scans.
    pub batch: Batch,
    /// The next of them.
    pub next: usize,
    /// Whether rows need handles; asked once.
    pub handles: bool,
    /// Whether rows of the leaf at hand can be shown as they were copied.
    plain: bool,
    /// A row that was looked at once more, under a snapshot that is not stable.
    fresh: Batch,
    /// Versions on the block at hand that nobody sees, not reported yet.
    pub dead: usize,
    /// The block that a sequential sample looks at next.
    pub sample_next: u32,
    /// How far into the table the block at hand is, of `u32::MAX`.
    pub rank: u32,
    /// Where a sweep stands; it uses the batch, and not the cursor.
    pub sweep: Sweep,
    /// The ring through which a large scan reads.
    strategy: pg_sys::BufferAccessStrategy,
}

/// The state of a scan that has not ended.
///
/// # Safety
/// `scan` was made by [`begin`] and has not ended.
#[inline(always)]
pub unsafe fn state_of<'s, A: TableAm>(scan: pg_sys::TableScanDesc) -> &'s mut ScanState<A> {
    // SAFETY: `begin` made the descriptor, whose first member is the base.
    unsafe {
        (*(*scan.cast::<ScanDescriptor<A>>()).state)
            .get()
            .expect("the scan has not ended")
    }
}

/// The `scan_begin` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn begin<A: TableAm>(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    nkeys: i32,
    _keys: *mut pg_sys::ScanKeyData,
    pscan: pg_sys::ParallelTableScanDesc,
    flags: u32,
) -> pg_sys::TableScanDesc {
    assert!(nkeys == 0, "only catalog scans have scan keys");
    // SAFETY: the server passes open relations and live snapshots, and keeps
    // both until `scan_end`.
    unsafe {
        // Before the first row is looked for: what is put in from then on, on
        // whichever leaf, is found to conflict (rule 22).
        if flags & (pg_sys::ScanOptions::SO_TYPE_SEQSCAN | pg_sys::ScanOptions::SO_TYPE_SAMPLESCAN)
            != 0
        {
            lock_relation(relation, snapshot);
        }
        pg_sys::RelationIncrementReferenceCount(relation);
        let large =
            pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM)
                > pg_sys::NBuffers as u32 / 4;
        let strategy = if large && flags & pg_sys::ScanOptions::SO_ALLOW_STRAT != 0 {
            pg_sys::GetAccessStrategy(pg_sys::BufferAccessStrategyType::BAS_BULKREAD)
        } else {
            std::ptr::null_mut()
        };
        // ANALYZE scans without a snapshot: it takes what is committed.
        let judge = if snapshot.is_null() {
            ServerSnapshot::Own(SelfSnapshot::new(relation))
        } else {
            ServerSnapshot::from_pg(snapshot, relation)
        };
        let handles = row_handle::needed();
        let state = ScanState {
            table: open_with::<A>(relation, strategy),
            cursor: Cursor::new(Range::default()),
            batch: Batch::default(),
            next: 0,
            dead: 0,
            sample_next: 0,
            rank: 0,
            handles,
            plain: !handles && pscan.is_null() && judge.is_stable(),
            fresh: Batch::default(),
            sweep: Sweep::default(),
            snapshot: judge,
            strategy,
        };
        let scan = pg_sys::palloc0(size_of::<ScanDescriptor<A>>()).cast::<ScanDescriptor<A>>();
        (*scan).base.rs_rd = relation;
        (*scan).base.rs_snapshot = snapshot;
        (*scan).base.rs_flags = flags;
        (*scan).base.rs_parallel = pscan;
        (*scan).state = ContextOwned::new_in(pg_sys::CurrentMemoryContext, state);
        if flags & pg_sys::ScanOptions::SO_TYPE_SEQSCAN != 0 {
            if (*relation).pgstat_info.is_null() && (*relation).pgstat_enabled {
                pg_sys::pgstat_assoc_relation(relation);
            }
            if !(*relation).pgstat_info.is_null() {
                (*(*relation).pgstat_info).t_counts.t_numscans += 1;
            }
        }
        scan.cast()
    }
}

/// The `scan_end` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn end<A: TableAm>(scan: pg_sys::TableScanDesc) {
    // SAFETY: made by `begin`, which counted the reference and registered
    // nothing else; the snapshot is ours to unregister if a flag says so.
    unsafe {
        if let Some(state) = (*(*scan.cast::<ScanDescriptor<A>>()).state).take()
            && !state.strategy.is_null()
        {
            let strategy = state.strategy;
            drop(state);
            pg_sys::FreeAccessStrategy(strategy);
        }
        pg_sys::RelationDecrementReferenceCount((*scan).rs_rd);
        if (*scan).rs_flags & pg_sys::ScanOptions::SO_TEMP_SNAPSHOT != 0 {
            pg_sys::UnregisterSnapshot((*scan).rs_snapshot);
        }
    }
}

/// The `scan_rescan` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn rescan<A: TableAm>(
    scan: pg_sys::TableScanDesc,
    _keys: *mut pg_sys::ScanKeyData,
    _set_params: bool,
    _allow_strat: bool,
    _allow_sync: bool,
    _allow_pagemode: bool,
) {
    // SAFETY: made by `begin`.
    let state = unsafe { state_of::<A>(scan) };
    state.cursor.rewind();
    state.batch.clear();
    state.fresh.clear();
    state.next = 0;
    state.sample_next = 0;
    state.sweep = Sweep::default();
}

/// The `scan_getnextslot` callback.
///
/// Not guarded (`pg::unguarded`): while rows of the leaf at hand are left and
/// can be shown as they are, nothing here raises or calls the server, and a
/// guard would cost a good part of what the row does. The exceptions are the
/// slot's, which frees the values of a row it had been given, or copies a row
/// that its descriptor reads otherwise: calls that fail for want of memory at
/// most, and are made where no frame of ours owns anything. Everything else is
/// behind [`next_leaf`].
pub unsafe extern "C-unwind" fn next<A: TableAm>(
    scan: pg_sys::TableScanDesc,
    direction: pg_sys::ScanDirection::Type,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: made by `begin`; the slot is of our own kind, as
    // `slot_callbacks` told the executor, which calls this.
    unsafe {
        let is_shown = catching(|| {
            let state = state_of::<A>(scan);
            if !state.plain || !state.cursor.step_in_batch(direction_of(direction)) {
                return false;
            }
            let Some(row) = state.cursor.row() else {
                return false;
            };
            expect_more();
            store(scan, slot, &state.table, row, row_handle::nobody());
            true
        });
        is_shown || next_leaf::<A>(scan, direction, slot)
    }
}

#[inline(always)]
fn direction_of(direction: pg_sys::ScanDirection::Type) -> Direction {
    if direction == pg_sys::ScanDirection::BackwardScanDirection {
        Direction::Backward
    } else {
        Direction::Forward
    }
}

/// [`next`] where a leaf has to be read, a handle leased, or other processes
/// asked.
#[pg_guard]
unsafe extern "C-unwind" fn next_leaf<A: TableAm>(
    scan: pg_sys::TableScanDesc,
    direction: pg_sys::ScanDirection::Type,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: as for `next`.
    unsafe {
        let relation = (*scan).rs_rd;
        let pscan = (*scan).rs_parallel;
        let state = state_of::<A>(scan);
        let direction = direction_of(direction);
        let is_stable = state.snapshot.is_stable();
        let found = if is_stable {
            step(state, pscan, direction)
        } else {
            step_now(state, pscan, direction)
        };
        if !found.or_raise(relation) {
            slot::clear_any(slot);
            return false;
        }
        let (row, block) = if is_stable {
            state.at_hand(pscan)
        } else {
            let block = engine::BlockNumber(state.fresh.block);
            (state.fresh.row(0), block)
        };
        let tid = if state.handles {
            let handle = row_handle::lease(relation, row, block);
            // A constraint that is being made is checked row by row.
            pg::conflict::note_own(handle);
            handle
        } else {
            row_handle::nobody()
        };
        store(scan, slot, &state.table, row, tid);
        true
    }
}

impl<A: TableAm> ScanState<A> {
    /// The row that [`step`] has stepped to, and its block.
    fn at_hand(&self, pscan: pg_sys::ParallelTableScanDesc) -> (Row<'_>, engine::BlockNumber) {
        if pscan.is_null() {
            let row = self.cursor.row().expect("the cursor stands on a row");
            (row, self.cursor.block())
        } else {
            let row = self.batch.row(self.next - 1);
            (row, engine::BlockNumber(self.batch.block))
        }
    }
}

/// Steps to the scan's next row as it was when its leaf was copied.
///
/// # Safety
/// `pscan` is null or the scan's.
unsafe fn step<A: TableAm>(
    state: &mut ScanState<A>,
    pscan: pg_sys::ParallelTableScanDesc,
    direction: Direction,
) -> engine::Result<bool> {
    if pscan.is_null() {
        return state
            .table
            .step(&mut state.cursor, &state.snapshot, direction);
    }
    while state.next >= state.batch.len() {
        // SAFETY: the caller's promise.
        if !unsafe { parallel::next_leaf(state, pscan)? } {
            return Ok(false);
        }
        state.next = 0;
    }
    state.next += 1;
    Ok(true)
}

/// Copies the scan's next row, as it is now, to `fresh`; whether there is one.
/// A snapshot that sees the world as it is, and says what it found running,
/// judges a row when it is returned, not when its leaf was copied (rule 24).
///
/// # Safety
/// As for [`step`].
unsafe fn step_now<A: TableAm>(
    state: &mut ScanState<A>,
    pscan: pg_sys::ParallelTableScanDesc,
    direction: Direction,
) -> engine::Result<bool> {
    if let ServerSnapshot::Dirty(snapshot) = &state.snapshot
        && !state.fresh.is_empty()
        && snapshot.report().inserter != engine::Xid::NONE
    {
        // The row shown last is being updated, or inserted: what stands beneath
        // comes next.
        snapshot.look_beneath();
        let key = state.fresh.row(0).key.to_vec();
        state.fresh.clear();
        if state.table.get(&key, &state.snapshot, &mut state.fresh)? {
            return Ok(true);
        }
    }
    loop {
        // SAFETY: the caller's promise.
        if !unsafe { step(state, pscan, direction)? } {
            state.fresh.clear();
            return Ok(false);
        }
        let key = state.at_hand(pscan).0.key.to_vec();
        if let ServerSnapshot::Dirty(snapshot) = &state.snapshot {
            // What it found out about another key is not this one's.
            snapshot.reset();
        }
        state.fresh.clear();
        if state.table.get(&key, &state.snapshot, &mut state.fresh)? {
            return Ok(true);
        }
    }
}

/// Shows a row of the scan's batch, and counts it.
///
/// # Safety
/// As for [`next`]; the row stays where it is until the next call.
#[inline(always)]
unsafe fn store<A: TableAm>(
    scan: pg_sys::TableScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
    table: &A,
    row: Row<'_>,
    tid: pg_sys::ItemPointerData,
) {
    // SAFETY: the caller's promise; the relation is open.
    unsafe {
        slot::store_borrowed(slot, table.layout(), row.key, row.payload, row.head, tid);
        let relation = (*scan).rs_rd;
        (*slot).tts_tableOid = (*relation).rd_id;
        if !(*relation).pgstat_info.is_null() {
            (*(*relation).pgstat_info).t_counts.t_tuples_returned += 1;
        }
    }
}
