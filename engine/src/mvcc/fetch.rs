//! Rows by name, several at a time.

use super::batch::{Batch, Prefix};
pub use super::keys::Keys;
use super::read::{Found, Lessons, newest_seen};
use super::scan::push_small;
use super::{Snapshot, Transactions, Versioned};
use crate::btree::short::Numbered;
use crate::btree::{Target, search};
use crate::compare::Compare;
use crate::error::Result;
use crate::page::cell::{EntryKind, LeafCell};
use crate::page::{Page, flag, head_of};
use crate::store::PageStore;
use crate::types::BlockNumber;

/// From as many names on it is looked up where they lie before the first one is
/// read.
const MANY: usize = 4;
/// The most leaves that are looked up under one lock.
const LEAVES_MAX: usize = 64;

impl<S: PageStore, C: Compare, T: Transactions> Versioned<'_, S, C, T> {
    /// Copies the rows that a snapshot sees under the keys from `from` on, as
    /// long as they lie on the leaf of the first of them: one lock for all.
    /// The store is told of the next leaves, `ahead` of them. Returns how many
    /// keys are done with. If that is more than one, there is
    /// a row for each; if it is one, there may be none. No lock is held on
    /// return.
    pub fn get_run(
        &self,
        keys: &mut Keys,
        from: usize,
        ahead: usize,
        snapshot: &impl Snapshot,
        into: &mut Batch,
    ) -> Result<usize> {
        into.clear();
        self.look_ahead(keys, from, ahead)?;
        let compare = self.tree.compare;
        let mut lessons = Lessons::of(snapshot);
        let width = keys.short().map(|(width, _)| width);
        let near = match keys.short() {
            Some((width, names)) => self
                .tree
                .leaf_near(u64::from_be_bytes(names[from]), width)?,
            None => None,
        };
        let guard = match near {
            Some(leaf) => leaf,
            None => self.tree.leaf(Target::Before(keys.get(from)))?,
        };
        let block = self.tree.store.block_of_shared(&guard);
        let page = Page::open(&guard, block)?;
        into.block = block.0;
        let prefix = Prefix::new(page.prefix());
        if let Some(numbered) = width.and_then(|width| Numbered::of(page, width)) {
            let done = self.get_short(
                page,
                &numbered,
                keys,
                from,
                &prefix,
                snapshot,
                &mut lessons,
                into,
            );
            if done > 0 {
                drop(guard);
                self.note(block, &mut lessons);
                return Ok(done);
            }
        }
        self.slots_of(page, block, keys, from)?;
        let (keys, slots) = (&*keys, &keys.slots);
        let mut nth = from;
        while nth < keys.len() {
            let key = keys.get(nth);
            let slot = match slots.get(nth - from) {
                Some(slot) => usize::from(*slot),
                None => {
                    if nth > from && !self.tree.lies_on(page, Target::Before(key)) {
                        break;
                    }
                    search::lower_bound(page, block, Target::Before(key), compare)?
                }
            };
            if let Some(seen) = self.get_at(page, slot, key, &prefix, snapshot, &mut lessons, into)
            {
                if !seen && nth > from {
                    // What has no row here is looked at by itself.
                    break;
                }
                if seen {
                    let head = into.row(into.len() - 1).head;
                    self.key_is_read_as(key, block, head, snapshot);
                    nth += 1;
                    continue;
                }
            }
            if nth > from && !self.tree.lies_on(page, Target::Before(key)) {
                break;
            }
            let found = newest_seen(page, block, slot, key, snapshot, compare, &mut lessons)?;
            let row = match found {
                Found::Version(slot, cell) if cell.head.kind() == EntryKind::Put => {
                    Some((slot, cell))
                }
                _ if nth > from => break,
                Found::GoesOn(_) => {
                    drop(guard);
                    self.note(block, &mut lessons);
                    self.get(key, snapshot, into)?;
                    return Ok(1);
                }
                Found::Version(..) | Found::None => None,
            };
            self.key_is_read(key, block, &found, snapshot);
            nth += 1;
            let Some((slot, cell)) = row else {
                break;
            };
            if compare.ordered() {
                into.push(key, &[], cell.body, cell.head);
            } else {
                // As in `get`: a row has one name, the stored one.
                into.push(&[], page.suffix(slot, block)?, cell.body, cell.head);
            }
        }
        drop(guard);
        self.note(block, &mut lessons);
        Ok(nth - from)
    }

    /// As [`Versioned::get_run`], of short keys that follow one another on a
    /// locked leaf, each with one version that is seen: as far as that goes.
    /// Where it stops, the caller finds out why.
    #[expect(clippy::too_many_arguments, reason = "rows of one leaf")]
    fn get_short(
        &self,
        page: Page<'_>,
        numbered: &Numbered<'_>,
        keys: &mut Keys,
        from: usize,
        prefix: &Prefix<'_>,
        snapshot: &impl Snapshot,
        lessons: &mut Lessons,
        into: &mut Batch,
    ) -> usize {
        let mut slots = std::mem::take(&mut keys.slots);
        slots.clear();
        let (_, names) = keys.short().expect("the keys are short");
        // First where they begin, all of them; each cell is touched, for whoever
        // waits for one after another from memory waits long.
        let (mut slot, mut last, mut touched) = (0, 0, 0);
        for name in &names[from..] {
            let key = u64::from_be_bytes(*name);
            if !numbered.contains(key) {
                break;
            }
            if key < last {
                slot = 0;
            }
            last = key;
            slot = numbered.seek(numbered.head(key), slot);
            if slot >= page.slot_count() {
                break;
            }
            let bytes = page.cell_bytes(page.slot(slot));
            touched ^= bytes.first().copied().unwrap_or(0);
            slots.push(slot as u16);
            slot += 1;
        }
        std::hint::black_box(touched);
        let (block, rest_bytes) = (BlockNumber(into.block), numbered.rest_bytes());
        let mut done = 0;
        for slot in &slots {
            let name = &names[from + done];
            let (nth, slot) = (from + done, usize::from(*slot));
            let at = page.slot(slot);
            if at.key_below || at.head != numbered.head(u64::from_be_bytes(*name)) {
                break;
            }
            let Some(cell) = LeafCell::decode_small(page.cell_bytes(at)) else {
                break;
            };
            // The head is all of a rest that is no longer than itself.
            let suffix = cell.suffix.unwrap_or(&[]);
            if suffix.len() != rest_bytes
                || rest_bytes > size_of_val(&at.head) && !keys.get(nth).ends_with(suffix)
            {
                break;
            }
            let judgement = snapshot.judge(cell.head);
            if !lessons.note(slot, cell.head, judgement) || cell.head.kind() != EntryKind::Put {
                break;
            }
            push_small(page, at, &cell, prefix, into);
            self.key_is_read_as(keys.get(nth), block, cell.head, snapshot);
            done += 1;
        }
        keys.slots = slots;
        done
    }

    /// The slots at which the keys from `from` on begin that are said to lie on
    /// a leaf, one after another. Each cell is touched, all of them before any
    /// is read, for whoever waits for one after another from memory waits long.
    fn slots_of(
        &self,
        page: Page<'_>,
        block: BlockNumber,
        keys: &mut Keys,
        from: usize,
    ) -> Result<()> {
        let mut slots = std::mem::take(&mut keys.slots);
        slots.clear();
        let (mut guess, mut touched) = (0, 0);
        for nth in from..keys.end_of_leaf(from) {
            let key = keys.get(nth);
            // Where another key ends and this one has the same head, it begins.
            let begins = (1..page.slot_count()).contains(&guess)
                && page.has(flag::ORDERED)
                && page.slot(guess - 1).head != page.slot(guess).head
                && key
                    .strip_prefix(page.prefix())
                    .is_some_and(|rest| page.slot(guess).head == head_of(rest));
            let slot = if begins {
                guess
            } else {
                search::lower_bound(page, block, Target::Before(key), self.tree.compare)?
            };
            slots.push(slot as u16);
            if slot < page.slot_count() {
                touched ^= page
                    .cell_bytes(page.slot(slot))
                    .first()
                    .copied()
                    .unwrap_or(0);
            }
            guess = slot + 1;
        }
        std::hint::black_box(touched);
        keys.slots = slots;
        Ok(())
    }

    /// Looks up where the next keys lie, for `ahead` leaves beyond that of the
    /// key at `from`, and tells the store of those. With none it is left to the
    /// way to the first leaf, for keys that lie here and there.
    fn look_ahead(&self, keys: &mut Keys, from: usize, ahead: usize) -> Result<()> {
        if keys.planned <= from {
            keys.leaves.clear();
            (keys.passed, keys.expected, keys.planned) = (0, 0, from);
        }
        let is_worth_it = ahead > 0 && (keys.planned > from || keys.len() - from >= MANY);
        let first = keys.leaf_of(from);
        while is_worth_it && keys.planned < keys.len() && keys.leaves.len() <= keys.passed + ahead {
            let mut leaves = std::mem::take(&mut keys.leaves);
            let (mut planned, limit) = (keys.planned, leaves.len() + LEAVES_MAX);
            let names = planned..keys.len();
            let note = |leaf| {
                if let Some((end, last)) = leaves.last_mut()
                    && *last == leaf
                {
                    planned += 1;
                    *end = planned;
                    return true;
                }
                let goes_on = leaves.len() < limit;
                if goes_on {
                    planned += 1;
                    leaves.push((planned, leaf));
                }
                goes_on
            };
            let key_of = |nth| keys.get(nth);
            let found = match keys.short() {
                Some((width, short)) => {
                    let number_of = |nth: usize| u64::from_be_bytes(short[nth]);
                    self.tree
                        .leaves_of_short(names, width, number_of, key_of, note)
                }
                None => self.tree.leaves_of(names.map(key_of), note),
            };
            keys.leaves = leaves;
            found?;
            if keys.planned == planned {
                break;
            }
            keys.planned = planned;
        }
        if let Some(leaf) = first.or_else(|| keys.leaf_of(from)) {
            self.tree.look_near(leaf);
            let until = (keys.passed + 1 + ahead).min(keys.leaves.len());
            for nth in keys.expected.max(keys.passed + 1)..until {
                self.tree.store.expect_little(keys.leaves[nth].1);
            }
            keys.expected = keys.expected.max(until);
            self.expect_rows(keys, from);
        }
        Ok(())
    }

    /// Tells the store of the rows on the leaf behind that of the key at `from`,
    /// once: its slots have been asked for a leaf before.
    fn expect_rows(&self, keys: &Keys, from: usize) {
        let Some((width, names)) = keys.short() else {
            return;
        };
        let is_first = match keys.passed.checked_sub(1) {
            Some(before) => keys.leaves[before].0 == from,
            None => true,
        };
        if let (true, Some((begin, _)), Some((end, leaf))) = (
            is_first,
            keys.leaves.get(keys.passed),
            keys.leaves.get(keys.passed + 1),
        ) {
            let [first, last] = [names[*begin], names[*end - 1]].map(u64::from_be_bytes);
            self.tree.store.expect_rows(*leaf, first..=last, width);
        }
    }

    /// Copies a row from the slot in which its key is thought to begin: `Some`
    /// if it does, with the only version of the key, and whether it is seen.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "one row of one leaf")]
    fn get_at(
        &self,
        page: Page<'_>,
        slot: usize,
        key: &[u8],
        prefix: &Prefix<'_>,
        snapshot: &impl Snapshot,
        lessons: &mut Lessons,
        into: &mut Batch,
    ) -> Option<bool> {
        if slot >= page.slot_count() || !page.has(flag::ORDERED) {
            return None;
        }
        let at = page.slot(slot);
        let rest = key.strip_prefix(page.prefix())?;
        if at.key_below || at.head != head_of(rest) {
            return None;
        }
        let bytes = page.cell_bytes(at);
        let cell = LeafCell::decode_small(bytes)?;
        if cell.suffix != Some(rest) {
            return None;
        }
        let seen = lessons.note(slot, cell.head, snapshot.judge(cell.head))
            && cell.head.kind() == EntryKind::Put;
        if seen {
            push_small(page, at, &cell, prefix, into);
        }
        Some(seen)
    }
}
