//! Fetching single rows: by hand-off from an index scan, and by handle.

use crate::by_reference::ByReference;
use crate::modify::handle_of;
use crate::open::open;
use crate::row_handle;
use crate::table_am::TableAm;
use engine::BlockNumber;
use engine::mvcc::VersionId;
use engine::mvcc::batch::{Batch, Row};
use pg::error::OrRaise;
use pg::handoff::{Handed, RowFetch};
use pg::slot;
use pg::xact::ServerSnapshot;
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::rc::Rc;

/// The `index_fetch_begin` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn index_begin(
    relation: pg_sys::Relation,
) -> *mut pg_sys::IndexFetchTableData {
    // SAFETY: an open relation.
    unsafe { RowFetch::begin(relation) }
}

/// The `index_fetch_reset` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn index_reset(fetch: *mut pg_sys::IndexFetchTableData) {
    // SAFETY: made by `index_begin`.
    unsafe { RowFetch::of_table(fetch).reset() }
}

/// The `index_fetch_end` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn index_end(fetch: *mut pg_sys::IndexFetchTableData) {
    // SAFETY: made by `index_begin`.
    unsafe { RowFetch::end(fetch) }
}

/// The `index_fetch_tuple` callback: takes the row that the index scan has put
/// into the hand-off. Without one (a deferred recheck calls with a bare tid)
/// the tid is a handle, and what it names is fetched.
#[pg_guard]
pub unsafe extern "C-unwind" fn index_fetch<A: TableAm>(
    fetch: *mut pg_sys::IndexFetchTableData,
    tid: pg_sys::ItemPointer,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
    call_again: *mut bool,
    all_dead: *mut bool,
) -> bool {
    // SAFETY: made by `index_begin`; out parameters are valid or null.
    unsafe {
        if !call_again.is_null() {
            *call_again = false;
        }
        if !all_dead.is_null() {
            *all_dead = false;
        }
        let relation = (*fetch).rel;
        let handed = RowFetch::of_table(fetch);
        // Whoever looks for conflicts has to know his own row.
        let is_dirty = (*snapshot).snapshot_type == pg_sys::SnapshotType::SNAPSHOT_DIRTY;
        let handle = |row: Row<'_>, block| {
            let own = || {
                let version = VersionId {
                    key: row.key,
                    sequence: row.head.sequence,
                    xmin: row.head.xmin,
                };
                pg::conflict::own_handle((*relation).rd_id, version)
            };
            if is_dirty && let Some(own) = own() {
                own
            } else if row_handle::needed() {
                row_handle::lease(relation, row, block)
            } else {
                row_handle::nobody()
            }
        };
        if handed.take_row_into(slot, handle) {
            return true;
        }
        match handed.take() {
            Handed::Visible { key: None } => true,
            Handed::Visible { key: Some(key) } => {
                // A cursor may come back for the row by the scan's tid.
                let by_reference = ByReference::<A>::of(RowFetch::of_table(fetch), snapshot);
                let found = by_reference.find(key, None, None);
                if let Some((row, block)) = found {
                    *tid = handle(row, block);
                }
                found.is_some()
            }
            Handed::Reference {
                key,
                confirm,
                ahead,
            } => {
                let by_reference = ByReference::<A>::of(RowFetch::of_table(fetch), snapshot);
                let layout = Rc::clone(by_reference.table().layout());
                let Some((row, block)) = by_reference.find(key, confirm, ahead) else {
                    slot::clear_any(slot);
                    return false;
                };
                let handle = handle(row, block);
                // The row stays until the next one is fetched.
                slot::store_borrowed(slot, &layout, row.key, row.payload, row.head, handle);
                true
            }
            _ => row_of::<A>(relation, tid, snapshot, slot),
        }
    }
}

/// Fetches the *row* that a handle names, for a deferred check: the version
/// that is live now, which may be a later one than the check was queued for.
/// Its handle is put in `*tid`. A row that has got another key since is another
/// row to its indexes, and has a check of its own.
unsafe fn row_of<A: TableAm>(
    relation: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: the server's arguments are live.
    unsafe {
        if let Some((id, _)) = row_handle::resolve(relation, *tid)
            && (*snapshot).snapshot_type != pg_sys::SnapshotType::SNAPSHOT_ANY
        {
            let table = open::<A>(relation);
            let judge = ServerSnapshot::from_pg(snapshot, relation);
            let latest = table.latest(id.as_ref(), &judge).or_raise(relation);
            if latest.key != id.key {
                slot::clear_any(slot);
                return false;
            }
            if latest != id {
                *tid = handle_of(relation, latest.as_ref(), BlockNumber::NONE);
            }
        }
        let found = by_handle::<A>(relation, tid, snapshot, slot);
        if found {
            pg::conflict::note_own(*tid);
        }
        found
    }
}

/// The `tuple_fetch_row_version` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn row_version<A: TableAm>(
    relation: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: the server's arguments are live.
    unsafe { by_handle::<A>(relation, tid, snapshot, slot) }
}

/// Fetches the version that a handle names, if the snapshot sees it.
unsafe fn by_handle<A: TableAm>(
    relation: pg_sys::Relation,
    tid: pg_sys::ItemPointer,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: the server's arguments are live.
    unsafe {
        let tid_copy = *tid;
        let is_any = (*snapshot).snapshot_type == pg_sys::SnapshotType::SNAPSHOT_ANY;
        if is_any {
            let oid = (*relation).rd_id;
            let shown = pg::handles::with_last(oid, tid_copy, |row| {
                let table = open::<A>(relation);
                slot::store(
                    slot,
                    table.layout(),
                    row.key,
                    row.payload,
                    row.head,
                    tid_copy,
                );
                (*slot).tts_tableOid = oid;
            });
            if shown.is_some() {
                return true;
            }
        }
        let Some((id, near)) = row_handle::resolve(relation, tid_copy) else {
            slot::clear_any(slot);
            return false;
        };
        let table = open::<A>(relation);
        // Room that is used again: this is called for each updated row.
        thread_local!(static ROOM: RefCell<Batch> = RefCell::default());
        // Taken out while it is used: a comparison function may be a user's, and
        // come back here.
        let mut batch = ROOM.take();
        batch.clear();
        let found = sees(&table, relation, id.as_ref(), near, snapshot, &mut batch);
        if found {
            let row = batch.row(0);
            slot::store(
                slot,
                table.layout(),
                row.key,
                row.payload,
                row.head,
                tid_copy,
            );
            (*slot).tts_tableOid = (*relation).rd_id;
        } else {
            slot::clear_any(slot);
        }
        ROOM.set(batch);
        found
    }
}

/// Copies a named version if a snapshot sees just that one: SnapshotAny sees
/// every version; others must find it to be the one that decides for its key.
unsafe fn sees<A: TableAm>(
    table: &A,
    relation: pg_sys::Relation,
    id: VersionId<'_>,
    near: BlockNumber,
    snapshot: pg_sys::Snapshot,
    batch: &mut Batch,
) -> bool {
    // SAFETY: a live snapshot.
    unsafe {
        if (*snapshot).snapshot_type == pg_sys::SnapshotType::SNAPSHOT_ANY {
            if table.version(id, near, batch).or_raise(relation) {
                return true;
            }
            // Who asks so has read the row, or written it, in this transaction,
            // and nothing prunes what a running transaction may see.
            pg::error::vanished(relation);
        }
        let snapshot = ServerSnapshot::from_pg(snapshot, relation);
        if !table.get(id.key, &snapshot, batch).or_raise(relation) {
            return false;
        }
        let head = batch.row(0).head;
        head.sequence == id.sequence && head.xmin == id.xmin
    }
}

/// The `tuple_satisfies_snapshot` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn satisfies_snapshot<A: TableAm>(
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    snapshot: pg_sys::Snapshot,
) -> bool {
    // SAFETY: the slot is one of ours that holds a row of this relation.
    unsafe {
        let Some(row) = slot::row(slot) else {
            return false;
        };
        let id = VersionId {
            key: row.key,
            sequence: row.head.sequence,
            xmin: row.head.xmin,
        };
        let table = open::<A>(relation);
        sees(
            &table,
            relation,
            id,
            BlockNumber::NONE,
            snapshot,
            &mut Batch::default(),
        )
    }
}

/// The `tuple_tid_valid` callback: whether the tid is a handle at all.
#[pg_guard]
pub unsafe extern "C-unwind" fn tid_valid(
    scan: pg_sys::TableScanDesc,
    tid: pg_sys::ItemPointer,
) -> bool {
    // SAFETY: a scan's relation is open.
    unsafe { row_handle::resolve((*scan).rs_rd, *tid).is_some() }
}

/// The `tuple_get_latest_tid` callback: the handle of the newest version of the
/// named row that the scan's snapshot sees.
#[pg_guard]
pub unsafe extern "C-unwind" fn latest_tid<A: TableAm>(
    scan: pg_sys::TableScanDesc,
    tid: pg_sys::ItemPointer,
) {
    // SAFETY: a scan's relation is open and its snapshot live.
    unsafe {
        let relation = (*scan).rs_rd;
        let Some((id, _)) = row_handle::resolve(relation, *tid) else {
            return;
        };
        let table = open::<A>(relation);
        let snapshot = ServerSnapshot::from_pg((*scan).rs_snapshot, relation);
        let latest = table.latest(id.as_ref(), &snapshot).or_raise(relation);
        if latest != id {
            *tid = handle_of(relation, latest.as_ref(), BlockNumber::NONE);
        }
    }
}
