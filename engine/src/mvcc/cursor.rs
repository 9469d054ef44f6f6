//! A scan that can be stepped either way, row by row.

use super::batch::{Batch, Row};
use super::scan::{Direction, Place, Range};
use super::{Snapshot, Transactions, Versioned};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::PositionBuf;
use crate::store::PageStore;
use crate::types::{BlockNumber, Sequence};

/// A position in a range of rows. It owns copies of one leaf's rows and holds
/// no lock and no pin between steps.
pub struct Cursor {
    range: Range,
    place: Place,
    batch: Batch,
    current: Option<usize>,
    fetched: Direction,
}

impl Cursor {
    /// A cursor before the first row (or, stepped backward, behind the last).
    pub fn new(range: Range) -> Cursor {
        Cursor {
            range,
            place: Place::Start,
            batch: Batch::default(),
            current: None,
            fetched: Direction::Forward,
        }
    }

    /// Starts over, in a range that may be another.
    pub fn restart(&mut self, range: Range) {
        self.range = range;
        self.rewind();
    }

    /// Starts over in the same range.
    pub fn rewind(&mut self) {
        self.place = Place::Start;
        self.batch.clear();
        self.current = None;
    }

    /// The range.
    pub fn range(&self) -> &Range {
        &self.range
    }

    /// The row stepped to last.
    #[inline]
    pub fn row(&self) -> Option<Row<'_>> {
        self.current.map(|nth| self.batch.row(nth))
    }

    /// The page that row was copied from.
    pub fn block(&self) -> BlockNumber {
        BlockNumber(self.batch.block)
    }

    /// Steps to the next row without reading a page; `false` if that takes one.
    #[inline]
    pub fn step_in_batch(&mut self, direction: Direction) -> bool {
        let next = match (self.current, direction) {
            (Some(nth), Direction::Forward) => nth + 1,
            (Some(nth), Direction::Backward) => nth.wrapping_sub(1),
            (None, _) => return false,
        };
        let inside = next < self.batch.len();
        if inside {
            self.current = Some(next);
        }
        inside
    }

    /// Steps to the next row in a direction; whether there was one.
    pub fn step<S: PageStore, C: Compare, T: Transactions>(
        &mut self,
        store: &Versioned<'_, S, C, T>,
        snapshot: &impl Snapshot,
        direction: Direction,
    ) -> Result<bool> {
        if self.step_in_batch(direction) {
            return Ok(true);
        }
        if direction != self.fetched {
            self.turn(direction);
        }
        loop {
            self.current = None;
            if !store.next_leaf(
                &self.range,
                direction,
                &mut self.place,
                snapshot,
                &mut self.batch,
            )? {
                return Ok(false);
            }
            if !self.batch.is_empty() {
                self.current = Some(match direction {
                    Direction::Forward => 0,
                    Direction::Backward => self.batch.len() - 1,
                });
                return Ok(true);
            }
        }
    }

    /// Sets the place on the other side of the batch. A scan that had run off
    /// one end comes back from there.
    fn turn(&mut self, direction: Direction) {
        self.fetched = direction;
        if self.batch.is_empty() {
            if self.place == Place::End {
                self.place = Place::Start;
            }
            return;
        }
        let (row, sequence) = match direction {
            // Behind all versions of the last row's key.
            Direction::Forward => (self.batch.row(self.batch.len() - 1), Some(Sequence(0))),
            Direction::Backward => (self.batch.row(0), None),
        };
        let position = PositionBuf {
            key: row.key.to_vec(),
            sequence,
        };
        self.place = Place::At(position, BlockNumber::NONE);
    }
}
