//! Serving the rows of the ranges, one after another, in either direction.
//!
//! Rows come from a batch, a leaf's worth that was copied under the leaf's
//! lock. The walk stands on a row of the batch, or off it; off it, it knows the
//! key it stands at, and resumes there by searching (rule 24): nothing here
//! remembers a page or a slot for longer than the engine's hint.

use engine::mvcc::batch::{Batch, Row};
use engine::mvcc::scan::{Direction, Place, Range};

use super::ranges::{KeyTypes, Ranges, set_edge};

/// Where the rows are: a table under a snapshot.
pub trait Rows {
    /// Whether the snapshot's judgement of a row stands as long as it does.
    fn is_stable(&self) -> bool;

    /// Copies the row under a key, if there is one that the snapshot sees.
    fn get(&self, key: &[u8], into: &mut Batch) -> bool;

    /// Copies the rows of a range's next leaf; whether there was one.
    fn next_leaf(
        &self,
        range: &Range,
        direction: Direction,
        place: &mut Place,
        batch: &mut Batch,
    ) -> bool;
}

/// How far the participants of a parallel scan have come together: everything
/// before is somebody's.
#[derive(Debug, Default)]
pub struct Progress {
    /// The combination that is handed out, [`Ranges::standing`].
    pub combination: Vec<u32>,
    /// The place within its range; `None` before the first combination.
    pub place: Option<Place>,
    /// Nothing is left to hand out.
    pub is_over: bool,
}

/// Where [`Progress`] is kept: one participant at a time has it.
pub trait Shared {
    /// Works on it, and lets nobody else meanwhile.
    fn hold<R>(&self, work: impl FnOnce(&mut Progress) -> R) -> R;
}

/// Where the walk stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Standing {
    /// Nowhere yet: the first row is the first one in the direction asked for.
    #[default]
    Fresh,
    /// Before the first row of all.
    Before,
    /// Behind the last row of all.
    Behind,
    /// On a row of the batch.
    On(usize),
    /// On the row with the key `anchor`, which is not in the batch.
    Anchored,
}

/// What `ammarkpos` remembers.
#[derive(Default)]
struct Mark {
    is_set: bool,
    key: Vec<u8>,
    combination: Vec<u32>,
    /// The batch the row was in, and where.
    generation: u64,
    at: usize,
}

fn direction(backward: bool) -> Direction {
    if backward {
        Direction::Backward
    } else {
        Direction::Forward
    }
}

/// A walk over the ranges of a scan.
#[derive(Default)]
pub struct Walk {
    standing: Standing,
    batch: Batch,
    /// A row that was looked at once more, under a snapshot that is not stable.
    fresh: Batch,
    is_fresh: bool,
    /// Counts the contents that the batch has had.
    generation: u64,
    /// What is left of the current combination's range on the batch's far
    /// side, and which side that is.
    range: Range,
    backward: bool,
    place: Option<Place>,
    anchor: Vec<u8>,
    mark: Mark,
}

impl Walk {
    /// Forgets everything but its room.
    pub fn restart(&mut self) {
        self.standing = Standing::Fresh;
        self.mark.is_set = false;
    }

    /// The row the walk stands on, until the next step.
    #[inline]
    pub fn row(&self) -> (Row<'_>, u32) {
        if self.is_fresh {
            return (self.fresh.row(0), self.fresh.block);
        }
        let Standing::On(at) = self.standing else {
            unreachable!("asked for only after a step that found a row");
        };
        (self.batch.row(at), self.batch.block)
    }

    /// The keys of the rows of the batch that are behind the one it stands on,
    /// in the direction in which the batch was read.
    pub fn ahead(&self) -> impl Iterator<Item = &[u8]> {
        let len = self.batch.len();
        let (at, left) = match self.standing {
            Standing::On(at) if self.backward => (at, at),
            Standing::On(at) => (at, len - 1 - at),
            _ => (0, 0),
        };
        (1..=left).map(move |step| {
            let nth = if self.backward { at - step } else { at + step };
            self.batch.row(nth).key
        })
    }

    /// Gives the keys of the row it stands on and of those behind it in the batch
    /// to `take`, and stands on the last of them; how many. For scans that go
    /// forward, without filters, under a snapshot whose judgement stands.
    pub fn take_batch(&mut self, mut take: impl FnMut(&[u8])) -> u64 {
        let Standing::On(at) = self.standing else {
            return 0;
        };
        let len = self.batch.len();
        (at..len).for_each(|nth| take(self.batch.row(nth).key));
        self.standing = Standing::On(len - 1);
        (len - at) as u64
    }

    /// Steps to the next row; whether there is one.
    #[inline]
    pub fn next(
        &mut self,
        ranges: &mut Ranges,
        types: KeyTypes<'_>,
        source: &impl Rows,
        shared: Option<&impl Shared>,
        backward: bool,
    ) -> bool {
        loop {
            let found = match shared {
                None => self.step(ranges, source, backward),
                Some(shared) => self.step_shared(ranges, source, shared, backward),
            };
            if !found {
                return false;
            }
            if let Standing::On(at) = self.standing
                && !ranges.passes(self.batch.row(at).key, types)
            {
                continue;
            }
            self.is_fresh = !source.is_stable();
            if !self.is_fresh {
                return true;
            }
            // Rule 24: such a snapshot judges a row when it is returned.
            let Standing::On(at) = self.standing else {
                unreachable!("a step that finds a row stands on it");
            };
            self.fresh.clear();
            if source.get(self.batch.row(at).key, &mut self.fresh) {
                return true;
            }
        }
    }

    #[inline]
    fn step(&mut self, ranges: &mut Ranges, source: &impl Rows, backward: bool) -> bool {
        match self.standing {
            Standing::On(at) => {
                let next = if backward {
                    at.checked_sub(1)
                } else {
                    Some(at + 1).filter(|next| *next < self.batch.len())
                };
                if let Some(next) = next {
                    self.standing = Standing::On(next);
                    return true;
                }
                if backward != self.backward {
                    // The batch was read in the other direction: what lies
                    // beyond this end of it has to be searched for.
                    let key = self.batch.row(at).key;
                    self.anchor.clear();
                    self.anchor.extend_from_slice(key);
                    self.resume(ranges, backward);
                }
            }
            Standing::Anchored => self.resume(ranges, backward),
            Standing::Before if backward => return false,
            Standing::Behind if !backward => return false,
            Standing::Fresh | Standing::Before | Standing::Behind => {
                if !ranges.start(backward) {
                    return false;
                }
                self.enter(ranges, backward);
            }
        }
        loop {
            if self.load(ranges, source) {
                self.standing = Standing::On(if backward { self.batch.len() - 1 } else { 0 });
                return true;
            }
            if !ranges.advance(backward) {
                self.standing = if backward {
                    Standing::Before
                } else {
                    Standing::Behind
                };
                return false;
            }
            self.enter(ranges, backward);
        }
    }

    /// As `step`, for one of several participants that share the ranges among
    /// them. Each leaf goes to the one who reads it, while the others wait for
    /// the place behind it; a point is looked up by the one who takes it,
    /// while they do not. Such a scan is never turned round.
    fn step_shared(
        &mut self,
        ranges: &mut Ranges,
        source: &impl Rows,
        shared: &impl Shared,
        backward: bool,
    ) -> bool {
        if let Standing::On(at) = self.standing {
            let next = if backward {
                at.checked_sub(1)
            } else {
                Some(at + 1).filter(|next| *next < self.batch.len())
            };
            if let Some(next) = next {
                self.standing = Standing::On(next);
                return true;
            }
        }
        self.backward = backward;
        loop {
            let taken = shared.hold(|progress| self.take(ranges, source, progress));
            if !taken {
                self.standing = Standing::Behind;
                return false;
            }
            if let Some(key) = ranges.point() {
                self.batch.clear();
                source.get(key, &mut self.batch);
            }
            if !self.batch.is_empty() {
                self.standing = Standing::On(if backward { self.batch.len() - 1 } else { 0 });
                return true;
            }
        }
    }

    /// Takes the next leaf, which is then in the batch, or the next point,
    /// which the ranges then stand at; whether there is one.
    fn take(&mut self, ranges: &mut Ranges, source: &impl Rows, progress: &mut Progress) -> bool {
        while !progress.is_over {
            match &mut progress.place {
                None => {
                    if !ranges.start(self.backward) {
                        progress.is_over = true;
                        break;
                    }
                    progress.combination.clear();
                    progress.combination.extend_from_slice(ranges.standing());
                    progress.place = Some(Place::Start);
                }
                Some(place) => {
                    ranges.go_to(&progress.combination);
                    let found = if ranges.point().is_some() {
                        std::mem::replace(place, Place::End) != Place::End
                    } else {
                        ranges.write_range(&mut self.range);
                        let direction = direction(self.backward);
                        self.generation += 1;
                        source.next_leaf(&self.range, direction, place, &mut self.batch)
                    };
                    if found {
                        return true;
                    }
                    if ranges.advance(self.backward) {
                        progress.combination.clear();
                        progress.combination.extend_from_slice(ranges.standing());
                        *place = Place::Start;
                    } else {
                        progress.is_over = true;
                    }
                }
            }
        }
        false
    }

    /// Goes to the near end of the current combination's range.
    fn enter(&mut self, ranges: &Ranges, backward: bool) {
        self.backward = backward;
        self.place = Some(Place::Start);
        if ranges.point().is_none() {
            ranges.write_range(&mut self.range);
        }
    }

    /// Goes to the anchor, within the current combination's range: what is
    /// left of the range lies beyond it.
    fn resume(&mut self, ranges: &Ranges, backward: bool) {
        self.enter(ranges, backward);
        if ranges.point().is_some() {
            // The anchor was its only row.
            self.place = None;
        } else if backward {
            set_edge(&mut self.range.to, &self.anchor, &[], false);
        } else {
            set_edge(&mut self.range.from, &self.anchor, &[], true);
        }
    }

    /// Fills the batch with the next rows of the current range; whether there
    /// are any.
    fn load(&mut self, ranges: &Ranges, source: &impl Rows) -> bool {
        if let Some(key) = ranges.point() {
            if self.place.take().is_none() {
                return false;
            }
            self.generation += 1;
            self.batch.clear();
            return source.get(key, &mut self.batch);
        }
        let direction = direction(self.backward);
        loop {
            // At the end the batch is left as it is, for a mark in it.
            let Some(place) = self.place.as_mut().filter(|place| **place != Place::End) else {
                return false;
            };
            self.generation += 1;
            if !source.next_leaf(&self.range, direction, place, &mut self.batch) {
                return false;
            }
            if !self.batch.is_empty() {
                return true;
            }
        }
    }

    /// Remembers the row it stands on.
    pub fn mark(&mut self, ranges: &Ranges) {
        self.mark.is_set = false;
        let key = match self.standing {
            Standing::On(at) => {
                self.mark.at = at;
                self.mark.generation = self.generation;
                self.batch.row(at).key
            }
            Standing::Anchored => {
                // No batch has had this number.
                self.mark.generation = u64::MAX;
                &self.anchor
            }
            Standing::Fresh | Standing::Before | Standing::Behind => return,
        };
        self.mark.is_set = true;
        self.mark.key.clear();
        self.mark.key.extend_from_slice(key);
        self.mark.combination.clear();
        self.mark.combination.extend_from_slice(ranges.standing());
    }

    /// Goes back to the row it stood on. Without one, to the beginning.
    pub fn restore(&mut self, ranges: &mut Ranges) {
        if !self.mark.is_set {
            self.standing = Standing::Fresh;
            return;
        }
        ranges.go_to(&self.mark.combination);
        if self.mark.generation == self.generation {
            // The batch was not filled again since, so that range and place
            // belong to it still.
            self.standing = Standing::On(self.mark.at);
            return;
        }
        self.anchor.clear();
        self.anchor.extend_from_slice(&self.mark.key);
        self.standing = Standing::Anchored;
    }
}
