//! How transactions stand, asked of the server.

use std::cell::{Cell, OnceCell};

use engine::Xid;
use engine::mvcc::{Transactions, XidStatus};
use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};

use super::to_server;
use crate::ffi;

/// The server's answers, for one relation: how far pruning may go depends on
/// whether it is a catalog, shared, or temporary (rule 20).
pub struct ServerTransactions {
    relation: pg_sys::Relation,
    horizon: OnceCell<*mut pg_sys::GlobalVisState>,
    /// The last transaction found to have ended: that never changes again.
    ended: Cell<(Xid, XidStatus)>,
    /// The newest transaction found visible to all, and with it all older.
    newest_for_all: Cell<Xid>,
}

impl ServerTransactions {
    /// Answers for `relation`.
    ///
    /// # Safety
    /// `relation` stays open for as long as this lives.
    pub unsafe fn new(relation: pg_sys::Relation) -> ServerTransactions {
        ServerTransactions {
            relation,
            horizon: OnceCell::new(),
            ended: Cell::new((Xid::NONE, XidStatus::Aborted)),
            newest_for_all: Cell::new(Xid::NONE),
        }
    }

    fn horizon(&self) -> *mut pg_sys::GlobalVisState {
        // SAFETY: the relation is open.
        *self
            .horizon
            .get_or_init(|| unsafe { pg_sys::GlobalVisTestFor(self.relation) })
    }
}

impl Transactions for ServerTransactions {
    fn status(&self, xid: Xid) -> XidStatus {
        if !xid.is_normal() {
            // The bootstrap transaction's and the old frozen id.
            return if xid == Xid::NONE {
                XidStatus::Aborted
            } else {
                XidStatus::Committed
            };
        }
        let (last, status) = self.ended.get();
        if last == xid {
            return status;
        }
        // SAFETY: a plain call with a value.
        let status = match unsafe { guarded(|| ffi::rowref_xid_status(to_server(xid))) } {
            0 => return XidStatus::Own,
            1 => return XidStatus::InProgress,
            2 => XidStatus::Committed,
            _ => XidStatus::Aborted,
        };
        self.ended.set((xid, status));
        status
    }

    fn visible_to_all(&self, xid: Xid) -> bool {
        if !xid.is_normal() {
            return true;
        }
        let newest = self.newest_for_all.get();
        if newest.is_normal() && !newest.precedes(xid) {
            return true;
        }
        let horizon = self.horizon();
        // SAFETY: the server's own state.
        let seen = unsafe { pg_sys::GlobalVisTestIsRemovableXid(horizon, to_server(xid)) };
        if seen {
            self.newest_for_all.set(xid);
        }
        seen
    }
}
