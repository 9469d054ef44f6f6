//! Handles of rows: what stands in `tts_tid` for a row that has no ctid.

use engine::mvcc::VersionIdBuf;
use engine::page::cell::Head;
use engine::{BlockNumber, Sequence, Xid};
use pgrx::pg_sys;

/// Whether whoever reads rows now may come back for one of them.
#[inline]
pub fn needed() -> bool {
    pg::handles::needed()
}

/// A handle for a version that was read.
///
/// # Safety
/// `relation` is open.
#[inline]
pub unsafe fn lease(
    relation: pg_sys::Relation,
    key: &[u8],
    head: Head,
    block: BlockNumber,
) -> pg_sys::ItemPointerData {
    // SAFETY: the caller's promise.
    let relation = unsafe { (*relation).rd_id };
    pg::handles::lease(relation, key, head, block)
}

/// The tid of a row that nobody comes back for: valid to look at, and no
/// handle, so that it leads to no row.
#[inline]
pub fn nobody() -> pg_sys::ItemPointerData {
    pg::handles::UNNAMED
}

/// The version that a handle names, if it is one of this relation.
///
/// # Safety
/// `relation` is open.
pub unsafe fn resolve(
    relation: pg_sys::Relation,
    tid: pg_sys::ItemPointerData,
) -> Option<VersionIdBuf> {
    // SAFETY: the caller's promise.
    let (lease, relation) = unsafe { (pg::handles::resolve(tid)?, (*relation).rd_id) };
    (lease.relation == relation.to_u32()).then_some(VersionIdBuf {
        key: lease.reference.0,
        sequence: Sequence(lease.sequence),
        xmin: Xid(lease.xmin),
    })
}
