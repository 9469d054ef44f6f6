//! Cutting off the end of a relation's file: the lock for it, and the cut.
//! "Shrinking the file" in the engine's `btree/README.md` says why it may be.

use pgrx::pg_sys;

const LOCK: pg_sys::LOCKMODE = pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE;

/// How often a lock is tried for, at most, and how long is waited between: five
/// seconds in all, as for heaps.
const TRIES_MAX: u32 = 100;
const WAIT_MILLISECONDS: i64 = 50;

/// How many steps are made before one looks whether somebody waits.
const STEPS: u32 = 32;

/// A relation that nobody else is in: locked exclusively, until it is given up
/// or the transaction ends.
pub struct Alone {
    relation: pg_sys::Relation,
    steps: u32,
}

impl Alone {
    /// Locks a relation if that is possible within a few seconds. It never
    /// queues for the lock: others would queue behind it, and perhaps wait in
    /// a circle, for a VACUUM has a lock already.
    ///
    /// # Safety
    /// `relation` is open, and stays so while the result lives.
    pub unsafe fn patiently(relation: pg_sys::Relation) -> Option<Alone> {
        for nth in 0..TRIES_MAX {
            // SAFETY: the caller's promise; the latch is this process's.
            unsafe {
                if let Some(alone) = Alone::at_once(relation) {
                    return Some(alone);
                }
                pgrx::check_for_interrupts!();
                if nth + 1 < TRIES_MAX {
                    let events =
                        pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
                    pg_sys::WaitLatch(
                        pg_sys::MyLatch,
                        events as i32,
                        WAIT_MILLISECONDS,
                        pg_sys::WaitEventTimeout::WAIT_EVENT_VACUUM_TRUNCATE,
                    );
                    pg_sys::ResetLatch(pg_sys::MyLatch);
                }
            }
        }
        None
    }

    /// Locks a relation if nobody has a lock on it now.
    ///
    /// # Safety
    /// As [`Alone::patiently`].
    pub unsafe fn at_once(relation: pg_sys::Relation) -> Option<Alone> {
        // SAFETY: the caller's promise.
        let locked = unsafe { pg_sys::ConditionalLockRelation(relation, LOCK) };
        locked.then_some(Alone { relation, steps: 0 })
    }

    /// Whether nobody waits for the lock; to be asked at each step.
    pub fn is_unwanted(&mut self) -> bool {
        pgrx::check_for_interrupts!();
        self.steps += 1;
        // SAFETY: the relation is open, and locked by us.
        !self.steps.is_multiple_of(STEPS)
            || unsafe { !pg_sys::LockHasWaitersRelation(self.relation, LOCK) }
    }

    /// Cuts the relation's file off before a block. Logged; the free-space map
    /// and what other sessions remember of the file's length follow.
    pub fn cut(&self, blocks: pg_sys::BlockNumber) {
        // SAFETY: the relation is open, and locked exclusively.
        unsafe { pg_sys::RelationTruncate(self.relation, blocks) }
    }

    /// Lets others in again.
    pub fn give_up(self) {
        // SAFETY: the relation is open, and locked by us.
        unsafe { pg_sys::UnlockRelation(self.relation, LOCK) }
    }
}
