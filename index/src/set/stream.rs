//! Sorted sets of references, combined while they are read.

use engine::mvcc::fetch::Keys;

/// References in ascending order of their bytes, each once.
pub trait Ordered {
    /// The reference that it stands on; `None` behind the last one.
    fn head(&self) -> Option<&[u8]>;

    /// Goes on to the next one.
    fn advance(&mut self);

    /// Adds references to names, until there are `count` of them or none is left.
    fn take(&mut self, count: usize, names: &mut Keys) {
        while names.len() < count
            && let Some(head) = self.head()
        {
            names.push(head);
            self.advance();
        }
    }

    /// Goes on to the first one from here that is not less than `least`.
    fn seek(&mut self, least: &[u8]) {
        while self.head().is_some_and(|head| head < least) {
            self.advance();
        }
    }
}

/// A combination of sets. `S` is a set that was gathered.
pub enum Stream<S> {
    /// A gathered set.
    Set(S),
    /// What is in any of them.
    Union(Vec<Stream<S>>),
    /// What is in all of them. They stand on the same reference, or the
    /// intersection has ended.
    Intersection(Vec<Stream<S>>),
}

impl<S: Ordered> Stream<S> {
    /// What is in any of some streams.
    pub fn union(mut branches: Vec<Stream<S>>) -> Stream<S> {
        if branches.len() == 1
            && let Some(only) = branches.pop()
        {
            return only;
        }
        Stream::Union(branches)
    }

    /// What is in all of some streams, of which there is at least one.
    pub fn intersection(branches: Vec<Stream<S>>) -> Stream<S> {
        let mut stream = Stream::Intersection(branches);
        stream.meet();
        stream
    }

    /// Brings all branches of an intersection to the next reference that they
    /// share.
    fn meet(&mut self) {
        let Stream::Intersection(branches) = self else {
            return;
        };
        // The branch that stands farthest tells the others how far to go, until
        // none has to go on; one that ends ends them all.
        let mut farthest = 0;
        let mut agreed = 1;
        let mut nth = 0;
        while agreed < branches.len() {
            nth = (nth + 1) % branches.len();
            if nth == farthest {
                continue;
            }
            let Ok([here, there]) = branches.get_disjoint_mut([nth, farthest]) else {
                unreachable!("two branches of several");
            };
            let Some(goal) = there.head() else {
                return;
            };
            here.seek(goal);
            match here.head() {
                None => return,
                Some(head) if head == goal => agreed += 1,
                Some(_) => {
                    farthest = nth;
                    agreed = 1;
                }
            }
        }
    }

    /// The sets that it combines, to be given up.
    pub fn into_sets(self, out: &mut Vec<S>) {
        match self {
            Stream::Set(set) => out.push(set),
            Stream::Union(branches) | Stream::Intersection(branches) => {
                branches
                    .into_iter()
                    .for_each(|branch| branch.into_sets(out));
            }
        }
    }
}

impl<S: Ordered> Ordered for Stream<S> {
    fn head(&self) -> Option<&[u8]> {
        match self {
            Stream::Set(set) => set.head(),
            Stream::Union(branches) => branches.iter().filter_map(Ordered::head).min(),
            // If one has ended nothing more is in all of them.
            Stream::Intersection(branches) => branches
                .iter()
                .map(Ordered::head)
                .reduce(|one, other| one.and_then(|one| other.map(|_| one)))?,
        }
    }

    fn advance(&mut self) {
        match self {
            Stream::Set(set) => set.advance(),
            Stream::Union(branches) => {
                let Some(least) = branches.iter().filter_map(Ordered::head).min() else {
                    return;
                };
                // Those that stand on the least one, by number, for their heads
                // are lent while they are compared.
                let standing: Vec<bool> = branches
                    .iter()
                    .map(|branch| branch.head() == Some(least))
                    .collect();
                for (branch, stands) in branches.iter_mut().zip(standing) {
                    if stands {
                        branch.advance();
                    }
                }
            }
            Stream::Intersection(branches) => {
                if let Some(first) = branches.first_mut() {
                    first.advance();
                }
                self.meet();
            }
        }
    }

    fn take(&mut self, count: usize, names: &mut Keys) {
        if let Stream::Set(set) = self {
            return set.take(count, names);
        }
        while names.len() < count
            && let Some(head) = self.head()
        {
            names.push(head);
            self.advance();
        }
    }

    fn seek(&mut self, least: &[u8]) {
        match self {
            Stream::Set(set) => set.seek(least),
            Stream::Union(branches) => branches.iter_mut().for_each(|branch| branch.seek(least)),
            Stream::Intersection(branches) => {
                if let Some(first) = branches.first_mut() {
                    first.seek(least);
                }
                self.meet();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set::tree::Tree;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    struct Listed(Vec<Vec<u8>>, usize);

    impl Ordered for Listed {
        fn head(&self) -> Option<&[u8]> {
            self.0.get(self.1).map(Vec::as_slice)
        }

        fn advance(&mut self) {
            self.1 += 1;
        }
    }

    fn stream(tree: &Tree, sets: &[BTreeSet<Vec<u8>>]) -> Stream<Listed> {
        match tree {
            Tree::Leaf(nth) => Stream::Set(Listed(sets[*nth].iter().cloned().collect(), 0)),
            Tree::And(branches) => {
                Stream::intersection(branches.iter().map(|b| stream(b, sets)).collect())
            }
            Tree::Or(branches) => Stream::union(branches.iter().map(|b| stream(b, sets)).collect()),
        }
    }

    fn expected(tree: &Tree, sets: &[BTreeSet<Vec<u8>>]) -> BTreeSet<Vec<u8>> {
        match tree {
            Tree::Leaf(nth) => sets[*nth].clone(),
            Tree::And(branches) => branches
                .iter()
                .map(|b| expected(b, sets))
                .reduce(|a, b| &a & &b)
                .unwrap(),
            Tree::Or(branches) => branches
                .iter()
                .map(|b| expected(b, sets))
                .reduce(|a, b| &a | &b)
                .unwrap(),
        }
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = (0usize..4).prop_map(Tree::Leaf);
        leaf.prop_recursive(3, 12, 4, |inner| {
            let branches = proptest::collection::vec(inner, 1..4);
            prop_oneof![
                branches.clone().prop_map(Tree::And),
                branches.prop_map(Tree::Or)
            ]
        })
    }

    proptest! {
        #[test]
        fn a_stream_gives_the_set_that_its_tree_says_in_order(
            tree in trees(),
            sets in proptest::collection::vec(
                proptest::collection::btree_set(proptest::collection::vec(0u8..4, 0..3), 0..12), 4),
        ) {
            let mut stream = stream(&tree, &sets);
            let mut found = Vec::new();
            while let Some(head) = stream.head() {
                found.push(head.to_vec());
                stream.advance();
            }
            prop_assert!(stream.head().is_none());
            prop_assert_eq!(found, expected(&tree, &sets).into_iter().collect::<Vec<_>>());
        }
    }
}
