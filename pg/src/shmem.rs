//! Shared memory: the counter of handle epochs, and who inserts speculatively.

use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};
use pgrx::prelude::*;

use crate::error;
use crate::ffi;
use crate::version::server;

/// What all sessions share. One place for each session stands behind it, see
/// [`speculations`].
#[repr(C, align(8))]
struct Shared {
    /// The next epoch of handles; stays at `u32::MAX` once there.
    epoch: AtomicU32,
    /// The number under which locks of parallel scans are waited for.
    tranche: i32,
}

/// The tranche of the lightweight locks of parallel scans, named for
/// `pg_stat_activity` on first use.
pub fn tranche() -> i32 {
    thread_local!(static NAMED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    require_preloaded();
    // SAFETY: shared memory lives as long as the process, and the tranche's
    // number is not written after start-up; the name is a constant.
    unsafe {
        let tranche = (*SHARED.load(Ordering::Relaxed)).tranche;
        if !NAMED.replace(true) {
            pg_sys::LWLockRegisterTranche(tranche, c"PgRowrefParallelScan".as_ptr());
        }
        tranche
    }
}

/// Set once the segment is there; inherited by every session.
static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());

static mut PREVIOUS_STARTUP: Option<unsafe extern "C-unwind" fn()> = None;

/// Whether the server is loading `shared_preload_libraries` right now.
pub fn is_preloading() -> bool {
    // SAFETY: a plain flag.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Asks for shared memory at server start.
///
/// # Safety
/// Called once, from `_PG_init`, while [`is_preloading`].
pub unsafe fn install() {
    // SAFETY: single-threaded start-up, as the caller promises.
    unsafe {
        server::on_shmem_request(request);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

/// Whether the library was loaded at server start.
pub fn is_preloaded() -> bool {
    !SHARED.load(Ordering::Relaxed).is_null()
}

/// Reports an error unless the library was loaded at server start: the first
/// thing that every handler does.
pub fn require_preloaded() {
    if !is_preloaded() && !is_preloading() {
        error::not_preloaded();
    }
}

/// Leases the next epoch of handles: no two calls in the life of the server
/// get the same, and each session sees them rise. `u32::MAX` says that there
/// are no more. As a function it is a `rowref::EpochSource`.
pub fn lease_epoch() -> u32 {
    let shared = SHARED.load(Ordering::Relaxed);
    if shared.is_null() {
        error::not_preloaded();
    }
    // SAFETY: points into shared memory, which lives as long as the process.
    let epoch = unsafe { &(*shared).epoch };
    let next = |epoch: u32| Some(epoch.saturating_add(1));
    match epoch.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
        Ok(leased) | Err(leased) => leased,
    }
}

/// One place for each session, by its number: transaction and token of the row
/// that it inserts speculatively just now, or zero.
pub(crate) fn speculations() -> &'static [AtomicU64] {
    let shared = SHARED.load(Ordering::Relaxed);
    if shared.is_null() {
        error::not_preloaded();
    }
    // SAFETY: `startup` has made as many behind the structure, and they live as
    // long as the process.
    unsafe { std::slice::from_raw_parts(shared.add(1).cast(), sessions_max()) }
}

/// How many sessions there can be. Fixed before shared memory is made.
fn sessions_max() -> usize {
    // SAFETY: a plain variable, written at server start.
    usize::try_from(unsafe { pg_sys::MaxBackends }).expect("a number of sessions")
}

fn size_bytes() -> usize {
    size_of::<Shared>() + sessions_max() * size_of::<AtomicU64>()
}

/// Where a starting server begins to count. A ctid that a client kept over a
/// restart must not name a row by chance, so the start moves on with time,
/// faster than sessions can lease in the long run, and leaves at least half of
/// all numbers ahead.
fn first_epoch() -> u32 {
    const PER_SECOND: u64 = 16;
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    ((seconds * PER_SECOND) % (1 << 31)) as u32
}

#[pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: called by the server at the time for such requests.
    unsafe { pg_sys::RequestAddinShmemSpace(size_bytes()) };
}

#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: called by the server when its shared memory is there; the hook
    // was written before.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            guarded(|| previous());
        }
        let lock = ffi::rowref_addin_shmem_init_lock();
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let mut found = false;
        let shared = pg_sys::ShmemInitStruct(c"pg_rowref".as_ptr(), size_bytes(), &mut found)
            .cast::<Shared>();
        if !found {
            shared.write(Shared {
                epoch: AtomicU32::new(first_epoch()),
                tranche: pg_sys::LWLockNewTrancheId(),
            });
            let places = shared.add(1).cast::<AtomicU64>();
            for nth in 0..sessions_max() {
                places.add(nth).write(AtomicU64::new(0));
            }
        }
        pg_sys::LWLockRelease(lock);
        SHARED.store(shared, Ordering::Relaxed);
    }
}
