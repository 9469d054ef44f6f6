//! A tree that loses its rows: VACUUM takes leaves, inner pages and levels away.

mod history;

use std::collections::BTreeSet;

use engine::btree::{Target, Tree};
use engine::mvcc::scan::Direction;
use engine::store::PageStore;
use history::{History, KEYS, Step, choices, scan};

/// Rows enough for four levels, committed.
fn grown(page_size: usize) -> History {
    let mut history = History::new(page_size);
    for number in (0..KEYS).rev() {
        history.step(&Step::Insert(0, number, number));
        history.step(&Step::Update(0, number, number));
    }
    history.end_all(true);
    history
}

fn delete(history: &mut History, numbers: impl Iterator<Item = u8>) {
    for number in numbers {
        history.step(&Step::Delete(0, number));
    }
    history.end_all(true);
}

#[test]
fn a_tree_without_rows_is_one_leaf_after_one_vacuum() {
    let mut history = grown(256);
    let before = history.check();
    assert!(before.depth >= 3 && before.inner_pages > 4, "{before:?}");
    delete(&mut history, 0..KEYS);
    history.vacuum();
    let after = history.check();
    assert_eq!(
        (after.depth, after.leaf_pages, after.inner_pages),
        (1, 1, 0),
        "{after:?}"
    );
    history.verify();
    // It grows again as any tree does.
    for number in 0..KEYS {
        history.step(&Step::Insert(0, number, number));
    }
    history.end_all(true);
    history.verify();
    assert!(history.check().depth >= 3);
}

#[test]
fn few_rows_far_apart_are_left_on_few_pages() {
    let mut history = grown(256);
    let kept = |number: &u8| number.is_multiple_of(25);
    delete(&mut history, (0..KEYS).filter(|number| !kept(number)));
    history.vacuum();
    let after = history.check();
    assert!(after.leaf_pages <= 3 && after.depth <= 2, "{after:?}");
    history.verify();
}

#[test]
fn an_old_snapshot_keeps_its_rows_and_the_tree_its_pages() {
    let mut history = grown(256);
    let mut reader = history.world.session();
    reader.begin();
    let snapshot = reader.snapshot();
    let seen = scan(
        &*history.store,
        &history.world,
        &snapshot,
        Direction::Forward,
    )
    .unwrap();
    delete(&mut history, 0..KEYS);
    let before = history.check();
    history.vacuum();
    let again = scan(
        &*history.store,
        &history.world,
        &snapshot,
        Direction::Forward,
    )
    .unwrap();
    assert_eq!(again, seen);
    assert!(history.check().leaf_pages > before.leaf_pages / 4);
    reader.abort();
    drop(snapshot);
    history.vacuum();
    assert_eq!(history.check().leaf_pages, 1);
}

#[test]
fn a_session_that_remembers_pages_of_levels_that_are_gone_finds_everything() {
    let mut history = grown(256);
    let (store, order) = (history.store.clone(), history.compare);
    let tree = Tree::new(&*store, &order);
    drop(tree.leaf(Target::First).unwrap());
    tree.append_near(
        tree.store
            .block_count()
            .map(|n| engine::BlockNumber(n - 1))
            .ok(),
    );
    let (root, rightmost) = (tree.known_root(), tree.known_rightmost());
    delete(&mut history, 2..KEYS);
    history.vacuum();
    assert_eq!(history.check().depth, 1);
    let roots: BTreeSet<_> = (0..2)
        .map(|_| {
            let stale = Tree::with_root(&*store, &order, root);
            stale.append_near(rightmost);
            drop(stale.leaf_exclusive(Target::Last).unwrap());
            drop(stale.leaf(Target::First).unwrap());
            let root = stale.known_root().unwrap();
            (root.0.0, root.1.0)
        })
        .collect();
    assert_eq!(roots.len(), 1);
    assert!(!roots.contains(&root.map(|root| (root.0.0, root.1.0)).unwrap()));
}

#[test]
fn a_file_whose_rows_are_gone_is_cut_to_a_metapage_and_a_leaf() {
    let mut history = grown(256);
    delete(&mut history, 0..KEYS);
    history.vacuum();
    let cleared = history.shrink(1);
    assert_eq!((cleared.end, cleared.moved), (2, 1), "{cleared:?}");
    assert_eq!(history.store.block_count(), Ok(2));
    let report = history.check();
    assert_eq!((report.leaf_pages, report.deleted_pages), (1, 0));
    history.verify();
    for number in 0..KEYS {
        history.step(&Step::Insert(0, number, number));
    }
    history.end_all(true);
    history.verify();
}

#[test]
fn pages_are_moved_until_no_unused_one_is_left_in_front() {
    for kept in [2, 3, 5] {
        let mut history = grown(256);
        delete(&mut history, (0..KEYS).filter(|number| number % kept != 0));
        history.vacuum();
        let before = history.check();
        let cleared = history.shrink(u32::MAX);
        let after = history.check();
        assert!(cleared.moved > 0);
        assert_eq!(after.leaf_pages, before.leaf_pages);
        assert_eq!(after.inner_pages, before.inner_pages);
        // What was moved leaves nothing behind before the end.
        assert_eq!((after.deleted_pages, after.new_pages), (0, 0), "{after:?}");
        assert_eq!(
            u64::from(history.store.block_count().unwrap()),
            1 + after.leaf_pages + after.inner_pages
        );
        history.verify();
    }
}

#[test]
fn no_more_pages_are_moved_than_is_said_and_whoever_waits_gets_his_turn() {
    let mut history = grown(256);
    delete(&mut history, (0..KEYS).filter(|number| number % 5 != 0));
    history.vacuum();
    let cleared = history.shrink(2);
    assert_eq!(cleared.moved, 2);
    history.verify();
    let (store, order) = (history.store.clone(), history.compare);
    let tree = Tree::new(&*store, &order);
    let mut asked = 0;
    let cleared = tree
        .clear_end(u32::MAX, || {
            asked += 1;
            asked < 4
        })
        .unwrap();
    assert!(cleared.moved < 4 && cleared.end > 4, "{cleared:?}");
    history.verify();
}

#[test]
fn whoever_remembers_blocks_behind_the_end_does_not_look_at_them() {
    let mut history = grown(256);
    let (store, order) = (history.store.clone(), history.compare);
    let last = engine::BlockNumber(store.block_count().unwrap() - 1);
    delete(&mut history, 2..KEYS);
    history.vacuum();
    history.shrink(u32::MAX);
    assert!(store.block_count().unwrap() <= last.0);
    let tree = Tree::with_root(&*store, &order, Some((last, engine::Level(2))));
    drop(tree.leaf(Target::First).unwrap());
    tree.append_near(Some(last));
    drop(tree.leaf_exclusive(Target::Last).unwrap());
    tree.look_near(last);
    drop(tree.leaf(Target::First).unwrap());
    history.verify();
}

#[test]
fn a_crash_may_bring_back_what_was_cut_off() {
    let mut history = grown(256);
    history.step(&Step::Checkpoint);
    delete(&mut history, (0..KEYS).filter(|number| number % 7 != 0));
    history.vacuum();
    history.shrink(u32::MAX);
    let end = history.store.block_count().unwrap();
    let mut came_back = 0;
    for seed in 0..40 {
        let mut choose = choices(seed);
        let crashed = history.store.crash(history.store.log_end(), &mut choose);
        came_back += u32::from(crashed.block_count().unwrap() > end);
        crashed.redo().unwrap();
        assert_eq!(crashed.block_count(), Ok(end));
        history.recovered(crashed).verify();
    }
    assert!((1..40).contains(&came_back), "{came_back}");
}
