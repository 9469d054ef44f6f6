//! A store divided among several readers: each key is read by one of them, its
//! history whole, whatever others write meanwhile.

mod history;

use engine::btree::Tree;
use engine::mem::TestTransactions;
use engine::mvcc::batch::Batch;
use engine::mvcc::histories;
use engine::mvcc::scan::{Direction, Place};
use engine::mvcc::{Snapshot, Versioned};
use history::{History, Order, State, Step, scan, steps};
use proptest::prelude::*;

type Versions<'t> = Versioned<'t, engine::mem::MemStore, Order, TestTransactions>;

fn with<R>(history: &History, work: impl FnOnce(&Versions<'_>) -> R) -> R {
    let tree = Tree::new(&*history.store, &history.compare);
    work(&Versioned {
        tree: &tree,
        transactions: &history.world,
    })
}

/// Every history, read in shares of so many leaves.
fn in_shares(history: &History, leaves: usize) -> (Vec<histories::History>, usize) {
    let (mut all, mut place, mut shares) = (Vec::new(), Place::Start, 0);
    with(history, |versions| {
        while let Some(share) = versions.next_share(&mut place, leaves).unwrap() {
            shares += 1;
            versions
                .each_history_of(
                    &share.range,
                    || {},
                    |history| {
                        all.push(history.clone());
                        Ok(())
                    },
                )
                .unwrap();
        }
    });
    (all, shares)
}

/// What a snapshot sees of the keys of the next share.
fn read_share(
    history: &History,
    place: &mut Place,
    leaves: usize,
    snapshot: &impl Snapshot,
    into: &mut State,
) -> bool {
    with(history, |versions| {
        let Some(share) = versions.next_share(place, leaves).unwrap() else {
            return false;
        };
        let (mut place, mut batch) = (Place::Start, Batch::default());
        let forward = Direction::Forward;
        while versions
            .next_leaf(&share.range, forward, &mut place, snapshot, &mut batch)
            .unwrap()
        {
            for nth in 0..batch.len() {
                let row = batch.row(nth);
                let before = into.insert(history.compare.name(row.key), row.payload.to_vec());
                assert_eq!(before, None, "a key is in one share");
            }
        }
        true
    })
}

#[test]
fn a_session_that_knew_a_higher_tree_finds_the_only_leaf() {
    let mut history = History::new(256);
    history.step(&Step::Fill(0, 0, 100));
    history.step(&Step::End(0, true));
    let (store, compare, world) = (
        history.store.clone(),
        history.compare,
        history.world.clone(),
    );
    let tree = Tree::new(&*store, &compare);
    let versions = Versioned {
        tree: &tree,
        transactions: &world,
    };
    let first = versions.next_share(&mut Place::Start, 1).unwrap().unwrap();
    assert_ne!(first.range.to, None);
    history.step(&Step::Clear(0, 0, 100));
    history.step(&Step::End(0, true));
    for _ in 0..5 {
        history.vacuum();
    }
    let only = versions.next_share(&mut Place::Start, 1).unwrap().unwrap();
    assert_eq!((only.range.to, only.leaves), (None, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn shares_hold_every_history_once_and_whole(
        steps in steps(50..400),
        as_bytes in any::<bool>(),
        leaves in 1usize..6,
    ) {
        let mut history = History::ordered_by(Order { as_bytes }, 256);
        for step in &steps {
            history.step(step);
        }
        let mut whole = Vec::new();
        with(&history, |versions| {
            versions.each_history(|| {}, |history| {
                whole.push(history.clone());
                Ok(())
            })
        }).unwrap();
        let (parts, shares) = in_shares(&history, leaves);
        prop_assert!(whole.len() < 60 || shares > 1, "{} keys in {} shares", whole.len(), shares);
        prop_assert_eq!(parts, whole);
    }

    #[test]
    fn shares_taken_while_others_write_hold_what_an_older_snapshot_sees(
        before in steps(50..300),
        meanwhile in steps(50..300),
        as_bytes in any::<bool>(),
        leaves in 1usize..4,
    ) {
        let mut history = History::ordered_by(Order { as_bytes }, 256);
        for step in &before {
            history.step(step);
        }
        let mut reader = history.world.session();
        reader.begin();
        let snapshot = reader.snapshot();
        let forward = Direction::Forward;
        let wanted = scan(&*history.store, &reader, &snapshot, forward).unwrap();
        let (mut seen, mut place) = (State::new(), Place::Start);
        let mut meanwhile = meanwhile.chunks(20);
        while read_share(&history, &mut place, leaves, &snapshot, &mut seen) {
            for step in meanwhile.next().into_iter().flatten() {
                history.step(step);
            }
        }
        prop_assert_eq!(seen, wanted);
    }
}
