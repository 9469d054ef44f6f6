//! The order of encoded keys.

use std::cmp::Ordering;

use super::{ColumnForm, KeyLayout, VALUE, read::comparator_value};

/// Compares two values of a comparator column, as its operator class does.
pub trait CompareColumn {
    /// The ascending order of two datums of `column`; a descending column is
    /// the caller's business.
    fn compare(&self, column: usize, left: &[u8], right: &[u8]) -> Ordering;
}

/// For layouts that are ordered throughout, where nobody is ever asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoComparator;

impl CompareColumn for NoComparator {
    /// Compares bytes, so that a wrong use still yields a total order.
    fn compare(&self, _column: usize, left: &[u8], right: &[u8]) -> Ordering {
        left.cmp(right)
    }
}

/// How far two keys go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// They differ. The position lies in the right key: at the byte of an
    /// ordered column, or at the beginning of a comparator column.
    Differ(Ordering, usize),
    /// The left key ends while the right one goes on from this position.
    LeftEnds(usize),
    /// The right key ends while the left one goes on.
    RightEnds,
    /// Both end.
    Same,
}

impl KeyLayout {
    /// The order of two keys of this layout. A key that ends early, which a
    /// truncated separator or a search prefix does, sorts before every key
    /// that continues it.
    #[inline]
    pub fn compare(&self, left: &[u8], right: &[u8], cmp: &impl CompareColumn) -> Ordering {
        if self.is_ordered() {
            return left.cmp(right);
        }
        match self.meet(left, right, cmp) {
            Meeting::Differ(ordering, _) => ordering,
            Meeting::LeftEnds(_) => Ordering::Less,
            Meeting::RightEnds => Ordering::Greater,
            Meeting::Same => Ordering::Equal,
        }
    }

    /// Walks two keys until they differ or end. A run of ordered columns is
    /// compared by one memcmp: their encodings are self-delimiting, so runs
    /// that begin with the same bytes have the same columns there, and it is
    /// enough to know where the left run ends.
    pub(crate) fn meet(&self, left: &[u8], right: &[u8], cmp: &impl CompareColumn) -> Meeting {
        let (mut l, mut r, mut column) = (0, 0, 0);
        while column < self.columns.len() {
            if let Some(end) = ended(left, l, right, r) {
                return end;
            }
            if self.columns[column].form.is_ordered() {
                let run_end = self.run_end(column, left, l);
                let run = &left[l..run_end];
                let other = &right[r..];
                let other = &other[..run.len().min(other.len())];
                if run != other {
                    let same = super::common_prefix_len(run, other);
                    return match (run.get(same), other.get(same)) {
                        (Some(a), Some(b)) => Meeting::Differ(a.cmp(b), r + same),
                        _ => Meeting::RightEnds,
                    };
                }
                l += run.len();
                r += run.len();
                while column < self.columns.len() && self.columns[column].form.is_ordered() {
                    column += 1;
                }
                continue;
            }
            let shape = self.columns[column];
            let start = r;
            if shape.nullable {
                let (a, b) = (left[l], right[r]);
                if a != b {
                    return Meeting::Differ(a.cmp(&b), start);
                }
                l += 1;
                r += 1;
                if a != VALUE {
                    column += 1;
                    continue;
                }
            }
            let ColumnForm::Comparator { fixed_len } = shape.form else {
                unreachable!("ordered columns were handled above");
            };
            // A key cut within a datum is taken to end there: this is how the
            // bound "every value of this column" looks, a marker alone.
            match (
                comparator_value(fixed_len, &left[l..]),
                comparator_value(fixed_len, &right[r..]),
            ) {
                (Some((a, a_length)), Some((b, b_length))) => {
                    let ordering = cmp.compare(column, a, b);
                    if ordering != Ordering::Equal {
                        let ordering = if shape.descending {
                            ordering.reverse()
                        } else {
                            ordering
                        };
                        return Meeting::Differ(ordering, start);
                    }
                    l += a_length;
                    r += b_length;
                }
                (None, Some(_)) => return Meeting::LeftEnds(start),
                (Some(_), None) => return Meeting::RightEnds,
                (None, None) => return Meeting::Same,
            }
            column += 1;
        }
        if let Some(end) = ended(left, l, right, r) {
            return end;
        }
        // Bytes behind the last column belong to nobody; compare them all the
        // same, so that the order is total.
        match left[l..].cmp(&right[r..]) {
            Ordering::Equal => Meeting::Same,
            ordering => Meeting::Differ(ordering, r),
        }
    }

    /// Where the run of ordered columns that begins with `column` at `start`
    /// ends in `key`; the end of the key if it is cut within the run.
    pub(crate) fn run_end(&self, mut column: usize, key: &[u8], start: usize) -> usize {
        let mut position = start;
        while column < self.columns.len() && self.columns[column].form.is_ordered() {
            match self.skip(column, &key[position..]) {
                Ok(length) => position += length,
                Err(_) => return key.len(),
            }
            column += 1;
        }
        position
    }
}

fn ended(left: &[u8], l: usize, right: &[u8], r: usize) -> Option<Meeting> {
    match (l == left.len(), r == right.len()) {
        (false, false) => None,
        (true, false) => Some(Meeting::LeftEnds(r)),
        (false, true) => Some(Meeting::RightEnds),
        (true, true) => Some(Meeting::Same),
    }
}
