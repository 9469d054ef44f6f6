//! Schedules that once went wrong, each a story of its own.

mod history;

use engine::btree::check::check;
use engine::btree::{Bulk, Target, Tree};
use engine::compare::{Bytewise, Compare};
use engine::mem::{MemStore, TestSession, TestTransactions};
use engine::mvcc::batch::Batch;
use engine::mvcc::histories::Kept;
use engine::mvcc::scan::{Direction, Place, Range};
use engine::mvcc::write::{Insertion, Outcome, Successor};
use engine::mvcc::{Strength, Transactions, VersionId, VersionIdBuf, Versioned, Writer};
use engine::page::Page;
use engine::page::cell::{EntryKind, Head};
use engine::store::PageStore;
use engine::{CommandId, Sequence, Xid};
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

/// One key in two spellings that compare as equal, and one behind it.
const KEY: &[u8] = b"k";
const SAME: &[u8] = b"k\xFF\xFF";
const BEHIND: &[u8] = b"z";

impl Bench<Order> {
    /// Puts an entry's versions, all by one transaction.
    fn put(&self, key: &[u8], versions: u8, well: bool) {
        let mut session = self.world.session();
        session.begin();
        for n in 0..versions {
            session.next_command();
            self.with(&session, |v| {
                v.put_index_entry(writer(&session), key, &[n; 20], 0)
                    .unwrap()
            });
        }
        if well {
            session.commit();
        } else {
            session.abort();
        }
    }

    /// Puts versions of a key on more than one leaf, of which the first keeps
    /// none; what comes next goes there and brings its own bytes along.
    fn spread(&self, key: &[u8]) {
        self.put(key, 14, false);
        self.prune(Target::Before(key));
        let guard = self.with(&self.world, |v| v.tree.leaf(Target::Before(key)).unwrap());
        let page = Page::open(&guard, self.store.block_of_shared(&guard)).unwrap();
        assert_eq!(page.slot_count(), 0);
        assert!(page.high().is_some_and(|high| high.within_key().is_some()));
    }

    fn prune(&self, at: Target<'_>) {
        self.with(&self.world, |v| {
            let mut leaf = v.tree.leaf_exclusive(at).unwrap();
            v.prune_leaf(&mut leaf).unwrap();
        });
    }

    fn check(&self) {
        let report = check(&*self.store, &self.compare).unwrap();
        assert_eq!(report.problems, []);
    }
}

#[test]
fn an_entry_in_other_bytes_is_one_with_what_its_leaf_is_merged_into() {
    let bench = Bench::new(UNORDERED, 512);
    bench.put(KEY, 1, true);
    bench.spread(KEY);
    bench.put(SAME, 1, true);
    assert_eq!(bench.keys(Direction::Forward).len(), 1);
    bench.vacuum();
    bench.check();
    assert_eq!(bench.keys(Direction::Forward).len(), 1);
    let mut session = bench.world.session();
    session.begin();
    let ended = bench.with(&session, |v| {
        v.end_index_entry(writer(&session), SAME, None).unwrap()
    });
    assert!(ended);
    session.commit();
    for _ in 0..2 {
        assert_eq!(bench.keys(Direction::Forward), [], "it has ended for good");
        bench.vacuum();
    }
}

#[test]
fn a_row_is_found_behind_an_ended_lock_in_other_bytes() {
    let bench = Bench::new(UNORDERED, 512);
    bench.put(KEY, 1, true);
    bench.spread(KEY);
    let mut session = bench.world.session();
    session.begin();
    let mut id = bench.newest(&session, KEY);
    id.key = SAME.to_vec();
    let locked = bench.lock(&session, &id, Strength::Exclusive);
    assert!(matches!(locked, Outcome::Done(_)), "{locked:?}");
    session.abort();
    session.begin();
    session.next_command();
    bench.supersede(&session, KEY, EntryKind::Put, b"updated");
    session.commit();
    bench.check();
    let (snapshot, mut batch) = (bench.world.snapshot(), Batch::default());
    session.begin();
    bench.with(&session, |v| {
        assert!(v.get(KEY, &snapshot, &mut batch).unwrap());
        assert_eq!(batch.row(0).payload, b"updated");
        let again = v.insert(writer(&session), KEY, b"again", 0).unwrap();
        assert!(matches!(again, Insertion::Exists(_)), "{again:?}");
        assert!(v.all_under(KEY).unwrap().len() > 1);
    });
}

#[test]
fn a_backward_scan_finds_a_key_whose_fences_are_in_other_bytes() {
    let bench = Bench::new(UNORDERED, 512);
    bench.put(BEHIND, 1, true);
    bench.put(SAME, 1, true);
    bench.spread(SAME);
    // The first leaf's upper fence has the other bytes; it is split by a fence
    // that has these.
    bench.spread(KEY);
    let snapshot = bench.world.snapshot();
    let (mut place, mut batch, mut keys) = (Place::Start, Batch::default(), Vec::new());
    bench.with(&bench.world, |v| {
        let range = Range::default();
        while v
            .next_leaf(
                &range,
                Direction::Backward,
                &mut place,
                &snapshot,
                &mut batch,
            )
            .unwrap()
        {
            keys.extend((0..batch.len()).map(|n| batch.row(n).key.to_vec()));
            // As soon as it stands at the fence between the first two leaves
            // they become one.
            if let Place::At(position, _) = &place
                && position.key == KEY
            {
                bench.prune(Target::of(position.as_ref()));
                assert!(v.tree.merge_right(Target::First).unwrap());
            }
        }
    });
    assert_eq!(keys, [BEHIND, SAME]);
}

#[test]
fn a_history_in_several_bytes_is_visited_once_and_written_as_one() {
    let bench = Bench::new(UNORDERED, 512);
    bench.put(KEY, 1, true);
    bench.spread(KEY);
    let _older = bench.world.snapshot();
    bench.put(SAME, 1, true);
    let (mut seen, mut heads) = (Vec::new(), Kept::default());
    let anew = MemStore::recording(512);
    let mut bulk = Bulk::new(&anew, &bench.compare, b"").unwrap();
    bench.with(&bench.world, |v| {
        let visit = |history: &engine::mvcc::histories::History| {
            history.kept(&bench.world, &mut heads);
            seen.push((history.key.clone(), heads.iter().flatten().count()));
            Ok(())
        };
        v.each_history(|| (), visit).unwrap();
        let rebuilt = v.rebuild(&mut bulk, |_, _| None, || ()).unwrap();
        assert_eq!((rebuilt.live, rebuilt.dead), (1, 1));
    });
    assert_eq!(seen, [(SAME.to_vec(), 2)]);
    bulk.finish().unwrap();
    assert_eq!(check(&anew, &bench.compare).unwrap().problems, []);
}

#[test]
fn a_build_makes_one_key_of_entries_in_other_bytes() {
    let store = MemStore::recording(512);
    let mut bulk = Bulk::new(&store, &UNORDERED, b"").unwrap();
    let mut first = Vec::new();
    for (number, key) in [(3, SAME), (2, KEY), (1, KEY), (4, BEHIND)] {
        let head = Head {
            flags: EntryKind::Put as u8,
            xmin: Xid(100),
            cid: CommandId(0),
            sequence: Sequence(number),
        };
        first.push(bulk.add(head, key, b"").unwrap());
    }
    assert_eq!(first, [true, false, false, true]);
    bulk.finish().unwrap();
    assert_eq!(check(&store, &UNORDERED).unwrap().problems, []);
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
        history.verify_rewritten();
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
