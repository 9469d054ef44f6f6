//! Rule 22: of two transactions, one of which did not see what the other
//! wrote, the store learns: from the reader, who passed over a version that
//! was too new, or from the writer, who came to what had been read.

use std::cmp::Ordering;
use std::sync::Arc;

use engine::btree::Tree;
use engine::btree::check::check;
use engine::compare::{Bytewise, Compare};
use engine::mem::{MemStore, PredicateLocks, TestSession, TestSnapshot, TestTransactions, Watched};
use engine::mvcc::batch::Batch;
use engine::mvcc::scan::{Direction, Edge, Place, Range};
use engine::mvcc::write::{Insertion, Outcome, Successor};
use engine::mvcc::{Strength, VersionId, VersionIdBuf, Versioned, Writer};
use engine::page::cell::EntryKind;
use engine::{Result, Sequence, Xid};
use proptest::prelude::*;

const PAGE: usize = 256;
const SESSIONS: u8 = 4;
const KEYS: u8 = 60;

/// Keys whose equality is not that of their bytes, as far as the engine knows.
struct Loose;

impl Compare for Loose {
    fn ordered(&self) -> bool {
        false
    }
    fn compare(&self, left: &[u8], right: &[u8]) -> Ordering {
        Bytewise.compare(left, right)
    }
    fn compare_bound(&self, key: &[u8], bound: &[u8], after: bool) -> Ordering {
        Bytewise.compare_bound(key, bound, after)
    }
    fn separator(&self, left: &[u8], right: &[u8], out: &mut Vec<u8>) {
        Bytewise.separator(left, right, out);
    }
}

/// A transaction under way.
struct Running {
    session: TestSession,
    snapshot: TestSnapshot,
    xid: Xid,
}

/// What a transaction read: a key, with what it saw there, or a range of keys.
enum Read {
    Key(u8, Option<Sequence>),
    Range(u8, u8),
}

struct Reading {
    reader: Xid,
    /// The writers that its snapshot would see.
    sees: Vec<Xid>,
    read: Read,
    at: usize,
}

struct Writing {
    writer: Xid,
    /// The writers that its snapshot would see.
    sees: Vec<Xid>,
    /// Whether the row ends.
    ends: bool,
    key: u8,
    over: Option<Sequence>,
    at: usize,
}

/// A store, what happened on it, and the model of what has to be known of it.
struct World<C> {
    store: Arc<MemStore>,
    compare: C,
    locks: PredicateLocks,
    transactions: TestTransactions,
    running: Vec<Option<Running>>,
    readings: Vec<Reading>,
    writings: Vec<Writing>,
    /// All who have begun.
    begun: Vec<Xid>,
    aborted: Vec<Xid>,
    clock: usize,
}

fn bytes(key: u8) -> [u8; 3] {
    [b'k', key / 8, key]
}

impl<C: Compare> World<C> {
    fn new(compare: C) -> World<C> {
        let store = Arc::new(MemStore::new(PAGE));
        Tree::<MemStore, C>::create(&store, b"", compare.ordered()).unwrap();
        World {
            store,
            compare,
            locks: PredicateLocks::default(),
            transactions: TestTransactions::new(),
            running: (0..SESSIONS).map(|_| None).collect(),
            readings: Vec::new(),
            writings: Vec::new(),
            begun: Vec::new(),
            aborted: Vec::new(),
            clock: 0,
        }
    }

    fn with<R>(
        &self,
        session: &TestSession,
        who: Xid,
        act: impl FnOnce(&Versioned<'_, Watched, C, TestSession>) -> Result<R>,
    ) -> R {
        let store = Watched::new(Arc::clone(&self.store), self.locks.clone(), who);
        let tree = Tree::new(&store, &self.compare);
        act(&Versioned {
            tree: &tree,
            transactions: session,
        })
        .unwrap()
    }

    /// The session's transaction, begun if there is none.
    fn transaction(&mut self, session: u8) -> Running {
        self.clock += 1;
        let slot = self.running[usize::from(session)].take();
        slot.unwrap_or_else(|| {
            let mut session = self.transactions.session();
            let xid = session.begin();
            let snapshot = session.snapshot().tracked();
            self.begun.push(xid);
            Running {
                session,
                snapshot,
                xid,
            }
        })
    }

    fn give_back(&mut self, session: u8, mut running: Running) {
        running.session.next_command();
        let snapshot = running.session.snapshot();
        // The transaction keeps its snapshot, and sees its own commands.
        running.snapshot.advance(&snapshot);
        self.running[usize::from(session)] = Some(running);
    }

    fn seen_by(&self, running: &Running) -> Vec<Xid> {
        let sees = |xid: &&Xid| running.snapshot.sees(**xid);
        self.begun.iter().filter(sees).copied().collect()
    }

    fn read(&mut self, running: &Running, read: Read) {
        self.readings.push(Reading {
            reader: running.xid,
            sees: self.seen_by(running),
            read,
            at: self.clock,
        });
    }

    fn look_up(&mut self, running: &Running, key: u8) -> Option<VersionIdBuf> {
        let mut batch = Batch::default();
        let found = self.with(&running.session, running.xid, |v| {
            v.get(&bytes(key), &running.snapshot, &mut batch)
        });
        let id = found.then(|| {
            let row = batch.row(0);
            VersionId {
                key: &bytes(key),
                sequence: row.head.sequence,
                xmin: row.head.xmin,
            }
            .to_buf()
        });
        self.read(running, Read::Key(key, id.as_ref().map(|id| id.sequence)));
        id
    }

    fn scan(&mut self, running: &Running, from: u8, to: u8, direction: Direction) {
        let edge = |key| {
            Some(Edge {
                key: bytes(key).to_vec(),
                after: false,
            })
        };
        let range = Range {
            from: edge(from),
            to: edge(to),
        };
        let (mut place, mut batch) = (Place::Start, Batch::default());
        self.with(&running.session, running.xid, |v| {
            while v.next_leaf(&range, direction, &mut place, &running.snapshot, &mut batch)? {}
            Ok(())
        });
        self.read(running, Read::Range(from, to));
    }

    /// Inserts, updates or deletes, if nobody else is at the key.
    fn write(&mut self, running: &Running, key: u8, delete: bool, length: u8) {
        let writer = Writer {
            xid: running.xid,
            cid: running.session.cid(),
        };
        let body = vec![length; 8 + usize::from(length % 16)];
        let over = match self.look_up(running, key) {
            None if delete => return,
            None => {
                let done = self.with(&running.session, running.xid, |v| {
                    v.insert(writer, &bytes(key), &body, 0)
                });
                let Insertion::Done(_) = done else { return };
                None
            }
            Some(id) => {
                let successor = Successor {
                    kind: if delete {
                        EntryKind::Tombstone
                    } else {
                        EntryKind::Put
                    },
                    keys_updated: delete,
                    body: if delete { &[] } else { &body },
                };
                let done = self.with(&running.session, running.xid, |v| {
                    v.supersede(writer, id.as_ref(), successor, |_| true)
                });
                let Outcome::Done(_) = done else { return };
                Some(id.sequence)
            }
        };
        self.written(running, key, over, delete);
    }

    fn written(&mut self, running: &Running, key: u8, over: Option<Sequence>, ends: bool) {
        self.writings.push(Writing {
            writer: running.xid,
            sees: self.seen_by(running),
            ends,
            key,
            over,
            at: self.clock,
        });
    }

    /// Inserts a row without a look at what is there.
    fn insert(&mut self, running: &Running, key: u8) {
        let writer = Writer {
            xid: running.xid,
            cid: running.session.cid(),
        };
        let done = self.with(&running.session, running.xid, |v| {
            v.insert(writer, &bytes(key), &[6; 10], 0)
        });
        if let Insertion::Done(_) = done {
            self.written(running, key, None, false);
        }
    }

    fn fill(&mut self, running: &Running, first: u8, count: u8) {
        let writer = Writer {
            xid: running.xid,
            cid: running.session.cid(),
        };
        let keys: Vec<u8> = (first..KEYS).take(usize::from(count)).collect();
        let names: Vec<_> = keys.iter().map(|key| bytes(*key)).collect();
        let rows: Vec<(&[u8], &[u8])> = names.iter().map(|n| (&n[..], &[7; 12][..])).collect();
        let done = self.with(&running.session, running.xid, |v| {
            v.insert_run(writer, 0, &rows, &mut Vec::new())
        });
        for key in &keys[..done] {
            self.written(running, *key, None, false);
        }
    }

    /// Deletes rows as a sweep does: as far as nobody is at them.
    fn sweep(&mut self, running: &Running, first: u8, count: u8) {
        let writer = Writer {
            xid: running.xid,
            cid: running.session.cid(),
        };
        let keys: Vec<u8> = (first..KEYS).take(usize::from(count)).collect();
        let found: Vec<_> = keys
            .iter()
            .filter_map(|key| Some((*key, self.look_up(running, *key)?)))
            .collect();
        let rows: Vec<_> = found.iter().map(|(_, id)| id.as_ref()).collect();
        let done = self.with(&running.session, running.xid, |v| {
            v.end_run(writer, rows.iter().copied().enumerate())
        });
        for (key, id) in &found[..done] {
            self.written(running, *key, Some(id.sequence), true);
        }
    }

    fn lock(&mut self, running: &Running, key: u8, strength: u8) {
        let Some(id) = self.look_up(running, key) else {
            return;
        };
        let writer = Writer {
            xid: running.xid,
            cid: running.session.cid(),
        };
        let strength = Strength::from_number(strength % 4).unwrap();
        self.with(&running.session, running.xid, |v| {
            v.lock(writer, id.as_ref(), strength)
        });
    }

    fn vacuum(&self) -> u64 {
        self.store
            .set_recycle_stamp(u64::from(self.transactions.next_xid().0));
        self.store
            .set_recyclable_before(u64::from(self.transactions.horizon().0));
        let outsider = self.transactions.session();
        self.with(&outsider, Xid::NONE, |v| v.vacuum(|_| {})).merged
    }

    fn end(&mut self, session: u8, well: bool) {
        if let Some(mut running) = self.running[usize::from(session)].take() {
            if well {
                running.session.commit();
            } else {
                running.session.abort();
                self.aborted.push(running.xid);
            }
        }
    }

    /// Holds what the store was told to what happened.
    fn judge(&self) {
        assert_eq!(check(&*self.store, &self.compare).unwrap().problems, []);
        for reading in &self.readings {
            for writing in &self.writings {
                let (reader, writer) = (reading.reader, writing.writer);
                if reader == writer
                    || self.aborted.contains(&writer)
                    || reading.sees.contains(&writer)
                {
                    continue;
                }
                // It saw its own, and nothing below.
                let own = |other: &&Writing| {
                    other.writer == reader && other.key == writing.key && other.at < reading.at
                };
                if self.writings.iter().any(|other| own(&other)) {
                    continue;
                }
                // The first version that was not seen is what counts, and the
                // reader tells of the others as well if they are there.
                let depends = match reading.read {
                    Read::Key(key, seen) => {
                        key == writing.key && (writing.at < reading.at || seen == writing.over)
                    }
                    Read::Range(from, to) => (from..to).contains(&writing.key),
                };
                assert!(
                    !depends || self.locks.conflict(reader, writer),
                    "{reader:?} did not see what {writer:?} wrote under {}, and nobody knows",
                    writing.key
                );
            }
        }
        // Who puts a row where another one has ended comes after that one.
        for end in self.writings.iter().filter(|writing| writing.ends) {
            for birth in &self.writings {
                let (first, second) = (end.writer, birth.writer);
                let is_birth = birth.key == end.key && birth.over.is_none() && birth.at > end.at;
                let known = !is_birth
                    || first == second
                    || birth.sees.contains(&first)
                    || self.aborted.contains(&first)
                    || self.locks.conflict(first, second);
                assert!(
                    known,
                    "{second:?} came after {first:?} under {}, and nobody knows",
                    end.key
                );
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    LookUp(u8, u8),
    Scan(u8, u8, u8, bool),
    Write(u8, u8, bool, u8),
    Insert(u8, u8),
    Fill(u8, u8, u8),
    Sweep(u8, u8, u8),
    Lock(u8, u8, u8),
    End(u8, bool),
    Vacuum,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let session = 0..SESSIONS;
    let key = prop_oneof![3 => 0..KEYS, 1 => 0u8..3];
    let step = prop_oneof![
        4 => (session.clone(), key.clone()).prop_map(|(s, k)| Step::LookUp(s, k)),
        4 => (session.clone(), 0..KEYS, 0..KEYS, any::<bool>())
            .prop_map(|(s, a, b, forward)| Step::Scan(s, a.min(b), a.max(b), forward)),
        12 => (session.clone(), key.clone(), prop::bool::weighted(0.3), any::<u8>())
            .prop_map(|(s, k, delete, length)| Step::Write(s, k, delete, length)),
        4 => (session.clone(), key.clone()).prop_map(|(s, k)| Step::Insert(s, k)),
        2 => (session.clone(), 0..KEYS, 1u8..12).prop_map(|(s, k, n)| Step::Fill(s, k, n)),
        2 => (session.clone(), 0..KEYS, 1u8..12).prop_map(|(s, k, n)| Step::Sweep(s, k, n)),
        1 => (session.clone(), key, 0u8..4).prop_map(|(s, k, n)| Step::Lock(s, k, n)),
        5 => (session, prop::bool::weighted(0.8)).prop_map(|(s, well)| Step::End(s, well)),
        1 => Just(Step::Vacuum),
    ];
    prop::collection::vec(step, 20..160)
}

fn live<C: Compare>(compare: C, steps: Vec<Step>) -> World<C> {
    let mut world = World::new(compare);
    for step in steps {
        let session = match step {
            Step::End(session, well) => {
                world.end(session, well);
                continue;
            }
            Step::Vacuum => {
                world.vacuum();
                continue;
            }
            Step::LookUp(session, ..)
            | Step::Scan(session, ..)
            | Step::Write(session, ..)
            | Step::Insert(session, ..)
            | Step::Fill(session, ..)
            | Step::Sweep(session, ..)
            | Step::Lock(session, ..) => session,
        };
        let running = world.transaction(session);
        match step {
            Step::LookUp(_, key) => {
                world.look_up(&running, key);
            }
            Step::Scan(_, from, to, forward) => {
                let direction = if forward {
                    Direction::Forward
                } else {
                    Direction::Backward
                };
                world.scan(&running, from, to, direction);
            }
            Step::Write(_, key, delete, length) => world.write(&running, key, delete, length),
            Step::Insert(_, key) => world.insert(&running, key),
            Step::Fill(_, first, count) => world.fill(&running, first, count),
            Step::Sweep(_, first, count) => world.sweep(&running, first, count),
            Step::Lock(_, key, strength) => world.lock(&running, key, strength),
            Step::End(..) | Step::Vacuum => unreachable!("done above"),
        }
        world.give_back(session, running);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn whoever_did_not_see_a_write_is_known_to_depend_on_it(steps in steps()) {
        live(Bytewise, steps.clone()).judge();
        live(Loose, steps).judge();
    }
}

/// A world with rows under the even keys, on several leaves.
fn populated() -> World<Bytewise> {
    let mut world = World::new(Bytewise);
    let running = world.transaction(0);
    for key in (0..KEYS).step_by(2) {
        world.write(&running, key, false, 0);
    }
    world.give_back(0, running);
    world.end(0, true);
    world.locks = PredicateLocks::default();
    world.readings.clear();
    world.writings.clear();
    world
}

#[test]
fn every_leaf_of_a_range_is_told_in_either_direction() {
    let leaves = check(&*populated().store, &Bytewise).unwrap().leaf_pages;
    assert!(leaves > 3);
    for direction in [Direction::Forward, Direction::Backward] {
        let mut world = populated();
        let running = world.transaction(0);
        world.scan(&running, 0, 255, direction);
        assert_eq!(world.locks.leaves() as u64, leaves);
    }
}

#[test]
fn what_was_read_is_found_on_both_halves_of_a_split() {
    let mut world = populated();
    let reader = world.transaction(0);
    world.scan(&reader, 0, KEYS, Direction::Forward);
    let before = check(&*world.store, &Bytewise).unwrap().leaf_pages;
    // One transaction splits the leaves; each of the others comes to one half.
    let splitter = world.transaction(1);
    for key in (1..KEYS).step_by(4) {
        world.write(&splitter, key, false, 15);
    }
    world.give_back(1, splitter);
    for key in (3..KEYS).step_by(4) {
        let writer = world.transaction(2);
        world.write(&writer, key, false, 0);
        world.give_back(2, writer);
        world.end(2, true);
    }
    assert!(check(&*world.store, &Bytewise).unwrap().leaf_pages > before);
    world.judge();
}

#[test]
fn what_was_read_is_found_where_leaves_were_merged() {
    let mut world = populated();
    let cleaner = world.transaction(0);
    for key in (2..KEYS).step_by(2).filter(|key| key % 8 != 0) {
        world.write(&cleaner, key, true, 0);
    }
    world.give_back(0, cleaner);
    world.end(0, true);
    let reader = world.transaction(1);
    world.scan(&reader, 10, 14, Direction::Forward);
    assert!(world.vacuum() > 0);
    let writer = world.transaction(2);
    world.write(&writer, 11, false, 0);
    world.give_back(2, writer);
    world.judge();
    assert_eq!(world.writings.len(), 15 + 7 + 1);
}

#[test]
fn two_rows_on_one_leaf_have_nothing_to_do_with_each_other() {
    let mut world = populated();
    for (session, read, written) in [(0, 20, 22), (1, 21, 24), (2, 26, 23)] {
        let running = world.transaction(session);
        world.look_up(&running, read);
        world.write(&running, written, false, 1);
        world.give_back(session, running);
    }
    let xids: Vec<Xid> = world.running.iter().flatten().map(|r| r.xid).collect();
    for (reader, writer) in xids.iter().flat_map(|a| xids.iter().map(move |b| (*a, *b))) {
        assert!(!world.locks.conflict(reader, writer));
    }
}
