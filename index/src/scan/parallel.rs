//! What the participants of a parallel index scan share, in the memory that
//! the server gives them for it.

use std::cell::RefCell;

use pg::shared_place::SharedPlace;
use pgrx::pg_sys;

use super::walk::{Progress, Shared};

const COLUMNS_MAX: usize = pg_sys::INDEX_MAX_KEYS as usize;

/// How far they have come.
#[repr(C)]
struct SharedProgress {
    lock: pg_sys::LWLock,
    /// 0 before the first combination, 1 within one, 2 at the end.
    state: u32,
    combination_len: u32,
    combination: [u32; COLUMNS_MAX],
    place: SharedPlace,
}

/// How much memory it takes.
pub const SHARED_BYTES: usize = size_of::<SharedProgress>();

/// Makes fresh memory ready.
///
/// # Safety
/// `target` has [`SHARED_BYTES`], aligned as the server aligns memory.
pub unsafe fn initialize(target: *mut std::ffi::c_void) {
    let shared = target.cast::<SharedProgress>();
    // SAFETY: the caller's promise; nobody else knows the memory yet.
    unsafe {
        pg_sys::LWLockInitialize(&raw mut (*shared).lock, pg::shmem::tranche());
        (*shared).state = 0;
    }
}

/// One participant's access to it.
pub struct Participant {
    shared: *mut SharedProgress,
    /// Room that is used again.
    progress: RefCell<Progress>,
}

impl Participant {
    /// The participant that scans with a descriptor; `None` if the scan is not
    /// a parallel one.
    ///
    /// # Safety
    /// The descriptor is live; its shared memory, if it has any, was made
    /// ready by [`initialize`] and outlives the result.
    pub unsafe fn of(descriptor: pg_sys::IndexScanDesc) -> Option<Participant> {
        // SAFETY: the memory for us lies at this offset of the scan's.
        unsafe {
            let scan = (*descriptor).parallel_scan;
            if scan.is_null() {
                return None;
            }
            let shared = scan.cast::<u8>().add((*scan).ps_offset).cast();
            Some(Participant {
                shared,
                progress: RefCell::default(),
            })
        }
    }

    /// Starts all over; no other participant runs now.
    pub fn restart(&self) {
        // SAFETY: by `of`. The lock is taken because others may have written.
        unsafe {
            pg_sys::LWLockAcquire(
                &raw mut (*self.shared).lock,
                pg_sys::LWLockMode::LW_EXCLUSIVE,
            );
            (*self.shared).state = 0;
            pg_sys::LWLockRelease(&raw mut (*self.shared).lock);
        }
    }
}

impl Shared for Participant {
    fn hold<R>(&self, work: impl FnOnce(&mut Progress) -> R) -> R {
        let mut progress = self.progress.borrow_mut();
        // SAFETY: the memory is read and written under its lock alone. An ERROR
        // in between lets go of it with all other lightweight locks.
        unsafe {
            pg_sys::LWLockAcquire(
                &raw mut (*self.shared).lock,
                pg_sys::LWLockMode::LW_EXCLUSIVE,
            );
            (*self.shared).load(&mut progress);
            let result = work(&mut progress);
            (*self.shared).store(&progress);
            pg_sys::LWLockRelease(&raw mut (*self.shared).lock);
            result
        }
    }
}

impl SharedProgress {
    fn load(&self, progress: &mut Progress) {
        progress.is_over = self.state == 2;
        progress.place = (self.state == 1).then(|| self.place.load());
        progress.combination.clear();
        if self.state == 1 {
            let combination = &self.combination[..self.combination_len as usize];
            progress.combination.extend_from_slice(combination);
        }
    }

    fn store(&mut self, progress: &Progress) {
        self.state = match &progress.place {
            _ if progress.is_over => 2,
            None => 0,
            Some(place) => {
                self.place.store(place);
                let len = progress.combination.len();
                self.combination_len = len as u32;
                self.combination[..len].copy_from_slice(&progress.combination);
                1
            }
        };
    }
}
