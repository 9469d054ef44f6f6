//! Hidden row ids, leased by the thousand: one logged change of the metapage
//! for as many rows.

use crate::table_am::TableAm;
use pg::error::OrRaise;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

/// Ids taken at once. What a session does not use is lost, of 2⁶⁴.
const LEASE: u64 = 1000;

thread_local! {
    /// What this session has left, by relation and file: a new file has a
    /// counter of its own.
    static LEFT: RefCell<HashMap<u32, (u32, Range<u64>)>> = RefCell::default();
}

/// The key of a new row in a table without a primary key.
///
/// # Safety
/// `relation` is open, and `table` is it.
pub unsafe fn next<A: TableAm>(table: &A, relation: pg_sys::Relation) -> [u8; 8] {
    // SAFETY: the caller's promise.
    let (oid, file) = unsafe { ((*relation).rd_id.to_u32(), pg::store::file_number(relation)) };
    let taken = LEFT.with_borrow_mut(|left| {
        let (of, ids) = left.get_mut(&oid)?;
        if *of != file { None } else { ids.next() }
    });
    let id = taken.unwrap_or_else(|| {
        // SAFETY: the relation is open.
        let mut ids = unsafe { table.lease_row_ids(LEASE).or_raise(relation) };
        let first = ids.next().expect("a lease is not empty");
        LEFT.with_borrow_mut(|left| left.insert(oid, (file, ids)));
        first
    });
    pg::row::row_id_key(id)
}

/// Forgets the ids of a relation whose counter was started anew.
pub fn forget(relation: pg_sys::Oid) {
    LEFT.with_borrow_mut(|left| left.remove(&relation.to_u32()));
}
