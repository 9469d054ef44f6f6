//! ALTER TABLE … SET ACCESS METHOD between a table of ours and any other.
//!
//! Core copies the rows and rebuilds the indexes with the access methods that
//! `pg_class` says they have. So these are changed first, as an ordinary update
//! of the catalog that a rollback takes back. Nobody reads an index before it is
//! rebuilt: the table is locked exclusively, and copying rows scans the table.
//!
//! The relation cache believes that an index keeps its access method. An entry
//! whose file has changed in this transaction is not made anew when it is
//! invalidated; its `pg_class` row is read again and the access method's routine
//! stays. So the routine is put right here: when it was changed, and after a
//! subtransaction was rolled back that may have changed it.

use std::cell::{Cell, RefCell};

use pgrx::pg_sys::{self, AlterTableType, NodeTag};

use super::access::{accept, depend_on_am};
use super::catalog::{class_of, index_am_oid, update_access_method};
use super::relation::{am_handler, holds_ours, indexes_of, is_our_table_am};
use crate::list::nodes;
use crate::xact::{
    SubtransactionEvent, TransactionEvent, on_subtransaction_event, on_transaction_event,
};

thread_local! {
    /// The table that the running command changes, and whether to one of ours.
    static CHANGING: Cell<Option<(pg_sys::Oid, bool)>> = const { Cell::new(None) };
    /// The indexes that this transaction has changed.
    static CHANGED: RefCell<Vec<pg_sys::Oid>> = const { RefCell::new(Vec::new()) };
    /// A subtransaction was rolled back since they were looked at.
    static DOUBTFUL: Cell<bool> = const { Cell::new(false) };
}

/// Has changes forgotten with the transaction that made them.
pub(super) fn install() {
    on_transaction_event(|event: TransactionEvent| {
        if event.is_end() {
            CHANGED.with_borrow_mut(Vec::clear);
            DOUBTFUL.set(false);
        }
    });
    on_subtransaction_event(|event, _, _| {
        if event == SubtransactionEvent::Abort && !CHANGED.with_borrow(Vec::is_empty) {
            DOUBTFUL.set(true);
        }
    });
}

/// Puts right what a rollback has left; to be called before anything looks at
/// an index.
pub(super) fn look_again() {
    if DOUBTFUL.replace(false) {
        for index in CHANGED.with_borrow(Vec::clone) {
            fit_routine(index);
        }
    }
}

/// Gives an index's entry in the relation cache the routine of its access
/// method, if it has another. What the entry holds besides is the same for
/// B-tree and for us, who have B-tree's operator classes and options.
fn fit_routine(index: pg_sys::Oid) {
    // SAFETY: an open relation. Nobody uses the entry at the moment: the command
    // that changed it made sure of that, and what was begun since is rolled back.
    unsafe {
        let open = pg_sys::RelationIdGetRelation(index);
        if open.is_null() {
            return;
        }
        let handler = am_handler((*(*open).rd_rel).relam);
        if !(*open).rd_indam.is_null()
            && let Some(handler) = handler.filter(|handler| *handler != (*open).rd_amhandler)
        {
            let routine = pg_sys::GetIndexAmRoutine(handler);
            *(*open).rd_indam = *routine;
            (*open).rd_amhandler = handler;
            pg_sys::pfree(routine.cast());
        }
        pg_sys::RelationClose(open);
    }
}

/// What to put back when the command is done.
#[derive(Clone, Copy)]
pub(super) struct Switch {
    before: Option<(pg_sys::Oid, bool)>,
}

impl Switch {
    /// The command is done.
    pub(super) fn end(self) {
        CHANGING.set(self.before);
    }
}

/// Whether a table will be ours when the running command is done: what else it
/// does to the indexes is done while the table is still what it was.
pub(super) fn will_hold_ours(table: pg_sys::Oid) -> bool {
    match CHANGING.get() {
        Some((changing, to_ours)) if changing == table => to_ours,
        _ => holds_ours(table),
    }
}

/// Prepares the indexes of a table whose access method a statement changes, if
/// it changes to or from one of ours.
///
/// # Safety
/// `node` is null or a whole statement that is about to be executed.
pub(super) unsafe fn for_command(node: *mut pg_sys::Node) -> Option<Switch> {
    const NO_LOCK: pg_sys::LOCKMODE = pg_sys::NoLock as pg_sys::LOCKMODE;
    // SAFETY: the tag says what the node is; core is asked to look up and lock
    // the relation as it is about to do itself.
    unsafe {
        if node.as_ref()?.type_ != NodeTag::T_AlterTableStmt {
            return None;
        }
        let statement = node.cast::<pg_sys::AlterTableStmt>();
        let name = nodes::<pg_sys::AlterTableCmd>((*statement).cmds)
            .find(|part| (**part).subtype == AlterTableType::AT_SetAccessMethod)
            .map(|part| (*part).name)
            .filter(|name| !name.is_null())?;
        let rowref = index_am_oid()?;
        let to_ours = is_our_table_am(pg_sys::get_table_am_oid(name, true));
        let lock = pg_sys::AlterTableGetLockLevel((*statement).cmds);
        let table = pg_sys::AlterTableLookupRelation(statement, lock);
        let kind = class_of(table)?.kind;
        let has_storage = kind == pg_sys::RELKIND_RELATION || kind == pg_sys::RELKIND_MATVIEW;
        if !has_storage || holds_ours(table) == to_ours {
            return None;
        }
        // As ALTER TABLE is going to: an open scan must not see its index change.
        let open = pg_sys::relation_open(table, NO_LOCK);
        pg_sys::CheckTableNotInUse(open, c"ALTER TABLE".as_ptr());
        pg_sys::relation_close(open, NO_LOCK);
        let indexes = indexes_of(table);
        for index in &indexes {
            turn(*index, rowref, to_ours);
        }
        pg_sys::CommandCounterIncrement();
        CHANGED.with_borrow_mut(|changed| changed.extend(&indexes));
        indexes.into_iter().for_each(fit_routine);
        Some(Switch {
            before: CHANGING.replace(Some((table, to_ours))),
        })
    }
}

fn turn(oid: pg_sys::Oid, rowref: pg_sys::Oid, to_ours: bool) {
    let Some(class) = class_of(oid) else {
        return;
    };
    if to_ours {
        accept(class.access_method, rowref);
        update_access_method(oid, rowref);
        depend_on_am(oid, rowref);
    } else if class.access_method == rowref {
        update_access_method(oid, pg_sys::BTREE_AM_OID);
        // SAFETY: plain values.
        unsafe {
            pg_sys::deleteDependencyRecordsForSpecific(
                pg_sys::RelationRelationId,
                oid,
                pg_sys::DependencyType::DEPENDENCY_NORMAL as std::ffi::c_char,
                pg_sys::AccessMethodRelationId,
                rowref,
            );
        }
    }
}
