//! Histories of interleaved transactions on a versioned store, and the model
//! that says what each of them leaves behind.
#![allow(
    dead_code,
    reason = "each test file that includes this uses a part of it"
)]

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use engine::btree::check::{Report, check};
use engine::btree::{Bulk, Cleared, Meta, Tree};
use engine::compare::{Bytewise, Compare};
use engine::mem::{Lsn, MemStore, TestSession, TestSnapshot, TestTransactions};
use engine::mvcc::batch::Batch;
use engine::mvcc::scan::{Direction, Place, Range};
use engine::mvcc::write::{Insertion, Outcome, Successor};
use engine::mvcc::{Snapshot, Strength, Transactions, VersionId, VersionIdBuf, Versioned, Writer};
use engine::page::cell::EntryKind;
use engine::store::PageStore;
use engine::{BlockNumber, Result, Xid};
use proptest::prelude::*;

/// Keys and their payloads, as a snapshot sees them.
pub type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// One step of a history; the session is chosen by number.
#[derive(Clone, Debug)]
pub enum Step {
    Insert(u8, u8, u8),
    Update(u8, u8, u8),
    Delete(u8, u8),
    /// Inserts or deletes a range of keys.
    Fill(u8, u8, u8),
    Clear(u8, u8, u8),
    /// Deletes a range of keys as a sweep does, those of a leaf together.
    Sweep(u8, u8, u8),
    /// Key change: a Moved at the old key, a Put at the new one.
    Move(u8, u8, u8),
    Lock(u8, u8, u8),
    Begin(u8),
    /// Ends the innermost (sub)transaction, well or not.
    End(u8, bool),
    Vacuum,
    /// VACUUM once nobody uses the table, with the end of the file cut off.
    Shrink,
    Checkpoint,
}

thread_local! {
    /// Whether this thread's histories have keys that are short and all as long.
    pub static SHORT_KEYS: Cell<bool> = const { Cell::new(false) };
}

/// Bytes of each of those.
pub const SHORT_WIDTH: usize = 6;

/// How many sessions and keys a history has.
pub const SESSIONS: u8 = 4;
pub const KEYS: u8 = 100;

pub fn steps(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let session = 0..SESSIONS;
    let key = 0..KEYS;
    // Some keys are hot, so that chains grow and span leaves.
    let hot = prop_oneof![2 => 0..KEYS, 1 => 0u8..3];
    let step = prop_oneof![
        8 => (session.clone(), key.clone(), any::<u8>()).prop_map(|(s, k, p)| Step::Insert(s, k, p)),
        8 => (session.clone(), hot, any::<u8>()).prop_map(|(s, k, p)| Step::Update(s, k, p)),
        4 => (session.clone(), key.clone()).prop_map(|(s, k)| Step::Delete(s, k)),
        2 => (session.clone(), key.clone(), key.clone()).prop_map(|(s, k, to)| Step::Move(s, k, to)),
        1 => (session.clone(), key, 0u8..4).prop_map(|(s, k, strength)| Step::Lock(s, k, strength)),
        1 => session.clone().prop_map(Step::Begin),
        6 => (session.clone(), prop::bool::weighted(0.8)).prop_map(|(s, well)| Step::End(s, well)),
        2 => (session.clone(), 0..KEYS, 1u8..12).prop_map(|(s, k, count)| Step::Fill(s, k, count)),
        1 => (session.clone(), 0..KEYS, 1u8..20).prop_map(|(s, k, n)| Step::Clear(s, k, n)),
        1 => (session, 0..KEYS, 1u8..20).prop_map(|(s, k, n)| Step::Sweep(s, k, n)),
        1 => prop::bool::weighted(0.2).prop_map(|yes| if yes { Step::Checkpoint } else { Step::Vacuum }),
        1 => prop::bool::weighted(0.3).prop_map(|yes| if yes { Step::Shrink } else { Step::Vacuum }),
    ];
    prop::collection::vec(step, count)
}

/// Two groups of keys are long and alike for long, so that their fences are too,
/// and those of the shorter keys beside them.
pub fn key(number: u8) -> Vec<u8> {
    if SHORT_KEYS.get() {
        // Many whose first four bytes are the same, and some that share fewer.
        return vec![0, number / 32, 0, 0, number / 8, number];
    }
    let group = number / 16;
    let alike = if matches!(group, 3 | 4) { 24 } else { 0 };
    let mut key = vec![b'k', b'a' + group];
    key.resize(2 + alike, b'~');
    key.extend([number % 16, number]);
    key
}

/// A payload whose length varies, so that versions resemble one another in
/// part and pages fill unevenly.
pub fn payload(number: u8) -> Vec<u8> {
    let mut payload = vec![b'p'; 12 + usize::from(number % 16)];
    payload[3] = number;
    payload
}

/// What one write did: after it the key has this payload, or none.
#[derive(Clone, Debug)]
struct Effect {
    xid: Xid,
    key: Vec<u8>,
    payload: Option<Vec<u8>>,
}

/// A store under a history, and the model of it.
pub struct History {
    pub store: Arc<MemStore>,
    pub world: TestTransactions,
    pub compare: Order,
    /// What the next key's spelling is drawn from.
    spelling: Cell<u64>,
    sessions: Vec<TestSession>,
    effects: Vec<Effect>,
}

/// The order of a tree's keys: as bytes, or by a function that the pages know
/// nothing of, as numeric or collated text compare. The function says the same
/// as the bytes would, but that `TAIL` at a key's end makes no difference, as
/// zeros at the end of a numeric do not. The model knows keys without.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub as_bytes: bool,
}

impl Order {
    /// The order that a tree was made with.
    pub fn of<S: PageStore>(store: &S) -> Result<Order> {
        let page = store.read(BlockNumber::META)?;
        let as_bytes = Meta::decode(&page)?.ordered;
        Ok(Order { as_bytes })
    }

    /// What the model knows a key as that stands in the tree.
    pub fn name(self, key: &[u8]) -> Vec<u8> {
        self.folded(key).to_vec()
    }

    fn folded(self, key: &[u8]) -> &[u8] {
        if self.as_bytes { key } else { folded(key) }
    }
}

impl Compare for Order {
    fn ordered(&self) -> bool {
        self.as_bytes
    }

    fn compare(&self, left: &[u8], right: &[u8]) -> Ordering {
        self.folded(left).cmp(self.folded(right))
    }

    fn compare_bound(&self, key: &[u8], bound: &[u8], after: bool) -> Ordering {
        Bytewise.compare_bound(self.folded(key), self.folded(bound), after)
    }

    fn separator(&self, left: &[u8], right: &[u8], out: &mut Vec<u8>) {
        if self.as_bytes {
            return Bytewise.separator(left, right, out);
        }
        out.clear();
        out.extend_from_slice(right);
    }
}

/// What the end of a key may be spelled with that does not compare as bytes.
pub const TAIL: u8 = 0xFF;

/// A key as the model knows it.
fn folded(mut key: &[u8]) -> &[u8] {
    while let Some((&TAIL, start)) = key.split_last() {
        key = start;
    }
    key
}

/// Collects all rows that a snapshot sees.
pub fn scan<S: PageStore, T: Transactions>(
    store: &S,
    transactions: &T,
    snapshot: &impl Snapshot,
    direction: Direction,
) -> Result<State> {
    let order = Order::of(store)?;
    let tree = Tree::new(store, &order);
    let versioned = Versioned {
        tree: &tree,
        transactions,
    };
    let (mut state, mut place, mut batch) = (State::new(), Place::Start, Batch::default());
    let mut last: Option<Vec<u8>> = None;
    while versioned.next_leaf(
        &Range::default(),
        direction,
        &mut place,
        snapshot,
        &mut batch,
    )? {
        let count = batch.len();
        for nth in 0..count {
            let nth = if direction == Direction::Forward {
                nth
            } else {
                count - 1 - nth
            };
            let row = batch.row(nth);
            let key = order.folded(row.key);
            if let Some(last) = &last {
                let along = match direction {
                    Direction::Forward => key > &last[..],
                    Direction::Backward => key < &last[..],
                };
                assert!(along, "rows come in key order, each once");
            }
            if !order.as_bytes {
                let found = get(store, transactions, snapshot, row.key)?;
                let name = found.map(|(_, id)| id.key);
                assert_eq!(name.as_deref(), Some(row.key), "a row has one name");
            }
            last = Some(key.to_vec());
            state.insert(key.to_vec(), row.payload.to_vec());
        }
    }
    Ok(state)
}

/// Looks up one key.
pub fn get<S: PageStore, T: Transactions>(
    store: &S,
    transactions: &T,
    snapshot: &impl Snapshot,
    key: &[u8],
) -> Result<Option<(Vec<u8>, VersionIdBuf)>> {
    let order = Order::of(store)?;
    let tree = Tree::new(store, &order);
    let versioned = Versioned {
        tree: &tree,
        transactions,
    };
    let mut batch = Batch::default();
    if !versioned.get(key, snapshot, &mut batch)? {
        return Ok(None);
    }
    let row = batch.row(0);
    let id = VersionId {
        key: row.key,
        sequence: row.head.sequence,
        xmin: row.head.xmin,
    };
    Ok(Some((row.payload.to_vec(), id.to_buf())))
}

impl History {
    /// An empty tree in a recording store.
    pub fn new(page_size: usize) -> History {
        History::ordered_by(Order { as_bytes: true }, page_size)
    }

    /// The same, of keys that compare so.
    pub fn ordered_by(order: Order, page_size: usize) -> History {
        let store = Arc::new(MemStore::recording(page_size));
        Tree::<MemStore, Order>::create(&store, b"", order.as_bytes).unwrap();
        let world = TestTransactions::logged_in(Arc::clone(&store));
        History::over(order, store, world, Vec::new())
    }

    fn over(
        compare: Order,
        store: Arc<MemStore>,
        world: TestTransactions,
        effects: Vec<Effect>,
    ) -> History {
        History {
            sessions: (0..SESSIONS).map(|_| world.session()).collect(),
            store,
            world,
            compare,
            spelling: Cell::new(1),
            effects,
        }
    }

    /// The same after a crash and recovery: nobody is connected any more.
    pub fn recovered(&self, store: MemStore) -> History {
        let store = Arc::new(store);
        let world = self.world.after_crash(Arc::clone(&store));
        History::over(self.compare, store, world, self.effects.clone())
    }

    /// What those see who see just these transactions' effects.
    pub fn state_of(&self, seen: impl Fn(Xid) -> bool) -> State {
        let mut state = State::new();
        for effect in self.effects.iter().filter(|effect| seen(effect.xid)) {
            match &effect.payload {
                Some(payload) => state.insert(effect.key.clone(), payload.clone()),
                None => state.remove(&effect.key),
            };
        }
        state
    }

    /// What was committed at a place of the log.
    pub fn state_at(&self, lsn: Lsn) -> State {
        self.state_of(|xid| {
            self.store
                .end_of(xid)
                .is_some_and(|(at, committed)| committed && at <= lsn)
        })
    }

    /// Runs one step. A step that makes no sense now, or that would have to
    /// wait, does nothing.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Insert(session, number, number_of_payload) => {
                let body = payload(*number_of_payload);
                let spelled = self.spelled(*number);
                self.write(*session, |versioned, writer, _| {
                    let insertion = versioned.insert(writer, &spelled, &body, 0).unwrap();
                    match insertion {
                        Insertion::Done(_) => vec![(key(*number), Some(body.clone()))],
                        Insertion::Exists(_) | Insertion::Busy { .. } => vec![],
                    }
                });
            }
            Step::Update(session, number, number_of_payload) => {
                let body = payload(*number_of_payload);
                self.supersede(*session, *number, EntryKind::Put, &body);
            }
            Step::Delete(session, number) => {
                self.supersede(*session, *number, EntryKind::Tombstone, &[]);
            }
            Step::Fill(session, from, count) => {
                for number in *from..(*from + *count).min(KEYS) {
                    self.step(&Step::Insert(*session, number, number));
                }
            }
            Step::Clear(session, from, count) => {
                for number in *from..(*from + *count).min(KEYS) {
                    self.step(&Step::Delete(*session, number));
                }
            }
            Step::Sweep(session, from, count) => self.sweep(*session, *from, *count),
            Step::Move(session, number, to) if number != to => {
                self.move_row(*session, *number, *to);
            }
            Step::Move(..) => {}
            Step::Lock(session, number, strength) => {
                let strength = Strength::from_number(*strength).unwrap();
                let spelled = self.spelled(*number);
                self.write(*session, |versioned, writer, snapshot| {
                    if let Some(id) = named(versioned, snapshot, &spelled) {
                        versioned.lock(writer, id.as_ref(), strength).unwrap();
                    }
                    vec![]
                });
            }
            Step::Begin(session) => {
                self.sessions[usize::from(*session)].begin();
            }
            Step::End(session, well) => self.end(usize::from(*session), *well),
            Step::Vacuum => self.vacuum(),
            Step::Shrink => {
                self.end_all(true);
                self.vacuum();
                self.shrink(u32::MAX);
            }
            Step::Checkpoint => self.store.checkpoint(),
        }
    }

    /// A key, perhaps in other bytes that compare as equal.
    fn spelled(&self, number: u8) -> Vec<u8> {
        let mut key = key(number);
        if !self.compare.as_bytes && !SHORT_KEYS.get() {
            let drawn = choices(self.spelling.get())(3);
            self.spelling.set(self.spelling.get() + 1);
            key.resize(key.len() + drawn, TAIL);
        }
        key
    }

    fn end(&mut self, number: usize, well: bool) {
        let session = &mut self.sessions[number];
        match (session.depth(), well) {
            (0, _) => {}
            // As with `synchronous_commit = off`: what others see of it may
            // still be lost.
            (1, true) if number % 2 == 1 => {
                session.commit_unflushed();
            }
            (1, true) => {
                session.commit();
            }
            (1, false) => {
                session.abort();
            }
            (_, true) => session.release(),
            (_, false) => session.roll_back_to(),
        }
    }

    /// Prunes, freezes and merges everything that can be.
    pub fn vacuum(&mut self) {
        let next = u64::from(self.world.next_xid().0);
        let horizon = u64::from(self.world.horizon().0);
        self.store.set_recycle_stamp(next);
        self.store.set_recyclable_before(horizon);
        let tree = Tree::new(&*self.store, &self.compare);
        let versioned = Versioned {
            tree: &tree,
            transactions: &self.world,
        };
        versioned.vacuum(|_| {}).unwrap();
    }

    /// Cuts off the end of the file, moving so many pages for it; nobody else
    /// uses the table meanwhile.
    pub fn shrink(&mut self, moves_max: u32) -> Cleared {
        assert!(self.sessions.iter().all(|session| !session.is_open()));
        self.store.set_alone(true);
        let tree = Tree::new(&*self.store, &self.compare);
        let cleared = tree.clear_end(moves_max, || true).unwrap();
        if cleared.end < cleared.blocks {
            self.store.truncate(cleared.end);
        }
        self.store.set_alone(false);
        cleared
    }

    /// Ends whatever is open.
    pub fn end_all(&mut self, well: bool) {
        for session in 0..self.sessions.len() {
            while self.sessions[session].is_open() {
                self.end(session, well);
            }
        }
    }

    /// Lets a session write under its newest snapshot and notes the effects.
    fn write(
        &mut self,
        session: u8,
        write: impl FnOnce(
            &Versioned<'_, MemStore, Order, TestSession>,
            Writer,
            &TestSnapshot,
        ) -> Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) {
        let session = &mut self.sessions[usize::from(session)];
        if !session.is_open() {
            session.begin();
        }
        session.next_command();
        let snapshot = session.snapshot();
        let writer = Writer {
            xid: session.xid(),
            cid: session.cid(),
        };
        let tree = Tree::new(&*self.store, &self.compare);
        let versioned = Versioned {
            tree: &tree,
            transactions: &*session,
        };
        let effects = write(&versioned, writer, &snapshot);
        self.effects
            .extend(effects.into_iter().map(|(key, payload)| Effect {
                xid: writer.xid,
                key,
                payload,
            }));
    }

    fn supersede(&mut self, session: u8, number: u8, kind: EntryKind, body: &[u8]) {
        let spelled = self.spelled(number);
        self.write(session, |versioned, writer, snapshot| {
            let key = key(number);
            let Some(id) = named(versioned, snapshot, &spelled) else {
                return vec![];
            };
            let successor = Successor {
                kind,
                keys_updated: false,
                body,
            };
            let outcome = versioned
                .supersede(writer, id.as_ref(), successor, |_| true)
                .unwrap();
            match outcome {
                Outcome::Done(_) if kind == EntryKind::Put => vec![(key, Some(body.to_vec()))],
                Outcome::Done(_) => vec![(key, None)],
                _ => vec![],
            }
        });
    }

    fn sweep(&mut self, session: u8, from: u8, count: u8) {
        let keys: Vec<_> = (from..(from + count).min(KEYS))
            .map(|number| self.spelled(number))
            .collect();
        self.write(session, |versioned, writer, snapshot| {
            let ids: Vec<_> = keys
                .iter()
                .filter_map(|key| named(versioned, snapshot, key))
                .collect();
            let rows: Vec<_> = ids.iter().map(VersionIdBuf::as_ref).collect();
            let (mut effects, mut at) = (Vec::new(), 0);
            while at < rows.len() {
                // Nobody is at a row in front of whose version nothing stands.
                let free = |row: &VersionId<'_>| {
                    versioned.all_under(row.key).unwrap()[0].head.sequence == row.sequence
                };
                let free_rows = rows[at..].iter().take_while(|row| free(row)).count();
                let numbered = rows.iter().copied().enumerate().skip(at);
                let ended = versioned.end_run(writer, numbered).unwrap();
                assert!(ended <= free_rows, "it stops before a row somebody is at");
                effects.extend(
                    rows[at..at + ended]
                        .iter()
                        .map(|row| (folded(row.key).to_vec(), None)),
                );
                at += ended;
                if ended == 0 {
                    let successor = Successor {
                        kind: EntryKind::Tombstone,
                        keys_updated: true,
                        body: &[],
                    };
                    let outcome = versioned.supersede(writer, rows[at], successor, |_| true);
                    if let Outcome::Done(_) = outcome.unwrap() {
                        effects.push((folded(rows[at].key).to_vec(), None));
                    }
                    at += 1;
                }
            }
            effects
        });
    }

    fn move_row(&mut self, session: u8, from: u8, to: u8) {
        let keys = (self.spelled(from), self.spelled(to));
        self.write(session, |versioned, writer, snapshot| {
            let (from, to) = &keys;
            let mut batch = Batch::default();
            if !versioned.get(from, snapshot, &mut batch).unwrap() {
                return vec![];
            }
            let body = batch.row(0).payload.to_vec();
            let Some(id) = named(versioned, snapshot, from) else {
                return vec![];
            };
            // The old key is locked, the new one is checked and written, and
            // only then the move is: three records, one xid (rule 11).
            let locked = versioned.lock(writer, id.as_ref(), Strength::Exclusive);
            if !matches!(locked.unwrap(), Outcome::Done(_)) {
                return vec![];
            }
            let Insertion::Done(written) = versioned.insert(writer, to, &body, 0).unwrap() else {
                return vec![];
            };
            let mut target = Vec::new();
            VersionId {
                key: to,
                sequence: written.sequence,
                xmin: writer.xid,
            }
            .encode(&mut target);
            let successor = Successor {
                kind: EntryKind::Moved,
                keys_updated: true,
                body: &target,
            };
            let moved = versioned
                .supersede(writer, id.as_ref(), successor, |_| true)
                .unwrap();
            assert!(
                matches!(moved, Outcome::Done(_)),
                "a locked row can be moved: {moved:?}"
            );
            vec![
                (folded(from).to_vec(), None),
                (folded(to).to_vec(), Some(body)),
            ]
        });
    }

    /// How many writes were carried out.
    pub fn effect_count(&self) -> usize {
        self.effects.len()
    }

    /// The tree keeps all its promises.
    pub fn check(&self) -> Report {
        let report = check(&*self.store, &self.compare).unwrap();
        assert_eq!(report.problems, []);
        report
    }

    /// The store is sound, and whoever looks sees what the model says,
    /// whichever way.
    pub fn verify(&self) {
        self.verify_rows();
        let snapshot = self.world.snapshot();
        let state = self.committed_state();
        let rows = scan(&*self.store, &self.world, &snapshot, Direction::Backward).unwrap();
        assert_eq!(rows, state);
        for number in 0..KEYS {
            let key = key(number);
            let row = get(&*self.store, &self.world, &snapshot, &key).unwrap();
            assert_eq!(row.map(|row| row.0).as_ref(), state.get(&key));
        }
    }

    /// The store is sound, and a scan sees what the model says.
    pub fn verify_rows(&self) {
        self.check();
        let snapshot = self.world.snapshot();
        let rows = scan(&*self.store, &self.world, &snapshot, Direction::Forward).unwrap();
        assert_eq!(rows, self.committed_state());
    }

    /// Written anew, it holds the same.
    pub fn verify_rewritten(&self) {
        let tree = Tree::new(&*self.store, &self.compare);
        let versioned = Versioned {
            tree: &tree,
            transactions: &self.world,
        };
        let anew = MemStore::recording(self.store.page_size());
        let mut bulk = Bulk::new(&anew, &self.compare, b"").unwrap();
        let rebuilt = versioned.rebuild(&mut bulk, |_, _| None, || ()).unwrap();
        bulk.finish().unwrap();
        let report = check(&anew, &self.compare).unwrap();
        assert_eq!(report.problems, []);
        assert_eq!(report.entries, rebuilt.live + rebuilt.dead);
        let snapshot = self.world.snapshot();
        let rows = scan(&anew, &self.world, &snapshot, Direction::Backward).unwrap();
        assert_eq!(rows, self.committed_state());
    }

    fn committed_state(&self) -> State {
        let committed = self.store.committed();
        self.state_of(|xid| committed.contains(&xid))
    }

    /// Each open session sees what was committed, and what it wrote itself.
    pub fn verify_sessions(&self) {
        for session in self.sessions.iter().filter(|session| session.is_open()) {
            let snapshot = session.snapshot_after();
            let state = self.state_of(|xid| {
                use engine::mvcc::XidStatus::{Committed, Own};
                matches!(session.status(xid), Own | Committed)
            });
            let rows = scan(&*self.store, session, &snapshot, Direction::Forward).unwrap();
            assert_eq!(rows, state);
        }
    }
}

fn named<T: Transactions>(
    versioned: &Versioned<'_, MemStore, Order, T>,
    snapshot: &impl Snapshot,
    key: &[u8],
) -> Option<VersionIdBuf> {
    let mut batch = Batch::default();
    versioned.get(key, snapshot, &mut batch).unwrap().then(|| {
        let row = batch.row(0);
        VersionIdBuf {
            key: key.to_vec(),
            sequence: row.head.sequence,
            xmin: row.head.xmin,
        }
    })
}

/// Numbers for choices, from a seed: splitmix64.
pub fn choices(mut seed: u64) -> impl FnMut(usize) -> usize + Send + 'static {
    move |n| {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}
