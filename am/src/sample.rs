//! ANALYZE and TABLESAMPLE: rows by block, because that is what the samplers
//! choose. Pages that hold no rows are passed over.

use crate::row_handle;
use crate::scan::state_of;
use crate::table_am::TableAm;
use engine::BlockNumber;
use pg::error::OrRaise;
use pg::slot;
use pg::xact::{SelfSnapshot, ServerSnapshot};
use pgrx::{pg_guard, pg_sys};

/// The `scan_analyze_next_block` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn analyze_block<A: TableAm>(
    scan: pg_sys::TableScanDesc,
    block: pg_sys::BlockNumber,
    _strategy: pg_sys::BufferAccessStrategy,
) -> bool {
    // SAFETY: a scan begun by `scan::begin`.
    unsafe {
        let relation = (*scan).rs_rd;
        let state = state_of::<A>(scan);
        let snapshot = ServerSnapshot::Own(SelfSnapshot::new(relation));
        let held = state
            .table
            .sample_block(BlockNumber(block), &snapshot, &mut state.batch)
            .or_raise(relation);
        state.next = 0;
        state.dead = held.unwrap_or(0);
        if !state.batch.is_empty() {
            let rank = state.table.rank(state.batch.row(0).key).or_raise(relation);
            state.rank = (rank * f64::from(RANK_MAX)) as u32;
        }
        held.is_some()
    }
}

/// The `scan_analyze_next_tuple` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn analyze_tuple<A: TableAm>(
    scan: pg_sys::TableScanDesc,
    _oldest_xmin: pg_sys::TransactionId,
    live: *mut f64,
    dead: *mut f64,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: a scan begun by `scan::begin`.
    unsafe {
        let state = state_of::<A>(scan);
        *dead += std::mem::take(&mut state.dead) as f64;
        if state.next >= state.batch.len() {
            slot::clear_any(slot);
            return false;
        }
        let row = state.batch.row(state.next);
        state.next += 1;
        *live += 1.0;
        // ANALYZE sorts its sample by tid, and takes that for the physical
        // order. What counts for a scan that fetches rows by key is the order
        // of keys, wherever the blocks are.
        let tid = physical(state.rank, state.next);
        slot::store_borrowed(
            slot,
            state.table.layout(),
            row.key,
            row.payload,
            row.head,
            tid,
        );
        (*slot).tts_tableOid = (*(*scan).rs_rd).rd_id;
        true
    }
}

/// The greatest block number that is one, and not the mark of none.
const RANK_MAX: u32 = u32::MAX - 1;

/// A tid that says where a row stood when it was sampled, and no more.
fn physical(block: u32, nth: usize) -> pg_sys::ItemPointerData {
    pg_sys::ItemPointerData {
        ip_blkid: pg_sys::BlockIdData {
            bi_hi: (block >> 16) as u16,
            bi_lo: block as u16,
        },
        ip_posid: nth.min(2047) as u16,
    }
}

/// The `scan_sample_next_block` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn sample_block<A: TableAm>(
    scan: pg_sys::TableScanDesc,
    sample: *mut pg_sys::SampleScanState,
) -> bool {
    // SAFETY: a scan begun by `scan::begin`, and the sampler's live state.
    unsafe {
        let relation = (*scan).rs_rd;
        let state = state_of::<A>(scan);
        let blocks =
            pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
        let block = match (*(*sample).tsmroutine).NextSampleBlock {
            Some(next) => {
                let block = pg_sys::ffi::pg_guard_ffi_boundary(|| next(sample, blocks));
                if block == pg_sys::InvalidBlockNumber {
                    return false;
                }
                block
            }
            None => {
                let block = state.sample_next;
                if block >= blocks {
                    return false;
                }
                state.sample_next = block + 1;
                block
            }
        };
        state.batch.clear();
        state.batch.block = block;
        state
            .table
            .sample_block(BlockNumber(block), &state.snapshot, &mut state.batch)
            .or_raise(relation);
        true
    }
}

/// The `scan_sample_next_tuple` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn sample_tuple<A: TableAm>(
    scan: pg_sys::TableScanDesc,
    sample: *mut pg_sys::SampleScanState,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: a scan begun by `scan::begin`, and the sampler's live state.
    unsafe {
        let relation = (*scan).rs_rd;
        let state = state_of::<A>(scan);
        let next = (*(*sample).tsmroutine)
            .NextSampleTuple
            .expect("every sampling method has one");
        let block = state.batch.block;
        let last = state.batch.len() as u16;
        let offset = pg_sys::ffi::pg_guard_ffi_boundary(|| next(sample, block, last));
        if offset == 0 || offset > last {
            slot::clear_any(slot);
            return false;
        }
        let row = state.batch.row(offset as usize - 1);
        let tid = if state.handles {
            row_handle::lease(relation, row, BlockNumber(block))
        } else {
            row_handle::nobody()
        };
        slot::store_borrowed(
            slot,
            state.table.layout(),
            row.key,
            row.payload,
            row.head,
            tid,
        );
        (*slot).tts_tableOid = (*relation).rd_id;
        true
    }
}
