//! The columns of the table's key as columns of every index: an entry ends in
//! the row's reference, which gives them back. So a query for `id` through an
//! index on `email` reads the index alone.
//!
//! The planner is told by extending what it knows of the index, in its hook;
//! the scan then returns as many columns more. Both ask [`reference_columns`],
//! so that they agree. Which of the planner's and the executor's code looks at
//! the extended fields, and why that is safe, is in this crate's `README.md`.

use std::ffi::c_int;
use std::ptr;

use pg::list::nodes;
use pg::open::{OpenIndex, OpenStore};
use pg::row::{IndexLayout, TableLayout};
use pgrx::pg_sys;

use crate::routine::amcostestimate;

/// A column that an index gives back though it is not one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReferenceColumn {
    /// The table's column, from 1.
    pub attribute: i16,
    /// Where [`IndexLayout::layout`] has it, from 0.
    pub entry_attribute: usize,
}

/// The columns that an index's references add to its own: those of the table's
/// key that come back as they were and are not in the index anyway. None at
/// all if index tuples have no room for so many.
///
/// # Safety
/// `index` is open; the layouts are its own and its table's.
pub unsafe fn reference_columns(
    index: pg_sys::Relation,
    layout: &IndexLayout,
    table: &TableLayout,
) -> Vec<ReferenceColumn> {
    // SAFETY: an open index has its pg_index row, with as many columns as it says.
    let own = unsafe {
        let form = &*(*index).rd_index;
        form.indkey.values.as_slice(layout.attributes())
    };
    let columns: Vec<_> = table
        .organization()
        .columns()
        .iter()
        .zip(layout.reference_attributes())
        .filter(|(column, _)| !own.contains(&column.attribute))
        .filter_map(|(column, entry_attribute)| {
            Some(ReferenceColumn {
                attribute: column.attribute,
                entry_attribute: (*entry_attribute)?,
            })
        })
        .collect();
    if own.len() + columns.len() > pg_sys::INDEX_MAX_KEYS as usize {
        return Vec::new();
    }
    columns
}

/// The shape of the tuples that an index-only scan returns, in the current
/// memory context.
///
/// # Safety
/// Both relations are open; the columns are theirs.
pub unsafe fn tuple_shape(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    columns: &[ReferenceColumn],
) -> pg_sys::TupleDesc {
    // SAFETY: both descriptors have the columns that are copied.
    unsafe {
        let own = (*(*index).rd_att).natts;
        let shape = pg_sys::CreateTemplateTupleDesc(own + columns.len() as c_int);
        for at in 1..=own as i16 {
            pg_sys::TupleDescCopyEntry(shape, at, (*index).rd_att, at);
        }
        for (column, at) in columns.iter().zip(own as i16 + 1..) {
            pg_sys::TupleDescCopyEntry(shape, at, (*table).rd_att, column.attribute);
        }
        shape
    }
}

/// Extends what the planner has collected of our indexes.
///
/// # Safety
/// Called from the planner's hook, with its arguments.
pub unsafe fn describe(relation: pg_sys::Oid, info: *mut pg_sys::RelOptInfo) {
    // SAFETY: the server's arguments are whole. What it has collected of an
    // index is in memory of the planner's, and stays open for changes until
    // this returns; the relations are locked.
    unsafe {
        let mut table: Option<(pg_sys::Relation, OpenStore)> = None;
        for index in nodes::<pg_sys::IndexOptInfo>((*info).indexlist) {
            if !is_ours(&*index) {
                continue;
            }
            // The one that the table is organized by has no pages.
            if (*index).pages == 0 {
                continue;
            }
            let (table, rows) = table.get_or_insert_with(|| {
                let table = pg_sys::table_open(relation, pg_sys::NoLock as i32);
                (table, OpenStore::table(table))
            });
            extend(&mut *index, *table, rows.layout());
        }
        if let Some((table, _)) = table {
            pg_sys::table_close(table, pg_sys::NoLock as i32);
        }
    }
}

/// Whether an index is one of ours, by the one function of an access method
/// that the planner keeps. One that some other extension made up has no file.
pub fn is_ours(index: &pg_sys::IndexOptInfo) -> bool {
    index
        .amcostestimate
        .is_some_and(|estimate| estimate as *const () == amcostestimate as *const ())
        && !index.hypothetical
}

/// Adds the reference's columns to an index's own.
///
/// # Safety
/// `info` describes an index of `table`, whose layout this is; the index is
/// locked.
unsafe fn extend(info: &mut pg_sys::IndexOptInfo, table: pg_sys::Relation, rows: &TableLayout) {
    // SAFETY: the caller's promise; each array gets as many members as there
    // are columns.
    unsafe {
        let index = pg_sys::index_open(info.indexoid, pg_sys::NoLock as i32);
        let columns = match OpenIndex::open(index, table) {
            Some(open) => reference_columns(index, open.layout(), rows),
            None => Vec::new(),
        };
        pg_sys::index_close(index, pg_sys::NoLock as i32);
        if columns.is_empty() {
            return;
        }
        let before = info.ncolumns as usize;
        let after = before + columns.len();
        let keys = pg_sys::palloc(after * size_of::<c_int>()).cast::<c_int>();
        ptr::copy_nonoverlapping(info.indexkeys, keys, before);
        let can_return = pg_sys::palloc(after * size_of::<bool>()).cast::<bool>();
        ptr::copy_nonoverlapping(info.canreturn, can_return, before);
        for (column, at) in columns.iter().zip(before..) {
            *keys.add(at) = column.attribute.into();
            *can_return.add(at) = true;
            let form = &(*(*table).rd_att).attrs.as_slice(column.attribute as usize)
                [column.attribute as usize - 1];
            let variable = pg_sys::makeVar(
                (*info.rel).relid as _,
                column.attribute,
                form.atttypid,
                form.atttypmod,
                form.attcollation,
                0,
            );
            let entry =
                pg_sys::makeTargetEntry(variable.cast(), at as i16 + 1, ptr::null_mut(), false);
            info.indextlist = pg_sys::lappend(info.indextlist, entry.cast());
        }
        info.indexkeys = keys;
        info.canreturn = can_return;
        info.ncolumns = after as c_int;
    }
}
