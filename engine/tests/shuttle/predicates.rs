//! Rule 22 between sessions: whichever way a reader and a writer run past each
//! other, past splits and merges too, one of them tells of the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::btree::Tree;
use engine::btree::check::check;
use engine::compare::Bytewise;
use engine::mem::{MemStore, PredicateLocks, TestSession, TestSnapshot, TestTransactions, Watched};
use engine::mvcc::batch::Batch;
use engine::mvcc::scan::{Direction, Place, Range};
use engine::mvcc::write::{Insertion, Outcome, Successor};
use engine::mvcc::{Strength, VersionId, VersionIdBuf, Versioned, Writer};
use engine::page::cell::EntryKind;
use engine::{Result, Xid};
use shuttle::thread::{JoinHandle, spawn};

use crate::schedule::{exhaust, explore};

const PAGE: usize = 256;
const HOT: u32 = 50;

/// A store, its transactions and their predicate locks; cloning shares all.
#[derive(Clone)]
struct Bench {
    store: Arc<MemStore>,
    world: TestTransactions,
    locks: PredicateLocks,
}

/// A serializable transaction.
struct Serializable {
    bench: Bench,
    session: TestSession,
    snapshot: TestSnapshot,
    xid: Xid,
}

impl Bench {
    /// Rows 0, 10, 20, …
    fn new(rows: u32) -> Bench {
        let store = Arc::new(MemStore::new(PAGE));
        Tree::<MemStore, Bytewise>::create(&store, b"", true).unwrap();
        let bench = Bench {
            store,
            world: TestTransactions::new(),
            locks: PredicateLocks::default(),
        };
        let mut loader = bench.begin();
        for nth in 0..rows {
            loader.insert(nth * 10);
        }
        loader.commit();
        bench
    }

    fn begin(&self) -> Serializable {
        let mut session = self.world.session();
        let xid = session.begin();
        Serializable {
            bench: self.clone(),
            snapshot: session.snapshot().tracked(),
            session,
            xid,
        }
    }

    /// Begins a transaction and lets a session run it. One that is spawned
    /// before another sees nothing of it.
    fn spawn(
        &self,
        work: impl FnOnce(&mut Serializable) + Send + 'static,
    ) -> (Xid, JoinHandle<()>) {
        let mut transaction = self.begin();
        let xid = transaction.xid;
        let handle = spawn(move || {
            work(&mut transaction);
            transaction.commit();
        });
        (xid, handle)
    }

    fn vacuum(&self) -> u64 {
        self.store
            .set_recycle_stamp(u64::from(self.world.next_xid().0));
        self.store
            .set_recyclable_before(u64::from(self.world.horizon().0));
        let session = self.world.session();
        with(self, &session, Xid::NONE, |v| v.vacuum(|_| {})).merged
    }

    /// Both transactions ran at once: the reader saw nothing of the writer's,
    /// and that is known.
    fn depends(&self, reader: Xid, writer: Xid) {
        assert_eq!(check(&*self.store, &Bytewise).unwrap().problems, []);
        assert!(
            self.locks.conflict(reader, writer),
            "neither the reader nor the writer told of the other"
        );
    }
}

fn with<R>(
    bench: &Bench,
    session: &TestSession,
    who: Xid,
    work: impl FnOnce(&Versioned<'_, Watched, Bytewise, TestSession>) -> Result<R>,
) -> R {
    let store = Watched::new(Arc::clone(&bench.store), bench.locks.clone(), who);
    let tree = Tree::new(&store, &Bytewise);
    work(&Versioned {
        tree: &tree,
        transactions: session,
    })
    .unwrap()
}

impl Serializable {
    fn with<R>(
        &self,
        work: impl FnOnce(&Versioned<'_, Watched, Bytewise, TestSession>) -> Result<R>,
    ) -> R {
        with(&self.bench, &self.session, self.xid, work)
    }

    fn writer(&self) -> Writer {
        Writer {
            xid: self.xid,
            cid: self.session.cid(),
        }
    }

    fn insert(&mut self, key: u32) {
        let done = self.with(|v| v.insert(self.writer(), &key.to_be_bytes(), &[7; 16], 0));
        assert!(matches!(done, Insertion::Done(_)));
        self.session.next_command();
    }

    fn get(&self, key: u32) -> Option<VersionIdBuf> {
        let mut batch = Batch::default();
        let key = key.to_be_bytes();
        let found = self.with(|v| v.get(&key, &self.snapshot, &mut batch));
        found.then(|| {
            let head = batch.row(0).head;
            VersionId {
                key: &key,
                sequence: head.sequence,
                xmin: head.xmin,
            }
            .to_buf()
        })
    }

    fn supersede(&mut self, id: &VersionIdBuf, kind: EntryKind) {
        let successor = Successor {
            kind,
            keys_updated: false,
            body: if kind == EntryKind::Put {
                &[8; 16]
            } else {
                b""
            },
        };
        let done = self.with(|v| v.supersede(self.writer(), id.as_ref(), successor, |_| true));
        assert!(matches!(done, Outcome::Done(_)), "{done:?}");
        self.session.next_command();
    }

    fn scan(&self, direction: Direction) {
        let (mut place, mut batch) = (Place::Start, Batch::default());
        self.with(|v| {
            let range = Range::default();
            while v.next_leaf(&range, direction, &mut place, &self.snapshot, &mut batch)? {}
            Ok(())
        });
    }

    fn commit(&mut self) {
        self.session.commit();
    }
}

/// Random schedules and all with few preemptions.
fn tell(preemptions_max: usize, story: impl Fn() + Send + Sync + 'static) {
    let story = Arc::new(story);
    let told = Arc::clone(&story);
    explore(move || told());
    let count = exhaust(preemptions_max, move || story());
    println!("{count} schedules");
    assert!(count > 20, "{count} schedules");
}

#[test]
fn a_look_up_of_nothing_and_the_insertion_of_it_know_of_each_other() {
    tell(4, || {
        let bench = Bench::new(8);
        let (reader, reads) = bench.spawn(|own| assert!(own.get(HOT + 1).is_none()));
        let (writer, writes) = bench.spawn(|own| own.insert(HOT + 1));
        reads.join().unwrap();
        writes.join().unwrap();
        bench.depends(reader, writer);
    });
}

#[test]
fn a_look_up_and_an_update_or_delete_know_of_each_other() {
    for kind in [EntryKind::Put, EntryKind::Tombstone] {
        tell(4, move || {
            let bench = Bench::new(8);
            let (reader, reads) = bench.spawn(|own| assert!(own.get(HOT).is_some()));
            let (writer, writes) = bench.spawn(move |own| {
                let id = own.get(HOT).unwrap();
                own.supersede(&id, kind);
            });
            reads.join().unwrap();
            writes.join().unwrap();
            bench.depends(reader, writer);
        });
    }
}

/// Row locks fill the leaf where the key begins, so that the reader has let go
/// of it before it finds the version that it sees, and the writer supersedes.
#[test]
fn a_look_up_that_goes_on_to_another_leaf_and_an_update_know_of_each_other() {
    tell(2, || {
        let bench = Bench::new(2);
        let lockers: Vec<Serializable> = (0..12).map(|_| bench.begin()).collect();
        for locker in &lockers {
            let id = locker.get(10).unwrap();
            let done = locker.with(|v| v.lock(locker.writer(), id.as_ref(), Strength::KeyShare));
            assert!(matches!(done, Outcome::Done(_)));
        }
        let leaves = check(&*bench.store, &Bytewise).unwrap().leaf_pages;
        assert!(leaves > 1, "the key spans leaves");
        let (reader, reads) = bench.spawn(|own| assert!(own.get(10).is_some()));
        let (writer, writes) = bench.spawn(|own| {
            let id = own.get(10).unwrap();
            own.supersede(&id, EntryKind::Put);
        });
        reads.join().unwrap();
        writes.join().unwrap();
        bench.depends(reader, writer);
        drop(lockers);
    });
}

#[test]
fn a_scan_and_insertions_into_a_leaf_that_splits_know_of_each_other() {
    for direction in [Direction::Forward, Direction::Backward] {
        tell(2, move || {
            let bench = Bench::new(6);
            let (reader, reads) = bench.spawn(move |own| own.scan(direction));
            let left = bench.spawn(|own| {
                own.insert(11);
                own.insert(12);
            });
            let right = bench.spawn(|own| own.insert(47));
            reads.join().unwrap();
            for (writer, writes) in [left, right] {
                writes.join().unwrap();
                bench.depends(reader, writer);
            }
        });
    }
}

#[test]
fn a_scan_and_an_insertion_into_a_leaf_that_is_merged_know_of_each_other() {
    let merged = Arc::new(AtomicUsize::new(0));
    for direction in [Direction::Forward, Direction::Backward] {
        let noted = Arc::clone(&merged);
        tell(1, move || {
            let bench = Bench::new(16);
            let mut cleaner = bench.begin();
            for key in (0..16).filter(|nth| nth % 4 != 0).map(|nth| nth * 10) {
                let id = cleaner.get(key).unwrap();
                cleaner.supersede(&id, EntryKind::Tombstone);
            }
            cleaner.commit();
            drop(cleaner);
            let noted = Arc::clone(&noted);
            let cleared = bench.clone();
            let vacuum = spawn(move || {
                noted.fetch_add(cleared.vacuum() as usize, Ordering::Relaxed);
            });
            let (reader, reads) = bench.spawn(move |own| own.scan(direction));
            let (writer, writes) = bench.spawn(|own| own.insert(45));
            vacuum.join().unwrap();
            reads.join().unwrap();
            writes.join().unwrap();
            bench.depends(reader, writer);
        });
    }
    assert!(merged.load(Ordering::Relaxed) > 0, "leaves were merged");
}
