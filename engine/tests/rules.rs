//! One story for each rule that the engine holds. The numbers are those of
//! `engine/README.md`; rules 5, 7, 30 and 32 have more of them in `retain.rs`,
//! `mem.rs` and `standby.rs`.

mod history;

use std::sync::Arc;

use engine::btree::Tree;
use engine::btree::check::{Report, check};
use engine::compare::{Bytewise, common_prefix_len};
use engine::mem::{Entry, Lsn, MemStore, TestSession, TestTransactions};
use engine::mvcc::batch::Batch;
use engine::mvcc::index::{Admission, Uniqueness};
use engine::mvcc::scan::Direction;
use engine::mvcc::write::{Insertion, Outcome, Successor};
use engine::mvcc::{Strength, Transactions, VersionIdBuf, Versioned, Writer};
use engine::page::apply::{Scratch, apply};
use engine::page::cell::{EntryKind, Head, bit};
use engine::page::op::{Format, Ops};
use engine::page::{Page, PageKind};
use engine::record::{Record, RecordKind};
use engine::store::PageStore;
use engine::{BlockNumber, Error, Level};
use history::{History, Step, scan};

const KEY: &[u8] = b"kkk1";

/// A store with its transactions, and the few verbs that stories need.
struct Db {
    store: Arc<MemStore>,
    world: TestTransactions,
}

fn writer(session: &TestSession) -> Writer {
    Writer {
        xid: session.xid(),
        cid: session.cid(),
    }
}

impl Db {
    fn new(page_size: usize) -> Db {
        let store = Arc::new(MemStore::recording(page_size));
        Tree::<MemStore, Bytewise>::create(&store, b"", true).unwrap();
        let world = TestTransactions::logged_in(Arc::clone(&store));
        Db { store, world }
    }

    fn with<T: Transactions, R>(
        &self,
        transactions: &T,
        act: impl FnOnce(&Versioned<'_, MemStore, Bytewise, T>) -> R,
    ) -> R {
        let tree = Tree::new(&*self.store, &Bytewise);
        act(&Versioned {
            tree: &tree,
            transactions,
        })
    }

    fn insert(&self, session: &TestSession, key: &[u8], payload: &[u8]) -> VersionIdBuf {
        let done = self.with(session, |db| {
            db.insert(writer(session), key, payload, 0).unwrap()
        });
        let Insertion::Done(written) = done else {
            panic!("{done:?}");
        };
        VersionIdBuf {
            key: key.to_vec(),
            sequence: written.sequence,
            xmin: session.xid(),
        }
    }

    /// Inserts a row that can still be taken back.
    fn speculate(&self, session: &TestSession, key: &[u8], payload: &[u8]) -> VersionIdBuf {
        let done = self.with(session, |db| {
            db.insert(writer(session), key, payload, bit::SPECULATIVE)
                .unwrap()
        });
        let Insertion::Done(written) = done else {
            panic!("{done:?}");
        };
        VersionIdBuf {
            key: key.to_vec(),
            sequence: written.sequence,
            xmin: session.xid(),
        }
    }

    fn settle(&self, session: &TestSession, id: &VersionIdBuf, keep: bool) -> bool {
        self.with(session, |db| {
            db.finish_speculative(id.as_ref(), keep).unwrap()
        })
    }

    fn supersede(
        &self,
        session: &TestSession,
        id: &VersionIdBuf,
        kind: EntryKind,
        body: &[u8],
    ) -> Outcome {
        let successor = Successor {
            kind,
            keys_updated: false,
            body,
        };
        self.with(session, |db| {
            db.supersede(writer(session), id.as_ref(), successor, |_| true)
                .unwrap()
        })
    }

    fn update(&self, session: &TestSession, id: &VersionIdBuf, body: &[u8]) -> VersionIdBuf {
        let outcome = self.supersede(session, id, EntryKind::Put, body);
        let Outcome::Done(written) = outcome else {
            panic!("{outcome:?}");
        };
        VersionIdBuf {
            key: id.key.clone(),
            sequence: written.sequence,
            xmin: session.xid(),
        }
    }

    fn delete(&self, session: &TestSession, id: &VersionIdBuf) {
        let outcome = self.supersede(session, id, EntryKind::Tombstone, &[]);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    fn lock(&self, session: &TestSession, id: &VersionIdBuf, strength: Strength) -> Outcome {
        self.with(session, |db| {
            db.lock(writer(session), id.as_ref(), strength).unwrap()
        })
    }

    /// Commits one row and answers with its name.
    fn row(&self, key: &[u8], payload: &[u8]) -> VersionIdBuf {
        let mut session = self.world.session();
        session.begin();
        let id = self.insert(&session, key, payload);
        session.commit();
        id
    }

    /// The payload that a fresh snapshot sees.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.look(key).map(|row| row.0)
    }

    fn look(&self, key: &[u8]) -> Option<(Vec<u8>, Head)> {
        let snapshot = self.world.snapshot();
        let mut batch = Batch::default();
        self.with(&self.world, |db| {
            db.get(key, &snapshot, &mut batch).unwrap()
        })
        .then(|| (batch.row(0).payload.to_vec(), batch.row(0).head))
    }

    fn vacuum(&self) {
        self.store
            .set_recycle_stamp(u64::from(self.world.next_xid().0));
        self.with(&self.world, |db| db.vacuum(|_| {}).unwrap());
    }

    fn check(&self) -> Report {
        let report = check(&*self.store, &Bytewise).unwrap();
        assert_eq!(report.problems, []);
        report
    }

    /// All leaf entries, page by page in key order.
    fn entries(&self) -> Vec<Vec<Head>> {
        let mut leaves = Vec::new();
        let mut at = BlockNumber(1);
        // The first leaf keeps its block as long as it is not merged away.
        loop {
            let guard = self.store.read(at).unwrap();
            let page = Page::open(&guard, at).unwrap();
            if page.kind() == PageKind::Leaf {
                let heads =
                    (0..page.slot_count()).map(|slot| page.leaf_cell(slot, at).unwrap().head);
                leaves.push(heads.collect());
            }
            if !page.right().is_some() {
                return leaves;
            }
            at = page.right();
        }
    }

    fn recover(&self, cut: Lsn, pick: usize) -> Db {
        let store = self.store.crash(cut, |n| pick % n);
        store.redo().unwrap();
        let store = Arc::new(store);
        Db {
            world: self.world.after_crash(Arc::clone(&store)),
            store,
        }
    }
}

#[test]
fn rule_1_a_row_deleted_and_inserted_again_by_one_command_is_two_versions() {
    let db = Db::new(1024);
    let mut session = db.world.session();
    session.begin();
    let first = db.insert(&session, KEY, b"one");
    session.next_command();
    // A BEFORE INSERT trigger deletes the key, and then it is inserted: same
    // xmin, same command.
    db.delete(&session, &first);
    let second = db.insert(&session, KEY, b"two");
    assert!(second.sequence > first.sequence);
    let mut batch = Batch::default();
    let old = db.with(&session, |db| {
        db.version(first.as_ref(), &mut batch).unwrap()
    });
    assert!(old && batch.row(0).payload == b"one");
    session.commit();
    db.vacuum();
    let (payload, head) = db.look(KEY).unwrap();
    assert_eq!(payload, b"two");
    assert!(head.has(bit::FROZEN));
    assert_eq!(
        head.sequence, second.sequence,
        "freezing keeps the sequence"
    );
}

#[test]
fn rule_2_a_deleted_row_does_not_return_when_its_chain_spans_two_leaves() {
    let db = Db::new(256);
    let mut id = db.row(KEY, &[0; 20]);
    // An old reader keeps all versions alive until they fill several leaves.
    let reader = db.world.snapshot();
    let mut session = db.world.session();
    for number in 1..30 {
        session.begin();
        id = db.update(&session, &id, &[number; 20]);
        session.commit();
    }
    session.begin();
    db.delete(&session, &id);
    session.commit();
    assert!(db.entries().len() > 2, "the chain spans leaves");
    drop(reader);
    // Pruning the first leaf alone must leave the tombstone there.
    db.with(&db.world, |db| {
        let target = engine::btree::Target::Before(KEY);
        let mut leaf = db.tree.leaf_exclusive(target).unwrap();
        assert!(db.prune_leaf(&mut leaf).unwrap().changed);
    });
    assert_eq!(db.get(KEY), None);
    assert_eq!(db.entries()[0].len(), 1);
    assert!(db.entries().len() > 2, "the versions below are still there");
    while db.entries().iter().map(Vec::len).sum::<usize>() > 0 {
        let before = db.entries().iter().map(Vec::len).sum::<usize>();
        db.vacuum();
        assert_eq!(db.get(KEY), None);
        let after = db.entries().iter().map(Vec::len).sum::<usize>();
        assert!(after < before, "VACUUM gets rid of what is left");
    }
    db.check();
}

#[test]
fn rule_3_an_updater_is_told_of_a_delete_even_if_the_key_was_inserted_again() {
    let db = Db::new(1024);
    let old = db.row(KEY, b"old row");
    let mut other = db.world.session();
    let reader = db.world.snapshot();
    other.begin();
    db.delete(&other, &old);
    other.next_command();
    let new = db.insert(&other, KEY, b"new row");
    other.commit();
    // Whatever is pruned in between must not lead him to the new row.
    db.vacuum();
    let mut session = db.world.session();
    session.begin();
    let outcome = db.supersede(&session, &old, EntryKind::Put, b"mine");
    assert!(matches!(outcome, Outcome::Deleted(_)), "{outcome:?}");
    drop(reader);
    assert_eq!(db.look(KEY).unwrap().1.sequence, new.sequence);
}

#[test]
fn rule_3_an_update_chain_goes_version_by_version_and_through_a_move() {
    let db = Db::new(1024);
    let v1 = db.row(KEY, b"1");
    let _reader = db.world.snapshot();
    let mut session = db.world.session();
    let mut versions = vec![v1.clone()];
    for body in [b"2", b"3"] {
        session.begin();
        versions.push(db.update(&session, versions.last().unwrap(), body));
        session.commit();
    }
    // The row moves to another key.
    session.begin();
    let there = db.insert(&session, b"kkk2", b"4");
    let mut target = Vec::new();
    there.as_ref().encode(&mut target);
    let outcome = db.supersede(&session, &versions[2], EntryKind::Moved, &target);
    assert!(matches!(outcome, Outcome::Done(_)));
    session.commit();
    versions.push(there);
    session.begin();
    let mut at = v1;
    for next in &versions[1..] {
        let outcome = db.supersede(&session, &at, EntryKind::Put, b"mine");
        let Outcome::Updated(_, Some(goes_on)) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(&goes_on, next);
        at = goes_on;
    }
    db.update(&session, &at, b"mine");
    session.commit();
    assert_eq!(db.get(KEY), None);
    assert_eq!(db.get(b"kkk2").unwrap(), b"mine");
}

#[test]
fn rule_4_an_own_later_command_is_self_modified_and_an_earlier_one_invisible() {
    let db = Db::new(1024);
    let old = db.row(KEY, b"old");
    let mut session = db.world.session();
    session.begin();
    session.next_command();
    db.update(&session, &old, b"new");
    let outcome = db.supersede(&session, &old, EntryKind::Put, b"again");
    assert!(matches!(outcome, Outcome::SelfModified(_)), "{outcome:?}");
    session.next_command();
    let outcome = db.supersede(&session, &old, EntryKind::Put, b"again");
    assert!(matches!(outcome, Outcome::Invisible), "{outcome:?}");
    // The crosscheck snapshot has to see the version read.
    session.abort();
    session.begin();
    let successor = Successor {
        kind: EntryKind::Put,
        keys_updated: false,
        body: b"x",
    };
    let outcome = db.with(&session, |db| {
        db.supersede(writer(&session), old.as_ref(), successor, |_| false)
            .unwrap()
    });
    assert!(matches!(outcome, Outcome::Updated(..)), "{outcome:?}");
}

#[test]
fn rule_5_pruning_inline_keeps_what_an_own_abort_brings_back() {
    let db = Db::new(256);
    let mut id = db.row(KEY, b"committed");
    let mut session = db.world.session();
    session.begin();
    // Full leaves make the session prune among its own versions.
    for number in 0..30u8 {
        session.next_command();
        id = db.update(&session, &id, &[number; 30]);
    }
    db.with(&session, |db| {
        let target = engine::btree::Target::Before(KEY);
        let mut leaf = db.tree.leaf_exclusive(target).unwrap();
        db.prune_leaf(&mut leaf).unwrap();
    });
    db.vacuum();
    session.abort();
    assert_eq!(db.get(KEY).unwrap(), b"committed");
    db.vacuum();
    assert_eq!(db.get(KEY).unwrap(), b"committed");
    assert_eq!(db.entries().iter().map(Vec::len).sum::<usize>(), 1);
}

#[test]
fn rule_6_a_frozen_version_drops_its_command_and_keeps_its_writer() {
    let db = Db::new(1024);
    let mut session = db.world.session();
    session.begin();
    for _ in 0..300 {
        session.next_command();
    }
    let id = db.insert(&session, KEY, b"row");
    session.commit();
    let before = db.look(KEY).unwrap().1;
    assert_eq!((before.xmin, before.cid.0), (id.xmin, 300));
    db.vacuum();
    let after = db.look(KEY).unwrap().1;
    assert!(after.has(bit::FROZEN));
    assert_eq!((after.xmin, after.cid.0), (id.xmin, 0));
}

#[test]
fn rule_7_no_crash_brings_a_row_back_whose_commit_was_lost() {
    let db = Db::new(1024);
    let mut session = db.world.session();
    session.begin();
    db.insert(&session, KEY, b"row");
    let before = db.store.log_end();
    let commit = session.commit_unflushed();
    // A reader looks the commit up, and would note it on the page.
    assert!(db.get(KEY).is_some());
    assert!(!db.look(KEY).unwrap().1.has(bit::COMMITTED));
    db.store.flush(commit);
    assert!(db.get(KEY).is_some());
    assert!(db.look(KEY).unwrap().1.has(bit::COMMITTED));
    for pick in 0..20 {
        assert_eq!(db.recover(before, pick).get(KEY), None);
        assert!(db.recover(commit, pick).get(KEY).is_some());
    }
}

#[test]
fn rule_8_key_share_outlives_an_update_a_pruning_and_the_updaters_commit() {
    let db = Db::new(256);
    let parent = db.row(KEY, &[7; 30]);
    let (mut child, mut updater) = (db.world.session(), db.world.session());
    child.begin();
    let locked = db.lock(&child, &parent, Strength::KeyShare);
    assert!(matches!(locked, Outcome::Done(_)));
    updater.begin();
    let mut id = db.update(&updater, &parent, &[8; 30]);
    updater.commit();
    for number in 0..20 {
        updater.begin();
        id = db.update(&updater, &id, &[number; 30]);
        updater.commit();
        db.vacuum();
    }
    // The row whose key the child refers to must not go.
    updater.begin();
    let outcome = db.supersede(&updater, &id, EntryKind::Tombstone, &[]);
    assert_eq!(
        outcome,
        Outcome::Busy {
            xid: child.xid(),
            version: None,
            own_lock: false,
        }
    );
    child.commit();
    db.delete(&updater, &id);
    updater.commit();
    db.vacuum();
    db.vacuum();
    assert_eq!(db.entries().iter().map(Vec::len).sum::<usize>(), 0);
}

#[test]
fn rule_9_key_share_passes_a_no_key_update_and_waits_for_a_key_update() {
    let db = Db::new(1024);
    let row = db.row(KEY, b"row");
    let (mut updater, mut child) = (db.world.session(), db.world.session());
    child.begin();
    updater.begin();
    db.update(&updater, &row, b"same key");
    assert!(matches!(
        db.lock(&child, &row, Strength::KeyShare),
        Outcome::Done(_)
    ));
    assert!(matches!(
        db.lock(&child, &row, Strength::Share),
        Outcome::Busy { .. }
    ));
    updater.abort();
    child.abort();
    updater.begin();
    child.begin();
    let successor = Successor {
        kind: EntryKind::Put,
        keys_updated: true,
        body: b"other key",
    };
    let outcome = db.with(&updater, |db| {
        db.supersede(writer(&updater), row.as_ref(), successor, |_| true)
            .unwrap()
    });
    assert!(matches!(outcome, Outcome::Done(_)));
    assert!(matches!(
        db.lock(&child, &row, Strength::KeyShare),
        Outcome::Busy { .. }
    ));
}

/// A history that splits, merges and takes pages into use again.
fn busy_history() -> History {
    let mut history = History::new(256);
    let fill = |from, count| Step::Fill(0, from, count);
    for _ in 0..2 {
        for step in [
            fill(0, 50),
            fill(50, 50),
            Step::End(0, true),
            Step::Clear(2, 10, 80),
            Step::End(2, true),
            Step::Vacuum,
            fill(20, 30),
            Step::End(0, true),
            Step::Vacuum,
        ] {
            history.step(&step);
        }
    }
    history.verify();
    history
}

fn records(store: &MemStore) -> Vec<Record> {
    let changes = store.entries().into_iter().filter_map(|entry| match entry {
        Entry::Change { record, .. } => Some(record),
        _ => None,
    });
    changes.collect()
}

#[test]
fn rule_26_a_pages_prefix_is_promised_by_its_fences() {
    let history = busy_history();
    let mut with_prefix = 0;
    for at in (1..history.store.block_count().unwrap()).map(BlockNumber) {
        let guard = history.store.read(at).unwrap();
        let page = Page::open(&guard, at).unwrap();
        if !matches!(page.kind(), PageKind::Leaf | PageKind::Inner) {
            continue;
        }
        let promised = match (page.low(), page.high()) {
            (Some(low), Some(high)) => common_prefix_len(low.key, high.key),
            _ => 0,
        };
        assert!(page.prefix_len() <= promised, "block {at}");
        with_prefix += usize::from(page.prefix_len() > 0);
    }
    assert!(with_prefix > 3, "some pages have a prefix");
}

#[test]
fn rule_27_redo_locks_new_pages_first_children_before_parents_metapage_last() {
    let history = busy_history();
    // Levels as replay meets them.
    let replica = MemStore::recording(256);
    for record in records(&history.store) {
        let blocks: Vec<BlockNumber> = record.changes.iter().map(|change| change.block).collect();
        for (nth, block) in blocks.iter().enumerate() {
            assert!(!blocks[..nth].contains(block), "a block is locked once");
            assert!(
                *block != BlockNumber::META || nth == blocks.len() - 1,
                "metapage last"
            );
        }
        let first_old = record.changes.iter().position(|change| !change.init);
        let last_new = record.changes.iter().rposition(|change| change.init);
        if record.kind != RecordKind::Create {
            assert!(last_new.is_none_or(|new| first_old.is_none_or(|old| new < old)));
        }
        let levels: Vec<u8> = record
            .changes
            .iter()
            .filter(|change| !change.init && change.block != BlockNumber::META)
            .map(|change| {
                let guard = replica.read(change.block).unwrap();
                Page::open(&guard, change.block).unwrap().level().0
            })
            .collect();
        assert!(levels.is_sorted(), "child before parent: {record:?}");
        while replica.block_count().unwrap() <= blocks.iter().map(|block| block.0).max().unwrap() {
            replica.allocate().unwrap();
        }
        let mut guards: Vec<_> = blocks
            .iter()
            .map(|block| replica.lock(*block).unwrap())
            .collect();
        replica.commit(&record, &mut guards.iter_mut().collect::<Vec<_>>());
    }
    assert_eq!(replica.masked_pages(), history.store.masked_pages());
}

#[test]
fn rule_28_a_record_touches_at_most_five_blocks() {
    let history = busy_history();
    let most = records(&history.store)
        .iter()
        .map(|record| record.changes.len())
        .max();
    assert!((3..=Record::BLOCKS_MAX).contains(&most.unwrap()));
}

#[test]
fn rule_28_what_lies_in_the_hole_makes_no_difference() {
    let history = busy_history();
    let mut scratch = Scratch::new(256);
    let mut pages: Vec<Vec<u8>> = Vec::new();
    let mut applied = 0;
    for record in records(&history.store) {
        for change in &record.changes {
            let at = change.block.0 as usize;
            pages.resize(pages.len().max(at + 1), vec![0; 248]);
            let page = &mut pages[at];
            if change.init {
                page.fill(0);
            }
            let mut littered = page.clone();
            if let Ok(view) = Page::open(page, change.block) {
                let hole = view.lower() - 8..view.upper() - 8;
                littered[hole].fill(0xa5);
                applied += 1;
            }
            apply(page, &change.ops, &mut scratch).unwrap();
            apply(&mut littered, &change.ops, &mut scratch).unwrap();
            let view = Page::open(page, change.block).unwrap();
            let hole = view.lower() - 8..view.upper() - 8;
            littered[hole.clone()].copy_from_slice(&page[hole]);
            assert!(*page == littered, "{change:?}");
        }
    }
    assert!(applied > 100);
}

#[test]
fn rule_29_a_hint_is_a_change_that_leaves_the_lsn_alone() {
    let db = Db::new(1024);
    db.row(KEY, b"row");
    let (lsn, entries) = (
        db.store.page_lsn(BlockNumber(1)).unwrap(),
        db.store.entries().len(),
    );
    assert!(db.get(KEY).is_some());
    assert!(db.look(KEY).unwrap().1.has(bit::COMMITTED));
    assert_eq!(db.store.page_lsn(BlockNumber(1)).unwrap(), lsn);
    assert_eq!(db.store.entries().len(), entries);
}

#[test]
fn rule_30_a_standby_reader_is_cancelled_before_its_row_is_pruned_away() {
    let db = Db::new(1024);
    let id = db.row(KEY, b"old");
    let mut session = db.world.session();
    session.begin();
    db.update(&session, &id, b"new");
    let before_commit = db.store.log_end();
    let commit = session.commit();
    db.vacuum();
    let vacuumed = db.store.log_end();
    assert!(vacuumed > commit);
    let look = |from: Lsn| {
        let standby = db.store.standby(|_| 0);
        standby.replay_to(from).unwrap();
        let world = db.world.at(&db.store, from);
        let snapshot = world.snapshot();
        standby.begin_read(snapshot.xmin());
        let found = scan(&standby, &world, &snapshot, Direction::Forward).unwrap();
        standby.replay_to(vacuumed).unwrap();
        let later = scan(&standby, &world, &snapshot, Direction::Forward);
        (found[KEY].clone(), later, standby.is_cancelled())
    };
    // His snapshot is from before the update: the version he needs goes.
    let (row, later, cancelled) = look(before_commit);
    assert_eq!(row, b"old");
    assert!(cancelled && later.is_err());
    // One from behind the commit loses nothing, and is left in peace.
    let (row, later, cancelled) = look(commit);
    assert_eq!(row, b"new");
    assert!(!cancelled);
    assert_eq!(later.unwrap()[KEY], b"new");
}

#[test]
fn rule_31_a_session_with_an_old_root_finds_everything() {
    let db = Db::new(256);
    db.row(b"aaaa", b"first");
    let stale = {
        let tree = Tree::new(&*db.store, &Bytewise);
        tree.leaf(engine::btree::Target::First).map(drop).unwrap();
        tree.known_root()
    };
    assert!(stale.is_some());
    for number in 0..200u8 {
        db.row(&[b'k', number / 16, number % 16, 0], &[number; 12]);
    }
    assert!(db.check().depth >= 3);
    let tree = Tree::with_root(&*db.store, &Bytewise, stale);
    let versioned = Versioned {
        tree: &tree,
        transactions: &db.world,
    };
    let snapshot = db.world.snapshot();
    for number in 0..200u8 {
        let mut batch = Batch::default();
        let key = [b'k', number / 16, number % 16, 0];
        assert!(versioned.get(&key, &snapshot, &mut batch).unwrap());
        assert_eq!(batch.row(0).payload, [number; 12]);
    }
    assert_ne!(tree.known_root(), stale);
}

#[test]
fn rule_32_a_merged_page_is_used_again_only_when_nobody_can_hold_a_link() {
    let db = Db::new(256);
    let ids: Vec<VersionIdBuf> = (0..60u8)
        .map(|number| db.row(&[b'k', number / 16, number % 16, 0], &[number; 20]))
        .collect();
    let mut session = db.world.session();
    session.begin();
    for id in &ids[5..55] {
        db.delete(&session, id);
    }
    session.commit();
    db.vacuum();
    let deleted = db.check().deleted_pages;
    assert!(deleted > 0);
    let blocks = db.store.block_count().unwrap();
    // Not yet: somebody may still follow a link to them.
    for number in 0..40u8 {
        db.row(&[b'm', number / 16, number % 16, 0], &[number; 20]);
    }
    assert!(db.store.block_count().unwrap() > blocks);
    assert_eq!(db.check().deleted_pages, deleted);
    let blocks = db.store.block_count().unwrap();
    db.store
        .set_recyclable_before(u64::from(db.world.next_xid().0));
    for number in 0..20u8 {
        db.row(&[b'n', number / 16, number % 16, 0], &[number; 20]);
    }
    assert_eq!(db.store.block_count().unwrap(), blocks);
    assert!(db.check().deleted_pages < deleted);
}

#[test]
fn rule_33_underfull_leaves_merge() {
    let db = Db::new(512);
    let ids: Vec<VersionIdBuf> = (0..200u8)
        .map(|number| db.row(&[b'k', number / 16, number % 16, 0], &[number; 20]))
        .collect();
    let before = db.check();
    let mut session = db.world.session();
    session.begin();
    for id in ids.iter().step_by(10).flat_map(|id| {
        let at = ids.iter().position(|other| other == id).unwrap();
        &ids[at + 1..(at + 10).min(ids.len())]
    }) {
        db.delete(&session, id);
    }
    session.commit();
    db.vacuum();
    db.vacuum();
    let after = db.check();
    assert_eq!(after.entries, 20);
    assert!(
        after.leaf_pages * 3 < before.leaf_pages,
        "{} leaves of {} are left",
        after.leaf_pages,
        before.leaf_pages
    );
}

#[test]
fn rule_33_a_hot_chain_packs_its_old_versions_to_the_right() {
    let db = Db::new(1024);
    let mut id = db.row(KEY, &[0; 20]);
    let _reader = db.world.snapshot();
    let mut session = db.world.session();
    for number in 0..250u8 {
        session.begin();
        // Bodies that do not resemble each other.
        let body: Vec<u8> = (0..20u8).map(|nth| nth.wrapping_mul(number)).collect();
        id = db.update(&session, &id, &body);
        session.commit();
    }
    let report = db.check();
    let leaves = db.entries();
    assert!(leaves.len() > 4);
    // Half-full pages would be left behind by splits in the middle.
    let inner = &leaves[1..leaves.len() - 1];
    let fullest = inner.iter().map(Vec::len).max().unwrap();
    for (nth, leaf) in inner.iter().enumerate() {
        assert!(
            leaf.len() * 10 >= fullest * 7,
            "leaf {} of {} holds {} versions of {fullest}",
            nth + 1,
            report.leaf_pages,
            leaf.len()
        );
    }
}

#[test]
fn rule_34_a_damaged_page_is_an_error_that_names_its_block() {
    let db = Db::new(512);
    for number in 0..100u8 {
        db.row(&[b'k', number / 16, number % 16, 0], &[number; 20]);
    }
    let leaf = {
        let tree = Tree::new(&*db.store, &Bytewise);
        let leaf = tree.leaf(engine::btree::Target::Before(&[b'k', 3, 0, 0]));
        db.store.block_of_shared(&leaf.unwrap())
    };
    // Something else stands where a leaf should be.
    let format = Format {
        kind: PageKind::Meta,
        level: Level::LEAF,
        flags: 0,
        left: BlockNumber::NONE,
        right: BlockNumber::NONE,
        generation: 0,
        prefix_len: 0,
        low: None,
        high: None,
    };
    let mut guard = db.store.lock(leaf).unwrap();
    let record = Record::new(RecordKind::Meta).init(leaf, Ops::new().format(&format));
    db.store.commit(&record, &mut [&mut guard]);
    drop(guard);
    let snapshot = db.world.snapshot();
    let found = scan(&*db.store, &db.world, &snapshot, Direction::Forward);
    assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
    let problems = check(&*db.store, &Bytewise).unwrap().problems;
    assert!(problems.iter().any(|problem| problem.block == leaf));
    // Pages that were never written, for nobody replayed the log.
    let lost = db.store.crash(db.store.log_end(), |n| usize::from(n == 2));
    let found = scan(&lost, &db.world, &snapshot, Direction::Forward);
    assert!(
        matches!(&found, Err(Error::Corrupt { block, .. }) if *block == BlockNumber::META),
        "{found:?}"
    );
}

#[test]
fn rule_4_a_command_does_not_lock_or_change_what_it_wrote_itself() {
    let db = Db::new(1024);
    let mut session = db.world.session();
    session.begin();
    let id = db.insert(&session, KEY, b"row");
    for _ in 0..2 {
        let locked = db.lock(&session, &id, Strength::Exclusive);
        assert_eq!(locked, Outcome::Invisible);
        let updated = db.supersede(&session, &id, EntryKind::Put, b"again");
        assert_eq!(updated, Outcome::Invisible);
    }
    session.next_command();
    let locked = db.lock(&session, &id, Strength::Exclusive);
    assert!(matches!(locked, Outcome::Done(_)), "{locked:?}");
    let newer = db.update(&session, &id, b"again");
    assert_eq!(
        db.lock(&session, &newer, Strength::KeyShare),
        Outcome::Invisible
    );
}

#[test]
fn rule_16_who_meets_a_speculative_row_waits_for_the_decision_on_it() {
    for keep in [true, false] {
        let db = Db::new(1024);
        let (mut session, mut other) = (db.world.session(), db.world.session());
        session.begin();
        other.begin();
        let id = db.speculate(&session, KEY, b"row");
        let busy = |speculative| Insertion::Busy {
            xid: session.xid(),
            speculative,
        };
        let try_insert = |with: &TestSession| {
            db.with(with, |db| {
                db.insert(writer(with), KEY, b"other", 0).unwrap()
            })
        };
        assert_eq!(try_insert(&other), busy(true));
        assert!(db.settle(&session, &id, keep));
        assert!(!db.settle(&session, &id, keep), "there is one decision");
        if keep {
            assert_eq!(try_insert(&other), busy(false));
            session.commit();
            let exists = try_insert(&other);
            assert!(matches!(exists, Insertion::Exists(_)), "{exists:?}");
            assert_eq!(db.get(KEY).as_deref(), Some(&b"row"[..]));
        } else {
            let done = try_insert(&other);
            assert!(matches!(done, Insertion::Done(_)), "{done:?}");
            other.commit();
            session.commit();
            assert_eq!(db.get(KEY).as_deref(), Some(&b"other"[..]));
        }
        db.check();
    }
}

#[test]
fn rule_16_what_is_taken_back_leaves_the_key_as_it_was() {
    let db = Db::new(256);
    let old = db.row(KEY, b"old");
    let reader = db.world.snapshot();
    let mut session = db.world.session();
    session.begin();
    let locked = db.lock(&session, &old, Strength::Exclusive);
    assert!(matches!(locked, Outcome::Done(_)));
    db.delete(&session, &old);
    session.commit();
    session.begin();
    let heads = db.entries();
    let id = db.speculate(&session, KEY, b"new");
    // Neither pruning nor splits lose it before it was decided on.
    db.vacuum();
    for neighbour in 0..20u8 {
        db.row(&[b"kkk0", &[neighbour][..]].concat(), &[neighbour; 30]);
    }
    assert!(db.settle(&session, &id, false));
    let mut batch = Batch::default();
    assert!(!db.with(&session, |db| {
        db.version(id.as_ref(), &mut batch).unwrap()
    }));
    let seen = db.with(&session, |db| db.get(KEY, &reader, &mut batch).unwrap());
    assert!(seen && batch.row(0).payload == b"old");
    assert_eq!(db.get(KEY), None);
    let of_key = |leaves: &[Vec<Head>]| {
        let heads = leaves.iter().flatten().copied();
        heads.filter(|head| head.sequence.0 > 1).count()
    };
    // The lock of an ended transaction may have been pruned meanwhile.
    assert!(of_key(&db.entries()) <= of_key(&heads));
    // Its number is free again, and names the row that is there then.
    let again = db.speculate(&session, KEY, b"again");
    assert_eq!(again, id);
    assert!(db.settle(&session, &again, true));
    session.commit();
    assert_eq!(db.get(KEY).as_deref(), Some(&b"again"[..]));
    db.check();
}

#[test]
fn rule_16_a_crash_takes_a_speculative_row_back() {
    let db = Db::new(1024);
    let mut session = db.world.session();
    session.begin();
    let kept = db.speculate(&session, KEY, b"kept");
    assert!(db.settle(&session, &kept, true));
    session.commit();
    session.begin();
    let open = db.speculate(&session, b"kkk2", b"open");
    let cut = db.store.log_end();
    for pick in 0..40 {
        let after = db.recover(cut, pick);
        let (payload, head) = after.look(KEY).unwrap();
        assert!(payload == b"kept" && !head.has(bit::SPECULATIVE));
        assert_eq!(after.get(&open.key), None);
        after.vacuum();
        assert_eq!(after.entries().concat().len(), 1, "pruning removes it");
        after.check();
    }
}

#[test]
fn all_that_stands_under_a_key_is_found_over_several_leaves_locks_first_then_newest() {
    let db = Db::new(256);
    db.row(b"kkk0", &[9; 20]);
    let mut id = db.row(KEY, &[0; 20]);
    db.row(b"kkk2", &[9; 20]);
    let _reader = db.world.snapshot();
    let mut session = db.world.session();
    for number in 1..30 {
        session.begin();
        id = db.update(&session, &id, &[number; 20]);
        session.commit();
    }
    session.begin();
    let outcome = db.with(&session, |db| {
        db.lock(writer(&session), id.as_ref(), Strength::Share)
            .unwrap()
    });
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    let standing = db.with(&db.world, |db| db.all_under(KEY).unwrap());
    assert_eq!(standing[0].head.kind(), EntryKind::Lock);
    assert_eq!(standing[0].body, [Strength::Share as u8]);
    let bodies: Vec<_> = standing[1..].iter().map(|entry| entry.body[0]).collect();
    assert_eq!(bodies, (0..30).rev().collect::<Vec<u8>>());
    assert!(
        standing
            .iter()
            .any(|entry| entry.block != standing[0].block)
    );
    let nothing = db.with(&db.world, |db| db.all_under(b"kkk").unwrap());
    assert_eq!(nothing, []);
}

#[test]
fn rule_16_a_speculative_entry_goes_with_its_row_and_holds_others_up_meanwhile() {
    let db = Db::new(1024);
    let (mut session, mut other) = (db.world.session(), db.world.session());
    session.begin();
    other.begin();
    let put = |with: &TestSession, key: &[u8], flags, uniqueness| {
        db.with(with, |db| {
            db.put_unique_entry(writer(with), key, 4, b"", flags, uniqueness)
                .unwrap()
        })
    };
    // Columns "kkk1", references "a" and "b".
    let (mine, theirs) = (b"kkk1a", b"kkk1b");
    let admitted = put(&session, mine, bit::SPECULATIVE, Uniqueness::Noted);
    assert_eq!(admitted, Admission::Unique);
    let speculates =
        |admission| matches!(admission, Admission::Busy { speculative, .. } if speculative);
    assert!(speculates(put(&other, theirs, 0, Uniqueness::Demanded)));
    let take_back = |key: &[u8]| {
        db.with(&session, |db| {
            db.take_back_index_entry(writer(&session), key).unwrap()
        })
    };
    assert!(!take_back(theirs), "there is none");
    assert!(take_back(mine));
    assert!(!take_back(mine), "it goes once");
    let admitted = put(&other, theirs, 0, Uniqueness::Demanded);
    assert_eq!(admitted, Admission::Unique);
    // Whoever comes now puts his, is told, and takes it back.
    let admitted = put(&session, mine, bit::SPECULATIVE, Uniqueness::Noted);
    assert_eq!(admitted, Admission::Doubtful);
    assert!(take_back(mine));
    other.commit();
    session.commit();
    assert_eq!(db.entries().concat().len(), 1);
    db.check();
}

/// Flags of the leaf that a key is on.
fn leaf_flags(db: &Db, key: &[u8]) -> u16 {
    db.with(&db.world, |db| {
        let target = engine::btree::Target::Before(key);
        let leaf = db.tree.leaf_exclusive(target).unwrap();
        let block = db.tree.store.block_of(&leaf.guard);
        Page::open(&leaf.guard, block).unwrap().flags()
    })
}

#[test]
fn rule_43_a_settled_leaf_says_so_until_it_is_written_to() {
    use engine::page::flag::ALL_FROZEN;
    let db = Db::new(256);
    let ids: Vec<_> = (0..40u8).map(|n| db.row(&[n; 4], &[n; 12])).collect();
    let row = |n: u8| ids[usize::from(n)].clone();
    let settled = |n: u8| leaf_flags(&db, &[n; 4]) & ALL_FROZEN != 0;
    assert!(!settled(3));
    db.vacuum();
    assert!((0..40).all(settled), "every leaf is settled");
    let quiet = db.store.log_end();
    db.vacuum();
    assert_eq!(db.store.log_end(), quiet, "VACUUM writes nothing");
    let mut session = db.world.session();
    session.begin();
    db.update(&session, &row(3), b"new");
    assert!(!settled(3) && settled(39));
    db.delete(&session, &row(20));
    assert!(!settled(20));
    assert!(matches!(
        db.lock(&session, &row(39), Strength::Share),
        Outcome::Done(_)
    ));
    assert!(!settled(39), "a row lock is no row");
    db.vacuum();
    assert!(!settled(3) && !settled(20) && !settled(39));
    session.commit();
    db.vacuum();
    assert_eq!(db.get(&[3; 4]).as_deref(), Some(&b"new"[..]));
    assert_eq!(db.get(&[20; 4]), None);
    assert!(settled(3) && settled(39));
    // One version of each key is left, and no lock.
    let entries: usize = db.entries().iter().map(Vec::len).sum();
    assert_eq!(entries, 39);
    db.check();
}

#[test]
fn rule_43_rows_of_a_leaf_end_in_one_record_up_to_one_that_somebody_is_at() {
    let db = Db::new(8192);
    let ids: Vec<_> = (0..40u8).map(|n| db.row(&[n; 4], &[n; 12])).collect();
    let mut other = db.world.session();
    other.begin();
    assert!(matches!(
        db.lock(&other, &ids[5], Strength::KeyShare),
        Outcome::Done(_)
    ));
    let newer = db.update(&other, &ids[9], b"theirs");
    let mut mine = db.world.session();
    mine.begin();
    let own = db.update(&mine, &ids[12], b"mine");
    mine.next_command();
    let rows: Vec<_> = ids.iter().map(VersionIdBuf::as_ref).collect();
    let end = |from: usize| {
        let log = db.store.log_end();
        let ended = db.with(&mine, |db| {
            db.end_run(writer(&mine), rows[from..].iter().copied().enumerate())
                .unwrap()
        });
        let records = records(&db.store).len();
        (ended, db.store.log_end() != log, records)
    };
    let before = records(&db.store).len();
    assert_eq!(end(0), (5, true, before + 1), "one record for five rows");
    assert_eq!(end(5), (0, false, before + 1), "a row lock is in the way");
    assert_eq!(end(6), (3, true, before + 2), "up to an update that runs");
    assert_eq!(end(9), (0, false, before + 2));
    // What was read is the version before an own one: not this row's newest.
    assert_eq!(end(10), (2, true, before + 3));
    assert_eq!(end(12), (0, false, before + 3));
    // An own version of an earlier command is like any other.
    let ended = db.with(&mine, |db| {
        db.end_run(writer(&mine), [(30, own.as_ref())].into_iter())
            .unwrap()
    });
    assert_eq!(ended, 1);
    assert_eq!(end(13).0, 27, "to the end of the rows");
    other.commit();
    mine.commit();
    let left: Vec<u8> = (0..40).filter(|n| db.get(&[*n; 4]).is_some()).collect();
    assert_eq!(left, [5, 9]);
    assert_eq!(db.get(&newer.key).as_deref(), Some(&b"theirs"[..]));
    db.check();
    db.vacuum();
    assert_eq!(db.entries().iter().map(Vec::len).sum::<usize>(), 2);
}
