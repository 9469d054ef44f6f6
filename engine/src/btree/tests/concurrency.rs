//! Several sessions at once, on real latches.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};

use crossbeam::thread;

use super::promises::prune_all_but_tens;
use super::*;
use crate::btree::RunEntry;

/// Multiples of ten are loaded before and stay; others come and go.
const STABLE: u32 = 400;

fn key_of(row: &Seen) -> u32 {
    u32::from_be_bytes(row.0[..].try_into().unwrap())
}

fn stable(rows: &[Seen]) -> Vec<u32> {
    rows.iter()
        .map(key_of)
        .filter(|number| number.is_multiple_of(10))
        .collect()
}

fn run(page_size: usize, recycle: bool, seed: u32) {
    let store = MemStore::new(page_size);
    if recycle {
        // Deleted pages are used again at once, under the readers' feet.
        store.set_recyclable_before(u64::MAX);
    }
    Tree::<_, Bytewise>::create(&store, b"", true).unwrap();
    let loader = Tree::new(&store, &Bytewise);
    let expected: Vec<u32> = (0..STABLE).map(|nth| nth * 10).collect();
    for number in &expected {
        put(&loader, put_head(1), &number_key(*number), &[1; 12]).unwrap();
    }
    let writing = AtomicBool::new(true);
    // What the writers have put.
    let kept = Mutex::new(BTreeSet::new());
    let merges = Mutex::new(0);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2u32)
            .map(|writer| {
                let (store, kept) = (&store, &kept);
                scope.spawn(move |_| {
                    let tree = Tree::new(store, &Bytewise);
                    let mut state = seed * 7 + writer;
                    for _ in 0..1500 {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let number = (state >> 8) % (STABLE * 10);
                        if number.is_multiple_of(10) {
                            continue;
                        }
                        // Writers do not meet in one key.
                        let number = number * 2 + writer;
                        let number = number + STABLE * 100;
                        if kept.lock().unwrap().contains(&number) {
                            continue;
                        }
                        put(&tree, put_head(1), &number_key(number), &[2; 20]).unwrap();
                        kept.lock().unwrap().insert(number);
                    }
                })
            })
            .collect();
        // Comes and goes between the stable keys.
        let (tide_store, merges_of, tide_on) = (&store, &merges, &writing);
        scope.spawn(move |_| {
            let tree = Tree::new(tide_store, &Bytewise);
            let mut state = seed;
            // On a busy machine the writers may be done before the tide's first
            // merge: it goes on until there is one, within reason.
            let mut rounds = 0;
            while tide_on.load(Atomic::SeqCst) || rounds < 50_000 && *merges_of.lock().unwrap() == 0
            {
                rounds += 1;
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let base = (state >> 8) % STABLE * 10;
                let keys: Vec<[u8; 4]> = (1..10).map(|nth| number_key(base + nth)).collect();
                let run: Vec<RunEntry<'_>> = keys
                    .iter()
                    .map(|key| RunEntry {
                        head: put_head(1),
                        key,
                        body: &[3; 25],
                    })
                    .collect();
                let mut rest = &run[..];
                while let Some(first) = rest.first() {
                    let leaf = tree.leaf_exclusive(Target::Before(first.key)).unwrap();
                    let put = tree.put_run(leaf, rest).unwrap();
                    rest = &rest[put..];
                }
                for key in &keys {
                    let near = u32::from_be_bytes(*key);
                    // The writers' keys, which may share the last such leaf,
                    // are theirs to keep.
                    prune_all_but_tens(&tree, near, STABLE * 10);
                }
                for near in [base.saturating_sub(10), base, base + 5, base + 10] {
                    if tree.merge_right(Target::Before(&number_key(near))).unwrap() {
                        *merges_of.lock().unwrap() += 1;
                    }
                }
            }
        });
        for direction in 0..2 {
            let (store, writing, expected) = (&store, &writing, &expected);
            scope.spawn(move |_| {
                let tree = Tree::new(store, &Bytewise);
                let mut scans = 0;
                while writing.load(Atomic::SeqCst) || scans == 0 {
                    let rows = if direction == 0 {
                        scan_forward(&tree, Target::First, std::thread::yield_now)
                    } else {
                        let mut rows = scan_backward(
                            &tree,
                            Target::Before(&number_key(STABLE * 50)),
                            std::thread::yield_now,
                        );
                        rows.reverse();
                        rows
                    };
                    let found: Vec<u32> = stable(&rows)
                        .into_iter()
                        .filter(|number| *number < STABLE * 10)
                        .collect();
                    assert_eq!(&found, expected, "direction {direction}");
                    assert!(
                        rows.windows(2)
                            .all(|pair| key_of(&pair[0]) < key_of(&pair[1])),
                        "a row was seen twice or out of order"
                    );
                    scans += 1;
                }
            });
        }
        for writer in writers {
            writer.join().unwrap();
        }
        writing.store(false, Atomic::SeqCst);
    })
    .unwrap();
    checked(&store, &Bytewise);
    assert!(*merges.lock().unwrap() > 0, "nothing was merged");
    let rows = scan_forward(&loader, Target::First, || ());
    let found: BTreeSet<u32> = rows
        .iter()
        .map(key_of)
        .filter(|number| *number >= STABLE * 100)
        .collect();
    let kept = kept.lock().unwrap();
    let lost: Vec<&u32> = kept.difference(&found).collect();
    assert!(lost.is_empty(), "lost keys: {lost:?}");
    assert_eq!(found.len(), kept.len());
}

#[test]
fn scans_see_stable_rows_once_while_leaves_split_and_merge() {
    for seed in 0..3 {
        run(256, false, seed);
    }
}

#[test]
fn scans_see_stable_rows_once_while_deleted_leaves_are_used_again() {
    for seed in 0..3 {
        run(256, true, seed);
        run(512, true, seed);
    }
}

#[test]
fn sessions_that_append_lose_no_row() {
    let store = MemStore::new(512);
    Tree::<_, Bytewise>::create(&store, b"", true).unwrap();
    thread::scope(|scope| {
        for session in 0..3u32 {
            let store = &store;
            scope.spawn(move |_| {
                let tree = Tree::new(store, &Bytewise);
                for nth in 0..2000 {
                    let number = nth * 3 + session;
                    put(&tree, put_head(1), &number_key(number), &[1; 12]).unwrap();
                }
            });
        }
    })
    .unwrap();
    checked(&store, &Bytewise);
    let tree = Tree::new(&store, &Bytewise);
    let rows = scan_forward(&tree, Target::First, || ());
    let found: Vec<u32> = rows.iter().map(key_of).collect();
    assert_eq!(found, (0..6000).collect::<Vec<_>>());
}
