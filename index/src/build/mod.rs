//! `CREATE INDEX`: the primary key of a table of ours organizes the table;
//! every other index is stored beside it.

mod progress;
mod stored;

use pg::open::OpenStore;
use pg::organize;
use pg::row::{KeyColumnSpec, Organization};
use pgrx::pg_sys;

pub use progress::name as phase_name;
pub use stored::build_empty;

/// What `ambuild` reports.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Built {
    /// Live rows of the table.
    pub rows: f64,
    /// Live entries of the index.
    pub entries: f64,
}

/// Builds an index: organizes the table by its new primary key, or reads the
/// table and stores the entries.
///
/// # Safety
/// Both relations are open and locked as for an index build; `info` describes
/// the index.
pub unsafe fn build(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
) -> Built {
    // SAFETY: the caller's promise.
    unsafe {
        let form = &*(*index).rd_index;
        // A deferrable key may be broken within a transaction, so nothing can be
        // organized by it: it is stored beside the table, which has row ids.
        let organizes = form.indisprimary && form.indimmediate;
        if organizes || is_the_key(table, index) {
            let rows = organize_by(table, index, organizes);
            return Built {
                rows,
                entries: rows,
            };
        }
        stored::build(table, index, info)
    }
}

unsafe fn organize_by(table: pg_sys::Relation, index: pg_sys::Relation, organizes: bool) -> f64 {
    // SAFETY: the caller's promise.
    unsafe {
        if organizes {
            organize::call(table, index)
        } else {
            f64::from((*(*table).rd_rel).reltuples.max(0.0))
        }
    }
}

/// Whether an index says the very thing that its table is organized by, as the
/// copy of the primary key does that REINDEX CONCURRENTLY makes. It then needs
/// no storage either; INCLUDE columns are in the rows.
///
/// # Safety
/// Both relations are open.
unsafe fn is_the_key(table: pg_sys::Relation, index: pg_sys::Relation) -> bool {
    // SAFETY: the caller's promise; an open index has its pg_index row.
    unsafe {
        let form = &*(*index).rd_index;
        if !form.indisunique
            || !form.indimmediate
            || form.indisexclusion
            || !pg_sys::RelationGetIndexPredicate(index).is_null()
        {
            return false;
        }
        let store = OpenStore::table(table);
        // The key's columns hold no nulls, whatever an index on them allows.
        let columns = |organization: &Organization| -> Vec<KeyColumnSpec> {
            let columns = organization.columns().iter();
            columns
                .map(|column| KeyColumnSpec {
                    nullable: false,
                    ..*column
                })
                .collect()
        };
        let of_table = columns(store.layout().organization());
        !of_table.is_empty() && of_table == columns(&Organization::of_index(table, index))
    }
}
