//! The life of a table's storage: made, organized, emptied, copied.

use crate::open::open;
use crate::organize;
use crate::row_handle;
use crate::row_id;
use crate::table_am::TableAm;
use pg::error::OrRaise;
use pg::row::Organization;
use pg::store::{RelationFile, RelationStore, copy_files, create_storage};
use pg::xact::{from_server, to_server};
use pgrx::{pg_guard, pg_sys};
use std::cell::{Cell, RefCell};

thread_local! {
    /// The organization that [`replace`] wants for the storage it asks core to
    /// make, which calls back here without a word about it.
    static WANTED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Gives a table new, empty storage that is organized as `layout` says. The old
/// storage goes at commit, the new one at rollback.
///
/// # Safety
/// `table` is open and locked exclusively.
pub unsafe fn replace(table: pg_sys::Relation, layout: Vec<u8>) {
    /// Forgets the wish, after an ERROR as well.
    struct Wish;
    impl Drop for Wish {
        fn drop(&mut self) {
            WANTED.set(None);
        }
    }
    WANTED.set(Some(layout));
    let _wish = Wish;
    // SAFETY: the caller's promise.
    unsafe { pg_sys::RelationSetNewRelfilenode(table, (*(*table).rd_rel).relpersistence) }
}

/// The organization that a relation's new storage gets: the one that is wished
/// for, else that of the old storage (TRUNCATE keeps the key), else hidden row
/// ids until its primary key is made.
unsafe fn inherited<A: TableAm>(relation: pg_sys::Relation) -> Vec<u8> {
    if let Some(wanted) = WANTED.take() {
        return wanted;
    }
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
    row_handle::storage_changes();
    // SAFETY: the server's arguments are live, and the file does not exist yet.
    unsafe {
        let wanted = WANTED.with_borrow(Option::is_some);
        let layout = inherited::<A>(relation);
        let horizons = create_storage(&*file, persistence, |store| {
            A::create(store, &layout, is_ordered(&layout))
        })
        .or_raise(relation);
        *freeze_xid = horizons.freeze_xid;
        // The old storage's rows may be put in again with the writers that they
        // had, so the new one may hold all that the old one may (rule 20).
        let before = (*(*relation).rd_rel).relfrozenxid;
        if wanted && from_server(before).precedes(from_server(*freeze_xid)) {
            *freeze_xid = before;
        }
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
        row_handle::storage_changes();
        // With it go the places in the tree that it remembers.
        pg::row::forget((*relation).rd_id);
        pg_sys::RelationTruncate(relation, 0);
        row_id::forget((*relation).rd_id);
        A::create(&RelationStore::new(relation), &layout, is_ordered(&layout)).or_raise(relation);
    }
}

/// The `relation_copy_data` callback (SET TABLESPACE): pages are copied as
/// they are.
#[pg_guard]
pub unsafe extern "C-unwind" fn copy_data(relation: pg_sys::Relation, file: *const RelationFile) {
    // SAFETY: the relation is open and locked exclusively.
    unsafe { copy_files(relation, &*file) }
}

/// How far CLUSTER or VACUUM FULL has come, as `pg_stat_progress_cluster` has it.
struct Copied {
    leaves: i64,
    blocks: i64,
}

impl Copied {
    /// # Safety
    /// `old` is open, and `index` too or null.
    unsafe fn begin(old: pg_sys::Relation, index: pg_sys::Relation) -> Copied {
        // SAFETY: the caller's promise.
        let (phase, index, blocks) = unsafe {
            let blocks =
                pg_sys::RelationGetNumberOfBlocksInFork(old, pg_sys::ForkNumber::MAIN_FORKNUM);
            match index.as_ref() {
                Some(index) => (
                    pg_sys::PROGRESS_CLUSTER_PHASE_INDEX_SCAN_HEAP,
                    index.rd_id.to_u32(),
                    i64::from(blocks),
                ),
                None => (
                    pg_sys::PROGRESS_CLUSTER_PHASE_SEQ_SCAN_HEAP,
                    0,
                    i64::from(blocks),
                ),
            }
        };
        report(pg_sys::PROGRESS_CLUSTER_PHASE, phase.into());
        report(pg_sys::PROGRESS_CLUSTER_INDEX_RELID, index.into());
        report(pg_sys::PROGRESS_CLUSTER_TOTAL_HEAP_BLKS, blocks);
        Copied { leaves: 0, blocks }
    }

    /// A leaf was read, so many rows so far.
    fn leaf(&mut self, rows: i64) {
        self.leaves += 1;
        report(pg_sys::PROGRESS_CLUSTER_HEAP_BLKS_SCANNED, self.leaves);
        self.rows(rows);
    }

    fn rows(&self, rows: i64) {
        report(pg_sys::PROGRESS_CLUSTER_HEAP_TUPLES_SCANNED, rows);
        report(pg_sys::PROGRESS_CLUSTER_HEAP_TUPLES_WRITTEN, rows);
    }

    /// All is read: metapage, inner pages and unused ones count as well.
    fn end(&self, rows: i64) {
        report(pg_sys::PROGRESS_CLUSTER_HEAP_BLKS_SCANNED, self.blocks);
        self.rows(rows);
    }
}

fn report(what: u32, value: i64) {
    // SAFETY: writes this backend's own entry.
    unsafe { pg_sys::pgstat_progress_update_param(what as i32, value) }
}

/// The `relation_copy_for_cluster` callback (CLUSTER, VACUUM FULL). A table with
/// a primary key is in its order already, so all that is to do is to write it
/// anew, without what nobody needs any more; one of hidden row ids gets others,
/// in the order of the index that it is clustered by.
#[pg_guard]
#[expect(clippy::too_many_arguments, reason = "the server's signature")]
pub unsafe extern "C-unwind" fn copy_for_cluster<A: TableAm>(
    old: pg_sys::Relation,
    new: pg_sys::Relation,
    index: pg_sys::Relation,
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
        // The new relation was made without a word of its key. Its init fork,
        // which an unlogged table is reset to, has to know it too.
        if (*(*new).rd_rel).relpersistence as u8 == pg_sys::RELPERSISTENCE_UNLOGGED {
            replace(new, table.layout().organization().to_bytes());
        }
        pg_sys::RelationTruncate(new, 0);
        let mut copied = Copied::begin(old, index);
        let rows = Cell::new(0);
        let reordered = if index.is_null() {
            None
        } else if table.layout().is_row_id() {
            organize::in_index_order::<A>(old, new, index)
        } else {
            if pg::store::has_storage(index) {
                pg::error::stays_in_key_order(old);
            }
            None
        };
        let rebuilt = reordered.unwrap_or_else(|| {
            table
                .rebuild(
                    &RelationStore::new(new),
                    |key, payload| {
                        rows.set(rows.get() + 1);
                        crate::toast::carry_over(new, table.layout(), key, payload)
                    },
                    || {
                        pgrx::check_for_interrupts!();
                        copied.leaf(rows.get());
                    },
                )
                .or_raise(new)
        });
        copied.end(rebuilt.live as i64 + rebuilt.dead as i64);
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
