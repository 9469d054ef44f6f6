//! Waiting for other transactions, always without a latch (rule 10).

use engine::Xid;
use engine::mvcc::Strength;
use pg::xact::{KeyLock, WaitPolicy, wait_for};
use pgrx::pg_sys;

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
