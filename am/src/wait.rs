//! Waiting for other transactions, always without a latch (rule 10).

use engine::Xid;
use engine::mvcc::Strength;
use pg::conflict;
use pg::xact::{KeyLock, WaitPolicy, wait_for, wait_for_token};
use pgrx::pg_sys;

/// Waits for whoever has inserted the same key: for the decision on a
/// `speculative` insertion, else for the transaction. `looked_again` starts as
/// false, and is one insertion's.
///
/// # Safety
/// `relation` is open.
pub unsafe fn for_inserter(
    relation: pg_sys::Relation,
    xid: Xid,
    speculative: bool,
    looked_again: &mut bool,
) {
    if speculative {
        match conflict::token_of(xid) {
            Some(token) => return wait_for_token(xid, token),
            // It was decided meanwhile. If a second look finds the row as it
            // was, its writer has failed, and is about to be aborted.
            None if !std::mem::replace(looked_again, true) => return,
            None => {}
        }
    }
    // SAFETY: the caller's promise.
    unsafe {
        wait_for(
            relation,
            xid,
            WaitPolicy::Block,
            pg::slot::INVALID_TID,
            pg_sys::XLTW_Oper::XLTW_InsertIndex,
        );
    }
}

/// One command's place in the queue for a row: taken at the first wait, given
/// up with the value.
pub struct Turn {
    relation: pg_sys::Relation,
    strength: Strength,
    policy: WaitPolicy,
    operation: pg_sys::XLTW_Oper::Type,
    queue: Option<KeyLock>,
}

impl Turn {
    /// Nobody has been waited for yet.
    pub fn new(
        relation: pg_sys::Relation,
        strength: Strength,
        policy: WaitPolicy,
        operation: pg_sys::XLTW_Oper::Type,
    ) -> Turn {
        Turn {
            relation,
            strength,
            policy,
            operation,
            queue: None,
        }
    }

    /// Waits for a holder of the row to end, in the `queue` unless the caller
    /// has a lock that others in it wait for. False if the policy says not to
    /// and it still runs.
    ///
    /// # Safety
    /// The relation is open still, and no page is locked.
    pub unsafe fn wait(
        &mut self,
        key: &[u8],
        holder: Xid,
        tid: pg_sys::ItemPointerData,
        queue: bool,
    ) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            if queue && self.queue.is_none() {
                self.queue = KeyLock::acquire(self.relation, key, self.strength, self.policy);
                if self.queue.is_none() {
                    return false;
                }
            }
            wait_for(self.relation, holder, self.policy, tid, self.operation)
        }
    }

    /// Leaves the queue: the row in question is another one now.
    pub fn step_aside(&mut self) {
        self.queue = None;
    }
}
