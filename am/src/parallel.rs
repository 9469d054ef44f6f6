//! Parallel sequential scans: the workers share one place in the key order.
//!
//! Whoever needs rows takes the lock, reads the leaf at the place, moves the
//! place behind it and lets go; the rows are then its own. So each leaf is
//! read once, by key and not by block, and splits and merges meanwhile change
//! nothing (the argument is that of any scan that resumes by key).

use crate::scan::ScanState;
use crate::table_am::TableAm;
use engine::mvcc::scan::{Direction, Place, Range};
use engine::page::PositionBuf;
use engine::{BlockNumber, Result, Sequence};
use pgrx::{pg_guard, pg_sys};

/// The most bytes of key that the shared place has room for; more than a page
/// of any size lets a key have.
const KEY_BYTES_MAX: usize = engine::page::key_bytes_max(pg_sys::BLCKSZ as usize);

/// The shared part of a parallel scan.
#[repr(C)]
struct Shared {
    base: pg_sys::ParallelTableScanDescData,
    lock: pg_sys::LWLock,
    /// 0 at the start, 1 at a position, 2 at the end.
    state: u32,
    next_block: u32,
    has_sequence: u32,
    key_len: u32,
    sequence: u64,
    key: [u8; KEY_BYTES_MAX],
}

/// The `parallelscan_estimate` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn estimate(_relation: pg_sys::Relation) -> pg_sys::Size {
    size_of::<Shared>()
}

/// The `parallelscan_initialize` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn initialize(
    relation: pg_sys::Relation,
    pscan: pg_sys::ParallelTableScanDesc,
) -> pg_sys::Size {
    // SAFETY: the server gave `estimate()` bytes of shared memory.
    unsafe {
        let shared = pscan.cast::<Shared>();
        (*shared).base.phs_relid = (*relation).rd_id;
        (*shared).base.phs_syncscan = false;
        pg_sys::LWLockInitialize(&raw mut (*shared).lock, pg::shmem::tranche());
        (*shared).state = 0;
    }
    size_of::<Shared>()
}

/// The `parallelscan_reinitialize` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn reinitialize(
    _relation: pg_sys::Relation,
    pscan: pg_sys::ParallelTableScanDesc,
) {
    // SAFETY: initialized before, and no worker runs now.
    unsafe { (*pscan.cast::<Shared>()).state = 0 }
}

/// Reads the next leaf that no other worker has read.
///
/// # Safety
/// `pscan` was initialized by [`initialize`].
pub unsafe fn next_leaf<A: TableAm>(
    state: &mut ScanState<A>,
    pscan: pg_sys::ParallelTableScanDesc,
) -> Result<bool> {
    let shared = pscan.cast::<Shared>();
    // SAFETY: the shared part is read and written under its lock alone. An
    // ERROR in between lets go of it with all other lightweight locks.
    unsafe {
        pg_sys::LWLockAcquire(&raw mut (*shared).lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let mut place = load(&*shared);
        let found = state.table.next_leaf(
            &Range::default(),
            Direction::Forward,
            &mut place,
            &state.snapshot,
            &mut state.batch,
        );
        store(&mut *shared, &place);
        pg_sys::LWLockRelease(&raw mut (*shared).lock);
        found
    }
}

fn load(shared: &Shared) -> Place {
    match shared.state {
        0 => Place::Start,
        1 => Place::At(
            PositionBuf {
                key: shared.key[..shared.key_len as usize].to_vec(),
                sequence: (shared.has_sequence != 0).then_some(Sequence(shared.sequence)),
            },
            BlockNumber(shared.next_block),
        ),
        _ => Place::End,
    }
}

fn store(shared: &mut Shared, place: &Place) {
    match place {
        Place::Start => shared.state = 0,
        Place::End => shared.state = 2,
        Place::At(position, block) => {
            shared.state = 1;
            shared.next_block = block.0;
            shared.key_len = position.key.len() as u32;
            shared.key[..position.key.len()].copy_from_slice(&position.key);
            shared.has_sequence = u32::from(position.sequence.is_some());
            shared.sequence = position.sequence.map_or(0, |sequence| sequence.0);
        }
    }
}
