//! The row that a constraint is being checked for: core knows it among the
//! rows in its way by its tid, so the scan that finds it has to give it the
//! very handle that the check was called with.

use std::cell::Cell;

use engine::mvcc::VersionId;
use pgrx::pg_sys;

use crate::handles;
use crate::slot::INVALID_TID;

thread_local! {
    static OWN: Cell<pg_sys::ItemPointerData> = const { Cell::new(INVALID_TID) };
}

/// Notes a row's handle; a check for the row may follow.
#[inline]
pub fn note_own(handle: pg_sys::ItemPointerData) {
    OWN.set(handle);
}

/// The handle that was noted last, if it names this version.
pub fn own_handle(
    relation: pg_sys::Oid,
    version: VersionId<'_>,
) -> Option<pg_sys::ItemPointerData> {
    let handle = OWN.get();
    let lease = handles::resolve(handle)?;
    let is_it = lease.relation == relation.to_u32()
        && lease.sequence == version.sequence.0
        && lease.xmin == version.xmin.0
        && lease.reference.0 == version.key;
    is_it.then_some(handle)
}

/// Forgets it.
pub(super) fn forget() {
    OWN.set(INVALID_TID);
}
