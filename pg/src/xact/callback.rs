//! Being told of the ends of transactions and subtransactions.
//!
//! Functions are registered once, at load; the server is asked to call us at
//! the first registration, and what is called are safe functions.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;

use pgrx::pg_sys;
use pgrx::prelude::*;

/// A point in the life of a transaction, as the server reports it. Parallel
/// workers' ends count as ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransactionEvent {
    /// About to commit or to be prepared: an error still aborts it.
    PreCommit,
    /// Committed. No error may be raised any more.
    Commit,
    /// Aborted. No error may be raised any more.
    Abort,
    /// Prepared for two-phase commit: it leaves this session.
    Prepare,
}

impl TransactionEvent {
    /// Whether this session's part in the transaction is over.
    pub fn is_end(self) -> bool {
        self != TransactionEvent::PreCommit
    }
}

/// A point in the life of a subtransaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubtransactionEvent {
    /// Begun.
    Start,
    /// About to be released into its parent.
    PreCommit,
    /// Released into its parent.
    Commit,
    /// Rolled back.
    Abort,
}

type OnTransaction = fn(TransactionEvent);
type OnSubtransaction = fn(SubtransactionEvent, pg_sys::SubTransactionId, pg_sys::SubTransactionId);

thread_local! {
    static ON_TRANSACTION: RefCell<Vec<OnTransaction>> = const { RefCell::new(Vec::new()) };
    static ON_SUBTRANSACTION: RefCell<Vec<OnSubtransaction>> = const { RefCell::new(Vec::new()) };
    static HOOKED: Cell<[bool; 2]> = const { Cell::new([false; 2]) };
}

/// Has `call` called at every event of every transaction from now on, after
/// those registered before. Registering the same function again does nothing.
pub fn on_transaction_event(call: OnTransaction) {
    ON_TRANSACTION.with_borrow_mut(|calls| {
        if !calls.iter().any(|known| std::ptr::fn_addr_eq(*known, call)) {
            calls.push(call);
        }
    });
    let [hooked, other] = HOOKED.get();
    if !hooked {
        // SAFETY: a static function; the server keeps it for good.
        unsafe { pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut()) };
        HOOKED.set([true, other]);
    }
}

/// As [`on_transaction_event`], for subtransactions: `call` gets the
/// subtransaction and its parent.
pub fn on_subtransaction_event(call: OnSubtransaction) {
    ON_SUBTRANSACTION.with_borrow_mut(|calls| {
        if !calls.iter().any(|known| std::ptr::fn_addr_eq(*known, call)) {
            calls.push(call);
        }
    });
    let [other, hooked] = HOOKED.get();
    if !hooked {
        // SAFETY: as above.
        unsafe {
            pg_sys::RegisterSubXactCallback(Some(subtransaction_event), std::ptr::null_mut());
        }
        HOOKED.set([other, true]);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_event(
    event: pg_sys::XactEvent::Type,
    _argument: *mut c_void,
) {
    use pg_sys::XactEvent::*;
    let event = match event {
        XACT_EVENT_PRE_COMMIT | XACT_EVENT_PARALLEL_PRE_COMMIT | XACT_EVENT_PRE_PREPARE => {
            TransactionEvent::PreCommit
        }
        XACT_EVENT_COMMIT | XACT_EVENT_PARALLEL_COMMIT => TransactionEvent::Commit,
        XACT_EVENT_ABORT | XACT_EVENT_PARALLEL_ABORT => TransactionEvent::Abort,
        XACT_EVENT_PREPARE => TransactionEvent::Prepare,
        _ => return,
    };
    // Copied, so that a call may register another.
    let count = ON_TRANSACTION.with_borrow(Vec::len);
    for nth in 0..count {
        let call = ON_TRANSACTION.with_borrow(|calls| calls[nth]);
        call(event);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_event(
    event: pg_sys::SubXactEvent::Type,
    mine: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    use pg_sys::SubXactEvent::*;
    let event = match event {
        SUBXACT_EVENT_START_SUB => SubtransactionEvent::Start,
        SUBXACT_EVENT_PRE_COMMIT_SUB => SubtransactionEvent::PreCommit,
        SUBXACT_EVENT_COMMIT_SUB => SubtransactionEvent::Commit,
        SUBXACT_EVENT_ABORT_SUB => SubtransactionEvent::Abort,
        _ => return,
    };
    let count = ON_SUBTRANSACTION.with_borrow(Vec::len);
    for nth in 0..count {
        let call = ON_SUBTRANSACTION.with_borrow(|calls| calls[nth]);
        call(event, mine, parent);
    }
}
