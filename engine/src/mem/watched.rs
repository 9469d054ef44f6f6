//! A store that keeps predicate locks as the server does, for tests: who has
//! read what, and which transactions were found to depend on each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::store::{Exclusive, MemStore, Shared};
use crate::error::Result;
use crate::predicate::Predicates;
use crate::record::Record;
use crate::store::{Hint, PageStore};
use crate::types::{BlockNumber, Sequence, Xid};

/// What a predicate lock is on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Target {
    Key(Vec<u8>, Option<Sequence>),
    Leaf(BlockNumber),
}

#[derive(Default, Debug)]
struct Locks {
    readers: BTreeMap<Target, BTreeSet<u32>>,
    /// Reader and writer: the first did not see what the second wrote.
    conflicts: BTreeSet<(u32, u32)>,
}

/// The predicate locks of all sessions of a test.
#[derive(Clone, Default, Debug)]
pub struct PredicateLocks(Arc<Mutex<Locks>>);

impl PredicateLocks {
    /// Whether it was found that a reader did not see what a writer wrote.
    pub fn conflict(&self, reader: Xid, writer: Xid) -> bool {
        self.0.lock().conflicts.contains(&(reader.0, writer.0))
    }

    /// How many leaves anybody has read.
    pub fn leaves(&self) -> usize {
        let locks = self.0.lock();
        let targets = locks.readers.keys();
        targets.filter(|at| matches!(at, Target::Leaf(_))).count()
    }
}

/// A store as one transaction uses it, known by its xid.
pub struct Watched {
    /// Where the pages are.
    pub store: Arc<MemStore>,
    locks: PredicateLocks,
    who: Xid,
}

impl Watched {
    /// The store for the transaction `who`.
    pub fn new(store: Arc<MemStore>, locks: PredicateLocks, who: Xid) -> Watched {
        Watched { store, locks, who }
    }

    fn read_target(&self, target: Target) {
        let mut locks = self.locks.0.lock();
        locks.readers.entry(target).or_default().insert(self.who.0);
    }

    fn written(&self, target: &Target) {
        let mut locks = self.locks.0.lock();
        let Locks { readers, conflicts } = &mut *locks;
        let others = readers.get(target).into_iter().flatten();
        let others = others.filter(|reader| **reader != self.who.0);
        conflicts.extend(others.map(|reader| (*reader, self.who.0)));
    }

    /// A claim about a leaf is true only as long as nobody changes the leaf.
    fn assert_locked(&self, leaf: BlockNumber) {
        let taken = self.store.try_lock(leaf).expect("the leaf exists");
        assert!(taken.is_none(), "leaf {leaf} is told of and is not locked");
    }

    fn carry(&self, from: BlockNumber, to: BlockNumber) {
        self.assert_locked(from);
        self.assert_locked(to);
        let mut locks = self.locks.0.lock();
        let readers = locks.readers.get(&Target::Leaf(from)).cloned();
        if let Some(readers) = readers {
            locks
                .readers
                .entry(Target::Leaf(to))
                .or_default()
                .extend(readers);
        }
    }
}

impl Predicates for Watched {
    fn key_read(&self, key: &[u8], seen: Option<Sequence>) {
        self.read_target(Target::Key(key.to_vec(), seen));
    }

    fn leaf_read(&self, leaf: BlockNumber) {
        self.assert_locked(leaf);
        self.read_target(Target::Leaf(leaf));
    }

    fn too_new(&self, writers: &[Xid]) {
        let others = writers.iter().filter(|writer| **writer != self.who);
        let mut locks = self.locks.0.lock();
        locks
            .conflicts
            .extend(others.map(|writer| (self.who.0, writer.0)));
    }

    fn key_written(&self, key: &[u8], over: Option<Sequence>) {
        self.written(&Target::Key(key.to_vec(), over));
    }

    fn key_cleared(&self, key: &[u8]) {
        self.read_target(Target::Key(key.to_vec(), None));
    }

    fn leaf_written(&self, leaf: BlockNumber) {
        self.assert_locked(leaf);
        self.written(&Target::Leaf(leaf));
    }

    fn leaf_split(&self, left: BlockNumber, right: BlockNumber) {
        self.carry(left, right);
    }

    fn leaf_merged(&self, left: BlockNumber, right: BlockNumber) {
        self.carry(left, right);
    }
}

impl PageStore for Watched {
    type Shared<'s> = Shared;
    type Exclusive<'s> = Exclusive;

    fn page_size(&self) -> usize {
        self.store.page_size()
    }

    fn block_count(&self) -> Result<u32> {
        self.store.block_count()
    }

    fn read(&self, at: BlockNumber) -> Result<Shared> {
        self.store.read(at)
    }

    fn lock(&self, at: BlockNumber) -> Result<Exclusive> {
        self.store.lock(at)
    }

    fn try_lock(&self, at: BlockNumber) -> Result<Option<Exclusive>> {
        self.store.try_lock(at)
    }

    fn allocate(&self) -> Result<Exclusive> {
        self.store.allocate()
    }

    fn offer(&self, at: BlockNumber) {
        self.store.offer(at);
    }

    fn block_of(&self, guard: &Exclusive) -> BlockNumber {
        self.store.block_of(guard)
    }

    fn block_of_shared(&self, guard: &Shared) -> BlockNumber {
        self.store.block_of_shared(guard)
    }

    fn commit(&self, record: &Record, pages: &mut [&mut Exclusive]) {
        self.store.commit(record, pages);
    }

    fn hint(&self, at: BlockNumber, hints: &[Hint]) {
        self.store.hint(at, hints);
    }

    fn recycle_stamp(&self) -> u64 {
        self.store.recycle_stamp()
    }

    fn pace(&self, point: &'static str) {
        self.store.pace(point);
    }
}
