//! A reader on a standby, while replay goes on under it.

mod history;

use std::sync::atomic::{AtomicUsize, Ordering};

use engine::mem::Lsn;
use engine::mvcc::scan::Direction;
use engine::store::PageStore;
use engine::{BlockNumber, Error};
use history::{History, choices, scan, steps};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

static CANCELLED: AtomicUsize = AtomicUsize::new(0);
static OVERTAKEN: AtomicUsize = AtomicUsize::new(0);

fn read_while_replaying(
    history: &History,
    seed: u64,
    direction: Direction,
) -> Result<(), TestCaseError> {
    let mut choose = choices(seed);
    let end = history.store.log_end();
    let standby = history.store.standby(choices(!seed));
    let from = Lsn(1 + choose(end.0 as usize) as u64);
    standby.replay_to(from).unwrap();
    // A reader waits for the relation's lock.
    let mut from = from;
    while standby.is_locked() {
        from = Lsn(from.0 + 1);
        standby.replay_to(from).unwrap();
    }
    let world = history.world.at(&history.store, from);
    let snapshot = world.snapshot();
    standby.begin_read(snapshot.xmin());
    match scan(&standby, &world, &snapshot, direction) {
        Ok(rows) => {
            prop_assert_eq!(
                rows,
                history.state_at(from),
                "{:?} from {:?} to {:?}",
                direction,
                from,
                standby.replayed()
            );
            if standby.replayed() > from {
                OVERTAKEN.fetch_add(1, Ordering::Relaxed);
            }
        }
        Err(Error::Store(_)) if standby.is_cancelled() => {
            CANCELLED.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => {
            return Err(TestCaseError::fail(format!(
                "{error} from {from:?} at {:?}",
                standby.replayed()
            )));
        }
    }
    // Replay comes through to the same pages as the primary's.
    standby.replay_to(end).unwrap();
    prop_assert_eq!(
        standby.store().masked_pages(),
        history.store.masked_pages()[..standby.store().block_count().unwrap() as usize].to_vec()
    );
    Ok(())
}

#[test]
fn a_standby_reader_sees_its_snapshot_or_is_cancelled_before_it_could_not() {
    // Always the same cases, for the test says below what they have to meet.
    let config = ProptestConfig {
        cases: 48,
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let input = (
        steps(20..200),
        any::<u64>(),
        prop::sample::select(vec![256usize, 512]),
    );
    runner
        .run(&input, |(steps, seed, page_size)| {
            let mut history = History::new(page_size);
            for step in &steps {
                history.step(step);
            }
            for nth in 0..12 {
                let direction = if nth % 2 == 0 {
                    Direction::Forward
                } else {
                    Direction::Backward
                };
                read_while_replaying(&history, seed.wrapping_add(nth), direction)?;
            }
            Ok(())
        })
        .unwrap();
    // The test is worth something only if both were met.
    assert!(
        CANCELLED.load(Ordering::Relaxed) > 0,
        "nobody was cancelled"
    );
    assert!(
        OVERTAKEN.load(Ordering::Relaxed) > 0,
        "replay never overtook a reader"
    );
}

#[test]
#[should_panic(expected = "waits for replay, or the other way round")]
fn a_reader_that_holds_one_page_while_it_waits_for_another_deadlocks_with_replay() {
    let mut history = History::new(256);
    for number in 0..40 {
        history.step(&history::Step::Insert(0, number, number));
    }
    // Find a record that changes two pages, stop within it, hold the second
    // page and ask for the first.
    let entries = history.store.entries();
    for (nth, entry) in entries.iter().enumerate() {
        let engine::mem::Entry::Change { record, .. } = entry else {
            continue;
        };
        let old: Vec<BlockNumber> = record
            .changes
            .iter()
            .filter(|change| !change.init)
            .map(|change| change.block)
            .collect();
        let [first, .., second] = old[..] else {
            continue;
        };
        let standby = history.store.standby(|_| 0);
        standby.replay_to(Lsn(nth as u64)).unwrap();
        let held = standby.read(second).unwrap();
        while standby.step().unwrap() {}
        let _deadlock = standby.read(first);
        drop(held);
    }
    panic!("no record changed two old pages");
}
