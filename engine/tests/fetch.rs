//! Rows by name, several at a time and by copies of inner pages that may be as
//! old as they like, against rows looked up one by one.

mod history;

use engine::btree::{Guide, Tree};
use engine::mvcc::Versioned;
use engine::mvcc::batch::Batch;
use engine::mvcc::fetch::Keys;
use history::{History, Order, SHORT_KEYS, SHORT_WIDTH, get, key, steps};
use proptest::prelude::*;

/// Reads the rows under some keys, in as few goes as it takes; how many.
fn read(history: &History, guide: &mut Guide, names: &[u8], ahead: usize) -> usize {
    let tree = Tree::new(&*history.store, &history.compare);
    tree.follow(std::mem::take(guide));
    let versioned = Versioned {
        tree: &tree,
        transactions: &history.world,
    };
    let snapshot = history.world.snapshot();
    let mut keys = Keys::of_width(SHORT_KEYS.get().then_some(SHORT_WIDTH));
    names.iter().for_each(|name| keys.push(&key(*name)));
    let (mut batch, mut from, mut goes) = (Batch::default(), 0, 0);
    while from < keys.len() {
        let done = versioned
            .get_run(&mut keys, from, ahead, &snapshot, &mut batch)
            .unwrap();
        assert!(done == batch.len() || done == 1 && batch.is_empty());
        for nth in 0..done {
            let key = keys.get(from + nth).to_vec();
            let row = (!batch.is_empty()).then(|| batch.row(nth));
            let expected = get(&*history.store, &history.world, &snapshot, &key).unwrap();
            assert_eq!(
                row.map(|row| (row.key.to_vec(), row.payload.to_vec(), row.head.sequence)),
                expected.map(|(payload, id)| (id.key, payload, id.sequence))
            );
        }
        from += done;
        goes += 1;
    }
    *guide = tree.guide();
    goes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn several_rows_by_name_are_those_that_are_found_one_by_one(
        before in steps(60..400),
        between in steps(0..200),
        mut names in prop::collection::vec(0..history::KEYS, 1..80),
        is_sorted: bool,
        as_bytes: bool,
        is_short: bool,
        ahead in 0usize..4,
    ) {
        SHORT_KEYS.set(is_short);
        let mut history = History::ordered_by(Order { as_bytes }, 256);
        if is_sorted {
            names.sort_unstable();
        }
        before.iter().for_each(|step| history.step(step));
        let mut guide = Guide::eager();
        read(&history, &mut guide, &names, ahead);
        // The copies are from before, whatever happens to the pages now. Only
        // that the file gets no shorter is promised: who has copies has a lock.
        let may_happen = |step: &&history::Step| !matches!(step, history::Step::Shrink);
        between.iter().filter(may_happen).for_each(|step| history.step(step));
        history.vacuum();
        read(&history, &mut guide, &names, ahead);
    }
}

#[test]
fn the_rows_of_a_leaf_are_read_in_one_go() {
    for is_short in [false, true] {
        SHORT_KEYS.set(is_short);
        rows_of_a_leaf_are_read_in_one_go();
    }
}

fn rows_of_a_leaf_are_read_in_one_go() {
    let mut history = History::new(512);
    for first in (0..history::KEYS).step_by(8) {
        history.step(&history::Step::Fill(0, first, 8));
    }
    history.step(&history::Step::End(0, true));
    let names: Vec<u8> = (0..history::KEYS).collect();
    let leaves = history.check().leaf_pages;
    let goes = read(&history, &mut Guide::eager(), &names, 2);
    assert!(
        leaves > 4 && goes <= leaves as usize + 1,
        "{goes} for {leaves} leaves"
    );
}
