//! Splits that crashes cut off, of roots above all, in a tree whose writers
//! come to leaves by blocks that they remember, while VACUUM merges leaves and
//! the end of the file is cleared.

mod history;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use engine::BlockNumber;
use engine::btree::check::{Report, check};
use engine::btree::{Target, Tree};
use engine::compare::Bytewise;
use engine::mem::{Entry, Lsn, MemStore, TestTransactions};
use engine::mvcc::batch::Batch;
use engine::mvcc::scan::{Direction, Place, Range};
use engine::mvcc::{Versioned, Writer};
use engine::record::RecordKind;
use engine::store::PageStore;
use engine::types::Level;
use history::choices;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const PAGE: usize = 256;

/// Where a writer looks for a leaf first.
#[derive(Clone, Debug)]
enum Near {
    Root,
    /// Where the key was just read.
    Read,
    Anywhere(u32),
}

/// A key to be written.
type Write = (u16, Near);

#[derive(Clone, Debug)]
enum Step {
    /// Puts some entries and ends others, in one transaction.
    Write(Vec<(Write, bool)>),
    Vacuum,
    /// Clears the end of the file, moving so many pages at most.
    Clear(u32),
    /// A crash behind a split, one of a root's if there is any.
    Crash(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = prop_oneof![1 => 0u16..300, 1 => 250u16..300];
    let near = prop_oneof![
        1 => Just(Near::Root),
        3 => Just(Near::Read),
        1 => any::<u32>().prop_map(Near::Anywhere),
    ];
    let writes = prop::collection::vec(((key, near), prop::bool::weighted(0.8)), 1..5);
    let step = prop_oneof![
        50 => writes.prop_map(Step::Write),
        1 => Just(Step::Vacuum),
        1 => (1u32..20).prop_map(Step::Clear),
        2 => any::<u64>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 100..500)
}

/// A store, what is in it, and what a session remembers of it.
struct World {
    store: Arc<MemStore>,
    world: TestTransactions,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    root: Option<(BlockNumber, Level)>,
    rightmost: Option<BlockNumber>,
    long_keys: bool,
}

impl World {
    fn new(long_keys: bool) -> World {
        let store = Arc::new(MemStore::recording(PAGE));
        Tree::<MemStore, Bytewise>::create(&store, b"", true).unwrap();
        store.set_recyclable_before(u64::MAX);
        World {
            world: TestTransactions::logged_in(Arc::clone(&store)),
            store,
            rows: BTreeMap::new(),
            root: None,
            rightmost: None,
            long_keys,
        }
    }

    fn key(&self, number: u16) -> Vec<u8> {
        let mut key = format!("{number:04}").into_bytes();
        key.resize(if self.long_keys { 20 } else { 4 }, b'x');
        key
    }

    fn write(&mut self, writes: &[(Write, bool)]) {
        let mut session = self.world.session();
        session.begin();
        let tree = Tree::with_root(&*self.store, &Bytewise, self.root);
        tree.append_near(self.rightmost);
        let versioned = Versioned {
            tree: &tree,
            transactions: &session,
        };
        for (nth, ((number, near), puts)) in writes.iter().enumerate() {
            let key = self.key(*number);
            match near {
                Near::Root => {}
                Near::Read => {
                    let leaf = tree.leaf(Target::Before(&key)).unwrap();
                    tree.look_near(self.store.block_of_shared(&leaf));
                }
                Near::Anywhere(any) => {
                    let blocks = self.store.block_count().unwrap();
                    tree.look_near(BlockNumber(1 + any % (blocks - 1)));
                }
            }
            let writer = Writer {
                xid: session.xid(),
                cid: engine::CommandId(nth as u32),
            };
            if *puts {
                let body = vec![nth as u8; 3 + usize::from(number % 30)];
                versioned.put_index_entry(writer, &key, &body, 0).unwrap();
                self.rows.insert(key, body);
            } else {
                let ended = versioned.end_index_entry(writer, &key, None).unwrap();
                assert_eq!(ended, self.rows.remove(&key).is_some());
            }
        }
        (self.root, self.rightmost) = (tree.known_root(), tree.known_rightmost());
        session.commit();
    }

    fn vacuum(&self) {
        let next = u64::from(self.world.next_xid().0);
        self.store.set_recycle_stamp(next);
        let tree = Tree::with_root(&*self.store, &Bytewise, self.root);
        let transactions = &self.world;
        let versioned = Versioned {
            tree: &tree,
            transactions,
        };
        versioned.vacuum(|_| {}).unwrap();
    }

    /// Whoever remembers a block goes on remembering it.
    fn clear_end(&self, moves_max: u32) -> u32 {
        self.store.set_alone(true);
        let tree = Tree::with_root(&*self.store, &Bytewise, self.root);
        let cleared = tree.clear_end(moves_max, || true).unwrap();
        assert_eq!(self.store.block_count().unwrap(), cleared.blocks);
        if cleared.end < cleared.blocks {
            self.store.truncate(cleared.end);
        }
        self.store.set_alone(false);
        cleared.moved
    }

    /// Whether there was a split to crash behind.
    fn crash(&mut self, seed: u64) -> bool {
        let entries = self.store.entries();
        let is = |at: usize, kind: RecordKind| matches!(entries.get(at), Some(Entry::Change { record, .. }) if record.kind == kind);
        let since = self.store.checkpoint_at().0 as usize;
        let behind: Vec<usize> = (since.max(1)..entries.len())
            .filter(|at| is(*at - 1, RecordKind::Split))
            .collect();
        let of_roots = behind.iter().filter(|at| is(**at, RecordKind::NewRoot));
        let of_roots: Vec<usize> = of_roots.copied().collect();
        let places = if of_roots.is_empty() {
            behind
        } else {
            of_roots
        };
        if places.is_empty() {
            return false;
        }
        let mut choose = choices(seed);
        let cut = Lsn(places[choose(places.len())] as u64);
        let crashed = self.store.crash(cut, &mut choose);
        crashed.redo().unwrap();
        crashed.set_recyclable_before(u64::MAX);
        self.store = Arc::new(crashed);
        self.world = self.world.after_crash(Arc::clone(&self.store));
        // What survives a crash is the affair of `crash.rs`.
        self.rows = self.scan(Direction::Forward);
        (self.root, self.rightmost) = (None, None);
        self.store.checkpoint();
        true
    }

    fn scan(&self, direction: Direction) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let tree = Tree::new(&*self.store, &Bytewise);
        let transactions = &self.world;
        let versioned = Versioned {
            tree: &tree,
            transactions,
        };
        let snapshot = self.world.snapshot();
        let (mut place, mut batch, mut rows) = (Place::Start, Batch::default(), BTreeMap::new());
        let range = Range::default();
        while versioned
            .next_leaf(&range, direction, &mut place, &snapshot, &mut batch)
            .unwrap()
        {
            for nth in 0..batch.len() {
                let row = batch.row(nth);
                let before = rows.insert(row.key.to_vec(), row.payload.to_vec());
                assert_eq!(before, None, "each row comes once");
            }
        }
        rows
    }

    fn check(&self) -> Report {
        let report = check(&*self.store, &Bytewise).unwrap();
        assert_eq!(report.problems, []);
        report
    }
}

#[test]
fn writers_who_come_to_leaves_from_elsewhere_leave_no_split_unfinished_for_good() {
    // The most splits unfinished at a time, crashes, pages moved.
    let met = Cell::new((0, 0, 0));
    let config = ProptestConfig {
        cases: 24,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let tested = TestRunner::new(config).run(&(steps(), any::<bool>()), |(steps, long_keys)| {
        let mut world = World::new(long_keys);
        let (mut most, mut crashes, mut moved) = met.get();
        for step in &steps {
            match step {
                Step::Write(writes) => world.write(writes),
                Step::Vacuum => world.vacuum(),
                Step::Clear(moves_max) => moved += world.clear_end(*moves_max),
                Step::Crash(seed) => crashes += u32::from(world.crash(*seed)),
            }
            most = most.max(world.check().incomplete_splits);
        }
        met.set((most, crashes, moved));
        assert_eq!(world.scan(Direction::Forward), world.rows);
        assert_eq!(world.scan(Direction::Backward), world.rows);
        world.vacuum();
        assert_eq!(world.check().incomplete_splits, 0);
        assert_eq!(world.scan(Direction::Forward), world.rows);
        Ok(())
    });
    tested.unwrap_or_else(|error| panic!("{error}"));
    let (most, crashes, moved) = met.get();
    assert!(most > 2 && crashes > 50 && moved > 50, "{:?}", met.get());
}
