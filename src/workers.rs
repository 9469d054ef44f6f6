//! What worker processes run: the server looks it up in the library by its name
//! (`pg::parallel`).

use pgrx::pg_sys;
use pgrx::prelude::*;

/// Makes entries of an index that is being built (`pg::entries`).
///
/// # Safety
/// Called by the server, in a parallel worker.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn rowref_entries_worker(
    segment: *mut pg_sys::dsm_segment,
    toc: *mut pg_sys::shm_toc,
) {
    // SAFETY: the server's arguments, handed on.
    unsafe { pg::entries::work(segment, toc) }
}

/// Vacuums indexes of a table that is being vacuumed (`pg::vacuum`).
///
/// # Safety
/// Called by the server, in a parallel worker.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn rowref_vacuum_worker(
    segment: *mut pg_sys::dsm_segment,
    toc: *mut pg_sys::shm_toc,
) {
    // SAFETY: the server's arguments, handed on.
    unsafe { pg::vacuum::work(segment, toc) }
}
