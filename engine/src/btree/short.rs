//! Pages searched by short keys that are all as long: such a key is a number,
//! and nothing is compared byte by byte. Where numbers do not decide, the caller
//! is sent the way of all keys; why what they decide is right is argued in
//! `README.md`, "Short keys".

use super::search::Goal;
use super::{Target, Tree};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::{Page, PageKind, Position, SLOT_BYTES, flag};
use crate::store::PageStore;
use crate::types::{BlockNumber, Level};

/// The most bytes that a short key has.
pub const SHORT_MAX: usize = 8;

/// A short key, or the start of one, as a number: its first byte is the
/// uppermost, and zeros follow its last. `None` if it is too long.
#[inline]
pub fn number_of(key: &[u8]) -> Option<u64> {
    match key.first_chunk::<SHORT_MAX>() {
        Some(eight) if key.len() == SHORT_MAX => Some(u64::from_be_bytes(*eight)),
        Some(_) => None,
        None => {
            let mut padded = [0; SHORT_MAX];
            padded[..key.len()].copy_from_slice(key);
            Some(u64::from_be_bytes(padded))
        }
    }
}

/// A page that is searched by numbers.
pub(crate) struct Numbered<'p> {
    slots: &'p [[u8; SLOT_BYTES]],
    /// The numbers of the keys that begin on the page.
    first: u64,
    last: u64,
    /// Bits of the page's prefix, and what of a key is behind it.
    prefix_bits: u32,
    rest_bytes: usize,
}

#[inline]
fn head_in(slot: &[u8; SLOT_BYTES]) -> u32 {
    u32::from_le_bytes([slot[4], slot[5], slot[6], slot[7]])
}

/// The first and the last number of the keys that begin between two fences;
/// `None` if there is none, or numbers cannot tell.
#[inline]
fn between(low: Option<Position<'_>>, high: Option<Position<'_>>) -> Option<(u64, u64)> {
    // A fence within a key leaves that key to the page on its left. One that is
    // shorter than a key lies before all that continue it.
    let first = match low {
        None => 0,
        Some(low) => number_of(low.key)?.checked_add(u64::from(low.sequence.is_some()))?,
    };
    let last = match high {
        None => u64::MAX,
        Some(high) if high.sequence.is_some() => number_of(high.key)?,
        Some(high) => number_of(high.key)?.checked_sub(1)?,
    };
    Some((first, last))
}

impl<'p> Numbered<'p> {
    /// The page of a tree whose keys have `width` bytes, if it can be searched
    /// so.
    #[inline]
    pub fn of(page: Page<'p>, width: usize) -> Option<Numbered<'p>> {
        let prefix_len = page.prefix_len();
        if !page.has(flag::ORDERED) || prefix_len >= width || width > SHORT_MAX {
            return None;
        }
        let (first, last) = between(page.low(), page.high())?;
        Some(Numbered {
            slots: page.slots(),
            first,
            last,
            prefix_bits: 8 * prefix_len as u32,
            rest_bytes: width - prefix_len,
        })
    }

    /// Whether a key begins on the page.
    #[inline]
    pub fn contains(&self, key: u64) -> bool {
        self.first <= key && key <= self.last
    }

    /// The head of a key that the page contains.
    #[inline]
    pub fn head(&self, key: u64) -> u32 {
        ((key << self.prefix_bits) >> 32) as u32
    }

    /// How many bytes of a key are behind the page's prefix.
    #[inline]
    pub fn rest_bytes(&self) -> usize {
        self.rest_bytes
    }

    /// The first slot from `from` on whose head is not less; best if it is not
    /// far from there.
    #[inline]
    pub fn seek(&self, head: u32, from: usize) -> usize {
        let Some(slots) = self.slots.get(from..) else {
            return self.slots.len();
        };
        let mut bound = 0;
        let mut step = 1;
        while bound < slots.len() && head_in(&slots[bound]) < head {
            bound += step;
            step *= 2;
        }
        // All before it, and the one from which the last step was taken, are less.
        let low = (bound + 1).saturating_sub(step / 2).min(bound);
        let near = &slots[low..bound.min(slots.len())];
        from + low + near.partition_point(|slot| head_in(slot) < head)
    }

    /// The head in a slot, if there is such a slot.
    #[inline]
    fn head_at(&self, slot: usize) -> Option<u32> {
        self.slots.get(slot).map(head_in)
    }
}

impl<'t, S: PageStore, C: Compare> Tree<'t, S, C> {
    /// The leaf on which a short key begins, share-locked, if it is where
    /// [`Tree::look_near`] says.
    pub(crate) fn leaf_near(&self, key: u64, width: usize) -> Result<Option<S::Shared<'t>>> {
        let Some(block) = self.near.take() else {
            return Ok(None);
        };
        let guard = self.store.read(block)?;
        let is_the_leaf = Page::open(&guard, block).is_ok_and(|page| {
            page.kind() == PageKind::Leaf
                && page.level() == Level::LEAF
                && Numbered::of(page, width).is_some_and(|leaf| leaf.contains(key))
        });
        Ok(is_the_leaf.then_some(guard))
    }

    /// As [`Tree::leaves_of`], for short keys: they are given by number, and
    /// `key_of` has their bytes.
    pub(crate) fn leaves_of_short<'k>(
        &self,
        keys: std::ops::Range<usize>,
        width: usize,
        number_of: impl Fn(usize) -> u64,
        key_of: impl Fn(usize) -> &'k [u8],
        mut note: impl FnMut(BlockNumber) -> bool,
    ) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let goal = Goal::at(Target::Before(key_of(keys.start)));
        let Some(guard) = self.page_guided(goal, Level(1))? else {
            return Ok(());
        };
        let block = self.store.block_of_shared(&guard);
        let page = Page::open(&guard, block)?;
        let Some(numbered) = Numbered::of(page, width) else {
            drop(guard);
            return self.leaves_of(keys.map(key_of), note);
        };
        // The child of the key before, the slot behind its downlink, and the
        // head from which on it may be another one.
        let mut child = BlockNumber::NONE;
        let (mut next, mut end, mut last) = (1, 0, 0);
        for nth in keys {
            let key = number_of(nth);
            if page.slot_count() == 0 || !numbered.contains(key) {
                break;
            }
            let head = numbered.head(key);
            if !child.is_some() || key < last || u64::from(head) >= end {
                let from = if key < last { 1 } else { next };
                next = numbered.seek(head, from);
                let slot = if numbered.head_at(next) == Some(head) {
                    // Only the whole separator decides.
                    let goal = Goal::at(Target::Before(key_of(nth)));
                    goal.child_slot(page, block, self.compare)?
                } else {
                    next - 1
                };
                next = slot + 1;
                child = page.inner_cell(slot, block)?.child;
                end = numbered.head_at(next).map_or(u64::MAX, u64::from);
            }
            last = key;
            if !note(child) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Bytewise;
    use crate::types::Sequence;
    use proptest::prelude::*;

    #[test]
    fn numbers_of_keys_are_in_the_order_of_their_bytes() {
        let keys: [&[u8]; 6] = [&[], &[0, 1], &[1], &[1, 0, 7], &[1, 1], &[0xFF; 8]];
        let numbers: Vec<_> = keys.iter().map(|key| number_of(key).unwrap()).collect();
        assert!(numbers.is_sorted(), "{numbers:x?}");
        assert_eq!(number_of(&[0; 9]), None);
    }

    /// A fence: truncated, or a whole key, then perhaps within it or behind it.
    fn fences() -> impl Strategy<Value = Option<(Vec<u8>, Option<Sequence>)>> {
        let byte = || prop_oneof![0u8..3, Just(u8::MAX)];
        let sequence = proptest::option::of(prop_oneof![Just(Sequence(7)), Just(Sequence::END)]);
        let whole = ([byte(), byte()], sequence).prop_map(|(key, at)| (key.to_vec(), at));
        let cut = byte().prop_map(|one| (vec![one], None));
        proptest::option::of(prop_oneof![3 => whole, 1 => cut])
    }

    proptest! {
        #[test]
        fn fences_let_in_by_number_what_they_let_in_by_bytes(low in fences(), high in fences()) {
            let [low, high] = [&low, &high].map(|fence| {
                fence.as_ref().map(|(key, sequence)| Position { key, sequence: *sequence })
            });
            let numbers = between(low, high);
            for first in [0, 1, 2, 3, u8::MAX] {
                for second in [0, 1, 2, 3, u8::MAX] {
                    let key = [first, second];
                    let goal = Goal::at(Target::Before(&key));
                    let expected = !low.is_some_and(|low| goal.precedes(low, &Bytewise))
                        && !high.is_some_and(|high| goal.passes(high, &Bytewise));
                    let number = number_of(&key).unwrap();
                    let found = numbers.is_some_and(|(from, to)| from <= number && number <= to);
                    prop_assert_eq!(found, expected, "{:?}", key);
                }
            }
        }

        #[test]
        fn a_seek_ends_where_a_look_at_each_slot_would(
            mut heads in proptest::collection::vec(0u32..40, 0..60),
            wanted in 0u32..42,
            from in 0usize..62,
        ) {
            heads.sort_unstable();
            let slots: Vec<[u8; SLOT_BYTES]> = heads
                .iter()
                .map(|head| {
                    let mut slot = [0; SLOT_BYTES];
                    slot[4..].copy_from_slice(&head.to_le_bytes());
                    slot
                })
                .collect();
            let numbered = Numbered { slots: &slots, first: 0, last: u64::MAX, prefix_bits: 0, rest_bytes: 8 };
            let from = from.min(heads.len());
            let expected = (from..heads.len()).find(|slot| heads[*slot] >= wanted);
            prop_assert_eq!(numbered.seek(wanted, from), expected.unwrap_or(heads.len()));
        }
    }
}
