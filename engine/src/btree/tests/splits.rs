//! Every place where the planner says that a page can be split.

use super::*;
use crate::btree::plan::{Fresh, Planner};
use crate::page::SLOT_BYTES;

/// A leaf filled with versions of one long key, two by two apart, and a row
/// in front.
fn full_leaf(body_len: usize) -> (MemStore, usize) {
    let store = ordered_store(512);
    let tree = Tree::new(&store, &Bytewise);
    put(&tree, put_head(1), &[1; 30], b"").unwrap();
    let mut count = 1;
    loop {
        let leaf = tree.leaf_exclusive(Target::First).unwrap();
        let free = Page::open(&leaf.guard, BlockNumber(1)).unwrap().free();
        drop(leaf);
        if free < SLOT_BYTES + 9 + body_len {
            return (store, count);
        }
        put(
            &tree,
            put_head(2 * count as u64),
            &[7; 40],
            &vec![3; body_len],
        )
        .unwrap();
        count += 1;
    }
}

#[test]
fn a_split_that_is_said_to_be_possible_is() {
    let mut tried = 0;
    for body_len in 0..24 {
        let (_, count) = full_leaf(body_len);
        for newest in 0..2 * count as u64 {
            let head = put_head(newest * 2 + 1);
            let body = vec![4; 10 + newest as usize];
            for at in 1..=count {
                let (store, _) = full_leaf(body_len);
                let tree = Tree::new(&store, &Bytewise);
                let mut leaf = tree
                    .leaf_exclusive(Target::At(&[7; 40], head.sequence))
                    .unwrap();
                let (slot, key_below) = place(&tree, &leaf, head, &[7; 40]);
                let entry = NewEntry {
                    head,
                    key: &[7; 40],
                    body: &body,
                    slot,
                    key_below,
                    like: None,
                };
                let page = Page::open(&leaf.guard, BlockNumber(1)).unwrap();
                let fresh = Some(Fresh::Entry(&entry));
                let planner = Planner::new(page, BlockNumber(1), fresh, &Bytewise).unwrap();
                if !planner.is_possible(at) {
                    continue;
                }
                let plan = planner.split_at(at).unwrap();
                // The store panics if the record does not apply.
                let right = tree.split(&mut leaf.guard, &plan, fresh, None).unwrap();
                tree.finish_split(&mut leaf.guard, &mut leaf.path).unwrap();
                drop((leaf, right));
                assert_eq!(checked(&store, &Bytewise).entries as usize, count + 1);
                tried += 1;
            }
            if newest as usize > count {
                break;
            }
        }
    }
    assert!(tried > 1000, "only {tried} splits");
}
