//! Violations of the primary key that COPY has met and not told yet.
//!
//! A batch of rows goes into the table at once, and core notes the line of each
//! only when it goes on to the indexes, row by row. So a row whose key is taken
//! is not stored; its slot says so to the key's `aminsert`, as after ON CONFLICT
//! (rule 16), which raises the violation where core knows the line, and in turn
//! with those of other unique indexes.
//!
//! Whoever inserts a batch and never comes to the indexes is told all the same:
//! at the end of the bulk insertion, or of the transaction.

use pg::xact::{
    SubtransactionEvent, TransactionEvent, on_subtransaction_event, on_transaction_event,
};
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::ffi::{CStr, CString};

/// A violation in words: the table, its key's index, the key. It stands until the
/// subtransaction ends that has met it: functions in indexes run in between, and
/// may catch errors in subtransactions of their own.
#[derive(Clone)]
struct Owed {
    within: pg_sys::SubTransactionId,
    table: pg_sys::Oid,
    index: pg_sys::Oid,
    described: Option<CString>,
}

thread_local! {
    static OWED: RefCell<Option<Owed>> = const { RefCell::new(None) };
}

/// Notes a violation by a row with this key in words, unless one is noted.
pub fn note(table: pg_sys::Oid, index: pg_sys::Oid, described: Option<&CStr>) {
    on_transaction_event(transaction);
    on_subtransaction_event(subtransaction);
    OWED.with_borrow_mut(|owed| {
        owed.get_or_insert_with(|| Owed {
            // SAFETY: a plain question, within a transaction.
            within: unsafe { pg_sys::GetCurrentSubTransactionId() },
            table,
            index,
            described: described.map(CStr::to_owned),
        });
    });
}

fn transaction(event: TransactionEvent) {
    if event.is_end() {
        OWED.set(None);
    } else if let Some(owed) = OWED.with_borrow(Option::clone) {
        tell(&owed);
    }
}

fn subtransaction(
    event: SubtransactionEvent,
    mine: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
) {
    OWED.with_borrow_mut(|owed| {
        let Some(inner) = owed.as_mut().filter(|owed| owed.within == mine) else {
            return;
        };
        match event {
            SubtransactionEvent::Commit => inner.within = parent,
            SubtransactionEvent::Abort => *owed = None,
            SubtransactionEvent::Start | SubtransactionEvent::PreCommit => {}
        }
    });
}

/// Raises what is owed.
fn tell(owed: &Owed) -> ! {
    // SAFETY: the table has rows of this transaction, which has it locked; the
    // error closes what is opened.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let table = pg_sys::table_open(owed.table, lock);
        let index = pg_sys::index_open(owed.index, lock);
        let described = owed.described.as_deref();
        pg::error::duplicate_key(
            table,
            index,
            described.map_or(std::ptr::null(), CStr::as_ptr),
        )
    }
}

/// The `finish_bulk_insert` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn finish_bulk_insert(_relation: pg_sys::Relation, _options: i32) {
    let owed = OWED.with_borrow(Option::clone);
    // SAFETY: a plain question.
    let within = unsafe { pg_sys::GetCurrentSubTransactionId() };
    if let Some(owed) = owed.filter(|owed| owed.within == within) {
        tell(&owed);
    }
}
