//! The life of a table's storage: made, organized, emptied, copied.

use crate::open::open;
use crate::row_id;
use crate::table_am::TableAm;
use pg::error::OrRaise;
use pg::row::Organization;
use pg::store::{RelationFile, RelationStore, copy_files, create_storage};
use pg::xact::{from_server, to_server};
use pgrx::{pg_guard, pg_sys};

/// The organization that a relation's new storage gets: that of the old one,
/// if it has one (TRUNCATE keeps the key), else hidden row ids until its
/// primary key is made.
unsafe fn inherited<A: TableAm>(relation: pg_sys::Relation) -> Vec<u8> {
    // SAFETY: the relation is open.
    unsafe {
        let store = RelationStore::new(relation);
        if pg::store::has_storage(relation) {
            A::stored_layout(&store).or_raise(relation)
        } else {
            Vec::new()
        }
    }
}

/// Whether keys of this layout compare as bytes.
fn is_ordered(layout: &[u8]) -> bool {
    Organization::from_bytes(layout)
        .ok()
        .and_then(|organization| organization.key_layout())
        .is_none_or(|keys| keys.is_ordered())
}

/// The `relation_set_new_filenode` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn set_new_file<A: TableAm>(
    relation: pg_sys::Relation,
    file: *const RelationFile,
    persistence: std::ffi::c_char,
    freeze_xid: *mut pg_sys::TransactionId,
    minimum_multixact: *mut pg_sys::MultiXactId,
) {
    pg::shmem::require_preloaded();
    // SAFETY: the server's arguments are live, and the file does not exist yet.
    unsafe {
        let layout = inherited::<A>(relation);
        let horizons = create_storage(&*file, persistence, |store| {
            A::create(store, &layout, is_ordered(&layout))
        })
        .or_raise(relation);
        *freeze_xid = horizons.freeze_xid;
        *minimum_multixact = horizons.minimum_multixact;
        row_id::forget((*relation).rd_id);
    }
}

/// The `relation_nontransactional_truncate` callback: of a table whose storage
/// this very transaction made, so that a rollback has nothing to restore. The
/// file is emptied, and gets its metapage and root again.
#[pg_guard]
pub unsafe extern "C-unwind" fn truncate<A: TableAm>(relation: pg_sys::Relation) {
    // SAFETY: the relation is open and locked exclusively.
    unsafe {
        let layout = inherited::<A>(relation);
        start_over::<A>(relation, &layout);
    }
}

/// Empties a table's storage, which this very subtransaction has made, and
/// organizes it as `layout` says.
pub unsafe fn start_over<A: TableAm>(relation: pg_sys::Relation, layout: &[u8]) {
    // SAFETY: the relation is open and locked exclusively.
    unsafe {
        pg_sys::RelationTruncate(relation, 0);
        row_id::forget((*relation).rd_id);
        A::create(&RelationStore::new(relation), layout, is_ordered(layout)).or_raise(relation);
    }
}

/// The `relation_copy_data` callback (SET TABLESPACE): pages are copied as
/// they are.
#[pg_guard]
pub unsafe extern "C-unwind" fn copy_data(relation: pg_sys::Relation, file: *const RelationFile) {
    // SAFETY: the relation is open and locked exclusively.
    unsafe { copy_files(relation, &*file) }
}

/// The `relation_copy_for_cluster` callback (CLUSTER, VACUUM FULL): the table
/// is in the order of its key already, so all that is to do is to write it
/// anew, without what nobody needs any more.
#[pg_guard]
#[expect(clippy::too_many_arguments, reason = "the server's signature")]
pub unsafe extern "C-unwind" fn copy_for_cluster<A: TableAm>(
    old: pg_sys::Relation,
    new: pg_sys::Relation,
    _index: pg_sys::Relation,
    _use_sort: bool,
    oldest_xmin: pg_sys::TransactionId,
    xid_cutoff: *mut pg_sys::TransactionId,
    _multi_cutoff: *mut pg_sys::MultiXactId,
    num_tuples: *mut f64,
    tups_vacuumed: *mut f64,
    tups_recently_dead: *mut f64,
) {
    // SAFETY: both relations are open; the old one is locked exclusively, and
    // the new one's storage was made by this very command.
    unsafe {
        let table = open::<A>(old);
        pg_sys::RelationTruncate(new, 0);
        let rebuilt = table
            .rebuild(&RelationStore::new(new), || {
                pgrx::check_for_interrupts!();
            })
            .or_raise(new);
        *xid_cutoff = to_server(A::frozen_limit(
            rebuilt.oldest_xid,
            from_server(oldest_xmin),
        ));
        *num_tuples = rebuilt.live as f64;
        *tups_vacuumed = rebuilt.removed as f64;
        *tups_recently_dead = rebuilt.dead as f64;
        pg::row::forget((*new).rd_id);
    }
}
