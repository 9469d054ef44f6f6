//! Copies of inner pages, by which a session that descends again and again
//! finds its way without locking them. Why a copy may be as old as it likes is
//! argued in `README.md`, "Guides".

use super::descend::Arrival;
use super::search::{Goal, compare_position};
use super::{Path, Target, Tree};
use crate::compare::{Compare, common_prefix_len};
use crate::error::Result;
use crate::page::{Page, Position, PositionBuf, flag};
use crate::store::PageStore;
use crate::types::{BlockNumber, Level, Sequence};

/// Descents before anything is noted: most sessions make a few.
const QUIET: u8 = 4;
/// How often a page is passed before it is copied. A copy costs as much as
/// passing it by some ten times.
const PASSES: u8 = 8;
/// Places for pages of the level above the leaves, and for those above it.
const LOW_PLACES: usize = 32;
const HIGH_PLACES: usize = 16;
/// Steps to the right after which a copy has led astray. Where one leads to a
/// page that was used again, it may be far.
const HOPS_MAX: usize = 4;

/// Copies of inner pages. It belongs to one tree, and to one statement: while
/// a copy is in use, the file must not get shorter.
pub struct Guide {
    /// Descents that are left before anything is noted.
    quiet: u8,
    /// How often a page is passed before it is copied.
    passes: u8,
    /// Each block has its place; none before anything is noted.
    places: Vec<Place>,
}

impl Default for Guide {
    fn default() -> Guide {
        Guide {
            quiet: QUIET,
            passes: PASSES,
            places: Vec::new(),
        }
    }
}

struct Place {
    block: BlockNumber,
    passes: u8,
    sketch: Option<Box<Sketch>>,
}

impl Place {
    fn of(block: BlockNumber) -> Place {
        Place {
            block,
            passes: 0,
            sketch: None,
        }
    }
}

/// An inner page, made ready to be searched.
struct Sketch {
    level: Level,
    low: Option<PositionBuf>,
    high: Option<PositionBuf>,
    first: BlockNumber,
    /// What the keys of all downlinks but the first begin with.
    shared: Vec<u8>,
    /// Of each downlink but the first: the eight bytes behind that, as a
    /// number; where the page it leads to begins; and the page.
    heads: Vec<u64>,
    keys: Vec<u8>,
    ends: Vec<u32>,
    sequences: Vec<Option<Sequence>>,
    children: Vec<BlockNumber>,
}

/// The first eight bytes as a number, with `fill` behind what is shorter.
#[inline]
fn head_of(bytes: &[u8], fill: u8) -> u64 {
    if let Some(eight) = bytes.first_chunk::<8>() {
        return u64::from_be_bytes(*eight);
    }
    let mut padded = [fill; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(padded)
}

impl Sketch {
    fn of(page: Page<'_>, block: BlockNumber) -> Result<Sketch> {
        let count = page.slot_count();
        let prefix = page.prefix();
        let key_of = |slot| -> Result<Vec<u8>> {
            Ok([prefix, page.inner_cell(slot, block)?.position.key].concat())
        };
        let shared = if count < 2 {
            Vec::new()
        } else {
            let (mut first, last) = (key_of(1)?, key_of(count - 1)?);
            first.truncate(common_prefix_len(&first, &last));
            first
        };
        let more = count.saturating_sub(1);
        let mut sketch = Sketch {
            level: page.level(),
            low: page.low().map(Position::to_buf),
            high: page.high().map(Position::to_buf),
            first: page.inner_cell(0, block)?.child,
            heads: Vec::with_capacity(more),
            keys: Vec::with_capacity(more * (shared.len() + 8)),
            ends: Vec::with_capacity(more),
            sequences: Vec::with_capacity(more),
            children: Vec::with_capacity(more),
            shared,
        };
        for slot in 1..count {
            let cell = page.inner_cell(slot, block)?;
            let start = sketch.keys.len();
            sketch.keys.extend_from_slice(prefix);
            sketch.keys.extend_from_slice(cell.position.key);
            let key = &sketch.keys[start..];
            sketch
                .heads
                .push(head_of(&key[sketch.shared.len().min(key.len())..], 0));
            sketch.ends.push(sketch.keys.len() as u32);
            sketch.sequences.push(cell.position.sequence);
            sketch.children.push(cell.child);
        }
        Ok(sketch)
    }

    fn position(&self, nth: usize) -> Position<'_> {
        let start = nth.checked_sub(1).map_or(0, |before| self.ends[before]);
        Position {
            key: &self.keys[start as usize..self.ends[nth] as usize],
            sequence: self.sequences[nth],
        }
    }

    /// The child in which a goal lies, if it lies within the page's fences.
    fn child(&self, goal: Goal<'_>, compare: &impl Compare) -> Option<BlockNumber> {
        let before = self.low.as_ref();
        let behind = self.high.as_ref();
        if before.is_some_and(|low| goal.precedes(low.as_ref(), compare))
            || behind.is_some_and(|high| goal.passes(high.as_ref(), compare))
        {
            return None;
        }
        // Heads decide for all but a few; only keys that compare as bytes have
        // the order of their heads.
        let (mut low, mut high) = (0, self.heads.len());
        if compare.ordered()
            && let Some(rest) = goal
                .key()
                .and_then(|key| key.strip_prefix(&self.shared[..]))
        {
            let (from, to) = (head_of(rest, 0), head_of(rest, 0xFF));
            low = self.heads.partition_point(|head| *head < from);
            high = low + self.heads[low..].partition_point(|head| *head <= to);
        }
        while low < high {
            let middle = usize::midpoint(low, high);
            let order = compare_position(self.position(middle), goal.target, compare);
            if order.is_lt() || order.is_eq() && !goal.below {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(match low.checked_sub(1) {
            Some(nth) => self.children[nth],
            None => self.first,
        })
    }
}

impl Guide {
    /// One that copies a page when it is passed for the first time: for tests,
    /// whose trees are small.
    pub fn eager() -> Guide {
        Guide {
            quiet: 0,
            passes: 1,
            places: Vec::new(),
        }
    }

    fn place(block: BlockNumber, level: Level) -> usize {
        if level == Level(1) {
            block.0 as usize % LOW_PLACES
        } else {
            LOW_PLACES + block.0 as usize % HIGH_PLACES
        }
    }

    /// The child of a page, if there is a copy that knows.
    #[inline]
    fn child(
        &self,
        block: BlockNumber,
        level: Level,
        goal: Goal<'_>,
        compare: &impl Compare,
    ) -> Option<BlockNumber> {
        let place = self.places.get(Self::place(block, level))?;
        let sketch = place.sketch.as_ref()?;
        if place.block != block || sketch.level != level {
            return None;
        }
        sketch.child(goal, compare)
    }

    /// Notes that a page was passed.
    fn pass(&mut self, page: Page<'_>, block: BlockNumber) -> Result<()> {
        if self.quiet > 0 {
            return Ok(());
        }
        if self.places.is_empty() {
            self.places
                .resize_with(LOW_PLACES + HIGH_PLACES, || Place::of(BlockNumber::NONE));
        }
        let place = &mut self.places[Self::place(block, page.level())];
        if place.block != block {
            *place = Place::of(block);
        }
        place.passes = place.passes.saturating_add(1);
        if place.passes >= self.passes {
            // One that is there already did not know: it is too old.
            place.sketch = Some(Box::new(Sketch::of(page, block)?));
            place.passes = 0;
        }
        Ok(())
    }

    /// Forgets all copies.
    fn forget(&mut self) {
        self.places.clear();
    }
}

impl<'t, S: PageStore, C: Compare> Tree<'t, S, C> {
    /// Says which copies of inner pages an earlier [`Tree`] of this statement
    /// has made, by [`Tree::guide`].
    pub fn follow(&self, guide: Guide) {
        self.guide.set(guide);
    }

    /// The copies of inner pages, to be handed to [`Tree::follow`] of a later
    /// [`Tree`].
    pub fn guide(&self) -> Guide {
        self.guide.take()
    }

    /// The page of a level that contains a goal, share-locked: by the guide as
    /// far as it knows the way, and through the pages where it does not.
    /// `None` if there is no such level.
    pub(super) fn page_guided(
        &self,
        goal: Goal<'_>,
        level: Level,
    ) -> Result<Option<S::Shared<'t>>> {
        if self.root()?.1 < level {
            return Ok(None);
        }
        let mut guide = self.guide.take();
        let found = self.follow_guide(goal, level, &mut guide)?;
        if found.is_none() {
            guide.forget();
            self.root.set(None);
        }
        self.guide.set(guide);
        Ok(found)
    }

    /// The leaf that contains a goal, share-locked.
    pub(super) fn leaf_guided(&self, goal: Goal<'_>) -> Result<S::Shared<'t>> {
        match self.page_guided(goal, Level::LEAF)? {
            Some(leaf) => Ok(leaf),
            None => self.leaf_shared(goal, None, &mut Path::new()),
        }
    }

    /// `None` if the way was lost.
    fn follow_guide(
        &self,
        goal: Goal<'_>,
        level: Level,
        guide: &mut Guide,
    ) -> Result<Option<S::Shared<'t>>> {
        let (mut block, mut at) = self.root()?;
        let mut as_root = true;
        let mut hops = 0;
        guide.quiet = guide.quiet.saturating_sub(1);
        loop {
            if at > level
                && let Some(child) = guide.child(block, at, goal, self.compare)
            {
                block = child;
                at = Level(at.0 - 1);
                as_root = false;
                continue;
            }
            let guard = self.store.read(block)?;
            let page = Page::open(&guard, block)?;
            match self.arrive(page, goal, at, as_root) {
                Arrival::Lost => return Ok(None),
                Arrival::Right(next) => {
                    hops += 1;
                    if hops > HOPS_MAX {
                        return Ok(None);
                    }
                    block = next;
                }
                Arrival::Here if at == level => return Ok(Some(guard)),
                Arrival::Here => {
                    if page.slot_count() == 0 {
                        // Said of it by the descent without a guide.
                        return Ok(None);
                    }
                    guide.pass(page, block)?;
                    let slot = goal.child_slot(page, block, self.compare)?;
                    block = page.inner_cell(slot, block)?.child;
                    at = Level(at.0 - 1);
                }
            }
            as_root = false;
        }
    }

    /// Looks up where several keys lie, as far as the parent of the first one's
    /// leaf knows: `note` is given the leaf of each in turn, a hint for
    /// [`Tree::look_near`], and says whether to go on. One lock for all.
    pub fn leaves_of<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
        mut note: impl FnMut(BlockNumber) -> bool,
    ) -> Result<()> {
        let mut keys = keys.peekable();
        let Some(first) = keys.peek() else {
            return Ok(());
        };
        let goal = Goal::at(Target::Before(first));
        let Some(guard) = self.page_guided(goal, Level(1))? else {
            return Ok(());
        };
        let block = self.store.block_of_shared(&guard);
        let page = Page::open(&guard, block)?;
        // The key before, its child, and where the next child begins.
        let mut last: Option<(&[u8], BlockNumber, Position<'_>)> = None;
        for key in keys {
            if let Some((before, child, next)) = last
                && before <= key
                && let Some(rest) = key.strip_prefix(page.prefix())
                && (next.key > rest || next.key == rest && next.sequence.is_some())
            {
                if !note(child) {
                    break;
                }
                continue;
            }
            let target = Target::Before(key);
            if page.slot_count() == 0 || !self.lies_on(page, target) {
                break;
            }
            let slot = Goal::at(target).child_slot(page, block, self.compare)?;
            let child = page.inner_cell(slot, block)?.child;
            if !note(child) {
                break;
            }
            last = None;
            if page.has(flag::ORDERED) && slot + 1 < page.slot_count() {
                let next = page.inner_cell(slot + 1, block)?.position;
                last = Some((key, child, next));
            }
        }
        Ok(())
    }
}
