//! Catalog rows that the command at work has just written, which no cache and
//! no catalog snapshot shows before its command counter moves.

use pgrx::pg_sys;

/// A copy of the row of `catalog` whose column 1 is `oid`, found through the
/// unique index `index`; null if there is none.
///
/// # Safety
/// `catalog` is an open system catalog, `index` its index on column 1, an oid.
unsafe fn newest_row(catalog: pg_sys::Relation, index: u32, oid: pg_sys::Oid) -> pg_sys::HeapTuple {
    // SAFETY: the key is filled by the server; the copy outlives the scan.
    unsafe {
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            1,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_OIDEQ.into(),
            oid.into(),
        );
        let scan = pg_sys::systable_beginscan(
            catalog,
            index.into(),
            true,
            &raw mut pg_sys::SnapshotSelfData,
            1,
            &mut key,
        );
        let row = pg_sys::systable_getnext(scan);
        let copy = if row.is_null() {
            row
        } else {
            pg_sys::heap_copytuple(row)
        };
        pg_sys::systable_endscan(scan);
        copy
    }
}

/// The fixed part of a catalog row (`GETSTRUCT`).
///
/// # Safety
/// `row` is a whole row of the catalog whose form `T` is.
unsafe fn form<'r, T>(row: pg_sys::HeapTuple) -> &'r mut T {
    // SAFETY: by the caller.
    unsafe {
        let header = (*row).t_data;
        &mut *header
            .cast::<u8>()
            .add(usize::from((*header).t_hoff))
            .cast::<T>()
    }
}

/// What `pg_class` says of a relation that may have been made just now.
pub(super) struct Class {
    pub kind: u8,
    pub access_method: pg_sys::Oid,
}

pub(super) fn class_of(relation: pg_sys::Oid) -> Option<Class> {
    with_class_row(relation, |_, row| {
        // SAFETY: a row of pg_class.
        let class = unsafe { form::<pg_sys::FormData_pg_class>(row) };
        Class {
            kind: class.relkind as u8,
            access_method: class.relam,
        }
    })
}

/// Overwrites the access method of a relation in place: the row was written by
/// this very command, so that it cannot be updated again before the command
/// counter moves, and nobody else sees it yet.
pub(super) fn set_access_method(relation: pg_sys::Oid, access_method: pg_sys::Oid) {
    let done = with_class_row(relation, |catalog, row| {
        // SAFETY: a copy of a row of pg_class, whose size does not change.
        unsafe {
            form::<pg_sys::FormData_pg_class>(row).relam = access_method;
            pg_sys::heap_inplace_update(catalog, row);
        }
    });
    assert!(done.is_some(), "the row was found just before");
}

/// Changes the access method of a relation, as any update of a catalog row: seen
/// when the command counter moves, undone by a rollback. The relation is locked
/// exclusively, and was not made by the command at work.
pub(super) fn update_access_method(relation: pg_sys::Oid, access_method: pg_sys::Oid) {
    let done = with_class_row(relation, |catalog, row| {
        // SAFETY: a copy of a row of pg_class, whose size does not change.
        unsafe {
            form::<pg_sys::FormData_pg_class>(row).relam = access_method;
            pg_sys::CatalogTupleUpdate(catalog, &raw mut (*row).t_self, row);
        }
    });
    assert!(done.is_some(), "the caller has locked the relation");
}

/// Gives an index that is being made the callbacks of its access method, if the
/// relation cache has given it those of B-tree. It has if the command counter
/// moved before [`set_access_method`] (the triggers of a deferrable constraint
/// do that), and it does not look at them again as long as the index is open.
pub(super) fn exchange_callbacks(index: pg_sys::Oid, access_method: pg_sys::Oid) {
    // SAFETY: an entry of this backend's relation cache, which the command at
    // work has open; the routine lies where core would put it, in the entry's
    // own memory. The row of pg_am is whole.
    unsafe {
        let open = pg_sys::RelationIdGetRelation(index);
        if open.is_null() {
            return;
        }
        if !(*open).rd_indam.is_null() {
            let row = pg_sys::SearchSysCache1(
                pg_sys::SysCacheIdentifier::AMOID as std::ffi::c_int,
                access_method.into(),
            );
            assert!(!row.is_null(), "the access method was found just before");
            let handler = form::<pg_sys::FormData_pg_am>(row).amhandler;
            pg_sys::ReleaseSysCache(row);
            let routine = pg_sys::GetIndexAmRoutine(handler);
            let bytes = size_of::<pg_sys::IndexAmRoutine>();
            let kept = pg_sys::MemoryContextAlloc((*open).rd_indexcxt, bytes)
                .cast::<pg_sys::IndexAmRoutine>();
            kept.copy_from_nonoverlapping(routine, 1);
            pg_sys::pfree(routine.cast());
            (*open).rd_amhandler = handler;
            (*open).rd_indam = kept;
        }
        pg_sys::RelationClose(open);
    }
}

fn with_class_row<R>(
    relation: pg_sys::Oid,
    work: impl FnOnce(pg_sys::Relation, pg_sys::HeapTuple) -> R,
) -> Option<R> {
    const LOCK: i32 = pg_sys::RowExclusiveLock as i32;
    // SAFETY: pg_class and its index on oid; the copy is freed at the end.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::RelationRelationId, LOCK);
        let row = newest_row(catalog, pg_sys::ClassOidIndexId, relation);
        let answer = (!row.is_null()).then(|| {
            let answer = work(catalog, row);
            pg_sys::heap_freetuple(row);
            answer
        });
        pg_sys::table_close(catalog, LOCK);
        answer
    }
}

/// What `pg_index` says of an index that may have been made just now.
pub(super) struct Index {
    pub table: pg_sys::Oid,
    pub is_primary: bool,
    pub is_immediate: bool,
}

pub(super) fn index_of(index: pg_sys::Oid) -> Option<Index> {
    const LOCK: i32 = pg_sys::AccessShareLock as i32;
    // SAFETY: pg_index and its index on indexrelid.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::IndexRelationId, LOCK);
        let row = newest_row(catalog, pg_sys::IndexRelidIndexId, index);
        let found = (!row.is_null()).then(|| {
            let form = form::<pg_sys::FormData_pg_index>(row);
            let found = Index {
                table: form.indrelid,
                is_primary: form.indisprimary,
                is_immediate: form.indimmediate,
            };
            pg_sys::heap_freetuple(row);
            found
        });
        pg_sys::table_close(catalog, LOCK);
        found
    }
}

/// `pg_constraint`, and its index on oid.
pub(super) const CONSTRAINT_CATALOG: pg_sys::Oid = pg_sys::Oid::from_u32(2606);
const CONSTRAINT_OID_INDEX: u32 = 2667;

/// The index that a constraint rests on, which may have been made just now.
pub(super) fn index_of_constraint(constraint: pg_sys::Oid) -> Option<pg_sys::Oid> {
    const LOCK: i32 = pg_sys::AccessShareLock as i32;
    // SAFETY: pg_constraint and its index on oid; a row of it has this column,
    // an oid that is not null.
    unsafe {
        let catalog = pg_sys::table_open(CONSTRAINT_CATALOG, LOCK);
        let row = newest_row(catalog, CONSTRAINT_OID_INDEX, constraint);
        let found = (!row.is_null()).then(|| {
            let columns = (*catalog).rd_att;
            let column = pg_sys::SPI_fnumber(columns, c"conindid".as_ptr());
            let mut is_null = true;
            let found = pg_sys::SPI_getbinval(row, columns, column, &mut is_null);
            pg_sys::heap_freetuple(row);
            pg_sys::Oid::from_u32(found.value() as u32)
        });
        pg_sys::table_close(catalog, LOCK);
        found.filter(|index| *index != pg_sys::Oid::INVALID)
    }
}

/// The name of a relation that may have been made just now.
pub(super) fn name_of(relation: pg_sys::Oid) -> Option<std::ffi::CString> {
    with_class_row(relation, |_, row| {
        // SAFETY: a row of pg_class, whose name ends in a zero byte.
        unsafe {
            let class = form::<pg_sys::FormData_pg_class>(row);
            std::ffi::CStr::from_ptr(class.relname.data.as_ptr()).to_owned()
        }
    })
}

/// The oid of our index access method in this database, if it is there.
pub fn index_am_oid() -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up inside a transaction.
    let oid = unsafe { pg_sys::get_am_oid(super::INDEX_AM_NAME.as_ptr(), true) };
    (oid != pg_sys::Oid::INVALID).then_some(oid)
}

/// The name of an access method, for messages.
pub(super) fn am_name(access_method: pg_sys::Oid) -> String {
    // SAFETY: a catalog look-up; the name it returns ends in a zero byte.
    unsafe {
        let name = pg_sys::get_am_name(access_method);
        if name.is_null() {
            return format!("with oid {}", access_method.to_u32());
        }
        std::ffi::CStr::from_ptr(name)
            .to_string_lossy()
            .into_owned()
    }
}
