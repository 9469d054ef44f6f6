//! Latches for threads.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::lock_api::{ArcRwLockReadGuard, ArcRwLockWriteGuard};
use parking_lot::{RawRwLock, RwLock};

use crate::mem::store::Frame;
use crate::types::BlockNumber;

/// How long a latch may be waited for. Latches are held for microseconds, so
/// whoever waits this long is part of a deadlock, and a test that panics with
/// the block's number is worth more than one that hangs.
const LATCH_WAIT_MAX: Duration = Duration::from_secs(30);

pub(in crate::mem) type ReadGuard = ArcRwLockReadGuard<RawRwLock, Frame>;
pub(in crate::mem) type WriteGuard = ArcRwLockWriteGuard<RawRwLock, Frame>;
/// What the transaction manager's state is kept in: others may come in
/// between two of its uses.
pub(in crate::mem) type Mutex<T> = parking_lot::Mutex<T>;

/// The latch of one page, and the page.
#[derive(Clone)]
pub(in crate::mem) struct Latch {
    block: BlockNumber,
    frame: Arc<RwLock<Frame>>,
}

impl Latch {
    pub(in crate::mem) fn new(block: BlockNumber, frame: Frame) -> Latch {
        Latch {
            block,
            frame: Arc::new(RwLock::new(frame)),
        }
    }

    /// A latch that nobody else knows yet, held by its maker.
    pub(in crate::mem) fn held(block: BlockNumber, frame: Frame) -> (Latch, WriteGuard) {
        let latch = Latch::new(block, frame);
        let guard = latch.frame.write_arc();
        (latch, guard)
    }

    pub(in crate::mem) fn read(&self) -> ReadGuard {
        RwLock::try_read_arc_for(&self.frame, LATCH_WAIT_MAX)
            .unwrap_or_else(|| panic!("a deadlock: nobody lets go of block {}", self.block))
    }

    pub(in crate::mem) fn write(&self) -> WriteGuard {
        RwLock::try_write_arc_for(&self.frame, LATCH_WAIT_MAX)
            .unwrap_or_else(|| panic!("a deadlock: nobody lets go of block {}", self.block))
    }

    pub(in crate::mem) fn try_write(&self) -> Option<WriteGuard> {
        self.frame.try_write_arc()
    }
}

/// Threads need no such points: they are interrupted anywhere.
pub(in crate::mem) fn point() {}
