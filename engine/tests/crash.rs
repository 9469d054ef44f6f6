//! Crash at every record boundary of a history, recover, compare.

mod history;

use std::collections::{BTreeMap, BTreeSet};

use engine::mem::{Entry, Lsn};
use engine::record::RecordKind;
use history::{History, Step, choices, steps};
use proptest::prelude::*;

/// Crashes at every place of the log behind the last checkpoint, and within
/// recovery too; what is found afterwards is what had been committed.
fn crash_everywhere(history: &History, seed: u64, go_on: &[Step]) {
    let mut choose = choices(seed);
    let (first, last) = (history.store.checkpoint_at(), history.store.log_end());
    for cut in first.0..=last.0 {
        let cut = Lsn(cut);
        let mut crashed = history.store.crash(cut, &mut choose);
        while choose(3) == 0 {
            // Recovery crashes as well, somewhere.
            let reached = first.0 + choose((cut.0 - first.0) as usize + 1) as u64;
            crashed.redo_to(Lsn(reached)).unwrap();
            crashed = crashed.crash(cut, &mut choose);
        }
        crashed.redo().unwrap();
        let mut after = history.recovered(crashed);
        if cut.0 == 0 {
            // Not even the tree was there.
            continue;
        }
        if choose(8) == 0 {
            after.verify();
        } else {
            after.verify_rows();
        }
        assert_eq!(
            after.state_of(|xid| after.store.end_of(xid).is_some_and(|end| end.1)),
            history.state_at(cut),
            "what was committed before the cut is there, and nothing else"
        );
        // Life goes on: splits that were cut off are finished, what aborted
        // is pruned.
        if choose(4) == 0 {
            for step in go_on {
                after.step(step);
            }
            after.end_all(true);
            after.vacuum();
            after.verify();
        }
    }
}

/// What a history met.
#[derive(Default, Debug)]
struct Met {
    kinds: BTreeMap<&'static str, usize>,
    depth: u32,
    /// Blocks that were made more than once.
    reused: usize,
}

impl Met {
    fn note(&mut self, history: &History) {
        let mut made = BTreeSet::new();
        for entry in history.store.entries() {
            if let Entry::Change { record, .. } = entry {
                *self.kinds.entry(record.kind.name()).or_default() += 1;
                for change in record.changes.iter().filter(|change| change.init) {
                    self.reused += usize::from(!made.insert(change.block));
                }
            }
        }
    }
}

#[test]
fn a_tree_that_grows_and_shrinks_survives_a_crash_at_every_record_boundary() {
    let mut history = History::new(256);
    let mut met = Met::default();
    let fill = |from, count| Step::Fill(0, from, count);
    for checkpoint in [false, true] {
        for step in [
            fill(0, 50),
            fill(50, 50),
            Step::End(0, true),
            Step::Clear(1, 10, 80),
            Step::Lock(2, 3, 0),
            Step::End(2, true),
            Step::End(1, true),
            Step::Vacuum,
            Step::Vacuum,
            fill(20, 30),
            Step::End(0, false),
            Step::Vacuum,
            // All of it goes, and all levels but one.
            Step::Clear(1, 0, 100),
            Step::End(1, true),
            Step::Vacuum,
            fill(30, 30),
            Step::End(0, true),
            // And all of the file, which then grows again.
            Step::Shrink,
            fill(0, 60),
            Step::Clear(0, 3, 50),
            Step::End(0, true),
            Step::Shrink,
            fill(5, 20),
        ] {
            history.step(&step);
            met.depth = met.depth.max(history.check().depth);
        }
        if checkpoint {
            crash_everywhere(&history, 3, &[fill(0, 20), Step::Clear(1, 0, 30)]);
        } else {
            history.step(&Step::Checkpoint);
        }
    }
    // A test that never splits or merges says nothing about splits and merges.
    met.note(&history);
    for kind in [
        RecordKind::Create,
        RecordKind::Insert,
        RecordKind::Split,
        RecordKind::Downlink,
        RecordKind::NewRoot,
        RecordKind::Prune,
        RecordKind::Merge,
        RecordKind::Lock,
        RecordKind::LowerRoot,
        RecordKind::Relocate,
    ] {
        assert!(met.kinds.contains_key(kind.name()), "{kind:?}: {met:?}");
    }
    assert!(met.depth >= 3 && met.reused > 0, "{met:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_committed_survives_a_crash_at_every_record_boundary(
        steps in steps(20..200), go_on in steps(1..30), seed in any::<u64>(),
        page_size in prop::sample::select(vec![256usize, 512, 1024]),
    ) {
        let mut history = History::new(page_size);
        for step in &steps {
            history.step(step);
        }
        crash_everywhere(&history, seed, &go_on);
    }

    #[test]
    fn open_transactions_see_the_committed_and_their_own(
        steps in steps(20..200), page_size in prop::sample::select(vec![256usize, 512]),
    ) {
        let mut history = History::new(page_size);
        for (nth, step) in steps.iter().enumerate() {
            history.step(step);
            if nth % 16 == 15 {
                history.verify();
                history.verify_sessions();
            }
        }
        history.end_all(true);
        history.vacuum();
        history.verify();
    }
}
