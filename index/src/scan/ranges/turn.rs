//! The odometer: one combination of listed values after the other, in either
//! direction, and the range of keys of each.

use engine::mvcc::scan::{Edge, Range};

use super::Ranges;

impl Ranges {
    /// Goes to the first or the last combination; whether there is one.
    pub fn start(&mut self, backward: bool) -> bool {
        if self.is_empty {
            return false;
        }
        self.at.clear();
        self.at
            .extend(self.columns[..self.listed].iter().map(|column| {
                if backward {
                    column.values.len() as u32 - 1
                } else {
                    0
                }
            }));
        self.write_prefix();
        true
    }

    /// Goes to the next combination in either direction; whether there is one.
    /// If not, this stays where it is.
    pub fn advance(&mut self, backward: bool) -> bool {
        for column in (0..self.listed).rev() {
            let count = self.columns[column].values.len() as u32;
            let at = self.at[column];
            let next = if backward {
                at.checked_sub(1)
            } else {
                Some(at + 1).filter(|next| *next < count)
            };
            let Some(next) = next else { continue };
            self.at[column] = next;
            for behind in column + 1..self.listed {
                let last = self.columns[behind].values.len() as u32 - 1;
                self.at[behind] = if backward { last } else { 0 };
            }
            self.write_prefix();
            return true;
        }
        false
    }

    /// Where the combinations stand, for [`Ranges::go_to`].
    pub fn standing(&self) -> &[u32] {
        &self.at
    }

    /// Goes back to a combination of the same scan keys.
    pub fn go_to(&mut self, standing: &[u32]) {
        self.at.clear();
        self.at.extend_from_slice(standing);
        self.write_prefix();
    }

    /// Where `set_plain` has put the prefix it stays.
    fn write_prefix(&mut self) {
        if self.is_plain {
            return;
        }
        self.prefix.clear();
        for (column, at) in self.columns.iter().zip(&self.at) {
            let value = column.get(column.values[*at as usize]);
            self.prefix.extend_from_slice(value);
        }
    }

    /// Writes the current combination's range.
    pub fn write_range(&self, range: &mut Range) {
        let (mut first, mut last, mut open): (_, _, &[u8]) = (None, None, &[]);
        if let (false, Some(column)) = (self.is_plain, self.columns.get(self.listed)) {
            first = column.first.map(|limit| (column.get(limit.value), limit));
            last = column.last.map(|limit| (column.get(limit.value), limit));
            open = self.open;
        }
        match first {
            Some((value, limit)) => self.edge(&mut range.from, value, limit.exclusive),
            None => self.edge(&mut range.from, open, false),
        }
        match last {
            Some((value, limit)) => self.edge(&mut range.to, value, !limit.exclusive),
            None => self.edge(&mut range.to, open, true),
        }
    }

    fn edge(&self, edge: &mut Option<Edge>, value: &[u8], after: bool) {
        if self.prefix.is_empty() && value.is_empty() {
            *edge = None;
        } else {
            set_edge(edge, &self.prefix, value, after);
        }
    }
}

/// Writes an edge into the room of the one before it.
pub fn set_edge(edge: &mut Option<Edge>, prefix: &[u8], value: &[u8], after: bool) {
    let edge = edge.get_or_insert_with(|| Edge {
        key: Vec::new(),
        after,
    });
    edge.key.clear();
    edge.key.extend_from_slice(prefix);
    edge.key.extend_from_slice(value);
    edge.after = after;
}
