//! Opening a table for one call or one scan.

use crate::table_am::TableAm;
use pg::error::OrRaise;
use pg::row;
use pg::store::RelationStore;
use pgrx::pg_sys;

/// Opens a table of access method `A`.
///
/// # Safety
/// `relation` is open and stays so while the result lives.
pub unsafe fn open<A: TableAm>(relation: pg_sys::Relation) -> A {
    // SAFETY: the caller's promise.
    unsafe { open_with(relation, std::ptr::null_mut()) }
}

/// As [`open`], for reading through a ring of buffers.
///
/// # Safety
/// `relation` is open, and the strategy live, while the result lives.
pub unsafe fn open_with<A: TableAm>(
    relation: pg_sys::Relation,
    strategy: pg_sys::BufferAccessStrategy,
) -> A {
    // SAFETY: the caller's promise.
    unsafe {
        let store = RelationStore::new(relation).with_strategy(strategy);
        let layout = row::of_relation(relation, || -> Result<_, row::Error> {
            Ok(A::stored_layout(&store).or_raise(relation))
        })
        .or_raise(relation);
        A::open(layout, store)
    }
}
