//! What VACUUM of a table has found of its stored indexes, told to the user and
//! to the catalogs. The work itself is `pg::vacuum`'s.

use pg::vacuum::VacuumedIndex;
use pg::version::server;
use pgrx::pg_sys;

const NO_LOCK: pg_sys::LOCKMODE = pg_sys::NoLock as pg_sys::LOCKMODE;

/// Tells the user of VACUUM VERBOSE.
///
/// # Safety
/// The index is locked still, as VACUUM left it.
pub unsafe fn tell(index: &VacuumedIndex) {
    // SAFETY: the caller's promise.
    let name = unsafe {
        let relation = pg_sys::index_open(index.oid, NO_LOCK);
        let name = std::ffi::CStr::from_ptr((*(*relation).rd_rel).relname.data.as_ptr());
        let name = name.to_string_lossy().into_owned();
        pg_sys::index_close(relation, NO_LOCK);
        name
    };
    let done = &index.done;
    pgrx::info!(
        "index \"{name}\": {} leaves, {} versions removed, {} entries live, {} versions not removable yet, {} pages merged, {} unused pages offered",
        done.leaves,
        done.removed,
        done.live,
        done.dead,
        done.merged + done.inner_merged,
        done.offered
    );
}

/// Writes what was found to the catalogs, with the files as they are now.
///
/// # Safety
/// As [`tell`].
pub unsafe fn publish(stored: &[VacuumedIndex]) {
    for index in stored {
        // SAFETY: the caller's promise.
        unsafe {
            let relation = pg_sys::index_open(index.oid, NO_LOCK);
            server::update_index_statistics(relation, index.done.live as f64);
            pg_sys::index_close(relation, NO_LOCK);
        }
    }
}
