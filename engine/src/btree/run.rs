//! Putting many entries on a leaf in one record.

use super::cells::Cells;
use super::insert::{NewEntry, RunEntry, flags_broken};
use super::measure::{
    check_limits, fence_len, key_len, keyless_len, prefix_for, usable_bytes, used_bytes,
};
use super::plan::separator;
use super::search::{compare_position, copy_key, lower_bound};
use super::split::{Halves, slot_number};
use super::{Leaf, Target, Tree};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::op::Ops;
use crate::page::{Page, Position, PositionBuf, SLOT_BYTES};
use crate::record::{Record, RecordKind};
use crate::store::PageStore;

/// Bytes of an entry, slot included, behind a prefix.
fn entry_bytes(entry: &RunEntry<'_>, prefix_len: usize) -> usize {
    // The prefix is taken off what the whole key takes: at worst a byte too
    // much, where the shorter key needs a shorter length.
    SLOT_BYTES + keyless_len(entry.head, entry.body.len()) + key_len(entry.key.len()) - prefix_len
}

fn position_of<'e>(entry: &RunEntry<'e>) -> Position<'e> {
    Position {
        key: entry.key,
        sequence: Some(entry.head.sequence),
    }
}

impl<'t, S: PageStore, C: Compare> Tree<'t, S, C> {
    /// Puts entries that ascend, the first of which belongs on this leaf, of
    /// keys that the tree does not have yet: as many as fit in one record,
    /// splitting the leaf if none does. Returns how many were put, at least
    /// one; the caller goes on with the rest. The lock is released.
    ///
    /// A leaf that an ascending load leaves behind is as full as the tree's [`super::Fill`] says.
    pub fn put_run(&self, mut leaf: Leaf<'t, S>, entries: &[RunEntry<'_>]) -> Result<usize> {
        let Some(first) = entries.first() else {
            return Ok(0);
        };
        let page_size = self.store.page_size();
        check_limits(page_size, first.head, first.key, first.body)?;
        // An entry beyond the limits is the next call's to refuse.
        let within = entries
            .iter()
            .position(|entry| check_limits(page_size, entry.head, entry.key, entry.body).is_err())
            .unwrap_or(entries.len());
        let entries = &entries[..within];
        let block = leaf.block(self.store);
        let page = Page::open(&leaf.guard, block)?;
        let last_leaf = !page.right().is_some();
        let count = page.slot_count();
        let room = page.free_for_certain();
        let room_at_end = if last_leaf && count > 0 {
            // What is left behind gets an upper fence, no longer than a key.
            let entry = entry_bytes(first, 0) + 1 + first.key.len();
            let full = self.fill.get().bytes(page.size(), entry);
            room.min(full.saturating_sub(used_bytes(page)))
        } else {
            room
        };
        let mut taken = 0;
        let mut broken = 0;
        let mut runs: Vec<(usize, Cells)> = Vec::new();
        let mut slot = 0;
        for (nth, entry) in entries.iter().enumerate() {
            let position = position_of(entry);
            let beyond = page.high().is_some_and(|high| {
                compare_position(high, Target::of(position), self.compare).is_le()
            });
            if beyond {
                break;
            }
            if slot < count || nth == 0 {
                slot = lower_bound(page, block, Target::of(position), self.compare)?;
            }
            assert!(
                slot == 0 || !page.slot(slot - 1).key_below,
                "a run's keys are new to the tree"
            );
            let bytes = SLOT_BYTES
                + keyless_len(entry.head, entry.body.len())
                + key_len(entry.key.len() - page.prefix_len());
            let limit = if slot == count { room_at_end } else { room };
            if taken + bytes > limit.min(room) {
                break;
            }
            taken += bytes;
            broken |= flags_broken(page, entry.head, false);
            match runs.last_mut() {
                Some((at, cells)) if *at == slot => cells.entry(entry, page.prefix_len()),
                _ => {
                    let mut cells = Cells::new();
                    cells.entry(entry, page.prefix_len());
                    runs.push((slot, cells));
                }
            }
        }
        let put: usize = runs.iter().map(|(_, cells)| cells.iter().count()).sum();
        if put == 0 {
            let slot = lower_bound(page, block, Target::of(position_of(first)), self.compare)?;
            if last_leaf
                && slot == count
                && count > 0
                && let Some(put) = self.split_for_run(&mut leaf, entries)?
            {
                return Ok(put);
            }
            let entry = NewEntry {
                head: first.head,
                key: first.key,
                body: first.body,
                slot,
                key_below: false,
                like: None,
            };
            self.put(leaf, entry, RecordKind::Insert)?;
            return Ok(1);
        }
        let mut ops = Ops::new();
        let mut shift = 0;
        for (slot, cells) in &runs {
            ops = ops.insert_run(slot_number(slot + shift), cells.iter());
            shift += cells.iter().count();
        }
        if broken != 0 {
            ops = ops.flags(0, broken);
        }
        if last_leaf && runs.last().is_some_and(|(slot, _)| *slot == count) {
            self.rightmost.set(Some(block));
        }
        let record = Record::new(RecordKind::Insert).change(block, ops);
        self.store.commit(&record, &mut [&mut leaf.guard]);
        Ok(put)
    }

    /// Splits the tree's last leaf behind its last entry. As the left page
    /// gets an upper fence its keys may get shorter, so part of the run may
    /// still go there; the rest begins the right page. `None` if the left
    /// page would not have room for its new fence.
    fn split_for_run(
        &self,
        leaf: &mut Leaf<'t, S>,
        entries: &[RunEntry<'_>],
    ) -> Result<Option<usize>> {
        let block = leaf.block(self.store);
        let page = Page::open(&leaf.guard, block)?;
        let count = page.slot_count();
        let mut last = PositionBuf::default();
        copy_key(page, count - 1, block, &mut last.key)?;
        last.sequence = Some(page.leaf_cell(count - 1, block)?.head.sequence);
        // The page has no upper fence yet, hence no prefix.
        assert_eq!(page.prefix_len(), 0);
        let own_keys = (0..count)
            .filter(|slot| !page.slot(*slot).key_below)
            .count();
        let existing = used_bytes(page) - fence_len(page.low());
        // What the page takes if `left` of the run go there.
        let plan = |left: usize| {
            let before = match left.checked_sub(1) {
                Some(nth) => position_of(&entries[nth]).to_buf(),
                None => last.clone(),
            };
            let fence = separator(before, position_of(&entries[left]).to_buf(), self.compare);
            let prefix = prefix_for(page, page.low(), Some(fence.as_ref()));
            let bytes = fence_len(page.low()) + fence.as_ref().encoded_len() + existing
                - own_keys * prefix
                + entries[..left]
                    .iter()
                    .map(|entry| entry_bytes(entry, prefix))
                    .sum::<usize>();
            (bytes, prefix, fence)
        };
        let mut chosen = plan(0);
        if chosen.0 > usable_bytes(page.size()) {
            return Ok(None);
        }
        let fill = self
            .fill
            .get()
            .bytes(page.size(), entry_bytes(&entries[0], 0));
        let mut left = 0;
        while left + 1 < entries.len() {
            let next = plan(left + 1);
            if next.0 > fill {
                break;
            }
            chosen = next;
            left += 1;
        }
        let (_, left_prefix, fence) = chosen;
        let mut left_extra = Ops::new();
        let mut clear = 0;
        if left > 0 {
            let mut cells = Cells::new();
            for entry in &entries[..left] {
                cells.entry(entry, left_prefix);
            }
            left_extra = left_extra.insert_run(slot_number(count), cells.iter());
        }
        let mut right_cells = Cells::new();
        let mut bytes = fence.as_ref().encoded_len();
        let mut put = left;
        for entry in &entries[left..] {
            bytes += entry_bytes(entry, 0);
            if bytes > fill && !right_cells.is_empty() {
                break;
            }
            right_cells.entry(entry, 0);
            put += 1;
        }
        for entry in &entries[..put] {
            clear |= flags_broken(page, entry.head, false);
        }
        let halves = Halves {
            keep: count,
            separator: fence.as_ref(),
            left_prefix,
            left_extra,
            right_prefix: 0,
            right_cells,
            clear,
        };
        let right = self.commit_split(&mut leaf.guard, halves, None)?;
        self.finish_split(&mut leaf.guard, &mut leaf.path)?;
        self.rightmost.set(Some(self.store.block_of(&right)));
        Ok(Some(put))
    }
}
