//! The error of a key that exists already.

use pg::slot;
use pgrx::pg_sys;

/// Raises the violation of the primary key by the row in `slot`.
///
/// # Safety
/// `relation` is open and `slot` holds a row of its type.
pub unsafe fn violation(relation: pg_sys::Relation, slot: *mut pg_sys::TupleTableSlot) -> ! {
    // SAFETY: the caller's promise; what is opened here stays so until the
    // transaction ends, which the error sees to.
    unsafe {
        let primary_key = pg_sys::RelationGetPrimaryKeyIndex(relation);
        let index = pg_sys::index_open(primary_key, pg_sys::AccessShareLock as i32);
        let form = &*(*index).rd_index;
        let columns = form.indkey.values.as_slice(form.indnatts as usize);
        let (row_values, row_nulls) = slot::columns(slot);
        let mut values: Vec<_> = columns
            .iter()
            .map(|column| row_values[*column as usize - 1])
            .collect();
        let mut nulls: Vec<_> = columns
            .iter()
            .map(|column| row_nulls[*column as usize - 1])
            .collect();
        let described =
            pg_sys::BuildIndexValueDescription(index, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg::error::duplicate_key(relation, index, described)
    }
}
