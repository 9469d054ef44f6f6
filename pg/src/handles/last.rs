//! The row that was leased last, kept for an UPDATE.
//!
//! Core passes an UPDATE the new values and the tid of the old row, and has it
//! fetch the old row by its tid for the columns that stay. It has just been
//! read: that is where the tid comes from. So its bytes are kept when it is
//! leased, by the handle, which names one version for ever; and a version never
//! changes.

use std::cell::RefCell;

use engine::mvcc::batch::Row;
use engine::page::cell::Head;
use engine::types::BlockNumber;
use pgrx::pg_sys;

use super::run::{self, Need};

struct Last {
    tid: pg_sys::ItemPointerData,
    relation: pg_sys::Oid,
    head: Head,
    key: Vec<u8>,
    payload: Vec<u8>,
}

thread_local! {
    // Leaked, so that nothing is torn down when the process exits.
    static LAST: &'static RefCell<Option<Last>> = Box::leak(Box::default());
}

/// As [`super::lease`], of a row that is at hand.
#[inline]
pub fn lease_row(
    relation: pg_sys::Oid,
    row: Row<'_>,
    block: BlockNumber,
) -> pg_sys::ItemPointerData {
    let needs = run::current();
    let tid = super::lease_as(needs.read, relation, row.key, row.head, block);
    if needs.reads_again && needs.read != Need::Nothing {
        keep(tid, relation, row);
    }
    tid
}

fn keep(tid: pg_sys::ItemPointerData, relation: pg_sys::Oid, row: Row<'_>) {
    LAST.with(|last| {
        let mut last = last.borrow_mut();
        let last = last.get_or_insert_with(|| Last {
            tid,
            relation,
            head: row.head,
            key: Vec::new(),
            payload: Vec::new(),
        });
        (last.tid, last.relation, last.head) = (tid, relation, row.head);
        last.key.clear();
        last.key.extend_from_slice(row.key);
        last.payload.clear();
        last.payload.extend_from_slice(row.payload);
    });
}

/// Shows the row that a handle names, if it is the one that was leased last.
/// `show` must not lease anything.
pub fn with_last<R>(
    relation: pg_sys::Oid,
    tid: pg_sys::ItemPointerData,
    show: impl FnOnce(Row<'_>) -> R,
) -> Option<R> {
    LAST.with(|last| {
        let last = last.borrow();
        let last = last.as_ref().filter(|last| {
            let parts = |tid: pg_sys::ItemPointerData| {
                (tid.ip_blkid.bi_hi, tid.ip_blkid.bi_lo, tid.ip_posid)
            };
            last.relation == relation && parts(last.tid) == parts(tid)
        })?;
        Some(show(Row {
            key: &last.key,
            payload: &last.payload,
            head: last.head,
        }))
    })
}

/// Forgets the row, with the transaction that read it.
pub(super) fn forget() {
    LAST.with(|last| {
        if let Some(last) = last.borrow_mut().as_mut() {
            last.relation = pg_sys::Oid::INVALID;
        }
    });
}
