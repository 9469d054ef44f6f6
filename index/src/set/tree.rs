//! The tree of a set scan: which index scans' references are combined how.

/// A node. Leaves are numbered from the left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// What an index scan finds.
    Leaf(usize),
    /// What all of these find.
    And(Vec<Tree>),
    /// What any of these finds.
    Or(Vec<Tree>),
}

const LEAF: i32 = 0;
const AND: i32 = 1;
const OR: i32 = 2;

impl Tree {
    /// Appends the tree as numbers, in which form it goes with a plan: a leaf
    /// is 0; an AND is 1, an OR 2, followed by the number of its branches and
    /// these.
    pub fn encode(&self, out: &mut Vec<i32>) {
        let (kind, branches) = match self {
            Tree::Leaf(_) => return out.push(LEAF),
            Tree::And(branches) => (AND, branches),
            Tree::Or(branches) => (OR, branches),
        };
        out.extend([kind, branches.len() as i32]);
        for branch in branches {
            branch.encode(out);
        }
    }

    /// Reads what [`Tree::encode`] wrote.
    pub fn decode(numbers: &[i32]) -> Option<Tree> {
        let mut numbers = numbers.iter().copied();
        let tree = Self::take(&mut numbers, &mut 0)?;
        numbers.next().is_none().then_some(tree)
    }

    fn take(numbers: &mut impl Iterator<Item = i32>, leaves: &mut usize) -> Option<Tree> {
        let kind = numbers.next()?;
        if kind == LEAF {
            *leaves += 1;
            return Some(Tree::Leaf(*leaves - 1));
        }
        let count = numbers.next()?;
        let branches = (0..count)
            .map(|_| Self::take(numbers, leaves))
            .collect::<Option<Vec<_>>>()?;
        match kind {
            AND => Some(Tree::And(branches)),
            OR => Some(Tree::Or(branches)),
            _ => None,
        }
    }

    /// The tree in words, with a name for each leaf.
    pub fn describe(&self, name: &impl Fn(usize) -> String) -> String {
        let (word, branches) = match self {
            Tree::Leaf(nth) => return name(*nth),
            Tree::And(branches) => (" AND ", branches),
            Tree::Or(branches) => (" OR ", branches),
        };
        let parts: Vec<_> = branches
            .iter()
            .map(|branch| match branch {
                Tree::Leaf(_) => branch.describe(name),
                _ => format!("({})", branch.describe(name)),
            })
            .collect();
        parts.join(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tree {
        Tree::Or(vec![
            Tree::Leaf(0),
            Tree::And(vec![
                Tree::Leaf(1),
                Tree::Or(vec![Tree::Leaf(2), Tree::Leaf(3)]),
            ]),
        ])
    }

    #[test]
    fn a_tree_reads_back_as_written_and_cut_short_not_at_all() {
        let mut numbers = Vec::new();
        sample().encode(&mut numbers);
        assert_eq!(Tree::decode(&numbers), Some(sample()));
        for cut in 0..numbers.len() {
            assert_eq!(Tree::decode(&numbers[..cut]), None);
        }
    }

    #[test]
    fn words_keep_what_belongs_together_in_parentheses() {
        let words = sample().describe(&|nth| format!("i{nth}"));
        assert_eq!(words, "i0 OR (i1 AND (i2 OR i3))");
    }
}
