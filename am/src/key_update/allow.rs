//! Which tables let columns be changed without anything else to be done.

use crate::indexes;
use pg::key_update::coerces_to_domain;
use pg::list::{integers, nodes};
use pg::open::storage_of;
use pg::row::IndexStorage;
use pgrx::pg_sys;

/// Whether a table is organized by this index of its, and an update of these
/// columns, found by the index, changes the row and nothing else.
///
/// # Safety
/// The table is open, the index is locked, and the list is one of integers.
pub unsafe fn allows(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    changed: *mut pg_sys::List,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let form = &*(*index).rd_index;
        // INCLUDE columns of the key are the table's own.
        let key = form.indkey.values.as_slice(form.indnkeyatts as usize);
        form.indisprimary
            && form.indisvalid
            && form.indimmediate
            && !matches!(storage_of(index), IndexStorage::Stored(_))
            && is_plain(table, changed)
            && integers(changed)
                .all(|number| number > 0 && key.iter().all(|column| i32::from(*column) != number))
            && indexes::indexes_of(table).ignore(changed)
    }
}

/// Whether an update of these columns of the table is nothing but that of a row.
unsafe fn is_plain(table: pg_sys::Relation, changed: *mut pg_sys::List) -> bool {
    // SAFETY: the table is open.
    unsafe {
        let constraints = (*(*table).rd_att).constr;
        let class = &*(*table).rd_rel;
        class.relkind as u8 == pg_sys::RELKIND_RELATION
            && !class.relispartition
            && constraints.as_ref().is_none_or(|constraints| {
                !constraints.has_generated_stored && may_be_checked_twice(constraints)
            })
            && (*table)
                .trigdesc
                .as_ref()
                .is_none_or(|triggers| stay_silent(triggers, table, changed))
    }
}

/// Whether nobody could tell that a table's constraints were checked twice.
unsafe fn may_be_checked_twice(constraints: &pg_sys::TupleConstr) -> bool {
    if constraints.num_check == 0 {
        return true;
    }
    // SAFETY: there are as many as are said, each an expression in the server's
    // notation.
    unsafe {
        let checks = std::slice::from_raw_parts(constraints.check, constraints.num_check.into());
        checks.iter().all(|check| {
            let expression = pg_sys::stringToNode(check.ccbin).cast::<pg_sys::Node>();
            !pg_sys::contain_volatile_functions(expression) && !coerces_to_domain(expression)
        })
    }
}

/// Whether a table's triggers have nothing to do when these columns, which no
/// index looks at, change in a row that another transaction wrote: there are none
/// for UPDATE but those of foreign keys, which refer to the table by an index, or
/// from it by other columns.
unsafe fn stay_silent(
    triggers: &pg_sys::TriggerDesc,
    table: pg_sys::Relation,
    changed: *mut pg_sys::List,
) -> bool {
    if triggers.trig_update_before_row
        || triggers.trig_update_before_statement
        || triggers.trig_update_after_statement
        || triggers.trig_update_instead_row
        || triggers.trig_update_new_table
        || triggers.trig_update_old_table
    {
        return false;
    }
    if !triggers.trig_update_after_row {
        return true;
    }
    // SAFETY: the table is open, and has as many triggers as are said.
    unsafe {
        let each = std::slice::from_raw_parts(triggers.triggers, triggers.numtriggers as usize);
        let is_silent = each
            .iter()
            .filter(|trigger| trigger.tgtype as u32 & pg_sys::TRIGGER_TYPE_UPDATE != 0)
            .all(|trigger| {
                pg_sys::RI_FKey_trigger_type(trigger.tgfoid) as u32 != pg_sys::RI_TRIGGER_NONE
            });
        // Of several columns some may be null, which MATCH FULL looks at although
        // they stay.
        is_silent
            && nodes::<pg_sys::ForeignKeyCacheInfo>(pg_sys::RelationGetFKeyList(table)).all(|key| {
                (*key).nkeys == 1
                    && integers(changed).all(|number| number != i32::from((*key).conkey[0]))
            })
    }
}
