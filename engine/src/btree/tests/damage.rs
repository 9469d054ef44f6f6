//! The metapage, and what `check` finds.

use super::*;
use crate::btree::Meta;
use crate::error::Error;
use crate::page::flag;
use crate::page::op::Ops;
use crate::record::Record;
use crate::types::SlotNumber;

#[test]
fn the_metapage_keeps_layout_and_leases() {
    let store = MemStore::recording(512);
    Tree::<_, Bytewise>::create(&store, b"columns", true).unwrap();
    let tree = Tree::new(&store, &Bytewise);
    assert_eq!(tree.lease_row_ids(1000), Ok(1..1001));
    tree.set_layout(b"other columns").unwrap();
    assert_eq!(tree.lease_row_ids(5), Ok(1001..1006));
    let meta = tree.meta().unwrap();
    assert_eq!(meta.layout, b"other columns");
    assert!(tree.set_layout(&[0; 600]).is_err());
    assert_eq!(tree.meta(), Ok(meta));
    assert!(Tree::new(&store, &Backwards).meta().is_err());
}

#[test]
fn an_unknown_format_version_or_a_damaged_metapage_is_refused() {
    let store = ordered_store(512);
    let tree = Tree::new(&store, &Bytewise);
    let good = tree.meta().unwrap();
    let wrong = [
        Meta {
            format_version: 99,
            ..good.clone()
        },
        Meta {
            magic: 1,
            ..good.clone()
        },
    ];
    for meta in wrong {
        let mut guard = store.lock(BlockNumber::META).unwrap();
        let record = Record::new(RecordKind::Meta)
            .change(BlockNumber::META, Ops::new().meta(&meta.encode().unwrap()));
        store.commit(&record, &mut [&mut guard]);
        drop(guard);
        assert!(matches!(tree.meta(), Err(Error::Corrupt { .. })));
        assert_eq!(check::check(&store, &Bytewise).unwrap().problems.len(), 2);
    }
    for length in 0..good.encode().unwrap().len() {
        let mut guard = store.lock(BlockNumber::META).unwrap();
        let body = &good.encode().unwrap()[..length];
        let record = Record::new(RecordKind::Meta).change(BlockNumber::META, Ops::new().meta(body));
        store.commit(&record, &mut [&mut guard]);
        drop(guard);
        assert!(tree.meta().is_err(), "{length} bytes");
    }
}

#[test]
fn check_finds_each_of_these_corruptions() {
    let broken = |what: &str, change: &dyn Fn(&MemStore, &Tree<'_, MemStore, Bytewise>)| {
        let store = ordered_store(256);
        let tree = Tree::new(&store, &Bytewise);
        for number in 0..60 {
            put(&tree, put_head(1), &number_key(number), &[7; 9]).unwrap();
        }
        checked(&store, &Bytewise);
        change(&store, &tree);
        let report = check::check(&store, &Bytewise).unwrap();
        let found: Vec<&str> = report.problems.iter().map(|p| &p.what[..]).collect();
        assert!(
            found.iter().any(|found| found.contains(what)),
            "{what}: {found:?}"
        );
    };
    let alter = |tree: &Tree<'_, MemStore, Bytewise>, ops: &dyn Fn(Page<'_>) -> Ops| {
        let mut leaf = tree
            .leaf_exclusive(Target::Before(&number_key(30)))
            .unwrap();
        let ops = ops(Page::open(&leaf.guard, BlockNumber(9)).unwrap());
        tree.commit_leaf(&mut leaf, RecordKind::Prune, ops, Xid::NONE);
    };
    let cell = |number: u32, page: Page<'_>| {
        let mut cell = Vec::new();
        let key = number_key(number);
        put_head(1).encode(Some(&key[page.prefix_len()..]), b"", &mut cell);
        cell
    };
    broken("out of order", &|_, tree| {
        alter(tree, &|page| {
            Ops::new().insert(SlotNumber(0), false, &cell(30, page))
        });
    });
    broken("outside the page's fences", &|_, tree| {
        alter(tree, &|page| {
            Ops::new().insert(SlotNumber(0), false, &cell(1, page))
        });
    });
    let newer = |kind: EntryKind| {
        move |page: Page<'_>| {
            let key = number_key(30);
            let target = Target::Before(&key);
            let slot = lower_bound(page, BlockNumber(9), target, &Bytewise).unwrap();
            let head = match kind {
                EntryKind::Lock => lock_head(7),
                _ => put_head(2),
            };
            let mut cell = Vec::new();
            head.encode(Some(&key[page.prefix_len()..]), b"", &mut cell);
            Ops::new().insert(SlotNumber(slot as u16), false, &cell)
        }
    };
    broken(check::UNLINKED, &|_, tree| {
        alter(tree, &newer(EntryKind::Put));
    });
    // What is put first behind a row lock has one too.
    let store = ordered_store(256);
    let tree = Tree::new(&store, &Bytewise);
    put(&tree, put_head(1), &number_key(30), &[7; 9]).unwrap();
    alter(&tree, &newer(EntryKind::Lock));
    assert_eq!(check::check(&store, &Bytewise).unwrap().problems, []);
    broken("left link", &|_, tree| {
        alter(tree, &|_| Ops::new().links(Some(BlockNumber(1)), None));
    });
    broken("INCOMPLETE_SPLIT, though", &|_, tree| {
        alter(tree, &|_| Ops::new().flags(flag::INCOMPLETE_SPLIT, 0));
    });
    broken("ROOT", &|_, tree| {
        alter(tree, &|_| Ops::new().flags(flag::ROOT, 0));
    });
    broken("ALL_FROZEN", &|_, tree| {
        alter(tree, &|_| Ops::new().flags(flag::ALL_FROZEN, 0));
    });
    broken("ROWS_FROZEN", &|_, tree| {
        alter(tree, &|_| Ops::new().flags(flag::ROWS_FROZEN, 0));
    });
    broken("ORDERED", &|_, tree| {
        alter(tree, &|_| Ops::new().flags(0, flag::ORDERED));
    });
    broken("lower fence is not", &|_, tree| {
        alter(tree, &|page| {
            let high = page.high();
            let high = high.as_ref().map(|high| high.to_buf()).unwrap();
            Ops::new().fences(0, None, Some(high.as_ref()))
        });
    });
    broken("two links", &|_, tree| {
        alter(tree, &|_| Ops::new().links(None, Some(BlockNumber(1))));
    });
    broken("its parent has no downlink", &|store, tree| {
        let (root, _) = tree.known_root().unwrap();
        let mut guard = store.lock(root).unwrap();
        let record =
            Record::new(RecordKind::Prune).change(root, Ops::new().prune(&[SlotNumber(1)], &[]));
        store.commit(&record, &mut [&mut guard]);
    });
    broken("no link leads to", &|store, _| {
        let mut guard = store.allocate().unwrap();
        let block = store.block_of(&guard);
        let format = crate::page::op::Format {
            kind: crate::page::PageKind::Leaf,
            level: crate::types::Level::LEAF,
            flags: flag::ORDERED,
            left: BlockNumber::NONE,
            right: BlockNumber::NONE,
            generation: 0,
            prefix_len: 0,
            low: None,
            high: None,
        };
        let record = Record::new(RecordKind::Create).init(block, Ops::new().format(&format));
        store.commit(&record, &mut [&mut guard]);
    });
}
