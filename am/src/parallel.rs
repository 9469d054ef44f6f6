//! Parallel sequential scans: the workers share one place in the key order.
//!
//! Whoever needs rows takes the lock, reads the leaf at the place, moves the
//! place behind it and lets go; the rows are then its own. So each leaf is
//! read once, by key and not by block, and splits and merges meanwhile change
//! nothing (the argument is that of any scan that resumes by key).

use crate::scan::ScanState;
use crate::table_am::TableAm;
use engine::Result;
use engine::mvcc::scan::{Direction, Range};
use pg::shared_place::SharedPlace;
use pgrx::{pg_guard, pg_sys};

/// The shared part of a parallel scan.
#[repr(C)]
struct Shared {
    base: pg_sys::ParallelTableScanDescData,
    lock: pg_sys::LWLock,
    place: SharedPlace,
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
        (*shared).place.reset();
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
    unsafe { (*pscan.cast::<Shared>()).place.reset() }
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
        let mut place = (*shared).place.load();
        let found = state.table.next_leaf(
            &Range::default(),
            Direction::Forward,
            &mut place,
            &state.snapshot,
            &mut state.batch,
        );
        (*shared).place.store(&place);
        pg_sys::LWLockRelease(&raw mut (*shared).lock);
        found
    }
}
