//! VACUUM of a table's stored indexes, with the table: each prunes itself, by
//! the table's horizon, and none is compared with anything.

use engine::Xid;
use engine::mvcc::vacuum::Vacuumed;
use pg::error::OrRaise;
use pg::open::OpenIndex;
use pg::version::server;
use pgrx::pg_sys;

const LOCK: pg_sys::LOCKMODE = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;

/// Vacuums every stored index of a table, whatever the command says of index
/// clean-up and whether the index is valid or not: what is left unfrozen in one
/// holds the *table's* `relfrozenxid` back (rule 20), for core counts tables
/// only. The oldest transaction id left unfrozen in any.
///
/// # Safety
/// `table` is open and locked as VACUUM does.
pub unsafe fn vacuum(
    table: pg_sys::Relation,
    mut each: impl FnMut(pg_sys::Relation, &Vacuumed),
) -> Option<Xid> {
    let mut oldest: Option<Xid> = None;
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
                server::update_index_statistics(relation, done.live as f64);
                oldest = match (oldest, done.oldest_xid) {
                    (Some(a), Some(b)) => Some(if a.precedes(b) { a } else { b }),
                    (a, b) => a.or(b),
                };
                each(relation, &done);
            }
            pg_sys::index_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
        pg_sys::list_free(list);
    }
    oldest
}
