//! Waiting: for a transaction to end, and in the queue for a key.
//!
//! Nothing here may be called while a page is locked (rule 10).

use std::marker::PhantomData;

use engine::Xid;
use engine::mvcc::Strength;
use pgrx::pg_sys;

use super::to_server;
use crate::conflict;
use crate::error;

/// What to do where one would have to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitPolicy {
    /// Wait.
    Block,
    /// SKIP LOCKED.
    Skip,
    /// NOWAIT: an error.
    Error,
}

impl From<pg_sys::LockWaitPolicy::Type> for WaitPolicy {
    fn from(policy: pg_sys::LockWaitPolicy::Type) -> WaitPolicy {
        match policy {
            pg_sys::LockWaitPolicy::LockWaitSkip => WaitPolicy::Skip,
            pg_sys::LockWaitPolicy::LockWaitError => WaitPolicy::Error,
            _ => WaitPolicy::Block,
        }
    }
}

/// Waits for a transaction to end. `tid` and `operation` word the message
/// that a waiting session's error (a deadlock, a cancel) gives as context.
/// False where the policy is to skip and it still runs.
///
/// # Safety
/// `relation` is open; `xid` is not this session's own.
pub unsafe fn wait_for(
    relation: pg_sys::Relation,
    xid: Xid,
    policy: WaitPolicy,
    tid: pg_sys::ItemPointerData,
    operation: pg_sys::XLTW_Oper::Type,
) -> bool {
    let xid = to_server(xid);
    let mut tid = tid;
    // SAFETY: the caller's promise.
    unsafe {
        match policy {
            WaitPolicy::Block => {
                pg_sys::XactLockTableWait(xid, relation, &mut tid, operation);
                true
            }
            _ if pg_sys::ConditionalXactLockTableWait(xid) => true,
            WaitPolicy::Skip => false,
            WaitPolicy::Error => error::row_is_locked(relation),
        }
    }
}

/// Waits until a speculative insertion is confirmed or withdrawn (rule 16).
pub fn wait_for_token(xid: Xid, token: u32) {
    // SAFETY: plain values.
    unsafe { pg_sys::SpeculativeInsertionWait(to_server(xid), token) }
}

/// Waits for whoever has inserted the same key: for the decision on a
/// `speculative` insertion, else for the transaction. `looked_again` starts as
/// false, and is one insertion's, which comes again after this.
///
/// # Safety
/// As for [`wait_for`].
pub unsafe fn wait_for_inserter(
    relation: pg_sys::Relation,
    xid: Xid,
    speculative: bool,
    looked_again: &mut bool,
    tid: pg_sys::ItemPointerData,
) {
    if speculative {
        match conflict::token_of(xid) {
            Some(token) => return wait_for_token(xid, token),
            // It was decided meanwhile, and a row that was taken back is gone.
            // If a second look finds it as it was, it is an index's entry that
            // keeps its mark, or the writer has failed and is about to be
            // aborted.
            None if !std::mem::replace(looked_again, true) => return,
            None => {}
        }
    }
    let operation = pg_sys::XLTW_Oper::XLTW_InsertIndex;
    // SAFETY: the caller's promise.
    unsafe { wait_for(relation, xid, WaitPolicy::Block, tid, operation) };
}

/// A place at the head of the queue for one key: of several who wait for the
/// same row, the first to come is the first to go on (rule 10). It is given
/// up once the lock on the row itself, an entry on the page, is written.
///
/// Two keys may share a queue, by their hash. That costs time, not truth.
pub struct KeyLock {
    tag: pg_sys::LOCKTAG,
    mode: pg_sys::LOCKMODE,
    not_send: PhantomData<*const ()>,
}

impl KeyLock {
    /// Queues for `key` of `relation`. `None` where the policy is to skip and
    /// somebody else is at the head.
    ///
    /// # Safety
    /// `relation` is open.
    pub unsafe fn acquire(
        relation: pg_sys::Relation,
        key: &[u8],
        strength: Strength,
        policy: WaitPolicy,
    ) -> Option<KeyLock> {
        let hash = hash_of(key);
        // SAFETY: the caller's promise.
        let locked = unsafe { (*relation).rd_lockInfo.lockRelId };
        let tag = pg_sys::LOCKTAG {
            locktag_field1: locked.dbId.to_u32(),
            locktag_field2: locked.relId.to_u32(),
            locktag_field3: hash as u32,
            // A tuple's offset is never zero.
            locktag_field4: (hash >> 32) as u16 | 1,
            locktag_type: pg_sys::LockTagType::LOCKTAG_TUPLE as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        let mode = mode_of(strength);
        let patient = policy == WaitPolicy::Block;
        // SAFETY: the tag lives through the call.
        let result = unsafe { pg_sys::LockAcquire(&tag, mode, false, !patient) };
        if result == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL {
            if policy == WaitPolicy::Error {
                // SAFETY: the caller's promise.
                unsafe { error::row_is_locked(relation) };
            }
            return None;
        }
        Some(KeyLock {
            tag,
            mode,
            not_send: PhantomData,
        })
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // While unwinding the transaction's abort gives it up.
        if !std::thread::panicking() {
            // SAFETY: acquired by this transaction, given up once.
            unsafe { pg_sys::LockRelease(&self.tag, self.mode, false) };
        }
    }
}

/// The lock modes that PostgreSQL's heap takes on a tuple.
fn mode_of(strength: Strength) -> pg_sys::LOCKMODE {
    (match strength {
        Strength::KeyShare => pg_sys::AccessShareLock,
        Strength::Share => pg_sys::RowShareLock,
        Strength::NoKeyExclusive => pg_sys::ExclusiveLock,
        Strength::Exclusive => pg_sys::AccessExclusiveLock,
    }) as pg_sys::LOCKMODE
}

/// 64-bit FNV-1a with a final mix, so that its low bits depend on all bytes.
pub(crate) fn hash_of(key: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in key {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}
