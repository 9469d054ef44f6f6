//! Organizing a table anew: by a primary key that was added, or by hidden row
//! ids once it was dropped. What ALTER TABLE rewrites comes here too, when core
//! rebuilds the primary key on rows that were put in without it.
//!
//! Every version that somebody may still need goes to its new key (`collect`),
//! with its writer; sorted, they fill new storage (`load`), so that a rollback
//! brings the old back. The argument is in `README.md`, "Organizing anew".

mod cluster;
mod collect;
mod load;

use crate::create::replace;
use crate::indexes;
use crate::insert::writer;
use crate::open::open;
use crate::table_am::TableAm;
pub use cluster::in_index_order;
use collect::{Collected, Collector, Keep};
use pg::error::unsupported;
use pg::row::{self, Organization, TableLayout};
use pg::store::lose_pages;
use pgrx::pg_sys;

/// Organizes a table by its primary key, for `ambuild` of the index that
/// stands for it. Returns the number of rows.
///
/// # Safety
/// Both relations are open and locked as index builds demand.
pub unsafe fn by_primary_key<A: TableAm>(table: pg_sys::Relation, index: pg_sys::Relation) -> f64 {
    // SAFETY: the caller's promise.
    unsafe {
        let wanted = Organization::of_index(table, index);
        if open::<A>(table).layout().organization().to_bytes() == wanted.to_bytes() {
            // TRUNCATE, REINDEX: the rows are in their order already.
            return f64::from((*(*table).rd_rel).reltuples.max(0.0));
        }
        anew::<A>(table, wanted, Some(index))
    }
}

/// Organizes a table whose primary key is gone by hidden row ids.
///
/// # Safety
/// `table` is open and locked exclusively.
pub unsafe fn by_row_id<A: TableAm>(table: pg_sys::Relation) {
    // SAFETY: the caller's promise.
    unsafe {
        if !open::<A>(table).layout().is_row_id() {
            anew::<A>(table, Organization::RowId, None);
        }
    }
}

/// Takes the rows out, makes new storage and puts them in under their new keys.
unsafe fn anew<A: TableAm>(
    table: pg_sys::Relation,
    wanted: Organization,
    index: Option<pg_sys::Relation>,
) -> f64 {
    // SAFETY: the caller's promise.
    unsafe {
        let own = pg_sys::GetCurrentSubTransactionId();
        let is_new = (*table).rd_createSubid == own || (*table).rd_newRelfilenodeSubid == own;
        // Others must neither write to the old storage nor read a new one that
        // may vanish. Storage of this very subtransaction nobody else can see.
        if !is_new && !is_locked_exclusively(table) {
            unsupported(
                "organizing a table that others may be using",
                "Add the primary key with ALTER TABLE, which locks the table.",
            );
        }
        lose_pages(table);
        pg::version::server::await_class_row((*table).rd_id);
        let description = wanted.to_bytes();
        let to = row::keep(TableLayout::new(table, wanted));
        let mut collected = collect::<A>(table, index, &to, Keep::Histories);
        let is_orderly = collected
            .as_mut()
            .is_some_and(|rows| load::is_orderly(table, rows));
        if !is_orderly {
            drop(collected);
            let writer = writer(pg_sys::GetCurrentCommandId(true));
            collected = collect::<A>(table, index, &to, Keep::Rows(writer));
        }
        let collected = collected.expect("rows that live have keys");
        if collected.has_values_to_delete {
            collect::delete_values::<A>(table, &to);
        }
        // Always new storage, even where the old one is new itself: only so
        // does an unlogged table's init fork know the key as well.
        replace(table, description);
        let rows = load::fill::<A>(table, index, &to, collected);
        indexes::rebuild(table, index.map(|index| (*index).rd_id));
        rows
    }
}

/// Collects the rows; `None` if a version cannot be under the new key that
/// somebody may still need.
unsafe fn collect<'l, A: TableAm>(
    table: pg_sys::Relation,
    index: Option<pg_sys::Relation>,
    to: &'l std::rc::Rc<TableLayout>,
    keep: Keep,
) -> Option<Collected<'l>> {
    // SAFETY: the caller's promise.
    unsafe { Collector::new(table, index, to, keep).collect(&open::<A>(table)) }
}

unsafe fn is_locked_exclusively(table: pg_sys::Relation) -> bool {
    // SAFETY: an open relation.
    unsafe {
        pg_sys::CheckRelationLockedByMe(
            table,
            pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE,
            true,
        )
    }
}
