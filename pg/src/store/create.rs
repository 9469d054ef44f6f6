//! New storage for a relation.

use std::ffi::c_char;

use engine::Result;
use pgrx::pg_sys;

use super::ImageStore;
use crate::ffi;
use crate::version::server::{self, RelationFile};

/// What `relation_set_new_filenode` has to report of new storage.
#[derive(Clone, Copy, Debug)]
pub struct Horizons {
    /// No row here can be older: becomes `relfrozenxid` (rule 20).
    pub freeze_xid: pg_sys::TransactionId,
    /// Becomes `relminmxid`; this storage holds no multixacts.
    pub minimum_multixact: pg_sys::MultiXactId,
}

/// Creates the files that `file` names and fills them with what `build` puts
/// into an empty store, typically a metapage and an empty root. For an
/// unlogged relation `build` is written to the init fork as well, so that it
/// is an empty tree again after a crash.
///
/// # Safety
/// Called from `relation_set_new_filenode` or a rewrite: `file` does not exist
/// yet, and the transaction that creates it is running.
pub unsafe fn create_storage(
    file: &RelationFile,
    persistence: c_char,
    build: impl FnOnce(&ImageStore) -> Result<()>,
) -> Result<Horizons> {
    let images = ImageStore::new();
    build(&images)?;
    // SAFETY: reads shared and session state.
    let (horizons, wal_is_needed) = unsafe {
        (
            Horizons {
                // No older transaction still runs that could put a row here.
                freeze_xid: pg_sys::RecentXmin,
                minimum_multixact: pg_sys::GetOldestMultiXactId(),
            },
            ffi::rowref_wal_is_needed(),
        )
    };
    // Under wal_level=minimal the server syncs new files at commit instead.
    let log = persistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT && wal_is_needed;
    // SAFETY: the caller's promise.
    unsafe {
        server::create_files(file, persistence, log, &mut |write| images.write_out(write));
    }
    Ok(horizons)
}
