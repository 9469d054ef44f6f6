//! Utility commands: `USING rowref` where it is said out loud, and how long
//! handles are needed in commands that do without the executor.

use std::ffi::{CStr, c_char};

use pgrx::pg_guard;
use pgrx::pg_sys::{self, AlterTableType, NodeTag};

use super::relation::{may_fire_after_row, may_hold_ours};
use super::{INDEX_AM_NAME, disguise, dropped, switch};
use crate::handles::{self, Need, Needs};
use crate::hook;
use crate::list::nodes;
use crate::pending;

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

/// # Safety
/// Called once, from `_PG_init`.
pub(super) unsafe fn install() {
    // SAFETY: single-threaded start-up.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

#[expect(clippy::too_many_arguments, reason = "the server's signature")]
#[pg_guard]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the server's arguments, handed on; its statement is whole.
    unsafe {
        // A command may read indexes, replace their storage or drop them.
        pending::settle_all();
        let mark = dropped::mark();
        switch::look_again();
        if (*(*statement).utilityStmt).type_ == NodeTag::T_TransactionStmt {
            // There are two of these to each small transaction, and they define
            // nothing.
            return match PREVIOUS {
                Some(previous) => previous(
                    statement,
                    text,
                    read_only_tree,
                    context,
                    parameters,
                    environment,
                    receiver,
                    completion,
                ),
                None => hook::standard_ProcessUtility(
                    statement,
                    text,
                    read_only_tree,
                    context,
                    parameters,
                    environment,
                    receiver,
                    completion,
                ),
            };
        }
        let mut statement = statement;
        let mut read_only_tree = read_only_tree;
        if names_our_index_am((*statement).utilityStmt) {
            if read_only_tree {
                // A cached plan must not be written on.
                statement = pg_sys::copyObjectImpl(statement.cast()).cast();
                read_only_tree = false;
            }
            say_btree((*statement).utilityStmt);
        }
        let disguise = disguise::for_command((*statement).utilityStmt);
        // Unguarded, so that errors keep their context: see `hook`.
        let next = || match PREVIOUS {
            Some(previous) => previous(
                statement,
                text,
                read_only_tree,
                context,
                parameters,
                environment,
                receiver,
                completion,
            ),
            None => hook::standard_ProcessUtility(
                statement,
                text,
                read_only_tree,
                context,
                parameters,
                environment,
                receiver,
                completion,
            ),
        };
        let with_needs = || match needs((*statement).utilityStmt) {
            Some(needs) => handles::during(needs, next),
            None => next(),
        };
        let with_switch = || match switch::for_command((*statement).utilityStmt) {
            Some(switch) => hook::finally(with_needs, move || switch.end()),
            None => with_needs(),
        };
        match disguise {
            Some(disguise) => disguise::during(disguise, with_switch),
            None => with_switch(),
        }
        dropped::settle(mark);
    }
}

/// The oid of a relation that a command names, or `None`; the command itself
/// will complain if there is none.
unsafe fn relation_named(name: *const pg_sys::RangeVar) -> Option<pg_sys::Oid> {
    if name.is_null() {
        return None;
    }
    // SAFETY: a whole name; no lock is taken, and what is learned is only
    // believed until the command has taken its own.
    let oid = unsafe {
        pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    };
    (oid != pg_sys::Oid::INVALID).then_some(oid)
}

/// The places of a command that name an index access method which is ours.
unsafe fn our_index_am_in(node: *mut pg_sys::Node) -> Vec<*mut *mut c_char> {
    let is_ours = |name: *mut c_char| {
        // SAFETY: null or a whole string.
        !name.is_null() && unsafe { CStr::from_ptr(name) } == INDEX_AM_NAME
    };
    // SAFETY: null or a whole node; the tag says which, and the subtype of an
    // ALTER TABLE's part what its definition is.
    unsafe {
        let Some(tag) = node.as_ref().map(|node| node.type_) else {
            return Vec::new();
        };
        match tag {
            NodeTag::T_IndexStmt => {
                let index = node.cast::<pg_sys::IndexStmt>();
                Some(&raw mut (*index).accessMethod)
                    .filter(|place| is_ours(**place))
                    .into_iter()
                    .collect()
            }
            // EXCLUDE USING rowref
            NodeTag::T_AlterTableStmt => {
                nodes::<pg_sys::AlterTableCmd>((*node.cast::<pg_sys::AlterTableStmt>()).cmds)
                    .filter(|part| (**part).subtype == AlterTableType::AT_AddConstraint)
                    .map(|part| (*part).def.cast::<pg_sys::Constraint>())
                    .filter(|constraint| !constraint.is_null())
                    .map(|constraint| &raw mut (*constraint).access_method)
                    .filter(|place| is_ours(**place))
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Whether a command says `USING rowref`.
unsafe fn names_our_index_am(node: *mut pg_sys::Node) -> bool {
    // SAFETY: as the caller's.
    unsafe { !our_index_am_in(node).is_empty() }
}

/// Replaces the access method: a rowref index has B-tree's operator classes, so
/// core has to build it as one, and `access` makes it ours on the way. Where the
/// table is not ours, a B-tree it stays.
unsafe fn say_btree(node: *mut pg_sys::Node) {
    // SAFETY: a statement that may be changed.
    unsafe {
        for place in our_index_am_in(node) {
            *place = pg_sys::pstrdup(c"btree".as_ptr());
        }
    }
}

/// What a command that scans or fills tables by itself needs; `None` leaves
/// things as they are.
unsafe fn needs(node: *mut pg_sys::Node) -> Option<Needs> {
    // SAFETY: null or a whole node.
    unsafe {
        if node.is_null() {
            return None;
        }
        match (*node).type_ {
            NodeTag::T_CopyStmt => {
                let copy = &*node.cast::<pg_sys::CopyStmt>();
                let table = relation_named(copy.relation).filter(|table| may_hold_ours(*table))?;
                if !copy.is_from {
                    return Some(Needs::NOTHING);
                }
                Some(Needs {
                    read: Need::Nothing,
                    // Triggers come back for each row; indexes take it in the
                    // batch it was inserted with.
                    write: if may_fire_after_row(table) {
                        Need::Retained
                    } else {
                        Need::Ring
                    },
                    reads_again: false,
                })
            }
            // A table is rewritten row by row.
            NodeTag::T_AlterTableStmt => Some(Needs {
                read: Need::Ring,
                write: Need::Ring,
                reads_again: false,
            }),
            _ => None,
        }
    }
}
