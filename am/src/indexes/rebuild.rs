//! Building a table's other indexes anew, because the table's key changed and
//! with it how they name its rows.

use pgrx::pg_sys;

const LOCK: pg_sys::LOCKMODE = pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE;

/// Builds every index of a table anew but `except`. Indexes that the command
/// at work is going to rebuild in any case are left to it.
///
/// # Safety
/// `table` is open and locked exclusively, and holds its rows as they will be.
pub unsafe fn rebuild(table: pg_sys::Relation, except: Option<pg_sys::Oid>) {
    // SAFETY: the caller's promise.
    unsafe {
        let list = pg_sys::RelationGetIndexList(table);
        let count = list.as_ref().map_or(0, |list| list.length);
        for at in 0..count as usize {
            let oid = (*(*list).elements.add(at)).oid_value;
            if Some(oid) != except && !pg_sys::ReindexIsProcessingIndex(oid) {
                rebuild_one(table, oid);
            }
        }
        pg_sys::list_free(list);
    }
}

unsafe fn rebuild_one(table: pg_sys::Relation, oid: pg_sys::Oid) {
    // SAFETY: the caller's promise. Each index gets a file of its own, so that
    // a rollback brings the old one back.
    unsafe {
        let index = pg_sys::index_open(oid, LOCK);
        if (*(*index).rd_index).indisready {
            pg_sys::RelationSetNewRelfilenode(index, (*(*index).rd_rel).relpersistence);
            let info = pg_sys::BuildIndexInfo(index);
            pg_sys::index_build(table, index, info, true, false);
        }
        pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
}
