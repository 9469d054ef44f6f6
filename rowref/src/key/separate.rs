//! Separators between neighbouring keys, and what they have in common.

use super::{CompareColumn, KeyLayout, compare::Meeting};

/// How many leading bytes two strings share.
#[inline]
pub fn common_prefix_len(left: &[u8], right: &[u8]) -> usize {
    let mut shared = 0;
    for (a, b) in left.chunks_exact(8).zip(right.chunks_exact(8)) {
        let a = u64::from_le_bytes(a.try_into().expect("a chunk of eight"));
        let b = u64::from_le_bytes(b.try_into().expect("a chunk of eight"));
        if a != b {
            return shared + ((a ^ b).trailing_zeros() / 8) as usize;
        }
        shared += 8;
    }
    shared
        + left[shared..]
            .iter()
            .zip(&right[shared..])
            .take_while(|(a, b)| a == b)
            .count()
}

impl KeyLayout {
    /// How many leading bytes all keys between `left` and `right` share: those
    /// that the two share within their leading ordered columns. Bytes of
    /// comparator columns do not count, for a key between may have others.
    pub fn common_prefix_len(&self, left: &[u8], right: &[u8]) -> usize {
        let shared = common_prefix_len(left, right);
        if self.is_ordered() {
            return shared;
        }
        shared.min(self.run_end(0, left, 0))
    }

    /// Lays the shortest separator `s` with `left < s <= right` into `out`.
    /// `left < right` must hold; both may themselves be separators.
    ///
    /// The separator is a prefix of `right`: cut at a byte if the keys differ
    /// within the leading ordered columns, else behind the first column in
    /// which they differ, since a piece of a datum cannot be compared.
    pub fn separator(
        &self,
        left: &[u8],
        right: &[u8],
        cmp: &impl CompareColumn,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        let length = self.separator_len(left, right, cmp);
        out.extend_from_slice(&right[..length]);
    }

    fn separator_len(&self, left: &[u8], right: &[u8], cmp: &impl CompareColumn) -> usize {
        let shared = common_prefix_len(left, right);
        if self.is_ordered() || shared < self.run_end(0, right, 0) {
            return (shared + 1).min(right.len());
        }
        let differs_at = match self.meet(left, right, cmp) {
            Meeting::Differ(_, position) | Meeting::LeftEnds(position) => position,
            Meeting::RightEnds | Meeting::Same => return right.len(),
        };
        let mut position = 0;
        for column in 0..self.columns.len() {
            match self.skip(column, &right[position..]) {
                Ok(length) => position += length,
                Err(_) => return right.len(),
            }
            if position > differs_at {
                return position;
            }
        }
        right.len()
    }
}
