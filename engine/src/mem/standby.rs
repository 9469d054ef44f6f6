//! A standby: it replays a log block by block while a reader runs.
//!
//! The reader drives it. Before each of its page reads the standby may apply
//! any number of further blocks, so that a single-threaded, replayable test
//! reaches every state between two applications. Replay latches the pages of
//! a record in its order and releases them together (rule 27); a reader who
//! asks for a page that replay holds waits until that record is through. A
//! reader that waits for replay while replay waits for the reader's page is a
//! deadlock, and panics.

use std::ops::Deref;

use parking_lot::Mutex;

use super::log::{Entry, Lsn};
use super::store::{Exclusive, MemStore, Shared};
use crate::error::{Error, Result};
use crate::predicate::Predicates;
use crate::record::Record;
use crate::store::{Hint, PageStore};
use crate::types::{BlockNumber, Xid};

/// How far replay has come.
struct Replay {
    /// The next entry, by its place in the log.
    next: usize,
    /// Within it, the next block.
    block: usize,
    /// Blocks that replay holds latched: those applied of a record that is
    /// not through.
    held: Vec<BlockNumber>,
}

type Choose = Box<dyn FnMut(usize) -> usize + Send>;

/// A replica of a recording store, and one reader's view of it.
pub struct Standby {
    store: MemStore,
    entries: Vec<Entry>,
    replay: Mutex<Replay>,
    choose: Mutex<Choose>,
    /// The oldest transaction that the reader's snapshot takes for running.
    reader: Mutex<Option<Xid>>,
    cancelled: Mutex<bool>,
    /// Whether the relation is locked against readers.
    alone: Mutex<bool>,
    /// Pages that the reader holds.
    reading: Mutex<Vec<BlockNumber>>,
}

/// A page the reader holds.
pub struct Reading<'s> {
    page: Shared,
    standby: &'s Standby,
    block: BlockNumber,
}

impl Deref for Reading<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.page
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut reading = self.standby.reading.lock();
        if let Some(at) = reading.iter().position(|block| *block == self.block) {
            reading.swap_remove(at);
        }
    }
}

impl MemStore {
    /// An empty replica that replays this store's log from its beginning;
    /// `choose(n)` answers with a number below `n`: how many blocks are
    /// applied before a read.
    ///
    /// # Panics
    /// If the store does not record.
    pub fn standby(&self, choose: impl FnMut(usize) -> usize + Send + 'static) -> Standby {
        assert!(
            self.is_recording(),
            "only a recording store can be replicated"
        );
        Standby {
            store: MemStore::new(self.page_size()),
            entries: self.entries(),
            replay: Mutex::new(Replay {
                next: 0,
                block: 0,
                held: Vec::new(),
            }),
            choose: Mutex::new(Box::new(choose)),
            reader: Mutex::new(None),
            cancelled: Mutex::new(false),
            alone: Mutex::new(false),
            reading: Mutex::new(Vec::new()),
        }
    }
}

impl Standby {
    /// The last entry that has been replayed whole.
    pub fn replayed(&self) -> Lsn {
        Lsn(self.replay.lock().next as u64)
    }

    /// Replays whole entries up to `until`.
    pub fn replay_to(&self, until: Lsn) -> Result<()> {
        while self.replayed() < until && self.step()? {}
        Ok(())
    }

    /// Whether a reader would have to wait for the relation's lock.
    pub fn is_locked(&self) -> bool {
        *self.alone.lock()
    }

    /// Announces a reader whose snapshot takes `oldest` and everything later
    /// for running; it has not been cancelled yet.
    pub fn begin_read(&self, oldest: Xid) {
        assert!(!self.is_locked(), "a reader waits for the lock");
        *self.reader.lock() = Some(oldest);
        *self.cancelled.lock() = false;
    }

    /// Whether replay had to cancel the reader (rule 30): its reads fail.
    pub fn is_cancelled(&self) -> bool {
        *self.cancelled.lock()
    }

    /// The pages as they are.
    pub fn store(&self) -> &MemStore {
        &self.store
    }

    /// Applies one more block; `false` if there is nothing left, or if the
    /// reader holds the page that is next.
    pub fn step(&self) -> Result<bool> {
        let mut replay = self.replay.lock();
        let Some(entry) = self.entries.get(replay.next) else {
            return Ok(false);
        };
        let lsn = Lsn(replay.next as u64 + 1);
        let record = match entry {
            Entry::Change { record, .. } => record,
            other => {
                match other {
                    Entry::Alone(alone) => {
                        *self.alone.lock() = *alone;
                        // Those who use the relation end before that.
                        if *alone && self.reader.lock().is_some() {
                            *self.cancelled.lock() = true;
                        }
                    }
                    Entry::Truncate(blocks) => self.store.cut(*blocks, lsn),
                    _ => {}
                }
                replay.next += 1;
                return Ok(true);
            }
        };
        if replay.block == 0 {
            self.resolve_conflict(record.conflict_horizon);
        }
        let change = &record.changes[replay.block];
        if self.reading.lock().contains(&change.block) {
            return Ok(false);
        }
        // Images stand in for torn pages; a replica that has every page
        // replays operations.
        self.store.replay(lsn, change, None)?;
        replay.held.push(change.block);
        replay.block += 1;
        if replay.block == record.changes.len() {
            replay.held.clear();
            replay.block = 0;
            replay.next += 1;
        }
        Ok(true)
    }

    /// Cancels a reader that might miss what the record removes: one that
    /// does not see the horizon as ended.
    fn resolve_conflict(&self, horizon: Xid) {
        if horizon == Xid::NONE {
            return;
        }
        if self
            .reader
            .lock()
            .is_some_and(|oldest| !horizon.precedes(oldest))
        {
            *self.cancelled.lock() = true;
        }
    }
}

impl Predicates for Standby {}

impl PageStore for Standby {
    type Shared<'s> = Reading<'s>;
    type Exclusive<'s> = Exclusive;

    fn page_size(&self) -> usize {
        self.store.page_size()
    }

    fn block_count(&self) -> Result<u32> {
        self.store.block_count()
    }

    fn read(&self, at: BlockNumber) -> Result<Reading<'_>> {
        let steps = (self.choose.lock())(6);
        for _ in 0..steps {
            if !self.step()? {
                break;
            }
        }
        while self.replay.lock().held.contains(&at) {
            assert!(
                self.step()?,
                "a reader of block {at} waits for replay, or the other way round: a deadlock"
            );
        }
        if self.is_cancelled() {
            return Err(Error::Store(
                "canceling statement due to conflict with recovery".into(),
            ));
        }
        self.reading.lock().push(at);
        Ok(Reading {
            page: self.store.read(at)?,
            standby: self,
            block: at,
        })
    }

    fn lock(&self, _at: BlockNumber) -> Result<Exclusive> {
        Err(read_only())
    }

    fn try_lock(&self, _at: BlockNumber) -> Result<Option<Exclusive>> {
        Err(read_only())
    }

    fn allocate(&self) -> Result<Exclusive> {
        Err(read_only())
    }

    fn offer(&self, _at: BlockNumber) {}

    fn block_of(&self, guard: &Exclusive) -> BlockNumber {
        self.store.block_of(guard)
    }

    fn block_of_shared(&self, guard: &Reading<'_>) -> BlockNumber {
        guard.block
    }

    /// # Panics
    /// Always: a standby writes nothing of its own (rule 30).
    fn commit(&self, _record: &Record, _pages: &mut [&mut Exclusive]) {
        panic!("nothing is committed during recovery");
    }

    fn hint(&self, at: BlockNumber, hints: &[Hint]) {
        self.store.hint(at, hints);
    }

    fn recycle_stamp(&self) -> u64 {
        self.store.recycle_stamp()
    }
}

fn read_only() -> Error {
    Error::Store("recovery is in progress".into())
}
