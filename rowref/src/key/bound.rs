//! Where a range of keys begins and ends.

use std::cmp::Ordering;

use super::{CompareColumn, EncodeKeyError, KeyLayout, KeyValue, VALUE, compare::Meeting};

/// A position *between* keys: next to all the keys that continue `bytes`
/// (a key that is equal to `bytes` continues it too).
///
/// The empty prefix, which every key continues, makes the two infinities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The encoded leading columns, or any other prefix of a key that
    /// [`KeyLayout::compare`] accepts.
    pub bytes: Vec<u8>,
    /// Whether the position is behind these keys, not before them.
    pub after_prefix: bool,
}

impl Bound {
    /// Before every key that continues `prefix`.
    pub fn before(prefix: Vec<u8>) -> Self {
        Bound {
            bytes: prefix,
            after_prefix: false,
        }
    }

    /// Behind every key that continues `prefix`.
    pub fn after(prefix: Vec<u8>) -> Self {
        Bound {
            bytes: prefix,
            after_prefix: true,
        }
    }

    /// Before all keys.
    pub fn first() -> Self {
        Bound::before(Vec::new())
    }

    /// Behind all keys.
    pub fn last() -> Self {
        Bound::after(Vec::new())
    }

    /// Whether no key lies on the far side of this bound.
    pub fn is_infinite(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// The keys between two positions. It is empty if `start` is not before `end`,
/// which contradictory limits make; scans find that by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// Where it begins.
    pub start: Bound,
    /// Where it ends.
    pub end: Bound,
}

/// One end of a restriction on a column, in the order of its *type*, whatever
/// the direction of the column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit<'a> {
    /// None, but nulls do not pass: no comparison with null is true.
    Open,
    /// `<=` or `>=` this value.
    Inclusive(KeyValue<'a>),
    /// `<` or `>` this value.
    Exclusive(KeyValue<'a>),
}

/// The smallest byte string above every string that begins with `prefix`, or
/// `None` if there is none above them. For layouts that are ordered throughout.
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

impl KeyLayout {
    /// Which side of a bound a key lies on: `Less` is before it, `Greater`
    /// behind it. Never `Equal`, for a bound lies between keys.
    #[inline]
    pub fn compare_bound(&self, key: &[u8], bound: &Bound, cmp: &impl CompareColumn) -> Ordering {
        let continues = if bound.after_prefix {
            Ordering::Less
        } else {
            Ordering::Greater
        };
        if self.is_ordered() {
            let bytes = &bound.bytes[..];
            return match key.get(..bytes.len()) {
                Some(start) => start.cmp(bytes).then(continues),
                // A key shorter than the bound never is a continuation.
                None => key.cmp(bytes),
            };
        }
        match self.meet(key, &bound.bytes, cmp) {
            Meeting::Differ(ordering, _) => ordering,
            Meeting::LeftEnds(_) => Ordering::Less,
            Meeting::RightEnds | Meeting::Same => continues,
        }
    }

    /// Whether a key lies within a range.
    pub fn range_contains(&self, key: &[u8], range: &KeyRange, cmp: &impl CompareColumn) -> bool {
        self.compare_bound(key, &range.start, cmp).is_gt()
            && self.compare_bound(key, &range.end, cmp).is_lt()
    }

    /// The range of keys whose leading columns equal `equal` (a null there
    /// means `IS NULL`).
    pub fn prefix_range(&self, equal: &[KeyValue<'_>]) -> Result<KeyRange, EncodeKeyError> {
        let mut prefix = Vec::new();
        self.encode_values(equal, &mut prefix)?;
        Ok(KeyRange {
            start: Bound::before(prefix.clone()),
            end: Bound::after(prefix),
        })
    }

    /// The range of keys whose leading columns equal `equal` and whose next
    /// column is not null and lies between `lower` and `upper`. Two open limits
    /// mean `IS NOT NULL`.
    pub fn range(
        &self,
        equal: &[KeyValue<'_>],
        lower: Limit<'_>,
        upper: Limit<'_>,
    ) -> Result<KeyRange, EncodeKeyError> {
        let column = equal.len();
        let shape = self.columns[column];
        let mut prefix = Vec::new();
        self.encode_values(equal, &mut prefix)?;
        let (first, last) = if shape.descending {
            (upper, lower)
        } else {
            (lower, upper)
        };
        Ok(KeyRange {
            start: self.limit_bound(&prefix, column, first, false)?,
            end: self.limit_bound(&prefix, column, last, true)?,
        })
    }

    /// The bound that a limit makes at the beginning or at the end of a range.
    fn limit_bound(
        &self,
        prefix: &[u8],
        column: usize,
        limit: Limit<'_>,
        is_end: bool,
    ) -> Result<Bound, EncodeKeyError> {
        let mut bytes = prefix.to_vec();
        let (value, includes) = match limit {
            Limit::Open => {
                // All values share the marker, so the marker alone is the
                // prefix that leaves the nulls out on either side.
                if self.columns[column].nullable {
                    bytes.push(VALUE);
                }
                return Ok(Bound {
                    bytes,
                    after_prefix: is_end,
                });
            }
            Limit::Inclusive(value) => (value, true),
            Limit::Exclusive(value) => (value, false),
        };
        if value == KeyValue::Null {
            return Err(EncodeKeyError::NullNotAllowed { column });
        }
        self.encode(column, value, &mut bytes)?;
        Ok(Bound {
            bytes,
            after_prefix: is_end == includes,
        })
    }
}
