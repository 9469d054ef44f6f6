//! Handles of rows: what stands in `tts_tid` for a row that has no ctid.

use engine::mvcc::VersionIdBuf;
use engine::mvcc::batch::Row;
use engine::{BlockNumber, Sequence, Xid};
use pg::xact::{TransactionEvent, on_transaction_event};
use pgrx::pg_sys;
use std::cell::Cell;

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
    row: Row<'_>,
    block: BlockNumber,
) -> pg_sys::ItemPointerData {
    // SAFETY: the caller's promise.
    let relation = unsafe { (*relation).rd_id };
    pg::handles::lease_row(relation, row, block)
}

/// The tid of a row that nobody comes back for: valid to look at, and no
/// handle, so that it leads to no row.
#[inline]
pub fn nobody() -> pg_sys::ItemPointerData {
    pg::handles::UNNAMED
}

/// The version that a handle names, if it is one of this relation, and the
/// block where it was last seen.
///
/// # Safety
/// `relation` is open.
pub unsafe fn resolve(
    relation: pg_sys::Relation,
    tid: pg_sys::ItemPointerData,
) -> Option<(VersionIdBuf, BlockNumber)> {
    let lease = pg::handles::resolve(tid)?;
    // SAFETY: the caller's promise.
    let relation = unsafe { (*relation).rd_id };
    let near = if STORAGE_CHANGED.get() {
        BlockNumber::NONE
    } else {
        BlockNumber(lease.block_hint)
    };
    (lease.relation == relation.to_u32()).then_some((
        VersionIdBuf {
            key: lease.reference.0,
            sequence: Sequence(lease.sequence),
            xmin: Xid(lease.xmin),
        },
        near,
    ))
}

thread_local! {
    /// Whether this transaction has given some table new or shorter storage.
    /// Then the blocks that its handles name may not exist, and are not looked
    /// at for its rest. (Others cannot do that to a table we have handles of:
    /// it is locked.)
    static STORAGE_CHANGED: Cell<bool> = const { Cell::new(false) };
}

/// Notes that a table gets new or shorter storage.
pub fn storage_changes() {
    on_transaction_event(|event: TransactionEvent| {
        if event.is_end() {
            STORAGE_CHANGED.set(false);
        }
    });
    STORAGE_CHANGED.set(true);
}
