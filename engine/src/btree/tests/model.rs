//! Random histories against a sorted list.

use proptest::prelude::*;

use super::*;
use crate::btree::measure::{key_len, keyless_len};
use crate::btree::search::compare_positions;
use crate::btree::{Bulk, Filling, RunEntry};
use crate::page::op::Ops;
use crate::page::{PageKind, Position, cell_bytes_max, key_bytes_max};
use crate::store::LSN_BYTES;
use crate::types::{Level, SlotNumber};

/// Merges two pages: only such as VACUUM would have merged, who asks
/// [`Filling::may_merge`] before.
fn merge<C: Compare>(
    tree: &Tree<'_, MemStore, C>,
    level: Level,
    merge: impl FnOnce() -> Result<bool>,
) {
    let before = tree.store.pages();
    let page = |at: BlockNumber| Page::open(&before[at.0 as usize][LSN_BYTES..], at).unwrap();
    let is_merged = merge().unwrap();
    let after = tree.store.pages();
    let gone = (1..before.len() as u32).map(BlockNumber).find(|at| {
        let now = Page::open(&after[at.0 as usize][LSN_BYTES..], *at);
        !Page::is_new(&before[at.0 as usize][LSN_BYTES..])
            && page(*at).kind() != PageKind::Deleted
            && now.is_ok_and(|now| now.kind() == PageKind::Deleted)
    });
    assert_eq!(gone.is_some(), is_merged);
    if let Some(left) = gone {
        let right = page(left).right();
        let filling = |at| Filling::of(page(at));
        let fill = tree.fill_of(level);
        assert!(filling(left).may_merge(filling(right), fill));
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The next version of a key, with a body of this size.
    Put(Vec<u8>, usize),
    /// A version somewhere among those of a key.
    PutBetween(Vec<u8>, u64, usize),
    Lock(Vec<u8>, u32),
    /// Removes the entries of a leaf that the bits say, freezes the others.
    Prune(Vec<u8>, u64),
    Merge(Vec<u8>),
    /// Of inner pages of a level.
    MergeInner(u8, Vec<u8>),
    Lower,
    /// Consecutive new keys.
    Run(Vec<u8>, u8, usize),
    Look(Vec<u8>),
}

/// Keys that end in a zero, which they do not contain otherwise, so that no
/// one is a prefix of another.
fn a_key(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => proptest::collection::vec(1u8..5, 1..4),
        2 => proptest::collection::vec(1u8..3, 1..longest),
        2 => proptest::collection::vec(254u8..=255, longest - 2..longest),
    ]
    .prop_map(move |mut key| {
        key.truncate(longest - 1);
        key.push(0);
        key
    })
}

fn a_size(page_size: usize) -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0..page_size / 12,
        2 => 0..page_size / 3,
        // Cut down to what a page can hold.
        1 => Just(page_size),
    ]
}

fn steps(page_size: usize) -> impl Strategy<Value = Vec<Step>> {
    let longest = key_bytes_max(page_size);
    let step = prop_oneof![
        10 => (a_key(longest), a_size(page_size)).prop_map(|(key, size)| Step::Put(key, size)),
        3 => (a_key(longest), 1u64..6, a_size(page_size))
            .prop_map(|(key, back, size)| Step::PutBetween(key, back, size)),
        2 => (a_key(longest), 3u32..9).prop_map(|(key, holder)| Step::Lock(key, holder)),
        4 => (a_key(longest), any::<u64>()).prop_map(|(key, bits)| Step::Prune(key, bits)),
        5 => a_key(longest).prop_map(Step::Merge),
        3 => (1u8..4, a_key(longest)).prop_map(|(level, key)| Step::MergeInner(level, key)),
        1 => Just(Step::Lower),
        2 => (a_key(longest - 2), 1u8..30, 0..page_size / 16)
            .prop_map(|(key, count, size)| Step::Run(key, count, size)),
        3 => a_key(longest).prop_map(Step::Look),
    ];
    proptest::collection::vec(step, 1..120)
}

struct Model<'c, C> {
    compare: &'c C,
    page_size: usize,
    rows: Vec<Seen>,
}

impl<C: Compare> Model<'_, C> {
    fn find(&self, key: &[u8], sequence: u64) -> std::result::Result<usize, usize> {
        let position = |key, sequence| Position {
            key,
            sequence: Some(Sequence(sequence)),
        };
        self.rows.binary_search_by(|row| {
            compare_positions(
                position(&row.0, row.1),
                position(key, sequence),
                self.compare,
            )
        })
    }

    fn newest(&self, key: &[u8]) -> u64 {
        self.rows
            .iter()
            .filter(|row| row.0 == key && row.1 < Sequence::LOCK_BASE)
            .map(|row| row.1)
            .max()
            .unwrap_or(0)
    }

    /// A body of this size, or the largest that is allowed.
    fn body(&self, head: Head, key: &[u8], size: usize) -> Vec<u8> {
        let most =
            cell_bytes_max(self.page_size, key.len()) - keyless_len(head, 0) - key_len(key.len());
        (0..size.min(most))
            .map(|nth| (nth as u64 + head.sequence.0 / 3) as u8)
            .collect()
    }

    fn put(&mut self, tree: &Tree<'_, MemStore, C>, head: Head, key: &[u8], size: usize) {
        let Err(at) = self.find(key, head.sequence.0) else {
            return;
        };
        let body = self.body(head, key, size);
        let block = super::put(tree, head, key, &body).unwrap();
        let guard = tree.leaf(Target::At(key, head.sequence)).unwrap();
        assert_eq!(tree.store.block_of_shared(&guard), block, "where put said");
        self.rows.insert(at, (key.to_vec(), head.sequence.0, body));
    }

    fn step(&mut self, tree: &Tree<'_, MemStore, C>, step: &Step) {
        match step {
            Step::Put(key, size) => {
                let head = put_head(self.newest(key) + 1);
                self.put(tree, head, key, *size);
            }
            Step::PutBetween(key, back, size) => {
                let sequence = (self.newest(key) + 7).saturating_sub(2 * back).max(1);
                self.put(tree, put_head(sequence), key, *size);
            }
            Step::Lock(key, holder) => self.put(tree, lock_head(*holder), key, 1),
            Step::Prune(key, bits) => self.prune(tree, key, *bits),
            Step::Merge(key) => {
                merge(tree, Level::LEAF, || tree.merge_right(Target::Before(key)));
            }
            Step::MergeInner(level, key) if *level <= tree.root_level().unwrap().0 => {
                let level = Level(*level);
                merge(tree, level, || tree.merge_inner(level, Target::Before(key)));
            }
            Step::MergeInner(..) => {}
            Step::Lower => {
                tree.lower_root().unwrap();
            }
            Step::Run(key, count, size) => self.run(tree, key, *count, *size),
            Step::Look(key) => self.look(tree, key),
        }
    }

    fn prune(&mut self, tree: &Tree<'_, MemStore, C>, key: &[u8], bits: u64) {
        let mut leaf = tree.leaf_exclusive(Target::Before(key)).unwrap();
        let block = leaf.block(tree.store);
        let (mut remove, mut freeze) = (Vec::new(), Vec::new());
        let page = Page::open(&leaf.guard, block).unwrap();
        for slot in 0..page.slot_count() {
            let number = SlotNumber(slot as u16);
            if bits >> (slot % 64) & 1 == 1 {
                let row = seen(page, slot, block);
                let at = self.find(&row.0, row.1).unwrap();
                assert_eq!(self.rows.remove(at), row);
                remove.push(number);
            } else if page.leaf_cell(slot, block).unwrap().head.is_version() {
                freeze.push(number);
            }
        }
        let ops = Ops::new().prune(&remove, &freeze);
        tree.commit_leaf(&mut leaf, RecordKind::Prune, ops, Xid(7));
    }

    fn run(&mut self, tree: &Tree<'_, MemStore, C>, stem: &[u8], count: u8, size: usize) {
        let mut keys: Vec<Vec<u8>> = (1..=count)
            .map(|nth| [&stem[..stem.len() - 1], &[5 + nth, 0]].concat())
            .filter(|key| !self.rows.iter().any(|row| row.0 == *key))
            .collect();
        keys.sort_by(|left, right| self.compare.compare(left, right));
        let head = put_head(1);
        let bodies: Vec<Vec<u8>> = keys.iter().map(|key| self.body(head, key, size)).collect();
        let entries: Vec<RunEntry<'_>> = keys
            .iter()
            .zip(&bodies)
            .map(|(key, body)| RunEntry { head, key, body })
            .collect();
        let mut rest = &entries[..];
        while let Some(first) = rest.first() {
            let leaf = tree
                .leaf_exclusive(Target::At(first.key, first.head.sequence))
                .unwrap();
            let put = tree.put_run(leaf, rest).unwrap();
            assert!(put >= 1, "a run makes progress");
            rest = &rest[put..];
            checked(tree.store, self.compare);
        }
        for (key, body) in keys.into_iter().zip(bodies) {
            let at = self.find(&key, 1).unwrap_err();
            self.rows.insert(at, (key, 1, body));
        }
    }

    /// Scans from and to every kind of place around a key and its stems.
    fn look(&self, tree: &Tree<'_, MemStore, C>, key: &[u8]) {
        for length in 0..=key.len() {
            let stem = &key[..length];
            for target in [Target::Before(stem), Target::After(stem)] {
                let after = matches!(target, Target::After(_));
                let split = self
                    .rows
                    .partition_point(|row| self.compare.compare_bound(&row.0, stem, after).is_lt());
                assert_eq!(scan_forward(tree, target, || ()), self.rows[split..]);
                let mut before = scan_backward(tree, target, || ());
                before.reverse();
                assert_eq!(before, self.rows[..split]);
            }
        }
        self.look_on_every_leaf(tree, key);
        for row in &self.rows {
            let at = Target::At(&row.0, Sequence(row.1));
            let guard = tree.leaf(at).unwrap();
            let block = tree.store.block_of_shared(&guard);
            let page = Page::open(&guard, block).unwrap();
            let slot = lower_bound(page, block, at, self.compare).unwrap();
            assert_eq!(&seen(page, slot, block), row);
            assert!(matches(page, slot, block, &row.0, self.compare).unwrap());
        }
    }
}

impl<C: Compare> Model<'_, C> {
    /// Searches leaves for targets that may lie far from them, as a scan does
    /// that looks for its end.
    fn look_on_every_leaf(&self, tree: &Tree<'_, MemStore, C>, key: &[u8]) {
        let mut block = BlockNumber(1);
        while block.is_some() {
            let guard = tree.store.read(block).unwrap();
            let page = Page::open(&guard, block).unwrap();
            if page.kind() != crate::page::PageKind::Leaf {
                return;
            }
            let rows: Vec<Seen> = (0..page.slot_count())
                .map(|slot| seen(page, slot, block))
                .collect();
            for length in 0..=key.len() {
                for after in [false, true] {
                    let stem = &key[..length];
                    let target = if after {
                        Target::After(stem)
                    } else {
                        Target::Before(stem)
                    };
                    let slot = lower_bound(page, block, target, self.compare).unwrap();
                    let expected = rows.partition_point(|row| {
                        self.compare.compare_bound(&row.0, stem, after).is_lt()
                    });
                    assert_eq!(slot, expected, "{target:?}");
                }
            }
            block = page.right();
        }
    }
}

fn history_matches<C: Compare>(compare: &C, page_size: usize, steps: &[Step]) -> u32 {
    let store = MemStore::recording(page_size);
    store.set_recyclable_before(u64::MAX);
    Tree::<_, C>::create(&store, b"", compare.ordered()).unwrap();
    let tree = Tree::new(&store, compare);
    let mut model = Model {
        compare,
        page_size,
        rows: Vec::new(),
    };
    let mut depth = 0;
    for step in steps {
        model.step(&tree, step);
        let report = checked(&store, compare);
        assert_eq!(report.entries, model.rows.len() as u64);
        depth = depth.max(report.depth);
    }
    assert_eq!(scan_forward(&tree, Target::First, || ()), model.rows);
    let mut backward = scan_backward(&tree, Target::Last, || ());
    backward.reverse();
    assert_eq!(backward, model.rows);
    // A session without any cached place finds the same.
    let fresh = Tree::new(&store, compare);
    assert_eq!(scan_forward(&fresh, Target::First, || ()), model.rows);
    depth
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_in_byte_order_is_a_sorted_list(steps in steps(256)) {
        history_matches(&Bytewise, 256, &steps);
    }

    #[test]
    fn a_tree_on_larger_pages_is_a_sorted_list(steps in steps(512)) {
        history_matches(&Bytewise, 512, &steps);
    }

    #[test]
    fn a_tree_in_another_order_is_a_sorted_list(steps in steps(256)) {
        history_matches(&Backwards, 256, &steps);
    }

    #[test]
    fn a_tree_of_keys_that_nobody_may_cut_is_a_sorted_list(steps in steps(256)) {
        history_matches(&Uncut, 256, &steps);
    }
}

/// Builds from sorted entries of any sizes, then goes on as any tree.
fn built_matches<C: Compare>(compare: &C, page_size: usize, entries: &[(Vec<u8>, u64, usize)]) {
    let store = MemStore::recording(page_size);
    let mut model = Model {
        compare,
        page_size,
        rows: Vec::new(),
    };
    for (key, sequence, size) in entries {
        if let Err(at) = model.find(key, *sequence) {
            let body = model.body(put_head(*sequence), key, *size);
            model.rows.insert(at, (key.clone(), *sequence, body));
        }
    }
    let mut bulk = Bulk::new(&store, compare, b"").unwrap();
    for (key, sequence, body) in &model.rows {
        bulk.add(put_head(*sequence), key, body).unwrap();
    }
    bulk.finish().unwrap();
    assert_eq!(checked(&store, compare).entries, model.rows.len() as u64);
    let tree = Tree::new(&store, compare);
    assert_eq!(scan_forward(&tree, Target::First, || ()), model.rows);
    for (key, _, size) in entries {
        model.step(&tree, &Step::Put(key.clone(), *size));
        checked(&store, compare);
    }
    assert_eq!(scan_forward(&tree, Target::First, || ()), model.rows);
}

fn sorted_entries(page_size: usize) -> impl Strategy<Value = Vec<(Vec<u8>, u64, usize)>> {
    let entry = (a_key(key_bytes_max(page_size)), 1u64..9, a_size(page_size));
    proptest::collection::vec(entry, 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_built_tree_is_a_sorted_list(entries in sorted_entries(256)) {
        built_matches(&Bytewise, 256, &entries);
        built_matches(&Backwards, 256, &entries);
        built_matches(&Uncut, 256, &entries);
    }

    #[test]
    fn a_tree_built_on_larger_pages_is_a_sorted_list(entries in sorted_entries(1024)) {
        built_matches(&Bytewise, 1024, &entries);
    }
}

/// Few keys, as long as they may be, and versions put anywhere among theirs:
/// pages on which it matters which entry holds a key.
fn chains(page_size: usize) -> impl Strategy<Value = Vec<(u8, u64, bool, usize)>> {
    let entry = (0u8..3, 1u64..400, any::<bool>(), 0..page_size / 16);
    proptest::collection::vec(entry, 20..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn versions_put_anywhere_in_their_chains_find_room(entries in chains(512)) {
        let store = MemStore::recording(512);
        Tree::<_, Bytewise>::create(&store, b"", true).unwrap();
        let tree = Tree::new(&store, &Bytewise);
        let mut model = Model { compare: &Bytewise, page_size: 512, rows: Vec::new() };
        for (key, sequence, is_lock, size) in &entries {
            let key = [*key; 40];
            let head = if *is_lock { lock_head(*sequence as u32 + 3) } else { put_head(*sequence) };
            model.put(&tree, head, &key, *size);
            checked(&store, &Bytewise);
        }
        assert_eq!(scan_forward(&tree, Target::First, || ()), model.rows);
    }
}

#[test]
fn the_histories_make_trees_of_three_levels() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut deepest = 0;
    for _ in 0..20 {
        let steps = steps(256).new_tree(&mut runner).unwrap().current();
        deepest = deepest.max(history_matches(&Bytewise, 256, &steps));
    }
    assert!(deepest >= 3, "only {deepest} levels");
}
