//! Latches whose order shuttle decides.
//!
//! All tasks of an execution run on one thread, and another one gets its turn
//! only at a *point*: before a latch is asked for, before a record is applied,
//! and before the transaction manager is asked. That is enough to reach
//! whatever threads can reach. What a task does between two points touches
//! only pages that it has latched, and the store's own short mutexes, at most
//! one use of each that others can tell apart; moving it to the moment of the
//! point before changes nothing for anybody (Lipton, "Reduction", 1975).
//! Releasing needs no point of its own, for the same reason, but for those who
//! only *try* a latch: they must find it taken now and then by somebody who
//! asks for no further one. Hence the point before a record is applied.
//!
//! The frame itself lies in a real lock that is never waited for.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::lock_api::{ArcRwLockReadGuard, ArcRwLockWriteGuard};
use parking_lot::{MutexGuard, RawRwLock, RwLock};
use shuttle::future::block_on;

use crate::mem::store::Frame;
use crate::types::BlockNumber;

/// Lets the schedule go on with any other task.
pub(in crate::mem) fn point() {
    // Shuttle knows no time: to it this is a switch of tasks and nothing else,
    // while `yield_now` would tell it to prefer the others.
    shuttle::thread::sleep(Duration::ZERO);
}

/// What the transaction manager's state is kept in: others may come in
/// between two of its uses, never within one.
#[derive(Debug, Default)]
pub(in crate::mem) struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    pub(in crate::mem) fn new(value: T) -> Mutex<T> {
        Mutex(parking_lot::Mutex::new(value))
    }

    pub(in crate::mem) fn lock(&self) -> MutexGuard<'_, T> {
        point();
        self.0
            .try_lock()
            .expect("no task stops while it holds this mutex")
    }
}

/// Those who wait for a latch.
type Waiting = Arc<parking_lot::Mutex<Vec<Waker>>>;

/// The latch of one page, and the page.
#[derive(Clone)]
pub(in crate::mem) struct Latch {
    frame: Arc<RwLock<Frame>>,
    waiting: Waiting,
}

/// Wakes all who wait, once the frame is free: they try again, in the order
/// that the schedule likes.
struct Wake(Waiting);

impl Drop for Wake {
    fn drop(&mut self) {
        let waiting = std::mem::take(&mut *self.0.lock());
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A shared latch. The frame is let go of first: fields are dropped in order.
pub(in crate::mem) struct ReadGuard {
    frame: ArcRwLockReadGuard<RawRwLock, Frame>,
    _wake: Wake,
}

/// An exclusive latch, likewise.
pub(in crate::mem) struct WriteGuard {
    frame: ArcRwLockWriteGuard<RawRwLock, Frame>,
    _wake: Wake,
}

impl Deref for ReadGuard {
    type Target = Frame;

    fn deref(&self) -> &Frame {
        &self.frame
    }
}

impl Deref for WriteGuard {
    type Target = Frame;

    fn deref(&self) -> &Frame {
        &self.frame
    }
}

impl DerefMut for WriteGuard {
    fn deref_mut(&mut self) -> &mut Frame {
        &mut self.frame
    }
}

impl Latch {
    pub(in crate::mem) fn new(_block: BlockNumber, frame: Frame) -> Latch {
        Latch {
            frame: Arc::new(RwLock::new(frame)),
            waiting: Waiting::default(),
        }
    }

    /// A latch that nobody else knows yet, held by its maker.
    pub(in crate::mem) fn held(block: BlockNumber, frame: Frame) -> (Latch, WriteGuard) {
        let latch = Latch::new(block, frame);
        let frame = latch.frame.write_arc();
        let guard = latch.exclusive(frame);
        (latch, guard)
    }

    pub(in crate::mem) fn read(&self) -> ReadGuard {
        ReadGuard {
            frame: self.when_free(|| self.frame.try_read_arc()),
            _wake: Wake(Arc::clone(&self.waiting)),
        }
    }

    pub(in crate::mem) fn write(&self) -> WriteGuard {
        self.exclusive(self.when_free(|| self.frame.try_write_arc()))
    }

    pub(in crate::mem) fn try_write(&self) -> Option<WriteGuard> {
        point();
        self.frame
            .try_write_arc()
            .map(|frame| self.exclusive(frame))
    }

    fn exclusive(&self, frame: ArcRwLockWriteGuard<RawRwLock, Frame>) -> WriteGuard {
        WriteGuard {
            frame,
            _wake: Wake(Arc::clone(&self.waiting)),
        }
    }

    /// Waits until `attempt` succeeds. If everybody comes to wait, shuttle
    /// reports a deadlock.
    fn when_free<G>(&self, attempt: impl Fn() -> Option<G>) -> G {
        point();
        // `block_on` switches tasks even when it has not waited.
        if let Some(guard) = attempt() {
            return guard;
        }
        block_on(poll_fn(|context| match attempt() {
            Some(guard) => Poll::Ready(guard),
            None => {
                self.waiting.lock().push(context.waker().clone());
                Poll::Pending
            }
        }))
    }
}
