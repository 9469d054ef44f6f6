//! The tree alone: splits, merges, scans and the reuse of pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::btree::check::check;
use engine::btree::search::{copy_key, lower_bound};
use engine::btree::{Guide, NewEntry, Target, Tree};
use engine::compare::Bytewise;
use engine::mem::MemStore;
use engine::page::cell::{EntryKind, Head};
use engine::page::op::Ops;
use engine::page::{Page, PositionBuf};
use engine::record::RecordKind;
use engine::store::PageStore;

use engine::{CommandId, Level, Sequence, SlotNumber, Xid};

use crate::schedule::{exhaust, explore, once};

const PAGE: usize = 256;
/// Bytes of the rows that are there before, and of those that come.
const OLD_BYTES: usize = 12;
const NEW_BYTES: usize = 60;

type Store<'s> = Tree<'s, MemStore, Bytewise>;

/// What one session does.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Puts a row that nobody else puts.
    Put(u32),
    /// Merges the leaf of a key into its right sibling, if they allow it.
    Merge(u32),
    /// Merges the lowest inner page of a key into its right sibling.
    MergeParent(u32),
    /// Makes the root's only child the root.
    Lower,
    /// Descends to a stable row.
    Find(u32),
    /// Reads everything, upwards or downwards.
    Up,
    Down,
}
use Act::*;

/// Pages with stable rows on them.
#[derive(Clone)]
struct Ground {
    pages: Vec<Box<[u8]>>,
    stable: Vec<u32>,
}

/// Sessions that meet, and what happened in all executions so far.
struct Story {
    ground: Ground,
    sessions: Vec<Vec<Act>>,
    /// Deleted pages may be used again at once.
    reuse: bool,
    merges: AtomicUsize,
    /// The fewest and most blocks that an execution has added.
    grown: [AtomicUsize; 2],
}

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn put(tree: &Store<'_>, number: u32, bytes: usize) {
    let (key, body) = (key(number), vec![number as u8; bytes]);
    let head = Head {
        flags: EntryKind::Put as u8,
        xmin: Xid(100),
        cid: CommandId(0),
        sequence: Sequence(1),
    };
    let target = Target::At(&key, head.sequence);
    let leaf = tree.leaf_exclusive(target).unwrap();
    let block = leaf.block(tree.store);
    let page = Page::open(&leaf.guard, block).unwrap();
    let entry = NewEntry {
        head,
        key: &key,
        body: &body,
        slot: lower_bound(page, block, target, &Bytewise).unwrap(),
        key_below: false,
        like: None,
    };
    tree.put(leaf, entry, RecordKind::Insert).unwrap();
}

fn remove(tree: &Store<'_>, number: u32) {
    let key = key(number);
    let target = Target::Before(&key);
    let mut leaf = tree.leaf_exclusive(target).unwrap();
    let block = leaf.block(tree.store);
    let page = Page::open(&leaf.guard, block).unwrap();
    let slot = lower_bound(page, block, target, &Bytewise).unwrap();
    let ops = Ops::new().prune(&[SlotNumber(slot as u16)], &[]);
    tree.commit_leaf(&mut leaf, RecordKind::Prune, ops, Xid::NONE);
}

fn number(page: Page<'_>, slot: usize) -> u32 {
    let mut key = Vec::new();
    copy_key(page, slot, engine::BlockNumber::NONE, &mut key).unwrap();
    u32::from_be_bytes(key[..].try_into().unwrap())
}

/// All rows, resumed by position from leaf to leaf, as scans do.
fn scan(tree: &Store<'_>, up: bool) -> Vec<u32> {
    let mut rows = Vec::new();
    let mut resume: Option<PositionBuf> = None;
    let from = if up { Target::First } else { Target::Last };
    let mut guard = tree.leaf(from).unwrap();
    loop {
        let block = tree.store.block_of_shared(&guard);
        let page = Page::open(&guard, block).unwrap();
        let at = resume.as_ref().map_or(from, |at| Target::of(at.as_ref()));
        let at = lower_bound(page, block, at, &Bytewise).unwrap();
        let (fence, link) = if up {
            rows.extend((at..page.slot_count()).map(|slot| number(page, slot)));
            (page.high(), page.right())
        } else {
            rows.extend((0..at).rev().map(|slot| number(page, slot)));
            (page.low(), page.left())
        };
        let fence = fence.map(|fence| fence.to_buf());
        drop(guard);
        let Some(fence) = fence else {
            break;
        };
        guard = if up {
            tree.right_leaf(fence.as_ref(), link).unwrap()
        } else {
            let next = tree.left_leaf(Some(fence.as_ref()), link).unwrap();
            next.expect("a fence is not minus infinity")
        };
        resume = Some(fence);
    }
    if !up {
        rows.reverse();
    }
    assert!(
        rows.windows(2).all(|pair| pair[0] < pair[1]),
        "each row once and in order: {rows:?}"
    );
    rows
}

impl Story {
    fn new(ground: &Ground, reuse: bool, sessions: &[&[Act]]) -> Story {
        Story {
            ground: ground.clone(),
            sessions: sessions.iter().map(|acts| acts.to_vec()).collect(),
            reuse,
            merges: AtomicUsize::new(0),
            grown: [AtomicUsize::new(usize::MAX), AtomicUsize::new(0)],
        }
    }

    fn act(&self, tree: &Store<'_>, act: Act) {
        let stable = |rows: &mut Vec<u32>| rows.retain(|row| self.ground.stable.contains(row));
        match act {
            Put(number) => put(tree, number, NEW_BYTES),
            Merge(near) => {
                if tree.merge_right(Target::Before(&key(near))).unwrap() {
                    self.merges.fetch_add(1, Ordering::Relaxed);
                }
            }
            MergeParent(near) => {
                let near = key(near);
                // The levels may have become fewer meanwhile.
                if tree.root_level().unwrap() > Level(1)
                    && tree.merge_inner(Level(1), Target::Before(&near)).unwrap()
                {
                    self.merges.fetch_add(1, Ordering::Relaxed);
                }
            }
            Lower => {
                if tree.lower_root().unwrap() {
                    self.merges.fetch_add(1, Ordering::Relaxed);
                }
            }
            Find(wanted) => {
                let (bytes, block) = (key(wanted), engine::BlockNumber::NONE);
                let guard = tree.leaf(Target::Before(&bytes)).unwrap();
                let page = Page::open(&guard, block).unwrap();
                let slot = lower_bound(page, block, Target::Before(&bytes), &Bytewise).unwrap();
                assert!(slot < page.slot_count() && number(page, slot) == wanted);
            }
            Up | Down => {
                let mut rows = scan(tree, matches!(act, Up));
                stable(&mut rows);
                assert_eq!(rows, self.ground.stable, "{act:?}");
            }
        }
    }

    /// One execution: all sessions at once, then the tree is looked at.
    fn tell(self: &Arc<Story>) {
        let store = Arc::new(MemStore::with_pages(PAGE, &self.ground.pages));
        if self.reuse {
            store.set_recyclable_before(u64::MAX);
        }
        let sessions: Vec<_> = (0..self.sessions.len())
            .map(|session| {
                let (story, store) = (Arc::clone(self), Arc::clone(&store));
                shuttle::thread::spawn(move || {
                    let tree = Tree::new(&*store, &Bytewise);
                    // Whoever descends twice goes by copies the second time.
                    tree.follow(Guide::eager());
                    for act in &story.sessions[session] {
                        story.act(&tree, *act);
                    }
                })
            })
            .collect();
        for session in sessions {
            session.join().unwrap();
        }
        assert_eq!(check(&*store, &Bytewise).unwrap().problems, []);
        let mut expected = self.ground.stable.clone();
        expected.extend(self.sessions.iter().flatten().filter_map(|act| match act {
            Put(number) => Some(*number),
            _ => None,
        }));
        expected.sort_unstable();
        let tree = Tree::new(&*store, &Bytewise);
        assert_eq!(scan(&tree, true), expected);
        assert_eq!(scan(&tree, false), expected);
        let grown = store.block_count().unwrap() as usize - self.ground.pages.len();
        self.grown[0].fetch_min(grown, Ordering::Relaxed);
        self.grown[1].fetch_max(grown, Ordering::Relaxed);
    }

    fn explore(self) -> Arc<Story> {
        let story = Arc::new(self);
        let told = Arc::clone(&story);
        explore(move || told.tell());
        story
    }

    fn exhaust(self, preemptions_max: usize) -> Arc<Story> {
        let story = Arc::new(self);
        let told = Arc::clone(&story);
        let count = exhaust(preemptions_max, move || told.tell());
        println!("{count} schedules of {:?}", story.sessions);
        assert!(count > 20, "{count} schedules");
        story
    }

    fn merges(&self) -> usize {
        self.merges.load(Ordering::Relaxed)
    }

    fn grown(&self) -> [usize; 2] {
        [0, 1].map(|at| self.grown[at].load(Ordering::Relaxed))
    }
}

/// All schedules, whatever their preemptions.
const ALL: usize = usize::MAX;

/// A tree of this depth, and two new rows for one leaf, each of which splits
/// that leaf and its parent.
fn full(depth: u32) -> (Ground, u32, u32) {
    once(move || {
        let store = MemStore::new(PAGE);
        Store::create(&store, b"", true).unwrap();
        let tree = Tree::new(&store, &Bytewise);
        let mut stable = Vec::new();
        for nth in 0..400 {
            put(&tree, nth * 10, OLD_BYTES);
            stable.push(nth * 10);
            if nth < 10 && depth > 1 || nth < 4 || check(&store, &Bytewise).unwrap().depth != depth
            {
                continue;
            }
            let pages = store.pages();
            // On a leaf of the rightmost parent, not the last leaf.
            let near = if depth == 1 { 20 } else { (nth - 10) * 10 };
            let splits_two = |new: u32| {
                let twin = MemStore::with_pages(PAGE, &pages);
                put(&Tree::new(&twin, &Bytewise), new, NEW_BYTES);
                // The leaf, its parent, and a new root above a root.
                let more = [2, 3, 2][depth as usize - 1];
                twin.block_count().unwrap() as usize == pages.len() + more
            };
            if splits_two(near + 3) && splits_two(near + 6) {
                return (Ground { pages, stable }, near + 3, near + 6);
            }
        }
        panic!("no tree of depth {depth} whose parent is full");
    })
}

/// A tree of sparse leaves, each with one or two stable rows, below a root or
/// below several parents.
fn sparse(rows: u32) -> Ground {
    once(move || {
        let store = MemStore::new(PAGE);
        Store::create(&store, b"", true).unwrap();
        let tree = Tree::new(&store, &Bytewise);
        let numbers = || (0..rows * 10).step_by(2);
        for number in numbers() {
            put(&tree, number, OLD_BYTES);
        }
        for number in numbers().filter(|number| number % 10 != 0) {
            remove(&tree, number);
        }
        Ground {
            pages: store.pages(),
            stable: (0..rows).map(|nth| nth * 10).collect(),
        }
    })
}

/// As [`sparse`], with few leaves below each of several parents, and those
/// below a root.
fn bare(rows: u32) -> Ground {
    let ground = sparse(rows);
    once(move || {
        let store = MemStore::with_pages(PAGE, &ground.pages);
        let tree = Tree::new(&store, &Bytewise);
        for near in &ground.stable {
            while tree.merge_right(Target::Before(&key(*near))).unwrap() {}
        }
        let report = check(&store, &Bytewise).unwrap();
        assert!(report.depth == 3 && report.inner_pages >= 3, "{report:?}");
        Ground {
            pages: store.pages(),
            stable: ground.stable.clone(),
        }
    })
}

/// As [`bare`], with all inner pages merged: a root with one child.
fn tall(rows: u32) -> Ground {
    let ground = bare(rows);
    once(move || {
        let store = MemStore::with_pages(PAGE, &ground.pages);
        let tree = Tree::new(&store, &Bytewise);
        for near in &ground.stable {
            let merge = || tree.merge_inner(Level(1), Target::Before(&key(*near)));
            while merge().unwrap() {}
        }
        let report = check(&store, &Bytewise).unwrap();
        assert!(report.depth == 3 && report.inner_pages == 2, "{report:?}");
        Ground {
            pages: store.pages(),
            stable: ground.stable.clone(),
        }
    })
}

#[test]
fn an_insertion_that_splits_meets_the_merge_of_its_parents() {
    let ground = bare(40);
    // The leaf splits more than once.
    let puts: [Act; 4] = [Put(101), Put(102), Put(103), Put(104)];
    let mut merges = 0;
    for near in [0, 50, 90, 100, 110, 150, 200, 300] {
        let sessions: [&[Act]; 2] = [&puts, &[MergeParent(near)]];
        let story = Story::new(&ground, true, &sessions).exhaust(1);
        merges += story.merges();
    }
    assert!(merges > 0, "no inner pages were merged");
    let merges: [Act; 4] = [
        MergeParent(50),
        MergeParent(80),
        MergeParent(100),
        Merge(100),
    ];
    // With two who split, an inner page must not become a leaf of one while the
    // other may still take it for an inner page ("Locks" in the README): what
    // stamps are for.
    let story = Story::new(&ground, false, &[&puts, &merges, &[Put(51), Put(52)]]).explore();
    assert!(story.merges() > 0);
}

#[test]
fn readers_lose_no_row_while_inner_pages_merge() {
    let ground = bare(40);
    let merges: [Act; 4] = [
        MergeParent(0),
        MergeParent(100),
        MergeParent(200),
        Merge(100),
    ];
    for reader in [Find(0), Find(90), Find(390), Up, Down] {
        let story = Story::new(&ground, true, &[&merges, &[reader]]).exhaust(2);
        assert!(story.merges() > 0);
        let sessions: [&[Act]; 3] = [&merges, &[reader], &[Put(91), Put(92), Put(93)]];
        Story::new(&ground, true, &sessions).explore();
    }
}

#[test]
fn whoever_remembers_a_root_that_is_gone_finds_the_new_one() {
    let ground = tall(20);
    // The second one remembers the root from its first act.
    for reader in [Find(90), Up, Down, Put(91)] {
        let sessions: [&[Act]; 2] = [&[Lower], &[Find(0), reader]];
        let story = Story::new(&ground, true, &sessions).exhaust(3);
        assert!(story.merges() > 0, "the root was never lowered");
        // The old root becomes another page at once.
        let writer: [Act; 5] = [Lower, Put(11), Put(12), Put(13), Put(14)];
        Story::new(&ground, true, &[&writer, &[Find(0), reader]]).explore();
    }
}

#[test]
fn the_root_is_lowered_while_its_child_is_split() {
    let ground = tall(20);
    let splits: [Act; 6] = [Put(11), Put(12), Put(13), Put(14), Put(15), Put(16)];
    let story = Story::new(&ground, true, &[&[Lower], &splits]).exhaust(1);
    assert!(story.merges() > 0, "the root was never lowered");
    let others: [Act; 6] = [Put(151), Put(152), Put(153), Put(154), Put(155), Put(156)];
    let merges: [Act; 4] = [Lower, MergeParent(0), Lower, Merge(100)];
    let story = Story::new(&ground, false, &[&merges, &splits, &others, &[Up]]).explore();
    assert!(story.merges() > 0);
}

#[test]
fn two_inserters_that_split_one_leaf_and_its_parent_lose_nothing() {
    for depth in [1, 2, 3] {
        let (ground, one, other) = full(depth);
        let sessions: [&[Act]; 2] = [&[Put(one)], &[Put(other)]];
        let story = Story::new(&ground, false, &sessions).explore();
        assert!(story.grown()[1] >= 2, "both have split");
        Story::new(&ground, false, &sessions).exhaust(ALL);
    }
}

#[test]
fn three_inserters_on_one_leaf_lose_nothing() {
    let (ground, one, other) = full(3);
    let sessions: [&[Act]; 3] = [&[Put(one)], &[Put(other)], &[Put(other + 1)]];
    Story::new(&ground, false, &sessions).explore();
    Story::new(&ground, false, &sessions).exhaust(3);
}

#[test]
fn insertions_and_readers_meet_where_the_root_is_split() {
    let (ground, one, other) = full(1);
    for reader in [Up, Down, Find(20)] {
        Story::new(&ground, false, &[&[Put(one)], &[reader]]).exhaust(ALL);
        let sessions: [&[Act]; 3] = [&[Put(one)], &[Put(other)], &[reader]];
        Story::new(&ground, false, &sessions).exhaust(4);
    }
}

#[test]
fn three_operations_on_one_leaf_in_every_order() {
    let ground = once(|| {
        let store = MemStore::new(PAGE);
        Store::create(&store, b"", true).unwrap();
        let tree = Tree::new(&store, &Bytewise);
        put(&tree, 20, OLD_BYTES);
        put(&tree, 30, OLD_BYTES);
        Ground {
            pages: store.pages(),
            stable: vec![20, 30],
        }
    });
    for reader in [Up, Down, Find(20)] {
        Story::new(&ground, false, &[&[Put(25)], &[Put(26)], &[reader]]).exhaust(ALL);
    }
    // The last of these splits the root.
    Story::new(&ground, false, &[&[Put(25)], &[Put(26)], &[Put(27)]]).exhaust(4);
}

#[test]
fn an_insertion_meets_the_merge_of_its_leaf_or_of_a_neighbour() {
    let ground = sparse(12);
    for near in [40, 50, 60, 70] {
        let sessions: [&[Act]; 2] = [&[Put(55)], &[Merge(near)]];
        let story = Story::new(&ground, false, &sessions).explore();
        assert!(story.merges() > 0, "a merge near {near}");
        Story::new(&ground, false, &sessions).exhaust(ALL);
        // The third of these splits the leaf.
        let sessions: [&[Act]; 2] = [&[Put(55), Put(56), Put(57)], &[Merge(near)]];
        Story::new(&ground, false, &sessions).exhaust(3);
    }
}

#[test]
fn merges_of_neighbouring_leaves_do_not_wait_for_one_another_in_a_circle() {
    let ground = sparse(12);
    let sessions: [&[Act]; 2] = [&[Merge(40)], &[Merge(50)]];
    let story = Story::new(&ground, false, &sessions).exhaust(ALL);
    assert!(story.merges() > 0);
    let sessions: [&[Act]; 3] = [&[Merge(40)], &[Merge(50)], &[Merge(60), Merge(30)]];
    Story::new(&ground, false, &sessions).explore();
    Story::new(&ground, false, &sessions).exhaust(2);
}

#[test]
fn scans_see_stable_rows_once_while_leaf_and_parent_split() {
    let (ground, one, other) = full(3);
    Story::new(&ground, false, &[&[Put(one)], &[Up]]).exhaust(4);
    Story::new(&ground, false, &[&[Put(one)], &[Down]]).exhaust(4);
    Story::new(&ground, false, &[&[Put(one), Put(other)], &[Up], &[Down]]).explore();
}

#[test]
fn scans_see_stable_rows_once_while_leaves_merge() {
    let ground = sparse(12);
    for near in [40, 50] {
        let story = Story::new(&ground, false, &[&[Merge(near)], &[Up]]).exhaust(4);
        assert!(story.merges() > 0);
        Story::new(&ground, false, &[&[Merge(near)], &[Down]]).exhaust(4);
    }
    let merges: [Act; 3] = [Merge(40), Merge(50), Merge(60)];
    Story::new(&ground, false, &[&merges, &[Up], &[Down]]).explore();
}

#[test]
fn scans_see_stable_rows_once_while_leaves_split_and_merge() {
    for reuse in [false, true] {
        let ground = sparse(12);
        let puts: [Act; 3] = [Put(55), Put(56), Put(57)];
        let merges: [Act; 3] = [Merge(40), Merge(50), Merge(60)];
        let story = Story::new(&ground, reuse, &[&puts, &merges, &[Up], &[Down]]).explore();
        assert!(story.merges() > 0);
        Story::new(&ground, reuse, &[&[Put(55)], &[Merge(50)], &[Down]]).exhaust(2);
    }
}

#[test]
fn a_descent_with_a_stale_link_survives_the_reuse_of_its_leaf() {
    let ground = sparse(12);
    // The leaf of 50 is merged away, and its page becomes another leaf.
    let writer: [Act; 5] = [Merge(50), Put(95), Put(96), Put(97), Put(98)];
    for reader in [Find(50), Put(51), Merge(50), Up, Down] {
        let sessions: [&[Act]; 2] = [&writer, &[reader]];
        let story = Story::new(&ground, true, &sessions).explore();
        let kept = Story::new(&ground, false, &[&writer]).explore();
        assert!(
            story.grown()[0] < kept.grown()[1],
            "the deleted page was used again: {:?} {:?}",
            story.grown(),
            kept.grown()
        );
    }
    Story::new(&ground, true, &[&writer, &[Find(50)]]).exhaust(5);
    Story::new(&ground, true, &[&writer, &[Put(51)]]).exhaust(4);
}

#[test]
fn copies_of_inner_pages_lead_to_rows_whatever_becomes_of_the_pages() {
    // Leaf, parent and root are split between two descents.
    let (ground, one, other) = full(3);
    let near = one - one % 10;
    let visits: &[Act] = &[Find(near), Find(near + 10), Find(near)];
    Story::new(&ground, false, &[visits, &[Put(one)], &[Put(other)]]).explore();
    Story::new(&ground, false, &[visits, &[Put(one), Put(other)]]).exhaust(3);
    // Leaves are merged, their pages used again for others.
    let ground = sparse(12);
    for reuse in [false, true] {
        let visits: &[Act] = &[Find(50), Find(60), Find(50)];
        let merges: &[Act] = &[Merge(40), Put(91), Put(92), Put(93)];
        let story = Story::new(&ground, reuse, &[visits, merges, &[Merge(50)]]).explore();
        assert!(story.merges() > 0);
        let story = Story::new(&ground, reuse, &[visits, merges]).exhaust(3);
        assert!(story.merges() > 0);
    }
}
