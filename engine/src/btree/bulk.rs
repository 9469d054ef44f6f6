//! Building a tree from sorted entries, bottom up, into a fresh relation.

use super::Fill;
use super::measure::{
    FIRST_DOWNLINK_BYTES, check_limits, fence_len, key_len, keyless_len, prefix_len, usable_bytes,
};
use super::meta::Meta;
use super::plan::separator;
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::page::cell::{Head, InnerCell};
use crate::page::op::{Format, Ops};
use crate::page::{PageKind, Position, PositionBuf, SLOT_BYTES, flag};
use crate::record::{Record, RecordKind};
use crate::store::PageStore;
use crate::types::{BlockNumber, Level, Sequence, SlotNumber, Xid};

/// What a level's page will hold in one slot.
#[derive(Clone, Copy)]
enum What {
    Version(Head),
    Downlink(BlockNumber, Option<Sequence>),
}

struct Pending {
    what: What,
    /// Where in a row's data its key begins, its body, and what is behind it.
    key: usize,
    body: usize,
    end: usize,
    /// Bytes of its slot, and of its cell but for its key.
    keyless_bytes: usize,
    /// Whether the next entry has the same key, in whichever bytes, so that this
    /// one need not hold it.
    shares_key: bool,
}

/// A level of the tree, its last pages not written yet.
#[derive(Default)]
struct Row {
    entries: Vec<Pending>,
    /// Keys and bodies of `entries`.
    data: Vec<u8>,
    /// Where the next page begins.
    low: Option<PositionBuf>,
    /// The page written last.
    left: Option<BlockNumber>,
    /// Bytes of `entries` with whole keys, and how many have one.
    whole_bytes: usize,
    own_keys: usize,
    /// Bytes of the longest of them.
    longest: usize,
}

impl Row {
    fn key(&self, nth: usize) -> &[u8] {
        let entry = &self.entries[nth];
        &self.data[entry.key..entry.body]
    }

    fn position(&self, nth: usize) -> Position<'_> {
        Position {
            key: self.key(nth),
            sequence: match self.entries[nth].what {
                What::Version(head) => Some(head.sequence),
                What::Downlink(_, sequence) => sequence,
            },
        }
    }

    /// Whether an entry need not hold its key, for the next one does.
    fn shares_key(&self, nth: usize) -> bool {
        self.entries[nth].shares_key
    }

    /// Bytes of an entry, slot and its own key included, behind a prefix.
    fn entry_bytes(&self, nth: usize, prefix_len: usize, below: bool) -> usize {
        let entry = &self.entries[nth];
        let suffix_len = entry.body - entry.key - prefix_len;
        match entry.what {
            What::Version(_) if below => entry.keyless_bytes,
            What::Version(_) => entry.keyless_bytes + key_len(suffix_len),
            What::Downlink(..) if nth == 0 => SLOT_BYTES + FIRST_DOWNLINK_BYTES,
            What::Downlink(..) => entry.keyless_bytes + suffix_len,
        }
    }
}

/// The fewest entries of a page that is not its level's last: an inner page of
/// one downlink would not make the level above smaller. Any two find room.
fn least(level: usize) -> usize {
    if level == 0 { 1 } else { 2 }
}

/// A bulk build: entries are added in order, pages are written as they fill.
///
/// Until [`Bulk::finish`] the metapage names no root, so that nobody can take
/// the unfinished tree for a whole one; if the build fails its caller drops
/// the relation.
pub struct Bulk<'t, S: PageStore, C: Compare> {
    store: &'t S,
    compare: &'t C,
    meta: Meta,
    fill: Fill,
    rows: Vec<Row>,
    horizon: Xid,
}

impl<'t, S: PageStore, C: Compare> Bulk<'t, S, C> {
    /// Starts in a relation that has no blocks yet.
    pub fn new(store: &'t S, compare: &'t C, layout: &[u8]) -> Result<Self> {
        let meta = Meta::new(layout, compare.ordered(), BlockNumber::NONE, Level::LEAF);
        let ops = meta.init(store.page_size())?;
        let mut metapage = store.allocate()?;
        assert_eq!(store.block_of(&metapage), BlockNumber::META);
        let record = Record::new(RecordKind::Create).init(BlockNumber::META, ops);
        store.commit(&record, &mut [&mut metapage]);
        Ok(Bulk {
            store,
            compare,
            meta,
            fill: Fill::default(),
            rows: vec![Row::default()],
            horizon: Xid::NONE,
        })
    }

    /// Says how full leaves are to be.
    pub fn fill_to(&mut self, fill: Fill) {
        self.fill = fill;
    }

    /// Says which snapshots of a standby cannot do with what is built: those that
    /// take this transaction for a running one. They end before the tree is there.
    pub fn state_horizon(&mut self, newest: Xid) {
        self.horizon = self.horizon.newer_of(newest);
    }

    /// Bytes of a page of this level.
    fn fill_bytes(&self, level: usize) -> usize {
        let fill = if level == 0 {
            self.fill
        } else {
            Fill::default()
        };
        fill.bytes(self.store.page_size(), self.rows[level].longest)
    }

    /// Sets the first hidden row id that the finished relation will lease.
    pub fn set_next_row_id(&mut self, next: u64) {
        self.meta.next_row_id = next;
    }

    /// Adds an entry behind all others: by key, and of one key the newest
    /// first. Returns whether it is the first of its key. Where equal keys come
    /// in several bytes, those of the last entry on a page stand there for all.
    pub fn add(&mut self, head: Head, key: &[u8], body: &[u8]) -> Result<bool> {
        check_limits(self.store.page_size(), head, key, body)?;
        let bytes = SLOT_BYTES + keyless_len(head, body.len());
        self.push(0, What::Version(head), bytes, key, body)
    }

    /// Writes what remains and makes the tree known.
    pub fn finish(mut self) -> Result<()> {
        let mut level = 0;
        let root = loop {
            let count = self.fit(level)?;
            let only = self.rows[level].left.is_none();
            let block = self.write(level, count, None, only)?;
            if only {
                break block;
            }
            level += 1;
        };
        self.meta.root = root.0;
        self.meta.root_level = level as u8;
        let mut metapage = self.store.lock(BlockNumber::META)?;
        let record = Record::new(RecordKind::Meta)
            .change(BlockNumber::META, Ops::new().meta(&self.meta.encode()?))
            .horizon(self.horizon);
        self.store.commit(&record, &mut [&mut metapage]);
        Ok(())
    }

    fn push(
        &mut self,
        level: usize,
        what: What,
        keyless_bytes: usize,
        key: &[u8],
        body: &[u8],
    ) -> Result<bool> {
        if level == self.rows.len() {
            self.rows.push(Row::default());
        }
        let row = &mut self.rows[level];
        let start = row.data.len();
        row.data.extend_from_slice(key);
        let middle = row.data.len();
        row.data.extend_from_slice(body);
        row.entries.push(Pending {
            what,
            key: start,
            body: middle,
            end: row.data.len(),
            keyless_bytes,
            shares_key: false,
        });
        let count = row.entries.len();
        // At least one entry stays behind when pages are written, but at the end.
        let is_new = !row.link_last(self.compare);
        row.count_last();
        if count > 1 {
            debug_assert!(
                super::search::compare_positions(
                    row.position(count - 2),
                    row.position(count - 1),
                    self.compare
                )
                .is_lt(),
                "a bulk build's entries ascend"
            );
            // Of a page that overflows all but the newest entry, which has to
            // be there for the fence.
            while self.rows[level].entries.len() > least(level) && self.overflows(level) {
                let count = self.rows[level].entries.len();
                let at = self.choose(level, count - 1);
                let fence = self.fence(level, at);
                self.write(level, at, Some(fence), false)?;
            }
        }
        Ok(is_new)
    }

    /// Whether a page of all pending entries, the newest included, would be
    /// fuller than wanted; counted as entries come, for it is asked for each.
    fn overflows(&self, level: usize) -> bool {
        let row = &self.rows[level];
        let last = row.position(row.entries.len() - 1);
        // The fence behind the newest is not known; its own key stands in.
        let low = row.low.as_ref().map(PositionBuf::as_ref);
        let fences = fence_len(low) + last.encoded_len();
        let fill = self.fill_bytes(level);
        // The prefix is looked for only where it decides.
        if fences + row.whole_bytes <= fill {
            return false;
        }
        let saved = row.own_keys * self.prefix(level, Some(last));
        fences + row.whole_bytes - saved > fill
    }

    /// Writes pages until the rest is one page without an upper fence; its
    /// number of entries.
    fn fit(&mut self, level: usize) -> Result<usize> {
        loop {
            let count = self.rows[level].entries.len();
            if count <= least(level) || self.bytes(level, count, None) <= self.fill_bytes(level) {
                return Ok(count);
            }
            let at = self.choose(level, count - 1);
            let fence = self.fence(level, at);
            self.write(level, at, Some(fence), false)?;
        }
    }

    /// The most entries, up to `most`, that make a page, at least [`least`]. A
    /// key's versions stay together unless that leaves the page half empty.
    fn choose(&self, level: usize, most: usize) -> usize {
        let fill = self.fill_bytes(level);
        let bytes = |at: usize| {
            let fence = self.fence(level, at);
            self.bytes(level, at, Some(fence.as_ref()))
        };
        let least = least(level);
        let Some(at) = (least..=most).rev().find(|at| bytes(*at) <= fill) else {
            return least;
        };
        let row = &self.rows[level];
        let mut start = at;
        while start > 1 && row.shares_key(start - 1) {
            start -= 1;
        }
        if start < at && !row.shares_key(start - 1) && bytes(start) * 2 >= fill {
            start
        } else {
            at
        }
    }

    /// The fence between two pending entries.
    fn fence(&self, level: usize, at: usize) -> PositionBuf {
        let row = &self.rows[level];
        let right = row.position(at).to_buf();
        if level > 0 {
            return right;
        }
        separator(row.position(at - 1).to_buf(), right, self.compare)
    }

    fn prefix(&self, level: usize, high: Option<Position<'_>>) -> usize {
        let low = self.rows[level].low.as_ref().map(PositionBuf::as_ref);
        prefix_len(self.meta.ordered, low, high)
    }

    /// Bytes of a page of the first `count` pending entries.
    fn bytes(&self, level: usize, count: usize, high: Option<Position<'_>>) -> usize {
        let row = &self.rows[level];
        let low = row.low.as_ref().map(PositionBuf::as_ref);
        let prefix = self.prefix(level, high);
        let entries: usize = (0..count)
            .map(|nth| {
                let below = nth + 1 < count && row.shares_key(nth);
                row.entry_bytes(nth, prefix, below)
            })
            .sum();
        fence_len(low) + fence_len(high) + entries
    }

    /// Writes a page of the first `count` pending entries, and hands its
    /// downlink up unless it is the root.
    ///
    /// Its left sibling gets the link to it in the same record, so that no
    /// page stays locked between two entries.
    fn write(
        &mut self,
        level: usize,
        count: usize,
        high: Option<PositionBuf>,
        is_root: bool,
    ) -> Result<BlockNumber> {
        let high_fence = high.as_ref().map(PositionBuf::as_ref);
        let prefix = self.prefix(level, high_fence);
        debug_assert!(self.bytes(level, count, high_fence) <= usable_bytes(self.store.page_size()));
        let row = &self.rows[level];
        let format = Format {
            kind: if level == 0 {
                PageKind::Leaf
            } else {
                PageKind::Inner
            },
            level: Level(u8::try_from(level).map_err(|_| {
                Error::Store("a tree higher than a level can be counted".to_owned())
            })?),
            flags: if self.meta.ordered { flag::ORDERED } else { 0 }
                | if is_root { flag::ROOT } else { 0 },
            left: row.left.unwrap_or(BlockNumber::NONE),
            right: BlockNumber::NONE,
            generation: 0,
            prefix_len: prefix as u16,
            low: row.low.as_ref().map(PositionBuf::as_ref),
            high: high_fence,
        };
        let make = |nth: usize, out: &mut Vec<u8>| {
            let entry = &row.entries[nth];
            match entry.what {
                What::Version(head) => {
                    let below = nth + 1 < count && entry.shares_key;
                    let suffix = (!below).then(|| &row.data[entry.key + prefix..entry.body]);
                    head.encode(suffix, &row.data[entry.body..entry.end], out);
                    below
                }
                What::Downlink(child, _) => {
                    let position = match nth {
                        0 => Position::FIRST,
                        _ => row.position(nth),
                    };
                    InnerCell::encode(child, position, prefix.min(position.key.len()), out);
                    false
                }
            }
        };
        let ops = Ops::with_room(self.store.page_size() + 2 * count)
            .format(&format)
            .insert_made(SlotNumber(0), count, make);
        let mut page = self.store.allocate()?;
        let block = self.store.block_of(&page);
        let mut record = Record::new(RecordKind::Create).init(block, ops);
        let mut left = match row.left {
            Some(left) => {
                record = record.change(left, Ops::new().links(None, Some(block)));
                Some(self.store.lock(left)?)
            }
            None => None,
        };
        let mut pages = vec![&mut page];
        pages.extend(left.as_mut());
        self.store.commit(&record, &mut pages);
        drop((page, left));

        let row = &mut self.rows[level];
        let low = std::mem::replace(&mut row.low, high);
        row.left = Some(block);
        row.drop_front(count);
        if !is_root {
            let low = low.unwrap_or_default();
            let sequence_bytes = if low.sequence.is_some() { 8 } else { 0 };
            self.push(
                level + 1,
                What::Downlink(block, low.sequence),
                SLOT_BYTES + FIRST_DOWNLINK_BYTES + sequence_bytes,
                &low.key,
                &[],
            )?;
        }
        Ok(block)
    }
}

impl Row {
    /// Finds out whether the entry at the end is of the same key as the one
    /// before it.
    fn link_last(&mut self, compare: &impl Compare) -> bool {
        let Some(before) = self.entries.len().checked_sub(2) else {
            return false;
        };
        let (left, right) = (self.key(before), self.key(before + 1));
        // Keys of two rows mostly differ at their ends.
        let shares = matches!(self.entries[before].what, What::Version(_))
            && (left.last() == right.last() && left == right
                || !compare.ordered() && compare.compare(left, right).is_eq());
        self.entries[before].shares_key = shares;
        shares
    }

    /// Counts the entry at the end, and that the one before it may now share
    /// its key.
    fn count_last(&mut self) {
        let last = self.entries.len() - 1;
        if last > 0 && self.shares_key(last - 1) {
            let own = self.entry_bytes(last - 1, 0, false);
            self.whole_bytes -= own - self.entry_bytes(last - 1, 0, true);
            self.own_keys -= 1;
        }
        let bytes = self.entry_bytes(last, 0, false);
        self.longest = self.longest.max(bytes);
        self.whole_bytes += bytes;
        self.own_keys += usize::from(self.has_key(last));
    }

    /// Whether an entry is stored with a key; a page's first downlink is not.
    fn has_key(&self, nth: usize) -> bool {
        nth > 0 || matches!(self.entries[nth].what, What::Version(_))
    }

    fn drop_front(&mut self, count: usize) {
        self.entries.drain(..count);
        let start = self
            .entries
            .first()
            .map_or(self.data.len(), |entry| entry.key);
        self.data.drain(..start);
        for entry in &mut self.entries {
            entry.key -= start;
            entry.body -= start;
            entry.end -= start;
        }
        (self.whole_bytes, self.own_keys, self.longest) = (0, 0, 0);
        for nth in 0..self.entries.len() {
            self.longest = self.longest.max(self.entry_bytes(nth, 0, false));
            let below = nth + 1 < self.entries.len() && self.shares_key(nth);
            self.whole_bytes += self.entry_bytes(nth, 0, below);
            self.own_keys += usize::from(!below && self.has_key(nth));
        }
    }
}
