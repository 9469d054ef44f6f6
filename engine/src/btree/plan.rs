//! Where to split a page: a decision, made before anything changes.
//!
//! The entries of the page and the one to be put are looked at as one row of
//! *items*; a split is an index into it, or an end of the row, which leaves one
//! half empty and gives the other a shorter fence. The README proves that one of
//! these is always possible, so that putting always ends.

use std::cmp::Ordering;

use super::Fill;
use super::insert::NewEntry;
use super::measure::{FIRST_DOWNLINK_BYTES, fence_len, key_len, keyless_len, usable_bytes};
use super::search::copy_key;
use crate::compare::Compare;
use crate::error::Result;
use crate::page::{Page, PageKind, Position, PositionBuf, SLOT_BYTES, position_bytes_max};
use crate::types::{BlockNumber, Sequence};

/// What is to be put on a page that has no room for it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fresh<'e> {
    Entry(&'e NewEntry<'e>),
    Downlink {
        slot: usize,
        child: BlockNumber,
        position: Position<'e>,
    },
}

impl Fresh<'_> {
    pub fn slot(&self) -> usize {
        match self {
            Fresh::Entry(entry) => entry.slot,
            Fresh::Downlink { slot, .. } => *slot,
        }
    }
}

/// A decision to split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SplitPlan {
    /// Slots that stay on the left page.
    pub keep: usize,
    /// Whether the new item goes to the left page.
    pub fresh_left: bool,
    /// The fence between the halves.
    pub separator: PositionBuf,
}

/// What decides between the places where a page can be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// Halves alike.
    Even,
    /// Keys ascend: leave the left page full.
    LeftFull,
    /// One key's versions fill the page and new ones come in front of them:
    /// leave the right page full (rule 33).
    RightFull,
}

struct Item {
    /// Bytes without the key.
    bare: usize,
    /// Bytes that a key of its own adds.
    key: usize,
    /// Bytes of the whole key.
    key_whole: usize,
    /// Whether it takes its key from the next item.
    below: bool,
}

impl Item {
    fn size(&self) -> usize {
        SLOT_BYTES + self.bare + if self.below { 0 } else { self.key }
    }
}

/// Looks at a page and what is to be put on it.
pub(super) struct Planner<'p, C> {
    page: Page<'p>,
    block: BlockNumber,
    fresh: Option<Fresh<'p>>,
    compare: &'p C,
    fill: Fill,
    items: Vec<Item>,
    /// Bytes of all items before each index.
    sums: Vec<usize>,
}

impl<'p, C: Compare> Planner<'p, C> {
    pub fn new(
        page: Page<'p>,
        block: BlockNumber,
        fresh: Option<Fresh<'p>>,
        compare: &'p C,
    ) -> Result<Self> {
        let count = page.slot_count();
        let mut planner = Planner {
            page,
            block,
            fresh,
            compare,
            fill: Fill::default(),
            items: Vec::with_capacity(count + 1),
            sums: Vec::with_capacity(count + 2),
        };
        for slot in 0..count {
            let item = planner.existing(slot)?;
            planner.items.push(item);
        }
        // A version without a key has its holder's.
        for slot in (0..count.saturating_sub(1)).rev() {
            if planner.items[slot].below {
                let (key, key_whole) = {
                    let holder = &planner.items[slot + 1];
                    (holder.key, holder.key_whole)
                };
                let item = &mut planner.items[slot];
                (item.key, item.key_whole) = (key, key_whole);
            }
        }
        if let Some(fresh) = fresh {
            let item = planner.item_of(fresh);
            planner.items.insert(fresh.slot(), item);
        }
        let mut sum = 0;
        planner.sums.push(0);
        for item in &planner.items {
            sum += item.size();
            planner.sums.push(sum);
        }
        Ok(planner)
    }

    fn existing(&self, slot: usize) -> Result<Item> {
        let prefix_len = self.page.prefix_len();
        if self.page.kind() != PageKind::Leaf {
            let position = self.page.inner_cell(slot, self.block)?.position;
            return Ok(Item {
                bare: 4 + position.encoded_len() - position.key.len(),
                key: position.key.len(),
                key_whole: prefix_len + position.key.len(),
                below: false,
            });
        }
        let cell = self.page.leaf_cell(slot, self.block)?;
        let suffix = cell.suffix.map_or(0, <[u8]>::len);
        Ok(Item {
            bare: keyless_len(cell.head, cell.body.len()),
            key: key_len(suffix),
            key_whole: prefix_len + suffix,
            below: cell.suffix.is_none(),
        })
    }

    fn item_of(&self, fresh: Fresh<'_>) -> Item {
        let prefix_len = self.page.prefix_len();
        match fresh {
            Fresh::Entry(entry) => Item {
                bare: keyless_len(entry.head, entry.body.len()),
                key: key_len(entry.key.len() - prefix_len),
                key_whole: entry.key.len(),
                below: entry.key_below,
            },
            Fresh::Downlink { position, .. } => Item {
                bare: 4 + position.encoded_len() - position.key.len(),
                key: position.key.len() - prefix_len,
                key_whole: position.key.len(),
                below: false,
            },
        }
    }

    /// Bytes of a fence before the item `at`, at most.
    fn fence_max(&self, at: usize) -> usize {
        let key_whole = self.items[at].key_whole;
        position_bytes_max(if self.page.kind() == PageKind::Leaf {
            key_whole.min(self.items[at - 1].key_whole)
        } else {
            key_whole
        })
    }

    /// Bytes of the left page if it is split at `at`: no less than it will be.
    fn left_bytes(&self, at: usize) -> usize {
        let mut bytes = self.sums[at] + fence_len(self.page.low()) + self.fence_max(at);
        let fresh = self.fresh.map(|fresh| fresh.slot());
        // What becomes the last slot needs a key of its own, and so does, when
        // the page is cut and the new item is put behind it, the slot before.
        let last = at - 1;
        let mut gets_key = |index: usize| {
            if self.items[index].below {
                bytes += self.items[index].key;
            }
        };
        gets_key(last);
        if fresh == Some(last) && last > 0 {
            gets_key(last - 1);
        }
        bytes
    }

    /// Bytes of the right page if it is split at `at`: no less than it will be.
    fn right_bytes(&self, at: usize) -> usize {
        let items = if self.page.kind() == PageKind::Leaf {
            self.sums[self.items.len()] - self.sums[at]
        } else {
            // The first downlink leaves its key to the fence.
            self.sums[self.items.len()] - self.sums[at + 1] + SLOT_BYTES + FIRST_DOWNLINK_BYTES
        };
        items + self.fence_max(at) + fence_len(self.page.high())
    }

    /// Whether the page can be split before this item.
    pub fn is_possible(&self, at: usize) -> bool {
        let usable = usable_bytes(self.page.size());
        at >= 1
            && at < self.items.len()
            && self.left_bytes(at) <= usable
            && self.right_bytes(at) <= usable
    }

    fn aim(&self) -> Aim {
        let Some(fresh) = self.fresh else {
            return Aim::Even;
        };
        let slot = fresh.slot();
        if slot > 0 && slot + 1 == self.items.len() {
            return Aim::LeftFull;
        }
        let mut behind = slot;
        while self.items[behind].below {
            behind += 1;
        }
        let group = self.sums[behind + 1] - self.sums[slot];
        if behind > slot && 2 * group >= self.sums[self.items.len()] {
            Aim::RightFull
        } else {
            Aim::Even
        }
    }

    /// How far a split is from what is wanted, in bytes.
    fn cost(&self, at: usize, aim: Aim) -> usize {
        let size = self.page.size();
        let full = || {
            let fresh = self
                .fresh
                .map_or(0, |fresh| self.items[fresh.slot()].size());
            self.fill.bytes(size, fresh)
        };
        let within_key = if self.items[at - 1].below && aim != Aim::RightFull {
            usable_bytes(size) / 4
        } else {
            0
        };
        within_key
            + match aim {
                Aim::Even => self.left_bytes(at).abs_diff(self.right_bytes(at)),
                Aim::LeftFull => self.left_bytes(at).abs_diff(full()),
                Aim::RightFull => self.right_bytes(at).abs_diff(full()),
            }
    }

    /// For a leaf that is to be left behind so full.
    pub fn filled(self, fill: Fill) -> Self {
        Planner { fill, ..self }
    }

    /// The best split, or `None` if the new item does not let the page be
    /// split in two.
    pub fn plan(&self) -> Result<Option<SplitPlan>> {
        let aim = self.aim();
        let costs: Vec<(usize, usize)> = (1..self.items.len())
            .filter(|at| self.is_possible(*at))
            .map(|at| (self.cost(at, aim), at))
            .collect();
        let Some(&(least, best)) = costs.iter().min() else {
            return Ok(None);
        };
        let mut chosen = (best, self.separator(best)?);
        if aim == Aim::Even && self.page.kind() == PageKind::Leaf {
            // Among splits almost as even, the one with the shortest fence.
            let tolerable = least + usable_bytes(self.page.size()) / 16;
            for &(cost, at) in &costs {
                if cost <= tolerable && at != best {
                    let separator = self.separator(at)?;
                    if separator.as_ref().encoded_len() < chosen.1.as_ref().encoded_len() {
                        chosen = (at, separator);
                    }
                }
            }
        }
        Ok(Some(self.decide(chosen.0, chosen.1)))
    }

    /// The split that leaves everything on the left but the new item, which
    /// stands at the end.
    pub fn append(&self) -> Result<Option<SplitPlan>> {
        let at = self.items.len() - 1;
        if !self.is_possible(at) {
            return Ok(None);
        }
        self.split_at(at).map(Some)
    }

    /// A split that leaves one half empty and gives the other, with all that is
    /// on this leaf, a fence no longer than the key beside it allows: for a
    /// leaf between keys that are much longer than those on it, or were. `None`
    /// if its fences are short enough. The new item's side is the caller's to
    /// find out.
    pub fn shorten(&self) -> Result<Option<SplitPlan>> {
        let last = self.items.len() - 1;
        let longest = |at: usize| position_bytes_max(self.items[at].key_whole);
        if let Some(low) = self.page.low()
            && low.encoded_len() > longest(0)
        {
            return Ok(Some(SplitPlan {
                keep: 0,
                fresh_left: false,
                separator: separator(low.to_buf(), self.position(0)?, self.compare),
            }));
        }
        if let Some(high) = self.page.high()
            && high.encoded_len() > longest(last)
        {
            return Ok(Some(SplitPlan {
                keep: self.page.slot_count(),
                fresh_left: false,
                separator: separator(self.position(last)?, high.to_buf(), self.compare),
            }));
        }
        Ok(None)
    }

    /// The split before this item.
    pub fn split_at(&self, at: usize) -> Result<SplitPlan> {
        Ok(self.decide(at, self.separator(at)?))
    }

    fn decide(&self, at: usize, separator: PositionBuf) -> SplitPlan {
        let fresh_left = self.fresh.is_some_and(|fresh| fresh.slot() < at);
        SplitPlan {
            keep: at - usize::from(fresh_left),
            fresh_left,
            separator,
        }
    }

    /// The existing slot of an item, or `None` for the new one.
    fn slot_of(&self, index: usize) -> Option<usize> {
        match self.fresh.map(|fresh| fresh.slot()) {
            Some(fresh) => match index.cmp(&fresh) {
                Ordering::Less => Some(index),
                Ordering::Equal => None,
                Ordering::Greater => Some(index - 1),
            },
            None => Some(index),
        }
    }

    fn position(&self, index: usize) -> Result<PositionBuf> {
        let Some(slot) = self.slot_of(index) else {
            return Ok(match self.fresh {
                Some(Fresh::Entry(entry)) => PositionBuf {
                    key: entry.key.to_vec(),
                    sequence: Some(entry.head.sequence),
                },
                Some(Fresh::Downlink { position, .. }) => position.to_buf(),
                None => unreachable!("only a new item has no slot"),
            });
        };
        let mut key = Vec::new();
        if self.page.kind() == PageKind::Leaf {
            copy_key(self.page, slot, self.block, &mut key)?;
            let sequence = Some(self.page.leaf_cell(slot, self.block)?.head.sequence);
            return Ok(PositionBuf { key, sequence });
        }
        let position = self.page.inner_cell(slot, self.block)?.position;
        key.extend_from_slice(self.page.prefix());
        key.extend_from_slice(position.key);
        Ok(PositionBuf {
            key,
            sequence: position.sequence,
        })
    }

    fn separator(&self, at: usize) -> Result<PositionBuf> {
        let right = self.position(at)?;
        if self.page.kind() != PageKind::Leaf {
            return Ok(right);
        }
        let left = self.position(at - 1)?;
        Ok(separator(left, right, self.compare))
    }
}

/// The fence between two neighbouring positions on leaves: with as many bytes
/// of key as the shorter one of them has, at most.
pub(super) fn separator(
    left: PositionBuf,
    right: PositionBuf,
    compare: &impl Compare,
) -> PositionBuf {
    if compare.compare(&left.key, &right.key).is_eq() {
        // Equal keys may have other bytes, and more of them.
        let key = if left.key.len() < right.key.len() {
            left.key
        } else {
            right.key
        };
        return PositionBuf {
            key,
            sequence: right.sequence,
        };
    }
    let mut key = Vec::new();
    compare.separator(&left.key, &right.key, &mut key);
    if key.len() > right.key.len() {
        key = right.key;
    }
    if 1 + key.len() > position_bytes_max(left.key.len()) {
        // Keys that do not compare as bytes cannot always be cut off where they
        // differ.
        return PositionBuf {
            key: left.key,
            sequence: Some(Sequence::END),
        };
    }
    PositionBuf {
        key,
        sequence: None,
    }
}
