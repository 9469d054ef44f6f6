//! Tables whose primary key is dropped go back to hidden row ids.
//!
//! The index is gone by the end of the command; whether its table is gone too
//! shows only then. So the hook that sees the index go makes a note, and the
//! end of the utility command settles what was noted.

use std::cell::RefCell;

use pgrx::pg_sys;

use super::catalog::{Index, class_of, index_of};
use super::relation::{holds_ours, is_ours};
use crate::organize;
use crate::xact::{TransactionEvent, on_transaction_event};

thread_local! {
    /// Tables that have lost an index in the running command.
    static NOTED: RefCell<Vec<pg_sys::Oid>> = const { RefCell::new(Vec::new()) };
}

/// Where the notes of a command begin. A command within another (an event
/// trigger's, say) settles its own and leaves the outer one's alone, whose
/// tables are still at work.
#[derive(Clone, Copy)]
pub(super) struct Mark(usize);

/// The mark of a command that begins.
pub(super) fn mark() -> Mark {
    Mark(NOTED.with_borrow(Vec::len))
}

/// Makes a note if what goes is what a table of ours is organized by. (Of other
/// indexes nothing is left to do; and DROP INDEX CONCURRENTLY holds no lock that
/// [`settle`] could rely on.)
pub(super) fn relation_goes(relation: pg_sys::Oid) {
    if class_of(relation).is_none_or(|class| class.kind != pg_sys::RELKIND_INDEX) {
        return;
    }
    let organizes = |index: &Index| index.is_primary && index.is_immediate;
    if let Some(index) =
        index_of(relation).filter(|index| organizes(index) && holds_ours(index.table))
    {
        NOTED.with_borrow_mut(|noted| noted.push(index.table));
    }
}

/// Organizes the tables that are left without a primary key by row ids.
///
/// # Safety
/// Called at the end of a utility command, in its transaction.
pub(super) unsafe fn settle(mark: Mark) {
    let noted = NOTED.with_borrow_mut(|noted| {
        // A command that failed in a subtransaction leaves its notes behind.
        let from = mark.0.min(noted.len());
        noted.split_off(from)
    });
    if noted.is_empty() {
        return;
    }
    // SAFETY: the catalogs are made to show what the command did; whoever drops
    // an index of a table holds that table's exclusive lock to the end of the
    // transaction.
    unsafe {
        pg_sys::CommandCounterIncrement();
        for table in noted {
            let open =
                pg_sys::try_relation_open(table, pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE);
            if open.is_null() {
                continue;
            }
            if is_ours(open) && pg_sys::RelationGetPrimaryKeyIndex(open) == pg_sys::Oid::INVALID {
                organize::by_row_id(open);
            }
            pg_sys::relation_close(open, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
    }
}

/// Has notes forgotten with the transaction that made them.
pub(super) fn install() {
    on_transaction_event(|event: TransactionEvent| {
        if event.is_end() {
            NOTED.with_borrow_mut(Vec::clear);
        }
    });
}
