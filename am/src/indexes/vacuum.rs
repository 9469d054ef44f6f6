//! VACUUM of a table's stored indexes, with the table: each prunes itself, by
//! the table's horizon, and none is compared with anything.

use engine::Xid;
use engine::mvcc::vacuum::Vacuumed;
use pg::error::OrRaise;
use pg::open::OpenIndex;
use pg::version::server;
use pgrx::pg_sys;

const LOCK: pg_sys::LOCKMODE = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;

/// What was found of a stored index.
pub struct VacuumedIndex {
    /// The index.
    pub oid: pg_sys::Oid,
    /// Blocks of its file.
    pub blocks: pg_sys::BlockNumber,
    /// What VACUUM did.
    pub done: Vacuumed,
}

/// Vacuums every stored index of a table, whatever the command says of index
/// clean-up and whether the index is valid or not: what is left unfrozen in one
/// holds the *table's* `relfrozenxid` back (rule 20), for core counts tables
/// only. The oldest transaction id left unfrozen in any, and the indexes, whose
/// statistics are still to be published.
///
/// # Safety
/// `table` is open and locked as VACUUM does.
pub unsafe fn vacuum(
    table: pg_sys::Relation,
    mut each: impl FnMut(pg_sys::Relation, &Vacuumed),
) -> (Option<Xid>, Vec<VacuumedIndex>) {
    let mut oldest: Option<Xid> = None;
    let mut stored = Vec::new();
    // SAFETY: the caller's promise.
    unsafe {
        let list = pg_sys::RelationGetIndexList(table);
        let count = list.as_ref().map_or(0, |list| list.length);
        for at in 0..count as usize {
            let oid = (*(*list).elements.add(at)).oid_value;
            let relation = pg_sys::index_open(oid, LOCK);
            if let Some(index) = OpenIndex::open(relation, table) {
                let done = index
                    .store()
                    .with(|versions| versions.vacuum(|_: &Vacuumed| pg_sys::vacuum_delay_point()))
                    .or_raise(relation);
                index.store().store().publish_free_space();
                let blocks = pg_sys::RelationGetNumberOfBlocksInFork(
                    relation,
                    pg_sys::ForkNumber::MAIN_FORKNUM,
                );
                oldest = match (oldest, done.oldest_xid) {
                    (Some(a), Some(b)) => Some(if a.precedes(b) { a } else { b }),
                    (a, b) => a.or(b),
                };
                each(relation, &done);
                stored.push(VacuumedIndex { oid, blocks, done });
            }
            pg_sys::index_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
        pg_sys::list_free(list);
    }
    (oldest, stored)
}

/// Writes what was found to the catalogs, with the files as they are now.
///
/// # Safety
/// The indexes are locked still, as [`vacuum`] left them.
pub unsafe fn publish(stored: &[VacuumedIndex]) {
    for index in stored {
        // SAFETY: the caller's promise.
        unsafe {
            let relation = pg_sys::index_open(index.oid, pg_sys::NoLock as pg_sys::LOCKMODE);
            server::update_index_statistics(relation, index.done.live as f64);
            pg_sys::index_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}
