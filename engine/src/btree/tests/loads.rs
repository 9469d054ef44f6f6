//! How full pages get, what is logged, and the largest that fits.

use super::promises::scrambled;
use super::*;
use crate::btree::{Bulk, FILL_PERCENT, Fill, RunEntry};
use crate::error::Error;
use crate::page::cell::bit;
use crate::page::op::Ops;
use crate::page::{cell_bytes_max, flag, key_bytes_max};
use crate::types::SlotNumber;

#[test]
fn an_entry_that_needs_a_page_for_itself_finds_one() {
    for page_size in [256, 512, 8192] {
        let longest = key_bytes_max(page_size);
        for key_bytes in [longest, longest - 9, longest / 2, longest / 3, 8] {
            let store = ordered_store(page_size);
            let tree = Tree::new(&store, &Bytewise);
            let key = |last: u8| {
                let mut key = vec![9; key_bytes];
                key[key_bytes - 1] = last;
                key
            };
            let head = put_head(1);
            let room = cell_bytes_max(page_size, key_bytes)
                - 7
                - crate::btree::measure::key_len(key_bytes);
            for number in [10, 20, 30, 40] {
                put(&tree, head, &key(number), &vec![1; room.min(page_size / 8)]).unwrap();
            }
            let body = vec![3; room];
            for number in [25, 15, 35, 5, 45, 26] {
                put(&tree, head, &key(number), &body).unwrap();
                checked(&store, &Bytewise);
            }
            let mut sorted = [10, 20, 30, 40, 25, 15, 35, 5, 45, 26];
            sorted.sort_unstable();
            let rows = scan_forward(&tree, Target::First, || ());
            let found: Vec<u8> = rows.iter().map(|row| row.0[key_bytes - 1]).collect();
            assert_eq!(found, sorted);
        }
    }
}

/// The fences of a leaf may be far longer than what is left on it: a row that
/// would fill a page of its own then gets shorter ones.
#[test]
fn a_large_row_finds_room_between_fences_of_long_keys_that_are_gone() {
    for page_size in [256, 8192] {
        let longest = key_bytes_max(page_size);
        let long = |first: u8, last: u8| {
            let mut key = vec![first; longest];
            key[longest - 1] = last;
            key
        };
        let short = |key: &[u8]| (key.to_vec(), page_size);
        let mut rows: Vec<(Vec<u8>, usize)> = (1..9).map(|last| (long(2, last), 0)).collect();
        rows.extend((1..9).map(|last| (long(6, last), 0)));
        rows.extend([short(&[4, 1]), short(&[4, 3]), short(&[4, 2]), short(&[1])]);
        rows.extend([short(&[2, 9]), short(&[8]), short(&[6, 5]), short(&[6, 7])]);
        large_rows_find_room(&Bytewise, page_size, &rows);
        large_rows_find_room(&Uncut, page_size, &rows);
    }
}

/// Puts these rows, each with a body of so many bytes or the most that it may
/// have, and removes the long keys as soon as short ones come.
fn large_rows_find_room<C: Compare>(compare: &C, page_size: usize, rows: &[(Vec<u8>, usize)]) {
    let store = MemStore::recording(page_size);
    Tree::<_, C>::create(&store, b"", compare.ordered()).unwrap();
    let tree = Tree::new(&store, compare);
    let mut expected = Vec::new();
    for (key, size) in rows {
        if *size > 0 && expected.is_empty() {
            for (long, _) in rows.iter().filter(|row| row.1 == 0) {
                let mut leaf = tree.leaf_exclusive(Target::Before(long)).unwrap();
                let (slot, _) = place(&tree, &leaf, put_head(1), long);
                let ops = Ops::new().prune(&[SlotNumber(slot as u16)], &[]);
                tree.commit_leaf(&mut leaf, RecordKind::Prune, ops, Xid(7));
            }
        }
        let head = put_head(1);
        let room =
            cell_bytes_max(page_size, key.len()) - 7 - crate::btree::measure::key_len(key.len());
        put(&tree, head, key, &vec![5; room.min(*size)]).unwrap();
        checked(&store, compare);
        if *size > 0 {
            expected.push(key.clone());
        }
    }
    expected.sort();
    let found: Vec<Vec<u8>> = scan_forward(&tree, Target::First, || ())
        .into_iter()
        .map(|row| row.0)
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn what_no_page_can_hold_is_refused_before_anything_changes() {
    let store = ordered_store(512);
    let tree = Tree::new(&store, &Bytewise);
    put(&tree, put_head(1), b"a", b"").unwrap();
    let before = store.log_end();
    let long = vec![1; key_bytes_max(512) + 1];
    assert!(matches!(
        put(&tree, put_head(1), &long, b""),
        Err(Error::KeyTooLarge {
            size: 135,
            limit: 134
        })
    ));
    let large = vec![1; cell_bytes_max(512, 1)];
    assert!(matches!(
        put(&tree, put_head(1), b"k", &large),
        Err(Error::RowTooLarge { .. })
    ));
    // Of a run the entries before are put, and the bad one is refused when it
    // is the first.
    let run = [
        RunEntry {
            head: put_head(1),
            key: b"k",
            body: b"",
        },
        RunEntry {
            head: put_head(1),
            key: &long,
            body: b"",
        },
    ];
    assert_eq!(store.log_end(), before);
    let leaf = tree.leaf_exclusive(Target::Before(b"k")).unwrap();
    assert_eq!(tree.put_run(leaf, &run), Ok(1));
    let before = store.log_end();
    let leaf = tree.leaf_exclusive(Target::Before(b"k")).unwrap();
    assert!(matches!(
        tree.put_run(leaf, &run[1..]),
        Err(Error::KeyTooLarge { .. })
    ));
    assert_eq!(store.log_end(), before);
}

fn fill_percent(report: &check::Report, page_size: usize) -> usize {
    let usable = report.leaf_pages as usize * (page_size - 56);
    100 * (usable - report.free_bytes as usize) / usable
}

/// The rows of an ascending load, put one by one, in runs, and by a bulk build.
fn ascending_loads(fill: Fill) -> [MemStore; 3] {
    // Rows as wide as to make the last leaf's missing prefix matter little.
    let rows: Vec<[u8; 4]> = (0..5000).map(number_key).collect();
    let one_by_one = ordered_store(2048);
    let tree = Tree::new(&one_by_one, &Bytewise);
    tree.fill_to(fill);
    for key in &rows {
        put(&tree, put_head(1), key, &[5; 40]).unwrap();
    }
    let batched = ordered_store(2048);
    let tree = Tree::new(&batched, &Bytewise);
    tree.fill_to(fill);
    let mut rest: &[[u8; 4]] = &rows;
    while !rest.is_empty() {
        let run: Vec<RunEntry<'_>> = rest
            .iter()
            .take(200)
            .map(|key| RunEntry {
                head: put_head(1),
                key,
                body: &[5; 40],
            })
            .collect();
        let leaf = tree.leaf_exclusive(Target::Before(run[0].key)).unwrap();
        let put = tree.put_run(leaf, &run).unwrap();
        rest = &rest[put..];
    }
    let built = MemStore::recording(2048);
    let mut bulk = Bulk::new(&built, &Bytewise, b"").unwrap();
    bulk.fill_to(fill);
    for key in &rows {
        bulk.add(put_head(1), key, &[5; 40]).unwrap();
    }
    bulk.finish().unwrap();
    [one_by_one, batched, built]
}

#[test]
fn ascending_loads_leave_leaves_as_full_as_they_are_to_be() {
    // Full leaves still have room for a new version of a row.
    for (percent, wanted) in [(10, 10), (35, 35), (FILL_PERCENT, FILL_PERCENT), (100, 96)] {
        let stores = ascending_loads(Fill::percent(percent));
        for (store, missing) in stores.iter().zip([10, 6, 6]) {
            let report = checked(store, &Bytewise);
            assert_eq!(report.entries, 5000);
            let fill = fill_percent(&report, 2048);
            assert!(
                (wanted - missing..=wanted + 2).contains(&fill),
                "{fill} percent, not {wanted}"
            );
            let inner = report.inner_pages;
            assert!(inner <= report.leaf_pages / 20 + 3, "{inner} inner pages");
        }
    }
}

#[test]
fn leaves_as_full_as_they_are_to_be_are_not_merged() {
    for wanted in [30, FILL_PERCENT] {
        let [_, _, store] = ascending_loads(Fill::percent(wanted));
        let tree = Tree::new(&store, &Bytewise);
        tree.fill_to(Fill::percent(wanted));
        let mut place: Option<crate::page::PositionBuf> = None;
        let mut merged = 0;
        loop {
            let target = || match &place {
                None => Target::First,
                Some(place) => Target::of(place.as_ref()),
            };
            if tree.merge_right(target()).unwrap() {
                merged += 1;
                continue;
            }
            let leaf = tree.leaf_exclusive(target()).unwrap();
            let page = Page::open(&leaf.guard, leaf.block(&store)).unwrap();
            let Some(high) = page.high() else { break };
            place = Some(high.to_buf());
        }
        // Nothing was deleted: full leaves stay as they are.
        assert_eq!(merged, 0, "at {wanted} percent");
        let fill = fill_percent(&checked(&store, &Bytewise), 2048);
        assert!(fill + 10 >= wanted, "{fill} percent");
    }
}

#[test]
fn ascending_loads_log_little_more_than_the_rows() {
    let [_, batched, built] = ascending_loads(Fill::default());
    // Nothing is moved: what is logged is little more than the rows.
    let logged = |store: &MemStore| -> usize {
        let entries = store.entries();
        let bytes = entries.iter().map(|entry| match entry {
            crate::mem::Entry::Change { record, .. } => {
                record.changes.iter().map(|change| change.ops.len()).sum()
            }
            _ => 0,
        });
        bytes.sum()
    };
    let payload = 5000 * (40 + 4 + 8 + 2);
    assert!(logged(&batched) < payload * 11 / 10, "{}", logged(&batched));
    assert!(logged(&built) < payload * 11 / 10, "{}", logged(&built));
}

#[test]
fn a_hot_chain_packs_old_versions_to_the_right() {
    let store = ordered_store(1024);
    let tree = Tree::new(&store, &Bytewise);
    put(&tree, put_head(1), b"a", b"").unwrap();
    put(&tree, put_head(1), b"z", b"").unwrap();
    for sequence in 1..2000 {
        put(&tree, put_head(sequence), b"hot", &[4; 30]).unwrap();
    }
    let report = checked(&store, &Bytewise);
    let fill = fill_percent(&report, 1024);
    assert!(fill >= 80, "{fill} percent");
}

#[test]
fn a_new_version_shares_the_key_and_the_likeness_of_the_old_one() {
    let store = ordered_store(8192);
    let tree = Tree::new(&store, &Bytewise);
    let key = [8; 100];
    let mut body = vec![6; 500];
    put(&tree, put_head(1), &key, &body).unwrap();
    body[250] = 7;
    put(&tree, put_head(2), &key, &body).unwrap();
    let entries = store.entries();
    let Some(crate::mem::Entry::Change { record, .. }) = entries.last() else {
        panic!("a put is logged");
    };
    assert!(record.changes[0].ops.len() < 40, "{record:?}");
    let report = checked(&store, &Bytewise);
    assert_eq!(report.entries, 2);
    let used = 8192 - 56 - report.free_bytes;
    assert!(used < 500 + 100 + 500 + 40, "the key stands once: {used}");
}

#[test]
fn bulk_built_trees_hold_what_was_added() {
    for (page_size, count) in [(256, 0), (256, 1), (256, 700), (512, 3000), (8192, 3000)] {
        let store = MemStore::recording(page_size);
        let mut bulk = Bulk::new(&store, &Bytewise, b"layout").unwrap();
        bulk.set_next_row_id(77);
        let mut expected = Vec::new();
        for number in 0..count {
            // Long shared stems that change now and then, and some histories.
            let key = [number / 300, 5, number]
                .map(|part: u32| (part as u16).to_be_bytes())
                .concat();
            let versions = if number % 50 == 0 { 40 } else { 1 };
            for sequence in (1..=versions).rev() {
                let body = vec![sequence as u8; (scrambled(number) % 20) as usize];
                bulk.add(put_head(sequence), &key, &body).unwrap();
                expected.push((key.clone(), sequence, body));
            }
        }
        bulk.finish().unwrap();
        checked(&store, &Bytewise);
        let tree = Tree::new(&store, &Bytewise);
        assert_eq!(scan_forward(&tree, Target::First, || ()), expected);
        assert_eq!(tree.meta().unwrap().next_row_id, 77);
        for number in 0..50 {
            put(&tree, put_head(1), &[9, number, 1, 1, 1, 1], b"new").unwrap();
            checked(&store, &Bytewise);
        }
        let backwards = MemStore::recording(page_size);
        let mut bulk = Bulk::new(&backwards, &Backwards, b"").unwrap();
        let mut reversed: Vec<_> = expected.clone();
        reversed.sort_by(|left, right| {
            Backwards
                .compare(&left.0, &right.0)
                .then(right.1.cmp(&left.1))
        });
        for (key, sequence, body) in &reversed {
            bulk.add(put_head(*sequence), key, body).unwrap();
        }
        bulk.finish().unwrap();
        checked(&backwards, &Backwards);
        let tree = Tree::new(&backwards, &Backwards);
        assert_eq!(scan_forward(&tree, Target::First, || ()), reversed);
    }
}

#[test]
fn keys_rank_in_their_order_whatever_order_they_came_in() {
    let store = ordered_store(256);
    let tree = Tree::new(&store, &Bytewise);
    let keys: Vec<u32> = (0..2000).map(|n| n * 7919 % 2000).collect();
    for key in &keys {
        put(&tree, put_head(1), &number_key(*key), b"body").unwrap();
    }
    let ranks: Vec<f64> = (0..2000)
        .map(|key| tree.rank(&number_key(key)).unwrap())
        .collect();
    assert!(ranks.is_sorted());
    assert_eq!(ranks[0], 0.0);
    assert!(ranks[1999] > 0.9 && ranks[1999] < 1.0);
    assert!((ranks[1000] - 0.5).abs() < 0.25, "{}", ranks[1000]);
}

#[test]
fn an_unfinished_bulk_build_is_nobodys_tree() {
    let store = MemStore::recording(256);
    let mut bulk = Bulk::new(&store, &Bytewise, b"").unwrap();
    for number in 0..100 {
        bulk.add(put_head(1), &number_key(number), &[1; 10])
            .unwrap();
    }
    let tree = Tree::new(&store, &Bytewise);
    assert!(matches!(
        tree.leaf(Target::First),
        Err(Error::Corrupt { .. })
    ));
    bulk.finish().unwrap();
    assert_eq!(scan_forward(&tree, Target::First, || ()).len(), 100);
}

#[test]
fn all_frozen_is_cleared_by_what_is_not() {
    let store = ordered_store(512);
    let tree = Tree::new(&store, &Bytewise);
    let frozen = Head {
        flags: bit::FROZEN,
        cid: CommandId(0),
        ..put_head(1)
    };
    put(&tree, frozen, b"a", b"").unwrap();
    let mark = |tree: &Tree<'_, MemStore, Bytewise>| {
        let mut leaf = tree.leaf_exclusive(Target::First).unwrap();
        let ops = Ops::new().flags(flag::ALL_FROZEN, 0);
        tree.commit_leaf(&mut leaf, RecordKind::Prune, ops, Xid::NONE);
    };
    let marked = |tree: &Tree<'_, MemStore, Bytewise>| {
        let guard = tree.leaf(Target::First).unwrap();
        Page::open(&guard, BlockNumber(1))
            .unwrap()
            .has(flag::ALL_FROZEN)
    };
    mark(&tree);
    put(&tree, frozen, b"b", b"").unwrap();
    assert!(marked(&tree));
    put(&tree, put_head(1), b"c", b"").unwrap();
    assert!(!marked(&tree));
    // And through a split.
    let store = ordered_store(256);
    let tree = Tree::new(&store, &Bytewise);
    for number in 0..4 {
        put(&tree, frozen, &number_key(number), &[0; 25]).unwrap();
    }
    mark(&tree);
    put(&tree, put_head(2), &number_key(2), &[0; 60]).unwrap();
    let report = checked(&store, &Bytewise);
    assert_eq!(report.leaf_pages, 2);
}

#[test]
fn full_leaves_have_room_for_a_new_version() {
    for store in ascending_loads(Fill::percent(100)) {
        let tree = Tree::new(&store, &Bytewise);
        let before = checked(&store, &Bytewise).leaf_pages;
        // A run that finds the tree empty fills its first leaf.
        for nth in (100..4900).step_by(100) {
            let key = number_key(nth);
            let leaf = tree.leaf_exclusive(Target::Before(&key)).unwrap();
            let page = Page::open(&leaf.guard, leaf.block(&store)).unwrap();
            let slot = crate::btree::search::lower_bound(
                page,
                leaf.block(&store),
                Target::Before(&key),
                &Bytewise,
            );
            let entry = NewEntry {
                head: put_head(2),
                key: &key,
                body: &[6; 40],
                slot: slot.unwrap(),
                key_below: true,
                like: None,
            };
            assert!(tree.fits(&leaf, &entry).unwrap(), "row {nth}");
        }
        assert_eq!(before, checked(&store, &Bytewise).leaf_pages);
    }
}

#[test]
fn rows_frozen_stays_while_what_is_written_stands_on_them() {
    let frozen = Head {
        flags: bit::FROZEN,
        cid: CommandId(0),
        ..put_head(1)
    };
    let newer = Head {
        flags: EntryKind::Tombstone as u8,
        sequence: Sequence(frozen.sequence.0 + 1),
        ..put_head(2)
    };
    let mark = |tree: &Tree<'_, MemStore, Bytewise>| {
        let mut leaf = tree.leaf_exclusive(Target::First).unwrap();
        let ops = Ops::new().flags(flag::SETTLED, 0);
        tree.commit_leaf(&mut leaf, RecordKind::Prune, ops, Xid::NONE);
    };
    let marks = |tree: &Tree<'_, MemStore, Bytewise>| {
        let guard = tree.leaf(Target::First).unwrap();
        Page::open(&guard, BlockNumber(1)).unwrap().flags() & flag::SETTLED
    };
    let store = ordered_store(512);
    let tree = Tree::new(&store, &Bytewise);
    put(&tree, frozen, b"a", b"").unwrap();
    put(&tree, frozen, b"b", b"").unwrap();
    mark(&tree);
    put(&tree, newer, b"a", b"").unwrap();
    assert_eq!(marks(&tree), flag::ROWS_FROZEN);
    checked(&store, &Bytewise);
    put(&tree, put_head(1), b"c", b"").unwrap();
    assert_eq!(marks(&tree), 0);
    // A split between a version and the row below it gives the version a key.
    let store = ordered_store(256);
    let tree = Tree::new(&store, &Bytewise);
    put(&tree, frozen, b"a", &[0; 60]).unwrap();
    mark(&tree);
    for number in 2..5 {
        let head = Head {
            sequence: Sequence(number),
            ..put_head(2)
        };
        put(&tree, head, b"a", &[0; 60]).unwrap();
    }
    assert!(checked(&store, &Bytewise).leaf_pages > 1);
    assert_eq!(marks(&tree), 0);
}
