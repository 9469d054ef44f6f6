//! Splitting a page: one record, after which the right half has no downlink.

use super::cells::Cells;
use super::measure::prefix_for;
use super::plan::{Fresh, SplitPlan};
use super::{Tree, insert, point};
use crate::compare::Compare;
use crate::error::{Error, Result};
use crate::page::op::{Format, Ops};
use crate::page::{Page, PageKind, Position, flag};
use crate::record::{Record, RecordKind};
use crate::store::PageStore;
use crate::types::SlotNumber;

/// What a split makes of a page.
pub(super) struct Halves<'h> {
    /// Slots that stay on the left page.
    pub keep: usize,
    /// The fence between the halves.
    pub separator: Position<'h>,
    /// The left page's new prefix.
    pub left_prefix: usize,
    /// What is put on the left page once it is cut.
    pub left_extra: Ops,
    /// The right page's prefix.
    pub right_prefix: usize,
    /// What stands on the right page.
    pub right_cells: Cells,
    /// Flags to clear on the left page and not to inherit by the right one.
    pub clear: u16,
}

impl<'t, S: PageStore, C: Compare> Tree<'t, S, C> {
    /// Splits a locked page as planned; returns the right half, locked. The
    /// left half says INCOMPLETE_SPLIT until [`Tree::finish_split`].
    ///
    /// `child` is the locked page whose downlink `fresh` is: the same record
    /// ends its split.
    pub(super) fn split(
        &self,
        left: &mut S::Exclusive<'t>,
        plan: &SplitPlan,
        fresh: Option<Fresh<'_>>,
        child: Option<&mut S::Exclusive<'t>>,
    ) -> Result<S::Exclusive<'t>> {
        let block = self.store.block_of(left);
        let page = Page::open(left, block)?;
        let separator = plan.separator.as_ref();
        let left_prefix = prefix_for(page, page.low(), Some(separator));
        let right_prefix = prefix_for(page, Some(separator), page.high());
        let mut left_extra = Ops::new();
        let mut clear = 0;
        if let Some(Fresh::Entry(entry)) = fresh {
            clear = insert::flags_broken(page, entry.head, entry.key_below);
        }
        if let (Some(fresh), true) = (fresh, plan.fresh_left) {
            let mut cells = Cells::new();
            // At the end of the page there is no slot to take the key from.
            let below = fresh.slot() < plan.keep;
            put_fresh(&mut cells, fresh, left_prefix, below);
            left_extra = left_extra.insert_run(slot_number(fresh.slot()), cells.iter());
        }
        let mut right_cells = Cells::of_page();
        let count = page.slot_count();
        for slot in plan.keep..=count {
            if let Some(fresh) = fresh.filter(|fresh| !plan.fresh_left && fresh.slot() == slot) {
                put_fresh(&mut right_cells, fresh, right_prefix, true);
            }
            if slot < count {
                right_cells.copy(page, slot, block, right_prefix, page.slot(slot).key_below)?;
            }
        }
        let halves = Halves {
            keep: plan.keep,
            separator,
            left_prefix,
            left_extra,
            right_prefix,
            right_cells,
            clear,
        };
        self.commit_split(left, halves, child)
    }

    /// Writes the record of a split. Locks the old right sibling for it: left
    /// before right.
    pub(super) fn commit_split(
        &self,
        left: &mut S::Exclusive<'t>,
        halves: Halves<'_>,
        child: Option<&mut S::Exclusive<'t>>,
    ) -> Result<S::Exclusive<'t>> {
        let left_block = self.store.block_of(left);
        let mut right = self.store.allocate()?;
        let right_block = self.store.block_of(&right);
        let page = Page::open(left, left_block)?;
        let page_kind = page.kind();
        let old_block = page.right();
        let mut old_right = if old_block.is_some() {
            let guard = self.store.lock(old_block)?;
            if Page::open(&guard, old_block)?.left() != left_block {
                return Err(Error::corrupt(
                    old_block,
                    format!("its left sibling is not {left_block}, which links to it"),
                ));
            }
            Some(guard)
        } else {
            None
        };
        // Within a key's versions the left page's last entry gets a key though
        // it may be no row, unless every entry is one.
        let broken = if page.has(flag::ALL_FROZEN) && halves.clear & flag::ALL_FROZEN == 0 {
            halves.clear
        } else {
            halves.clear | page.flags() & flag::ROWS_FROZEN
        };
        // If its own right sibling still lacks a downlink, the right half is now
        // the one to say so.
        let inherited =
            page.flags() & (flag::ORDERED | flag::SETTLED | flag::INCOMPLETE_SPLIT) & !broken;
        let right_ops = Ops::new()
            .format(&Format {
                kind: page.kind(),
                level: page.level(),
                flags: inherited,
                left: left_block,
                right: old_block,
                generation: page.generation(),
                prefix_len: halves.right_prefix as u16,
                low: Some(halves.separator),
                high: page.high(),
            })
            .insert_run(SlotNumber(0), halves.right_cells.iter());
        let mut left_ops = Vec::from(Ops::new().cut(
            halves.keep as u16,
            halves.left_prefix as u16,
            Some(halves.separator),
        ));
        left_ops.extend_from_slice(halves.left_extra.as_bytes());
        left_ops.extend_from_slice(
            Ops::new()
                .flags(flag::INCOMPLETE_SPLIT, broken)
                .links(None, Some(right_block))
                .as_bytes(),
        );
        let mut record = Record::new(RecordKind::Split).init(right_block, right_ops);
        let mut pages = vec![&mut right];
        if let Some(child) = child {
            record = record.change(
                self.store.block_of(child),
                Ops::new().flags(0, flag::INCOMPLETE_SPLIT),
            );
            pages.push(child);
        }
        record = record.change(left_block, left_ops);
        pages.push(left);
        if let Some(old_right) = old_right.as_mut() {
            record = record.change(old_block, Ops::new().links(Some(right_block), None));
            pages.push(old_right);
        }
        if page_kind == PageKind::Leaf {
            self.store.leaf_split(left_block, right_block);
        }
        self.store.commit(&record, &mut pages);
        self.store.pace(point::SPLIT_BEFORE_DOWNLINK);
        Ok(right)
    }
}

fn put_fresh(cells: &mut Cells, fresh: Fresh<'_>, prefix_len: usize, has_next: bool) {
    match fresh {
        Fresh::Entry(entry) => cells.leaf(
            entry.head,
            entry.key,
            prefix_len,
            entry.key_below && has_next,
            entry.body,
        ),
        Fresh::Downlink {
            child, position, ..
        } => cells.inner(child, position, prefix_len),
    }
}

/// A slot's number; pages have fewer than 2¹⁶ slots.
pub(super) fn slot_number(slot: usize) -> SlotNumber {
    SlotNumber(slot as u16)
}
