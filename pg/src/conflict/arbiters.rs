//! Opening the indexes of a target: core would do it at the first row, and
//! refuse a unique index that is not a B-tree.

use pgrx::pg_sys;

use crate::ddl;

/// Opens the indexes of a table of ours. A target that has its indexes open is
/// left alone by core, which closes them with the query.
///
/// # Safety
/// `target` is a result relation of a query that was started with `estate`.
pub(super) unsafe fn open(estate: *mut pg_sys::EState, target: *mut pg_sys::ResultRelInfo) {
    // SAFETY: a result relation is open; after an ERROR the server sets a
    // memory context of its own.
    unsafe {
        let table = (*target).ri_RelationDesc;
        let is_open = !(*target).ri_IndexRelationDescs.is_null();
        if is_open || !ddl::is_ours(table) || !(*(*table).rd_rel).relhasindex {
            return;
        }
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = (*estate).es_query_cxt;
        pg_sys::ExecOpenIndices(target, false);
        for nth in 0..(*target).ri_NumIndices as usize {
            let index = *(*target).ri_IndexRelationDescs.add(nth);
            learn_equality(index, *(*target).ri_IndexRelationInfo.add(nth));
        }
        pg_sys::CurrentMemoryContext = before;
    }
}

/// Notes the operators by which a unique index finds its columns equal: what
/// core's `BuildSpeculativeIndexInfo` does for a B-tree.
///
/// # Safety
/// `index` is open and `info` is its description, in the current memory
/// context.
unsafe fn learn_equality(index: pg_sys::Relation, info: *mut pg_sys::IndexInfo) {
    const EQUAL: u16 = pg_sys::BTEqualStrategyNumber as u16;
    // SAFETY: an index has a family and an input type for each key column.
    unsafe {
        if !(*info).ii_Unique {
            return;
        }
        let columns = (*info).ii_NumIndexKeyAttrs as usize;
        let operators = room::<pg_sys::Oid>(columns);
        let functions = room::<pg_sys::Oid>(columns);
        let strategies = room::<u16>(columns);
        for column in 0..columns {
            let family = *(*index).rd_opfamily.add(column);
            let input = *(*index).rd_opcintype.add(column);
            let operator = pg_sys::get_opfamily_member(family, input, input, EQUAL as i16);
            assert!(
                operator != pg_sys::Oid::INVALID,
                "a B-tree operator family has an equality"
            );
            operators.add(column).write(operator);
            functions.add(column).write(pg_sys::get_opcode(operator));
            strategies.add(column).write(EQUAL);
        }
        (*info).ii_UniqueOps = operators;
        (*info).ii_UniqueProcs = functions;
        (*info).ii_UniqueStrats = strategies;
    }
}

/// Room for `count` values in the current memory context.
unsafe fn room<T>(count: usize) -> *mut T {
    // SAFETY: a plain allocation; palloc aligns to eight bytes.
    unsafe { pg_sys::palloc(count * size_of::<T>()).cast() }
}
