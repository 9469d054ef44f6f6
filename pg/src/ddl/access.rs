//! An index on a table of ours becomes a `rowref` index while it is being made.

use std::ffi::{c_int, c_void};

use pgrx::pg_guard;
use pgrx::pg_sys;

use super::catalog::{
    CONSTRAINT_CATALOG, am_name, class_of, exchange_callbacks, index_am_oid, index_of,
    set_access_method,
};
use super::switch::will_hold_ours;
use super::{disguise, dropped};
use crate::error;

static mut PREVIOUS: pg_sys::object_access_hook_type = None;

/// # Safety
/// Called once, from `_PG_init`.
pub(super) unsafe fn install() {
    // SAFETY: single-threaded start-up.
    unsafe {
        PREVIOUS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(object_access);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *mut c_void,
) {
    // SAFETY: the server's arguments, handed on.
    unsafe {
        if let Some(previous) = PREVIOUS {
            // Unguarded, so that errors keep their context: see `hook`.
            previous(access, class, object, part, argument);
        }
    }
    let is_new_relation = access == pg_sys::ObjectAccessType::OAT_POST_CREATE
        && class == pg_sys::RelationRelationId
        && part == 0;
    if is_new_relation {
        relation_created(object);
    }
    if access == pg_sys::ObjectAccessType::OAT_POST_CREATE && class == CONSTRAINT_CATALOG {
        disguise::constraint_comes(object);
    }
    let is_gone = access == pg_sys::ObjectAccessType::OAT_DROP
        && class == pg_sys::RelationRelationId
        && part == 0;
    if is_gone {
        dropped::relation_goes(object);
        disguise::index_goes(object);
    }
}

/// Partitioned indexes have no storage and stay B-trees, so that leaves of heap
/// and of ours can mix beneath them.
fn relation_created(relation: pg_sys::Oid) {
    let Some(class) = class_of(relation).filter(|class| class.kind == pg_sys::RELKIND_INDEX) else {
        return;
    };
    let Some(index) = index_of(relation) else {
        return;
    };
    if !will_hold_ours(index.table) {
        return;
    }
    let Some(rowref) = index_am_oid() else {
        error::unsupported(
            "indexes on this table while the access method \"rowref\" is missing",
            "Run CREATE EXTENSION pg_rowref in this database.",
        )
    };
    accept(class.access_method, rowref);
    if class.access_method != rowref {
        set_access_method(relation, rowref);
        exchange_callbacks(relation, rowref);
    }
    depend_on_am(relation, rowref);
    disguise::index_comes(relation, index.table);
}

/// Refuses what an index of a table of ours cannot be.
pub(super) fn accept(access_method: pg_sys::Oid, rowref: pg_sys::Oid) {
    if access_method != rowref && access_method != pg_sys::BTREE_AM_OID {
        error::unsupported(
            &format!(
                "\"{}\" indexes on iot and lsm tables",
                am_name(access_method)
            ),
            "Rows of such a table have no ctid to store. Use a btree index, which becomes a \
             rowref index there, or keep the table in heap.",
        )
    }
}

/// Without it DROP ACCESS METHOD would leave an index that nobody can read.
pub(super) fn depend_on_am(index: pg_sys::Oid, access_method: pg_sys::Oid) {
    let address = |class, object| pg_sys::ObjectAddress {
        classId: class,
        objectId: object,
        objectSubId: 0,
    };
    let index = address(pg_sys::RelationRelationId, index);
    let on = address(pg_sys::AccessMethodRelationId, access_method);
    // SAFETY: both addresses are of objects that are there.
    unsafe {
        pg_sys::recordDependencyOn(&index, &on, pg_sys::DependencyType::DEPENDENCY_NORMAL);
    }
}
