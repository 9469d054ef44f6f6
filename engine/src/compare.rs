//! The order of keys, which the engine is told and never decides.

use std::cmp::Ordering;

/// How keys compare. A key that ends early (a truncated separator, a search
/// prefix) sorts before every key that continues it.
pub trait Compare {
    /// Whether keys compare as bytes; then slots carry heads, pages a common
    /// prefix, and the methods below have to agree with `left.cmp(right)`.
    fn ordered(&self) -> bool;

    /// Compares two keys, either of which may be truncated.
    fn compare(&self, left: &[u8], right: &[u8]) -> Ordering;

    /// Compares a key with the place after (`after`) or before all keys that
    /// continue `bound`; `Equal` only for `!after` and the bound itself.
    fn compare_bound(&self, key: &[u8], bound: &[u8], after: bool) -> Ordering;

    /// Writes a short key `s` with `left < s <= right` to `out`, given that
    /// `left < right`.
    fn separator(&self, left: &[u8], right: &[u8], out: &mut Vec<u8>);
}

/// Keys that compare as bytes, no one of them a prefix of another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytewise;

impl Compare for Bytewise {
    fn ordered(&self) -> bool {
        true
    }

    fn compare(&self, left: &[u8], right: &[u8]) -> Ordering {
        left.cmp(right)
    }

    fn compare_bound(&self, key: &[u8], bound: &[u8], after: bool) -> Ordering {
        if after && key.starts_with(bound) {
            return Ordering::Less;
        }
        key.cmp(bound)
    }

    fn separator(&self, left: &[u8], right: &[u8], out: &mut Vec<u8>) {
        let shared = common_prefix_len(left, right);
        out.clear();
        out.extend_from_slice(&right[..(shared + 1).min(right.len())]);
    }
}

/// Bytes that two keys share at their start.
#[inline]
pub fn common_prefix_len(left: &[u8], right: &[u8]) -> usize {
    // Eight at a time: every search of a page begins with this.
    let (lefts, rights) = (left.as_chunks::<8>().0, right.as_chunks::<8>().0);
    let mut shared = 0;
    for (l, r) in lefts.iter().zip(rights) {
        let differ = u64::from_le_bytes(*l) ^ u64::from_le_bytes(*r);
        if differ != 0 {
            return shared + differ.trailing_zeros() as usize / 8;
        }
        shared += 8;
    }
    let rest = left[shared..].iter().zip(&right[shared..]);
    shared + rest.take_while(|(l, r)| l == r).count()
}

/// Bytes that two rows share at their end.
pub fn common_suffix_len(left: &[u8], right: &[u8]) -> usize {
    let len = left.len().min(right.len());
    let (left, right) = (&left[left.len() - len..], &right[right.len() - len..]);
    let (left_rest, left_words) = left.as_rchunks::<8>();
    let (right_rest, right_words) = right.as_rchunks::<8>();
    let words = left_words.iter().zip(right_words).rev();
    for (nth, (l, r)) in words.enumerate() {
        let differ = u64::from_le_bytes(*l) ^ u64::from_le_bytes(*r);
        if differ != 0 {
            return nth * 8 + differ.leading_zeros() as usize / 8;
        }
    }
    let same = left_rest.iter().rev().zip(right_rest.iter().rev());
    left_words.len() * 8 + same.take_while(|(l, r)| l == r).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_shared_is_counted_to_the_byte(
            start in proptest::collection::vec(any::<u8>(), 0..40),
            left in proptest::collection::vec(0u8..2, 0..20),
            right in proptest::collection::vec(0u8..2, 0..20),
            end in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let left = [&start[..], &left, &end].concat();
            let right = [&start[..], &right, &end].concat();
            let same = |pairs: &mut dyn Iterator<Item = (&u8, &u8)>| {
                pairs.take_while(|(l, r)| l == r).count()
            };
            prop_assert_eq!(
                common_prefix_len(&left, &right),
                same(&mut left.iter().zip(&right))
            );
            prop_assert_eq!(
                common_suffix_len(&left, &right),
                same(&mut left.iter().rev().zip(right.iter().rev()))
            );
        }
    }
}
