//! Many sessions on real latches: money moves between accounts while VACUUM
//! runs and readers add up, and then the machine crashes.

mod history;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engine::btree::Tree;
use engine::btree::check::check;
use engine::compare::Bytewise;
use engine::mem::{Lsn, MemStore, TestSession, TestTransactions};
use engine::mvcc::Versioned;
use engine::mvcc::Writer;
use engine::mvcc::scan::Direction;
use engine::mvcc::write::{Insertion, Outcome, Successor};
use engine::page::cell::EntryKind;
use history::{choices, get, scan};

const ACCOUNTS: usize = 60;
const START: u64 = 1000;

fn account(number: usize) -> [u8; 4] {
    (number as u32 * 7).to_be_bytes()
}

fn amount(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

fn payload(amount: u64) -> Vec<u8> {
    let mut payload = amount.to_le_bytes().to_vec();
    payload.resize(20, b'.');
    payload
}

fn writer(session: &TestSession) -> Writer {
    Writer {
        xid: session.xid(),
        cid: session.cid(),
    }
}

/// Adds to one account; `false` if somebody else is at it.
fn add(store: &MemStore, session: &TestSession, number: usize, change: i64) -> bool {
    let snapshot = session.snapshot();
    let key = account(number);
    let (old, id) = get(store, session, &snapshot, &key)
        .unwrap()
        .expect("no account is ever closed");
    let new = payload(amount(&old).wrapping_add_signed(change));
    let tree = Tree::new(store, &Bytewise);
    let versioned = Versioned {
        tree: &tree,
        transactions: session,
    };
    let successor = Successor {
        kind: EntryKind::Put,
        keys_updated: false,
        body: &new,
    };
    let outcome = versioned.supersede(writer(session), id.as_ref(), successor, |_| true);
    match outcome.unwrap() {
        Outcome::Done(_) => true,
        Outcome::Busy { .. } | Outcome::Updated(..) => false,
        other => panic!("{other:?}"),
    }
}

fn total(store: &MemStore, world: &TestTransactions, direction: Direction) -> (usize, u64) {
    let snapshot = world.snapshot();
    let rows = scan(store, world, &snapshot, direction).unwrap();
    (rows.len(), rows.values().map(|row| amount(row)).sum())
}

#[test]
fn no_money_is_made_or_lost_by_concurrent_transfers_vacuum_and_crashes() {
    let store = Arc::new(MemStore::recording(512));
    Tree::<MemStore, Bytewise>::create(&store, b"", true).unwrap();
    let world = TestTransactions::logged_in(Arc::clone(&store));
    let mut loader = world.session();
    loader.begin();
    for number in 0..ACCOUNTS {
        let tree = Tree::new(&*store, &Bytewise);
        let versioned = Versioned {
            tree: &tree,
            transactions: &loader,
        };
        let done = versioned.insert(writer(&loader), &account(number), &payload(START), 0);
        assert!(matches!(done.unwrap(), Insertion::Done(_)));
    }
    let loaded = loader.commit();
    let expected = (ACCOUNTS, ACCOUNTS as u64 * START);
    let running = AtomicBool::new(true);
    let (transfers, sums) = (AtomicUsize::new(0), AtomicUsize::new(0));
    crossbeam::scope(|scope| {
        let writers: Vec<_> = (0..3u64)
            .map(|seed| {
                let (store, world, transfers) = (&*store, &world, &transfers);
                scope.spawn(move |_| {
                    let mut choose = choices(seed);
                    for _ in 0..250 {
                        let mut session = world.session();
                        session.begin();
                        let (from, to) = (choose(ACCOUNTS), choose(ACCOUNTS));
                        let change = choose(50) as i64;
                        let mut done = add(store, &session, from, -change);
                        session.next_command();
                        done = done && add(store, &session, to, change);
                        if done && choose(8) > 0 {
                            session.commit();
                            transfers.fetch_add(1, Ordering::Relaxed);
                        } else {
                            session.abort();
                        }
                    }
                })
            })
            .collect();
        {
            let (store, world, running) = (&*store, &world, &running);
            scope.spawn(move |_| {
                while running.load(Ordering::Relaxed) {
                    store.set_recycle_stamp(u64::from(world.next_xid().0));
                    store.set_recyclable_before(u64::from(world.horizon().0));
                    let tree = Tree::new(store, &Bytewise);
                    let versioned = Versioned {
                        tree: &tree,
                        transactions: world,
                    };
                    versioned.vacuum(|_| std::thread::yield_now()).unwrap();
                }
            });
        }
        for direction in [Direction::Forward, Direction::Backward] {
            let (store, world, running, sums) = (&*store, &world, &running, &sums);
            scope.spawn(move |_| {
                while running.load(Ordering::Relaxed) {
                    assert_eq!(total(store, world, direction), expected, "{direction:?}");
                    sums.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // The others are let go first, or a failure would leave them running.
        let ends: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        running.store(false, Ordering::Relaxed);
        ends.into_iter().for_each(|end| end.unwrap());
    })
    .unwrap();
    assert!(transfers.into_inner() > 50, "most transfers got through");
    assert!(sums.into_inner() > 1);
    assert_eq!(check(&*store, &Bytewise).unwrap().problems, []);
    assert_eq!(total(&store, &world, Direction::Forward), expected);
    let mut choose = choices(7);
    let span = (store.log_end().0 - loaded.0) as usize;
    for _ in 0..60 {
        let cut = Lsn(loaded.0 + choose(span) as u64);
        let crashed = Arc::new(store.crash(cut, &mut choose));
        crashed.redo().unwrap();
        let world = world.after_crash(Arc::clone(&crashed));
        assert_eq!(check(&*crashed, &Bytewise).unwrap().problems, []);
        assert_eq!(total(&crashed, &world, Direction::Forward), expected);
    }
}
