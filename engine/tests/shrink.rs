//! A tree that loses its rows: VACUUM takes leaves, inner pages and levels away.

mod history;

use std::collections::BTreeSet;

use engine::btree::{Target, Tree};
use engine::mvcc::scan::Direction;
use engine::store::PageStore;
use history::{History, KEYS, Step, scan};

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
