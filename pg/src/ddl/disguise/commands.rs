//! Which commands need which indexes in disguise.
//!
//! To know the indexes, the tables have to be locked. They are locked here as
//! the command itself is about to lock them: the same locks, in the same order,
//! after the same checks of ownership. What is missing or forbidden is left to
//! the command, which complains in its own words.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use pgrx::pg_sys::{
    self, AlterTableType, ConstrType, NodeTag, ffi::pg_guard_ffi_boundary as guarded,
};

use super::{Disguise, Dressing};
use crate::ddl::catalog::index_am_oid;
use crate::list::{nodes, oids};

unsafe extern "C-unwind" {
    fn find_all_inheritors(
        parent: pg_sys::Oid,
        lock: pg_sys::LOCKMODE,
        counts: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
    /// The server calls these two; pgrx's own names for them are Rust functions.
    fn RangeVarCallbackOwnsRelation(
        name: *const pg_sys::RangeVar,
        relation: pg_sys::Oid,
        before: pg_sys::Oid,
        argument: *mut c_void,
    );
    fn RangeVarCallbackOwnsTable(
        name: *const pg_sys::RangeVar,
        relation: pg_sys::Oid,
        before: pg_sys::Oid,
        argument: *mut c_void,
    );
}

/// Disguises what a command is going to compare with a B-tree.
///
/// # Safety
/// `node` is null or a whole statement that is about to be executed.
pub(in crate::ddl) unsafe fn for_command(node: *mut pg_sys::Node) -> Option<Disguise> {
    // SAFETY: the tag says what the node is.
    unsafe {
        match node.as_ref()?.type_ {
            NodeTag::T_AlterTableStmt => alter_table(node.cast()),
            NodeTag::T_IndexStmt => create_index(&*node.cast()),
            NodeTag::T_RefreshMatViewStmt => refresh(&*node.cast()),
            _ => None,
        }
    }
}

/// What of an ALTER TABLE matters here.
#[derive(Default)]
struct Wish {
    /// ATTACH PARTITION, of a table or of an index.
    attached: Option<*mut pg_sys::RangeVar>,
    /// A key that partitions may have already.
    defines_key: bool,
    /// Indexes of the table's that constraints are made of.
    used_indexes: Vec<*const c_char>,
    /// Indexes are made anew out of their definitions in words.
    changes_type: bool,
}

impl Wish {
    unsafe fn of(statement: &pg_sys::AlterTableStmt) -> Wish {
        let mut wish = Wish::default();
        // SAFETY: the subtype says what a subcommand's definition is.
        unsafe {
            for command in nodes::<pg_sys::AlterTableCmd>(statement.cmds) {
                let definition = (*command).def;
                wish.changes_type |= (*command).subtype == AlterTableType::AT_AlterColumnType;
                if definition.is_null() {
                    continue;
                }
                match (*command).subtype {
                    AlterTableType::AT_AttachPartition => {
                        wish.attached = Some((*definition.cast::<pg_sys::PartitionCmd>()).name);
                    }
                    AlterTableType::AT_AddConstraint => {
                        let constraint = &*definition.cast::<pg_sys::Constraint>();
                        if is_key(constraint.contype) {
                            wish.defines_key = true;
                            if !constraint.indexname.is_null() {
                                wish.used_indexes.push(constraint.indexname);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        wish
    }
}

fn is_key(kind: ConstrType::Type) -> bool {
    kind == ConstrType::CONSTR_PRIMARY || kind == ConstrType::CONSTR_UNIQUE
}

unsafe fn alter_table(statement: *mut pg_sys::AlterTableStmt) -> Option<Disguise> {
    // SAFETY: a whole statement, given to the functions that core gives it to.
    unsafe {
        let wish = Wish::of(&*statement);
        if wish.attached.is_none() && !wish.defines_key && !wish.changes_type {
            return None;
        }
        let rowref = index_am_oid()?;
        let lock = pg_sys::AlterTableGetLockLevel((*statement).cmds);
        let relation = pg_sys::AlterTableLookupRelation(statement, lock);
        if relation == pg_sys::Oid::INVALID {
            return None;
        }
        let kind = pg_sys::get_rel_relkind(relation) as u8;
        let mut disguise = Dressing::begin(rowref);
        if let Some(name) = wish.attached {
            if kind == pg_sys::RELKIND_PARTITIONED_INDEX {
                attached_index(&mut disguise, relation, name);
            } else {
                attached_table(&mut disguise, name);
            }
        }
        let inherits = (*(*statement).relation).inh;
        if kind == pg_sys::RELKIND_PARTITIONED_TABLE && wish.defines_key && inherits {
            add_tree(&mut disguise, relation, lock);
        }
        if kind == pg_sys::RELKIND_RELATION {
            for name in wish.used_indexes {
                disguise.await_index(relation, CStr::from_ptr(name));
            }
        }
        if wish.changes_type {
            disguise.add_name();
        }
        Some(disguise.finish())
    }
}

/// ALTER TABLE … ATTACH PARTITION compares the indexes of the table that comes
/// with its new parent's.
unsafe fn attached_table(disguise: &mut Dressing, name: *mut pg_sys::RangeVar) {
    const LOCK: pg_sys::LOCKMODE = pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: a whole name.
    unsafe {
        if let Some(table) = lock_named(name, LOCK, None)
            && pg_sys::pg_class_ownercheck(table, pg_sys::GetUserId())
        {
            add_tree(disguise, table, LOCK);
        }
    }
}

/// ALTER INDEX … ATTACH PARTITION: first the parent's table, then the
/// partition, then the index.
unsafe fn attached_index(
    disguise: &mut Dressing,
    parent: pg_sys::Oid,
    name: *mut pg_sys::RangeVar,
) {
    const SHARE: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    const EXCLUSIVE: pg_sys::LOCKMODE = pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: a whole name; what may be gone is asked for with "missing is ok".
    unsafe {
        let parent_table = pg_sys::IndexGetRelation(parent, true);
        let Some(index) = lock_named(name, pg_sys::NoLock as pg_sys::LOCKMODE, None) else {
            return;
        };
        let kind = pg_sys::get_rel_relkind(index) as u8;
        let table = pg_sys::IndexGetRelation(index, true);
        let gone = pg_sys::Oid::INVALID;
        if parent_table == gone || table == gone || kind != pg_sys::RELKIND_INDEX {
            return;
        }
        pg_sys::LockRelationOid(parent_table, SHARE);
        pg_sys::LockRelationOid(table, SHARE);
        if lock_named(name, EXCLUSIVE, None) == Some(index) {
            disguise.add(index);
        }
    }
}

/// CREATE INDEX on a partitioned table looks for partitions that have it.
unsafe fn create_index(statement: &pg_sys::IndexStmt) -> Option<Disguise> {
    const LOCK: pg_sys::LOCKMODE = pg_sys::ShareLock as pg_sys::LOCKMODE;
    // SAFETY: a whole statement.
    unsafe {
        let name = statement.relation.as_ref()?;
        // Core knows no CONCURRENTLY on partitioned tables.
        if statement.concurrent || !name.inh {
            return None;
        }
        let rowref = index_am_oid()?;
        let before = lock_named(name, pg_sys::NoLock as pg_sys::LOCKMODE, None)?;
        if pg_sys::get_rel_relkind(before) as u8 != pg_sys::RELKIND_PARTITIONED_TABLE {
            return None;
        }
        let table = lock_named(name, LOCK, Some(RangeVarCallbackOwnsRelation))?;
        let mut disguise = Dressing::begin(rowref);
        add_tree(&mut disguise, table, LOCK);
        Some(disguise.finish())
    }
}

/// REFRESH MATERIALIZED VIEW CONCURRENTLY looks for a unique B-tree.
unsafe fn refresh(statement: &pg_sys::RefreshMatViewStmt) -> Option<Disguise> {
    const LOCK: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: a whole statement.
    unsafe {
        if !statement.concurrent {
            return None;
        }
        let rowref = index_am_oid()?;
        let view = lock_named(statement.relation, LOCK, Some(RangeVarCallbackOwnsTable))?;
        let mut disguise = Dressing::begin(rowref);
        disguise.add_indexes_of(view);
        Some(disguise.finish())
    }
}

/// Disguises the indexes of a table and of all its descendants.
unsafe fn add_tree(disguise: &mut Dressing, table: pg_sys::Oid, lock: pg_sys::LOCKMODE) {
    // SAFETY: the table is locked, and the call locks its descendants.
    unsafe {
        let tables = guarded(|| find_all_inheritors(table, lock, ptr::null_mut()));
        for table in oids(tables) {
            disguise.add_indexes_of(table);
        }
    }
}

type Check =
    unsafe extern "C-unwind" fn(*const pg_sys::RangeVar, pg_sys::Oid, pg_sys::Oid, *mut c_void);

/// Looks a name up and locks what it names, after the check; `None` if there
/// is nothing of that name.
unsafe fn lock_named(
    name: *const pg_sys::RangeVar,
    lock: pg_sys::LOCKMODE,
    check: Option<Check>,
) -> Option<pg_sys::Oid> {
    // SAFETY: a whole name; the checks take no argument.
    let oid = unsafe {
        pg_sys::RangeVarGetRelidExtended(
            name,
            lock,
            pg_sys::RVROption::RVR_MISSING_OK,
            check,
            ptr::null_mut(),
        )
    };
    (oid != pg_sys::Oid::INVALID).then_some(oid)
}
