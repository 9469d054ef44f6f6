//! Schedules that once went wrong, each a story of its own.

mod history;

use engine::btree::Tree;
use engine::btree::check::check;
use engine::compare::{Bytewise, Compare};
use engine::mem::{MemStore, TestSession, TestTransactions};
use engine::mvcc::batch::Batch;
use engine::mvcc::scan::{Direction, Place, Range};
use engine::mvcc::write::{Insertion, Outcome, Successor};
use engine::mvcc::{Strength, Transactions, VersionId, VersionIdBuf, Versioned, Writer};
use engine::page::cell::EntryKind;
use history::{History, Order};
use proptest::prelude::*;
use std::sync::Arc;

/// Keys that compare by a function.
const UNORDERED: Order = Order { as_bytes: false };

fn writer(session: &TestSession) -> Writer {
    Writer {
        xid: session.xid(),
        cid: session.cid(),
    }
}

struct Bench<C: Compare> {
    store: Arc<MemStore>,
    world: TestTransactions,
    compare: C,
}

impl<C: Compare> Bench<C> {
    fn new(compare: C, page: usize) -> Bench<C> {
        let store = Arc::new(MemStore::recording(page));
        Tree::<MemStore, C>::create(&store, b"", compare.ordered()).unwrap();
        let world = TestTransactions::logged_in(Arc::clone(&store));
        Bench {
            store,
            world,
            compare,
        }
    }
    fn with<T: Transactions, R>(
        &self,
        transactions: &T,
        work: impl FnOnce(&Versioned<'_, MemStore, C, T>) -> R,
    ) -> R {
        let tree = Tree::new(&*self.store, &self.compare);
        work(&Versioned {
            tree: &tree,
            transactions,
        })
    }
    fn insert(&self, session: &TestSession, key: &[u8], body: &[u8]) {
        let done = self.with(session, |v| {
            v.insert(writer(session), key, body, 0).unwrap()
        });
        assert!(matches!(done, Insertion::Done(_)), "{done:?}");
    }
    fn newest(&self, session: &TestSession, key: &[u8]) -> VersionIdBuf {
        let snapshot = session.snapshot_after();
        let mut batch = Batch::default();
        assert!(self.with(session, |v| v.get(key, &snapshot, &mut batch).unwrap()));
        let row = batch.row(0);
        VersionId {
            key: row.key,
            sequence: row.head.sequence,
            xmin: row.head.xmin,
        }
        .to_buf()
    }
    fn supersede(&self, session: &TestSession, key: &[u8], kind: EntryKind, body: &[u8]) {
        let id = self.newest(session, key);
        let done = self.with(session, |v| {
            v.supersede(
                writer(session),
                id.as_ref(),
                Successor {
                    kind,
                    keys_updated: false,
                    body,
                },
                |_| true,
            )
            .unwrap()
        });
        assert!(matches!(done, Outcome::Done(_)), "{done:?}");
    }
    fn lock(&self, session: &TestSession, id: &VersionIdBuf, strength: Strength) -> Outcome {
        self.with(session, |v| {
            v.lock(writer(session), id.as_ref(), strength).unwrap()
        })
    }
    fn vacuum(&self) {
        self.store
            .set_recycle_stamp(u64::from(self.world.next_xid().0));
        self.store
            .set_recyclable_before(u64::from(self.world.horizon().0));
        self.with(&self.world, |v| v.vacuum(|_| {}).unwrap());
    }
    fn keys(&self, direction: Direction) -> Vec<(Vec<u8>, Vec<u8>)> {
        let snapshot = self.world.snapshot();
        let (mut place, mut batch, mut keys) = (Place::Start, Batch::default(), Vec::new());
        self.with(&self.world, |v| {
            while v
                .next_leaf(
                    &Range::default(),
                    direction,
                    &mut place,
                    &snapshot,
                    &mut batch,
                )
                .unwrap()
            {
                keys.extend(
                    (0..batch.len())
                        .map(|n| (batch.row(n).key.to_vec(), batch.row(n).payload.to_vec())),
                );
            }
        });
        keys
    }
}

#[test]
fn key_share_waits_for_a_transaction_that_updated_and_then_deleted_the_row() {
    let bench = Bench::new(Bytewise, 512);
    let mut setup = bench.world.session();
    setup.begin();
    bench.insert(&setup, b"parent", b"one");
    setup.commit();

    let mut child = bench.world.session();
    child.begin();
    let read = bench.newest(&child, b"parent");

    let mut parent = bench.world.session();
    parent.begin();
    parent.next_command();
    bench.supersede(&parent, b"parent", EntryKind::Put, b"two");
    parent.next_command();
    bench.supersede(&parent, b"parent", EntryKind::Tombstone, b"");

    let outcome = bench.lock(&child, &read, Strength::KeyShare);
    assert!(matches!(outcome, Outcome::Busy { .. }), "{outcome:?}");
}

#[test]
fn key_share_lives_beside_a_committed_update_of_other_columns() {
    let bench = Bench::new(Bytewise, 512);
    let mut setup = bench.world.session();
    setup.begin();
    bench.insert(&setup, b"parent", b"one");
    setup.commit();
    let mut child = bench.world.session();
    child.begin();
    let read = bench.newest(&child, b"parent");
    let mut parent = bench.world.session();
    parent.begin();
    parent.next_command();
    bench.supersede(&parent, b"parent", EntryKind::Put, b"two");
    parent.commit();
    let outcome = bench.lock(&child, &read, Strength::KeyShare);
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

/// A key whose versions span many leaves, and others behind it that fill the
/// last of these leaves.
fn long_chain<C: Compare>(bench: &Bench<C>, behind: usize) {
    let mut session = bench.world.session();
    session.begin();
    bench.insert(&session, b"k", b"version 0000000000");
    for n in 0..behind {
        bench.insert(&session, format!("m{n:03}").as_bytes(), &[b'x'; 30]);
    }
    session.commit();
    let old = bench.world.snapshot();
    for n in 1..60 {
        session.begin();
        session.next_command();
        bench.supersede(
            &session,
            b"k",
            EntryKind::Put,
            format!("version {n:010}").as_bytes(),
        );
        session.commit();
    }
    drop(old);
}

#[test]
fn a_comparator_key_whose_leaves_were_merged_is_one_row() {
    let bench = Bench::new(UNORDERED, 512);
    long_chain(&bench, 0);
    for _ in 0..4 {
        bench.vacuum();
    }
    for direction in [Direction::Forward, Direction::Backward] {
        let keys = bench.keys(direction);
        assert_eq!(keys.len(), 1, "{keys:?}");
    }
}

#[test]
fn an_ordered_key_whose_leaves_were_merged_is_one_row() {
    let bench = Bench::new(Bytewise, 512);
    long_chain(&bench, 0);
    for _ in 0..4 {
        bench.vacuum();
    }
    let keys = bench.keys(Direction::Forward);
    assert_eq!(keys.len(), 1, "{keys:?}");
}

#[test]
fn a_scan_between_two_leaves_of_a_key_that_are_merged_returns_it_once() {
    for behind in 4..40 {
        let bench = Bench::new(Bytewise, 512);
        let mut session = bench.world.session();
        session.begin();
        bench.insert(&session, b"k", b"version 0000000000");
        for n in 0..behind {
            bench.insert(&session, format!("m{n:03}").as_bytes(), &[b'x'; 30]);
        }
        session.commit();
        let old = bench.world.snapshot();
        // Many versions that come to nothing, and two that stay.
        for kept in [b"version 8888888888", b"version 9999999999"] {
            session.begin();
            for n in 1..40 {
                session.next_command();
                bench.supersede(
                    &session,
                    b"k",
                    EntryKind::Put,
                    format!("version {n:010}").as_bytes(),
                );
            }
            session.abort();
            session.begin();
            session.next_command();
            bench.supersede(&session, b"k", EntryKind::Put, kept);
            session.commit();
        }
        let (mut place, mut batch, mut keys) = (Place::Start, Batch::default(), Vec::new());
        let mut vacuums = 0;
        loop {
            let more = bench.with(&bench.world, |v| {
                v.next_leaf(
                    &Range::default(),
                    Direction::Forward,
                    &mut place,
                    &old,
                    &mut batch,
                )
                .unwrap()
            });
            if !more {
                break;
            }
            keys.extend((0..batch.len()).map(|n| {
                (
                    String::from_utf8_lossy(batch.row(n).key).into_owned(),
                    String::from_utf8_lossy(batch.row(n).payload).into_owned(),
                )
            }));
            while vacuums < 4 {
                vacuums += 1;
                bench.vacuum();
            }
        }
        let of_k: Vec<_> = keys.iter().filter(|k| k.0 == "k").collect();
        assert_eq!(of_k.len(), 1, "{behind} behind: {of_k:?}");
    }
}

#[test]
fn a_lock_that_lies_on_a_later_leaf_is_raised_and_not_doubled() {
    let bench = Bench::new(Bytewise, 512);
    let mut setup = bench.world.session();
    setup.begin();
    bench.insert(&setup, b"parent", b"one");
    setup.commit();
    let mut holders: Vec<_> = (0..90).map(|_| bench.world.session()).collect();
    for holder in &mut holders {
        holder.begin();
        let id = bench.newest(holder, b"parent");
        assert!(matches!(
            bench.lock(holder, &id, Strength::KeyShare),
            Outcome::Done(_)
        ));
    }
    for holder in &holders {
        let id = bench.newest(holder, b"parent");
        bench.lock(holder, &id, Strength::Share);
        let report = check(&*bench.store, &bench.compare).unwrap();
        assert_eq!(report.problems, []);
    }
}

#[test]
fn savepoints_that_lock_one_row_leave_one_lock() {
    let bench = Bench::new(Bytewise, 8192);
    let mut setup = bench.world.session();
    setup.begin();
    bench.insert(&setup, b"parent", b"one");
    setup.commit();
    let mut child = bench.world.session();
    child.begin();
    let before = bench.store.entries().len();
    for _ in 0..2000 {
        child.begin();
        let id = bench.newest(&child, b"parent");
        bench.lock(&child, &id, Strength::KeyShare);
        child.release();
    }
    let records = bench.store.entries().len() - before;
    assert!(records < 10, "{records} records for one lock");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn histories_of_comparator_keys(steps in history::steps(50..400)) {
        let mut history = History::ordered_by(UNORDERED, 256);
        for step in &steps {
            history.step(step);
        }
        history.verify();
        history.end_all(true);
        for _ in 0..3 {
            history.vacuum();
            history.verify();
        }
    }
}

#[test]
fn a_backward_scan_from_a_key_that_spans_leaves_finds_it() {
    use engine::mvcc::scan::Edge;
    let bench = Bench::new(Bytewise, 512);
    long_chain(&bench, 3);
    let range = Range {
        from: Some(Edge {
            key: b"k".to_vec(),
            after: false,
        }),
        to: None,
    };
    let snapshot = bench.world.snapshot();
    for direction in [Direction::Forward, Direction::Backward] {
        let (mut place, mut batch, mut keys) = (Place::Start, Batch::default(), Vec::new());
        bench.with(&bench.world, |v| {
            while v
                .next_leaf(&range, direction, &mut place, &snapshot, &mut batch)
                .unwrap()
            {
                keys.extend((0..batch.len()).map(|n| batch.row(n).key.to_vec()));
            }
        });
        assert!(keys.contains(&b"k".to_vec()), "{direction:?}: {keys:?}");
    }
}
