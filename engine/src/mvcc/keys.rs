//! Names of rows that are to be read together.

use crate::btree::short::{SHORT_MAX, number_of};
use crate::types::BlockNumber;

/// Names of rows, one behind the other, and where they lie.
#[derive(Default)]
pub struct Keys {
    names: Names,
    /// For some of the names, in their order, the leaf on which each of them
    /// lies up to the one with this number: hints.
    pub(super) leaves: Vec<(usize, BlockNumber)>,
    /// How many names they are for, counted from the first name of all.
    pub(super) planned: usize,
    /// How many of those leaves are done with, and how many are expected.
    pub(super) passed: usize,
    pub(super) expected: usize,
    /// Where the names of the leaf at hand begin on it.
    pub(super) slots: Vec<u16>,
}

enum Names {
    /// Of any length.
    Any { bytes: Vec<u8>, ends: Vec<u32> },
    /// All of so many bytes, each with zeros behind: [`number_of`] them, in the
    /// order of bytes.
    Short {
        width: usize,
        names: Vec<[u8; SHORT_MAX]>,
    },
}

impl Default for Names {
    fn default() -> Names {
        Names::Any {
            bytes: Vec::new(),
            ends: Vec::new(),
        }
    }
}

impl Keys {
    /// Room for names, all of which have as many bytes if that is given. Short
    /// ones are looked up faster.
    pub fn of_width(width: Option<usize>) -> Keys {
        let names = match width {
            Some(width @ 1..=SHORT_MAX) => Names::Short {
                width,
                names: Vec::new(),
            },
            _ => Names::default(),
        };
        Keys {
            names,
            ..Keys::default()
        }
    }

    /// Forgets all and keeps the room.
    pub fn clear(&mut self) {
        match &mut self.names {
            Names::Any { bytes, ends } => {
                bytes.clear();
                ends.clear();
            }
            Names::Short { names, .. } => names.clear(),
        }
        self.leaves.clear();
        self.planned = 0;
        self.passed = 0;
        self.expected = 0;
    }

    /// Appends a name.
    ///
    /// # Panics
    /// If it has not as many bytes as was said.
    #[inline]
    pub fn push(&mut self, key: &[u8]) {
        match &mut self.names {
            Names::Any { bytes, ends } => {
                bytes.extend_from_slice(key);
                ends.push(bytes.len() as u32);
            }
            Names::Short { width, names } => {
                assert_eq!(key.len(), *width, "all names have as many bytes");
                let number = number_of(key).expect("a short name");
                names.push(number.to_be_bytes());
            }
        }
    }

    /// Appends the names of rows whose keys have eight bytes at most, given by
    /// [`number_of`] them.
    ///
    /// # Panics
    /// If it was not said how many bytes they have.
    #[inline]
    pub fn extend_short(&mut self, numbers: impl Iterator<Item = u64>) {
        let Names::Short { names, .. } = &mut self.names else {
            unreachable!("numbers are names of one width");
        };
        names.extend(numbers.map(u64::to_be_bytes));
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.names {
            Names::Any { ends, .. } => ends.len(),
            Names::Short { names, .. } => names.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A name by its place.
    #[inline]
    pub fn get(&self, nth: usize) -> &[u8] {
        match &self.names {
            Names::Any { bytes, ends } => {
                let start = nth.checked_sub(1).map_or(0, |before| ends[before]);
                &bytes[start as usize..ends[nth] as usize]
            }
            Names::Short { width, names } => &names[nth][..*width],
        }
    }

    /// The bytes of each name, if all are short and have as many, and the names.
    #[inline]
    pub(super) fn short(&self) -> Option<(usize, &[[u8; SHORT_MAX]])> {
        match &self.names {
            Names::Any { .. } => None,
            Names::Short { width, names } => Some((*width, names)),
        }
    }

    /// Up to which name they are thought to lie on the same leaf as this one.
    pub(super) fn end_of_leaf(&self, nth: usize) -> usize {
        match self.leaves.get(self.passed) {
            Some((end, _)) => *end,
            None => nth + 1,
        }
    }

    /// The leaf on which a name lies, if that is known.
    pub(super) fn leaf_of(&mut self, nth: usize) -> Option<BlockNumber> {
        while let Some((end, block)) = self.leaves.get(self.passed) {
            if nth < *end {
                return Some(*block);
            }
            self.passed += 1;
        }
        None
    }
}
