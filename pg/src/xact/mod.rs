//! Transactions and snapshots of the server, as the engine's traits; waiting
//! for other transactions; and being told of the end of our own.

mod callback;
mod snapshot;
mod status;
mod wait;

pub use callback::{
    SubtransactionEvent, TransactionEvent, on_subtransaction_event, on_transaction_event,
};
pub use snapshot::{
    AnySnapshot, DirtyReport, DirtySnapshot, MvccSnapshot, NonVacuumableSnapshot, SelfSnapshot,
    ServerSnapshot,
};
pub use status::ServerTransactions;
pub(crate) use wait::hash_of;
pub use wait::{KeyLock, WaitPolicy, wait_for, wait_for_inserter, wait_for_token};

use engine::{CommandId, Xid};
use pgrx::pg_sys;

/// This (sub)transaction's id; assigned if it has none yet. Every transaction
/// that writes needs one, or its commit would not be flushed (rule 29).
pub fn assign_xid() -> Xid {
    // SAFETY: called within a transaction, as all of this is.
    Xid(unsafe { pg_sys::GetCurrentTransactionId() }.into_inner())
}

/// The number of the running command, marked as used for a write.
pub fn current_command() -> CommandId {
    // SAFETY: called within a transaction.
    CommandId(unsafe { pg_sys::GetCurrentCommandId(true) })
}

/// Whether this transaction is SERIALIZABLE.
#[inline]
pub fn is_serializable() -> bool {
    // SAFETY: a plain variable of this backend.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32 }
}

/// The engine's xid as the server's.
#[inline]
pub fn to_server(xid: Xid) -> pg_sys::TransactionId {
    pg_sys::TransactionId::from_inner(xid.0)
}

/// The server's xid as the engine's.
#[inline]
pub fn from_server(xid: pg_sys::TransactionId) -> Xid {
    Xid(xid.into_inner())
}
