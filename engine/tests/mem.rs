//! The test store itself: latches, log, crash, redo.

use std::sync::Arc;

use engine::mem::{Lsn, MemStore, TestTransactions};
use engine::mvcc::{Sight, Snapshot, Transactions, XidStatus};
use engine::page::cell::{EntryKind, Head, bit};
use engine::page::op::{Format, Ops};
use engine::page::{Page, PageKind};
use engine::record::{Record, RecordKind};
use engine::store::{Hint, PageStore};
use engine::{BlockNumber, CommandId, Level, Sequence, SlotNumber, Xid};
use proptest::prelude::*;

fn leaf() -> Ops {
    Ops::new().format(&Format {
        kind: PageKind::Leaf,
        level: Level::LEAF,
        flags: 0,
        left: BlockNumber::NONE,
        right: BlockNumber::NONE,
        generation: 0,
        prefix_len: 0,
        low: None,
        high: None,
    })
}

fn cell(xid: Xid, key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut cell = Vec::new();
    let head = Head {
        flags: EntryKind::Put as u8,
        xmin: xid,
        cid: CommandId(0),
        sequence: Sequence(1),
    };
    head.encode(Some(key), body, &mut cell);
    cell
}

fn add_leaf(store: &MemStore) -> BlockNumber {
    let mut page = store.allocate().unwrap();
    let at = store.block_of(&page);
    let record = Record::new(RecordKind::Create).init(at, leaf());
    store.commit(&record, &mut [&mut page]);
    at
}

fn put(store: &MemStore, at: BlockNumber, xid: Xid, key: &[u8]) -> Lsn {
    let mut page = store.lock(at).unwrap();
    let ops = Ops::new().insert(SlotNumber(0), false, &cell(xid, key, b"body"));
    let record = Record::new(RecordKind::Insert).change(at, ops);
    store.commit(&record, &mut [&mut page]);
    store.log_end()
}

fn bodies(store: &MemStore, at: BlockNumber) -> usize {
    let page = store.read(at).unwrap();
    Page::open(&page, at).unwrap().slot_count()
}

fn flags_of(store: &MemStore, at: BlockNumber) -> u8 {
    let page = store.read(at).unwrap();
    let page = Page::open(&page, at).unwrap();
    page.leaf_cell(0, at).unwrap().head.flags
}

proptest! {
    #[test]
    fn redo_restores_every_flushed_change_whatever_pages_reached_the_disk(
        writes in proptest::collection::vec(0u32..3, 1..25),
        checkpoint_after in 0usize..25,
        cut in 0usize..40,
        picks in proptest::collection::vec(any::<u16>(), 64),
        redo_part in 0u64..40,
    ) {
        let store = MemStore::recording(1024);
        for _ in 0..3 {
            add_leaf(&store);
        }
        let mut expected = vec![store.masked_pages()];
        let mut lsns = vec![store.log_end()];
        for (nth, block) in writes.iter().enumerate() {
            if nth == checkpoint_after {
                store.checkpoint();
                expected.clear();
                lsns.clear();
                expected.push(store.masked_pages());
                lsns.push(store.log_end());
            }
            put(&store, BlockNumber(*block), Xid(3), &[nth as u8]);
            expected.push(store.masked_pages());
            lsns.push(store.log_end());
        }
        let cut = cut % lsns.len();
        let mut picks = picks.into_iter().cycle();
        let mut choose = |n: usize| picks.next().unwrap() as usize % n;
        let first = store.crash(lsns[cut], &mut choose);
        first.redo_to(Lsn(redo_part)).unwrap();
        let second = first.crash(lsns[cut], &mut choose);
        second.redo().unwrap();
        prop_assert_eq!(second.masked_pages(), expected[cut].clone());
    }
}

#[test]
fn a_hint_waits_for_the_flushed_commit_record_of_rule_7() {
    let store = Arc::new(MemStore::recording(512));
    let world = TestTransactions::logged_in(Arc::clone(&store));
    let at = add_leaf(&store);
    let mut session = world.session();
    let xid = session.begin();
    put(&store, at, xid, b"k");
    let commit = session.commit_unflushed();
    let hint = Hint {
        slot: SlotNumber(0),
        xid,
        committed: true,
    };
    store.hint(at, &[hint]);
    assert_eq!(flags_of(&store, at) & bit::HINTS, 0);
    store.flush(commit);
    store.hint(at, &[hint]);
    assert_eq!(flags_of(&store, at) & bit::HINTS, bit::COMMITTED);
    // No crash before the commit can find the hint, whatever is chosen.
    for pick in 0..8 {
        let crashed = store.crash(Lsn(commit.0 - 1), |n| pick.min(n - 1));
        crashed.redo().unwrap();
        assert_eq!(flags_of(&crashed, at) & bit::HINTS, 0);
    }
}

#[test]
fn a_hint_is_for_the_judged_writer_only_and_leaves_the_lsn_alone() {
    let store = MemStore::new(512);
    let at = add_leaf(&store);
    put(&store, at, Xid(7), b"k");
    let lsn = store.page_lsn(at).unwrap();
    let hint = |xid, slot| Hint {
        slot: SlotNumber(slot),
        xid,
        committed: true,
    };
    store.hint(at, &[hint(Xid(8), 0), hint(Xid(7), 1)]);
    assert_eq!(flags_of(&store, at) & bit::HINTS, 0);
    store.hint(at, &[hint(Xid(7), 0)]);
    assert_eq!(flags_of(&store, at) & bit::HINTS, bit::COMMITTED);
    assert_eq!(store.page_lsn(at).unwrap(), lsn);
}

#[test]
fn rule_32_an_offered_page_is_used_again_only_when_it_is_deleted_and_old() {
    let store = MemStore::recording(512);
    let (in_use, deleted) = (add_leaf(&store), add_leaf(&store));
    store.set_recycle_stamp(10);
    let mut page = store.lock(deleted).unwrap();
    let ops = Ops::new().delete(store.recycle_stamp());
    let record = Record::new(RecordKind::Merge).change(deleted, ops);
    store.commit(&record, &mut [&mut page]);
    drop(page);
    store.offer(in_use);
    store.offer(deleted);
    store.set_recyclable_before(10);
    let extended = store.block_of(&store.allocate().unwrap());
    assert_eq!(extended, BlockNumber(2));
    store.set_recyclable_before(11);
    let held = store.lock(deleted).unwrap();
    // Locked by somebody: not waited for, and no longer on offer.
    assert_eq!(store.block_of(&store.allocate().unwrap()), BlockNumber(3));
    drop(held);
    store.offer(deleted);
    assert_eq!(store.block_of(&store.allocate().unwrap()), deleted);
}

#[test]
fn latches_let_many_threads_write_one_page() {
    let store = MemStore::recording(8192);
    let at = add_leaf(&store);
    crossbeam::scope(|scope| {
        for thread in 0..4u8 {
            let store = &store;
            scope.spawn(move |_| {
                for nth in 0..25 {
                    put(store, at, Xid(3), &[thread, nth]);
                }
            });
        }
    })
    .unwrap();
    assert_eq!(bodies(&store, at), 100);
    assert_eq!(store.page_lsn(at).unwrap(), store.log_end());
}

#[test]
fn snapshots_see_what_had_ended_and_their_own_earlier_commands() {
    let world = TestTransactions::new();
    let (mut one, mut two) = (world.session(), world.session());
    let (a, b) = (one.begin(), two.begin());
    let version = |xid, cid| Head {
        flags: EntryKind::Put as u8,
        xmin: xid,
        cid: CommandId(cid),
        sequence: Sequence(1),
    };
    one.next_command();
    let sub = one.begin();
    let snapshot = one.snapshot();
    assert_eq!(snapshot.judge(version(a, 0)).sight, Sight::Seen);
    assert_eq!(snapshot.judge(version(sub, 0)).sight, Sight::Seen);
    assert_eq!(snapshot.judge(version(a, 1)).sight, Sight::TooNew);
    assert_eq!(snapshot.judge(version(b, 0)).sight, Sight::TooNew);
    one.roll_back_to();
    assert_eq!(snapshot.judge(version(sub, 0)).sight, Sight::Aborted);
    two.commit();
    assert_eq!(snapshot.judge(version(b, 0)).sight, Sight::TooNew);
    assert_eq!(world.snapshot().judge(version(b, 0)).learned, Some(true));
    assert_eq!(one.status(a), XidStatus::Own);
    assert_eq!(world.status(a), XidStatus::InProgress);
    assert_eq!(world.horizon(), a);
    one.abort();
    assert!(
        !world.visible_to_all(b),
        "a snapshot still takes it for running"
    );
    drop(snapshot);
    assert!(world.visible_to_all(b));
}
