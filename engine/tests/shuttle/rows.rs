//! Versions of rows: writers of one key, row locks, VACUUM under a scan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::Result;
use engine::btree::Tree;
use engine::btree::check::check;
use engine::compare::Bytewise;
use engine::mem::{MemStore, TestSession, TestSnapshot, TestTransactions};
use engine::mvcc::batch::Batch;
use engine::mvcc::scan::{Direction, Place, Range};
use engine::mvcc::write::{Insertion, Outcome, Successor};
use engine::mvcc::{Strength, Transactions, VersionId, VersionIdBuf, Versioned, Writer};
use engine::page::cell::{EntryKind, bit};
use shuttle::thread::{JoinHandle, spawn};

use crate::schedule::{exhaust, explore};

const PAGE: usize = 256;
/// The key that everybody wants.
const HOT: u32 = 50;

/// A store and its transactions; cloning shares both.
#[derive(Clone)]
struct Bench {
    store: Arc<MemStore>,
    world: TestTransactions,
}

fn writer(session: &TestSession) -> Writer {
    Writer {
        xid: session.xid(),
        cid: session.cid(),
    }
}

fn payload(value: u8) -> Vec<u8> {
    vec![value; 16]
}

impl Bench {
    /// Rows 0, 10, 20, … with the value 0.
    fn new(rows: u32) -> Bench {
        let store = Arc::new(MemStore::new(PAGE));
        Tree::<MemStore, Bytewise>::create(&store, b"", true).unwrap();
        let world = TestTransactions::new();
        let bench = Bench { store, world };
        let mut loader = bench.world.session();
        loader.begin();
        for nth in 0..rows {
            let done = bench.insert(&loader, nth * 10, 0);
            assert!(matches!(done, Insertion::Done(_)));
        }
        loader.commit();
        bench
    }

    fn with<T: Transactions, R>(
        &self,
        transactions: &T,
        work: impl FnOnce(&Versioned<'_, MemStore, Bytewise, T>) -> Result<R>,
    ) -> R {
        let tree = Tree::new(&*self.store, &Bytewise);
        let versioned = Versioned {
            tree: &tree,
            transactions,
        };
        work(&versioned).unwrap()
    }

    fn insert(&self, session: &TestSession, key: u32, value: u8) -> Insertion {
        let (key, payload) = (key.to_be_bytes(), payload(value));
        self.with(session, |v| v.insert(writer(session), &key, &payload, 0))
    }

    /// A row's value and name, as a snapshot sees it.
    fn get(
        &self,
        session: &TestSession,
        snapshot: &TestSnapshot,
        key: u32,
    ) -> Option<(u8, VersionIdBuf)> {
        let mut batch = Batch::default();
        let found = self.with(session, |v| v.get(&key.to_be_bytes(), snapshot, &mut batch));
        found.then(|| {
            let row = batch.row(0);
            let id = VersionId {
                key: row.key,
                sequence: row.head.sequence,
                xmin: row.head.xmin,
            };
            (row.payload[0], id.to_buf())
        })
    }

    fn update(&self, session: &TestSession, id: &VersionIdBuf, value: u8) -> Outcome {
        let body = payload(value);
        let successor = Successor {
            kind: EntryKind::Put,
            keys_updated: false,
            body: &body,
        };
        self.with(session, |v| {
            v.supersede(writer(session), id.as_ref(), successor, |_| true)
        })
    }

    fn delete(&self, session: &TestSession, key: u32) {
        let snapshot = session.snapshot();
        let (_, id) = self.get(session, &snapshot, key).unwrap();
        let successor = Successor {
            kind: EntryKind::Tombstone,
            keys_updated: false,
            body: b"",
        };
        let done = self.with(session, |v| {
            v.supersede(writer(session), id.as_ref(), successor, |_| true)
        });
        assert!(matches!(done, Outcome::Done(_)), "{done:?}");
    }

    /// Adds one to a row, if nobody else is at it.
    fn add_one(&self, session: &mut TestSession, key: u32) -> bool {
        session.begin();
        let snapshot = session.snapshot();
        let (value, id) = self.get(session, &snapshot, key).expect("it is there");
        match self.update(session, &id, value + 1) {
            Outcome::Done(_) => {
                session.commit();
                true
            }
            Outcome::Busy { .. } | Outcome::Updated(..) => {
                session.abort();
                false
            }
            other => panic!("{other:?}"),
        }
    }

    fn scan(&self, snapshot: &TestSnapshot, direction: Direction) -> BTreeMap<u32, u8> {
        let (mut rows, mut last) = (BTreeMap::new(), None);
        let (mut place, mut batch) = (Place::Start, Batch::default());
        self.with(&self.world, |v| {
            let range = Range::default();
            while v.next_leaf(&range, direction, &mut place, snapshot, &mut batch)? {
                let mut of_leaf: Vec<_> = (0..batch.len()).collect();
                if direction == Direction::Backward {
                    of_leaf.reverse();
                }
                for row in of_leaf.into_iter().map(|nth| batch.row(nth)) {
                    let key = u32::from_be_bytes(row.key.try_into().unwrap());
                    assert!(
                        last.is_none_or(
                            |last| (key > last) == (direction == Direction::Forward) && key != last
                        ),
                        "each row once and in order"
                    );
                    last = Some(key);
                    rows.insert(key, row.payload[0]);
                }
            }
            Ok(())
        });
        rows
    }

    fn vacuum(&self) -> u64 {
        self.store
            .set_recycle_stamp(u64::from(self.world.next_xid().0));
        self.store
            .set_recyclable_before(u64::from(self.world.horizon().0));
        self.with(&self.world, |v| v.vacuum(|_| {})).merged
    }

    fn spawn<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Bench, TestSession) -> R + Send + 'static,
    ) -> JoinHandle<R> {
        let bench = self.clone();
        spawn(move || {
            let session = bench.world.session();
            work(&bench, session)
        })
    }

    /// The value of a row once all is over and in order.
    fn ends_with(&self, key: u32) -> Option<u8> {
        assert_eq!(check(&*self.store, &Bytewise).unwrap().problems, []);
        let session = self.world.session();
        let snapshot = self.world.snapshot();
        self.get(&session, &snapshot, key).map(|(value, _)| value)
    }
}

/// Random schedules and all with few preemptions.
fn tell(preemptions_max: usize, story: impl Fn() + Send + Sync + 'static) {
    let story = Arc::new(story);
    let told = Arc::clone(&story);
    explore(move || told());
    let count = exhaust(preemptions_max, move || story());
    println!("{count} schedules");
    assert!(count > 100, "{count} schedules");
}

/// What was seen in any execution.
#[derive(Clone, Default)]
struct Seen(Arc<[AtomicUsize; 3]>);

impl Seen {
    fn note(&self, what: usize) {
        self.0[what].fetch_add(1, Ordering::Relaxed);
    }

    fn all(&self, kinds: usize) -> bool {
        self.0[..kinds]
            .iter()
            .all(|count| count.load(Ordering::Relaxed) > 0)
    }
}

#[test]
fn of_two_updaters_of_one_row_none_overwrites_the_other() {
    let seen = Seen::default();
    let noted = seen.clone();
    tell(4, move || {
        let bench = Bench::new(8);
        let both =
            [(); 2].map(|()| bench.spawn(|bench, mut session| bench.add_one(&mut session, HOT)));
        let done = both.map(|session| session.join().unwrap());
        let done = done.into_iter().filter(|done| *done).count();
        assert!(done > 0, "at least the first gets through");
        noted.note(done - 1);
        assert_eq!(bench.ends_with(HOT), Some(done as u8));
    });
    assert!(seen.all(2), "one was refused, or both were done");
}

#[test]
fn a_key_that_two_transactions_insert_is_there_once() {
    let seen = Seen::default();
    let noted = seen.clone();
    tell(4, move || {
        let bench = Bench::new(8);
        let stays = bench.spawn(|bench, mut session| {
            session.begin();
            let done = bench.insert(&session, HOT + 3, 1);
            session.commit();
            done
        });
        let goes = bench.spawn(|bench, mut session| {
            session.begin();
            let done = bench.insert(&session, HOT + 3, 2);
            session.abort();
            done
        });
        let (stays, goes) = (stays.join().unwrap(), goes.join().unwrap());
        let there = match &stays {
            Insertion::Done(_) => true,
            Insertion::Busy { .. } => {
                assert!(matches!(goes, Insertion::Done(_)), "{goes:?}");
                false
            }
            Insertion::Exists(head) => panic!("nothing else was committed: {head:?}"),
        };
        match goes {
            Insertion::Done(_) => noted.note(0),
            Insertion::Busy { .. } => noted.note(1),
            Insertion::Exists(_) => noted.note(2),
        }
        assert_eq!(bench.ends_with(HOT + 3), there.then_some(1));
    });
    assert!(seen.all(3), "done, refused as busy, refused as existing");
}

#[test]
fn a_speculative_row_is_decided_on_whatever_becomes_of_its_leaf() {
    let seen = Seen::default();
    let noted = seen.clone();
    tell(2, move || {
        let bench = Bench::new(8);
        let noted = noted.clone();
        let key = HOT + 3;
        let speculates = |keep: bool| {
            bench.spawn(move |bench, mut session| {
                session.begin();
                let body = payload(u8::from(keep));
                let done = bench.with(&session, |v| {
                    v.insert(
                        writer(&session),
                        &key.to_be_bytes(),
                        &body,
                        bit::SPECULATIVE,
                    )
                });
                if let Insertion::Done(written) = &done {
                    let id = VersionIdBuf {
                        key: key.to_be_bytes().to_vec(),
                        sequence: written.sequence,
                        xmin: session.xid(),
                    };
                    let found = bench.with(&session, |v| v.finish_speculative(id.as_ref(), keep));
                    assert!(found, "nobody else decides");
                }
                session.commit();
                done
            })
        };
        let (keeps, gives_up) = (speculates(true), speculates(false));
        // Neighbours split the leaf.
        let splits = bench.spawn(|bench, mut session| {
            session.begin();
            for near in [HOT + 1, HOT + 2, HOT + 4, HOT + 5] {
                let done = bench.insert(&session, near, 9);
                assert!(matches!(done, Insertion::Done(_)));
            }
            session.commit();
        });
        let (kept, given_up) = (keeps.join().unwrap(), gives_up.join().unwrap());
        splits.join().unwrap();
        let there = match kept {
            Insertion::Done(_) => true,
            Insertion::Busy { speculative, .. } => {
                assert!(speculative, "a row that is given up is never anything else");
                noted.note(0);
                false
            }
            Insertion::Exists(_) => panic!("nothing else is kept"),
        };
        match given_up {
            Insertion::Done(_) => {}
            Insertion::Busy { .. } => noted.note(1),
            Insertion::Exists(_) => noted.note(2),
        }
        assert_eq!(bench.ends_with(key), there.then_some(1));
    });
    assert!(seen.all(3), "each came upon the other's row");
}

#[test]
fn whoever_holds_a_row_lock_can_update_the_row() {
    let seen = Seen::default();
    let noted = seen.clone();
    tell(4, move || {
        let bench = Bench::new(8);
        let noted = noted.clone();
        let locker = bench.spawn(move |bench, mut session| {
            session.begin();
            let snapshot = session.snapshot();
            let (value, id) = bench.get(&session, &snapshot, HOT).unwrap();
            let locked = bench.with(&session, |v| {
                v.lock(writer(&session), id.as_ref(), Strength::Exclusive)
            });
            match locked {
                Outcome::Done(_) => {
                    session.next_command();
                    let done = bench.update(&session, &id, value + 1);
                    assert!(matches!(done, Outcome::Done(_)), "{done:?}");
                    noted.note(0);
                    session.commit();
                    1
                }
                Outcome::Busy { .. } | Outcome::Updated(..) => {
                    noted.note(1);
                    session.abort();
                    0
                }
                other => panic!("{other:?}"),
            }
        });
        let updater = bench.spawn(|bench, mut session| bench.add_one(&mut session, HOT));
        let done = locker.join().unwrap() + u8::from(updater.join().unwrap());
        assert_eq!(bench.ends_with(HOT), Some(done));
    });
    assert!(seen.all(2), "the lock was taken, and refused");
}

/// Rows of which the even ones stay; a deleted half leaves sparse leaves for
/// VACUUM to merge.
fn half_deleted() -> Bench {
    let bench = Bench::new(16);
    let mut session = bench.world.session();
    session.begin();
    for nth in (0..16).filter(|nth| nth % 4 != 0) {
        bench.delete(&session, nth * 10);
    }
    session.commit();
    bench
}

#[test]
fn a_scan_sees_what_its_snapshot_sees_while_vacuum_prunes_and_merges() {
    for direction in [Direction::Forward, Direction::Backward] {
        let seen = Seen::default();
        let noted = seen.clone();
        tell(1, move || {
            let bench = half_deleted();
            let noted = noted.clone();
            let vacuum = bench.spawn(move |bench, _| {
                if bench.vacuum() > 0 {
                    noted.note(0);
                }
            });
            let updater = bench.spawn(|bench, mut session| {
                assert!(bench.add_one(&mut session, 40));
            });
            let scan = bench.spawn(move |bench, _| {
                let snapshot = bench.world.snapshot();
                let mut rows = bench.scan(&snapshot, direction);
                // Old or new, as the snapshot has it, and the same again.
                assert_eq!(bench.scan(&snapshot, direction), rows);
                assert!(rows.insert(40, 0).is_some());
                assert_eq!(rows, [(0, 0), (40, 0), (80, 0), (120, 0)].into());
            });
            vacuum.join().unwrap();
            updater.join().unwrap();
            scan.join().unwrap();
            assert_eq!(bench.ends_with(40), Some(1));
        });
        assert!(seen.all(1), "VACUUM has merged");
    }
}
