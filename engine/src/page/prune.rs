//! Pruning in place: slots go, and what they pointed to is garbage that the next
//! one who needs the room clears away. To move the cells together at once would
//! be to read and write the whole page, of which pruning needs to see little else
//! (`docs/decisions/0013-vacuum-looks-at-slots.md`).
//!
//! A version whose older one goes gets that one's key, and its place: frozen, as
//! it mostly is then, it is as long. Where it stood itself is at the edge of the
//! hole if it was the last to come, and becomes hole again. So a full leaf that
//! has room for one more version has it again after each pruning
//! (`docs/decisions/0012-what-a-small-transaction-costs.md`).

use std::iter::Peekable;

use super::cell::LeafCell;
use super::op;
use super::parts::LeafParts;
use super::{
    AT_LOWER, AT_UPPER, HEADER_BYTES, KEY_BELOW, Page, PageKind, SLOT_BYTES, Slot, special,
};
use crate::store::LSN_BYTES;

/// A page of which more than this part is garbage is rebuilt all the same: it
/// would be carried along by whoever reads the page from the disk, and logged
/// with its image.
const GARBAGE_FRACTION: usize = 4;

/// Freezing makes a cell shorter by a byte or so. Where more than this part of a
/// page's cells do, they are moved together.
const FROZEN_FRACTION: usize = 4;

/// Removes slots and freezes others, of lists that ascend and name slots of this
/// page. Otherwise nothing was changed, and the page has to be rebuilt: where a
/// cell does not find room in place, or where there would be too much garbage.
pub(super) fn in_place(bytes: &mut [u8], scratch: &mut [u8], remove: &[u8], freeze: &[u8]) -> bool {
    let page = Page { bytes };
    let count = page.slot_count();
    if page.kind() != PageKind::Leaf || op::slots(freeze).len() * FROZEN_FRACTION > count {
        return false;
    }
    let special = page.special_at();
    let (mut used, mut lowest) = (0, special);
    for (offset, length, _) in page.fence_extents() {
        if length > 0 {
            used += length;
            lowest = lowest.min(offset);
        }
    }
    if count > 0 && page.slot(count - 1).key_below {
        return false;
    }
    let mut changes = 0;
    let mut fates = Fates::new(remove, freeze);
    let slots = page.slot_bytes();
    let mut nth = 0;
    while nth < count {
        let event = fates.next_event(count).max(nth);
        for raw in &slots[nth..event] {
            let slot = Slot::read(raw);
            used += slot.length as usize;
            lowest = lowest.min(slot.offset as usize);
        }
        nth = event;
        if nth == count {
            break;
        }
        let slot = page.slot(nth);
        let fate = fates.next(page, nth);
        nth += 1;
        let (offset, length) = match fate {
            Fate::Goes => continue,
            Fate::Stays => (slot.offset as usize, slot.length as usize),
            Fate::Changes { holder, freezes } => {
                changes += 1;
                let raw = page.cell_bytes(slot);
                let room = holder.map_or(slot, |holder| page.slot(holder));
                let holder = holder.map(|_| page.cell_bytes(room));
                let aside = raw.len() + holder.map_or(0, <[u8]>::len);
                match rewritten(raw, slot.key_below, holder, freezes) {
                    Some(parts)
                        if parts.size() <= room.length as usize
                            && at_end_of(room, 0) <= special
                            && aside <= scratch.len() =>
                    {
                        (at_end_of(room, parts.size()), parts.size())
                    }
                    _ => return false,
                }
            }
        };
        used += length;
        lowest = lowest.min(offset);
    }
    // What does not add up is for the rebuild to report.
    let Some(garbage) = (special - lowest).checked_sub(used) else {
        return false;
    };
    if lowest < page.upper() || garbage > page.size() / GARBAGE_FRACTION {
        return false;
    }
    if changes > 0 {
        rewrite(bytes, scratch, remove, freeze);
    }
    let kept = close(bytes, remove, count);
    put(bytes, AT_LOWER, HEADER_BYTES + kept * SLOT_BYTES);
    put(bytes, AT_UPPER, lowest);
    put(bytes, special + special::GARBAGE, garbage);
    true
}

/// What becomes of a slot.
enum Fate {
    Goes,
    Stays,
    /// Its cell is written anew: frozen, or with the key of a slot that goes.
    Changes {
        /// That slot; it leaves its place to the cell.
        holder: Option<usize>,
        /// Whether it is frozen.
        freezes: bool,
    },
}

/// The slots that go and those that are frozen, as far as they are ahead.
struct Fates<R: Iterator, F: Iterator> {
    removed: Peekable<R>,
    frozen: Peekable<F>,
}

fn numbers(list: &[u8]) -> impl Iterator<Item = usize> + Clone {
    op::slots(list).map(usize::from)
}

impl Fates<std::iter::Empty<usize>, std::iter::Empty<usize>> {
    fn new<'l>(
        remove: &'l [u8],
        freeze: &'l [u8],
    ) -> Fates<impl Iterator<Item = usize> + Clone + 'l, impl Iterator<Item = usize> + 'l> {
        Fates {
            removed: numbers(remove).peekable(),
            frozen: numbers(freeze).peekable(),
        }
    }
}

impl<R: Iterator<Item = usize> + Clone, F: Iterator<Item = usize>> Fates<R, F> {
    /// The next slot that anything may become of. It need not be asked for those
    /// before it.
    fn next_event(&mut self, count: usize) -> usize {
        // The slot before one that goes may get its key.
        let removed = self
            .removed
            .peek()
            .map_or(count, |gone| gone.saturating_sub(1));
        let frozen = self.frozen.peek().map_or(count, |slot| *slot);
        removed.min(frozen)
    }

    /// The fate of the next slot; they are asked for one after another.
    fn next(&mut self, page: Page<'_>, nth: usize) -> Fate {
        if self.removed.next_if_eq(&nth).is_some() {
            return Fate::Goes;
        }
        let freezes = self.frozen.next_if_eq(&nth).is_some();
        let mut holder = None;
        if self.removed.peek() == Some(&(nth + 1)) && page.slot(nth).key_below {
            // The key goes if everything from here down to its holder does.
            let last = page.key_holder(nth);
            let gone = self.removed.clone().take_while(|gone| *gone <= last);
            holder = (gone.count() == last - nth).then_some(last);
        }
        if freezes || holder.is_some() {
            Fate::Changes { holder, freezes }
        } else {
            Fate::Stays
        }
    }
}

/// A cell as it is to be, of the bytes that it has and those of the cell whose
/// key it gets; `None` where one cannot be read.
fn rewritten<'c>(
    raw: &'c [u8],
    key_below: bool,
    holder: Option<&'c [u8]>,
    freezes: bool,
) -> Option<LeafParts<'c>> {
    let cell = LeafCell::decode(raw, key_below)?;
    let mut parts = LeafParts::new(&cell, raw, key_below, freezes);
    let suffix = match holder {
        Some(holder) => Some(LeafCell::decode(holder, false)?.suffix?),
        None => cell.suffix,
    };
    if let Some(suffix) = suffix {
        parts.key(&[], suffix, 0).ok()?;
    }
    Some(parts)
}

/// Where so many bytes begin that end where a slot's cell does.
fn at_end_of(room: Slot, size: usize) -> usize {
    room.offset as usize + room.length as usize - size
}

/// Writes the cells that change; it was made sure that each finds room.
fn rewrite(bytes: &mut [u8], scratch: &mut [u8], remove: &[u8], freeze: &[u8]) {
    let mut fates = Fates::new(remove, freeze);
    let count = (Page { bytes }).slot_count();
    let mut next = 0;
    loop {
        let nth = fates.next_event(count).max(next);
        if nth == count {
            return;
        }
        next = nth + 1;
        let page = Page { bytes };
        let Fate::Changes { holder, freezes } = fates.next(page, nth) else {
            continue;
        };
        // Both cells are copied aside, for the new one is written over one of
        // them.
        let slot = page.slot(nth);
        let room = holder.map_or(slot, |holder| page.slot(holder));
        let raw = page.cell_bytes(slot);
        let (aside, rest) = scratch.split_at_mut(raw.len());
        aside.copy_from_slice(raw);
        let of_holder = holder.map(|_| {
            let raw = page.cell_bytes(room);
            let aside = &mut rest[..raw.len()];
            aside.copy_from_slice(raw);
            &*aside
        });
        let Some(parts) = rewritten(aside, slot.key_below, of_holder, freezes) else {
            continue;
        };
        let at = at_end_of(room, parts.size());
        let below = slot.key_below && holder.is_none();
        let length = parts.size() | if below { KEY_BELOW as usize } else { 0 };
        parts.write(bytes, at - LSN_BYTES);
        put(bytes, HEADER_BYTES + nth * SLOT_BYTES, at);
        put(bytes, HEADER_BYTES + nth * SLOT_BYTES + 2, length);
    }
}

/// Moves the slots that stay together; how many they are.
fn close(bytes: &mut [u8], remove: &[u8], count: usize) -> usize {
    let at = |slot: usize| HEADER_BYTES + slot * SLOT_BYTES - LSN_BYTES;
    let mut kept = 0;
    let mut next = 0;
    for gone in op::slots(remove).map(usize::from).chain([count]) {
        if next != kept {
            bytes.copy_within(at(next)..at(gone), at(kept));
        }
        kept += gone - next;
        next = gone + 1;
    }
    kept
}

fn put(bytes: &mut [u8], absolute: usize, value: usize) {
    let at = absolute - LSN_BYTES;
    bytes[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::apply::{Scratch, apply};
    use crate::page::cell::{EntryKind, Head};
    use crate::page::check::check;
    use crate::page::op::{Format, Ops};
    use crate::page::{cell, flag};
    use crate::types::{BlockNumber, CommandId, Level, Sequence, SlotNumber, Xid};

    const ROWS: u16 = 40;

    fn head(flags: u8, sequence: u64) -> Head {
        Head {
            flags,
            xmin: Xid(7),
            cid: CommandId(0),
            sequence: Sequence(sequence),
        }
    }

    /// A leaf of rows, a tombstone on every fourth of them.
    fn leaf() -> (Vec<u8>, Scratch) {
        let mut bytes = vec![0; 8192 - LSN_BYTES];
        let mut scratch = Scratch::new(8192);
        let mut ops = Ops::new().format(&Format {
            kind: PageKind::Leaf,
            level: Level::LEAF,
            flags: flag::ORDERED,
            left: BlockNumber::NONE,
            right: BlockNumber::NONE,
            generation: 0,
            prefix_len: 0,
            low: None,
            high: None,
        });
        for row in 0..ROWS {
            let mut cell = Vec::new();
            let frozen = EntryKind::Put as u8 | cell::bit::FROZEN;
            head(frozen, 1).encode(Some(&[row as u8]), &[row as u8; 100], &mut cell);
            ops = ops.insert(SlotNumber(row), false, &cell);
        }
        for nth in 0..ROWS / 4 {
            let mut cell = Vec::new();
            head(EntryKind::Tombstone as u8, 2).encode(None, &[], &mut cell);
            ops = ops.insert(SlotNumber(nth * 5), true, &cell);
        }
        apply(&mut bytes, &Vec::from(ops), &mut scratch).unwrap();
        (bytes, scratch)
    }

    fn prune(bytes: &mut [u8], scratch: &mut Scratch, slots: &[u16]) {
        let slots: Vec<_> = slots.iter().map(|slot| SlotNumber(*slot)).collect();
        let ops = Vec::from(Ops::new().prune(&slots, &[]));
        apply(bytes, &ops, scratch).unwrap();
        check(bytes, BlockNumber(1)).unwrap();
    }

    fn rows(bytes: &[u8]) -> Vec<u8> {
        let page = Page { bytes };
        (0..page.slot_count())
            .map(|slot| page.suffix(slot, BlockNumber(1)).unwrap()[0])
            .collect()
    }

    #[test]
    fn whole_keys_go_and_no_cell_moves() {
        let (mut bytes, mut scratch) = leaf();
        let before = bytes.clone();
        let gone: Vec<u16> = (0..ROWS / 4)
            .flat_map(|nth| [nth * 5, nth * 5 + 1])
            .collect();
        prune(&mut bytes, &mut scratch, &gone);
        let expected: Vec<u8> = (0..ROWS as u8).filter(|row| row % 4 != 0).collect();
        assert_eq!(rows(&bytes), expected);
        let page = Page { bytes: &bytes };
        let cells = page.upper() - LSN_BYTES..page.special_at() - LSN_BYTES;
        assert_eq!(bytes[cells.clone()], before[cells]);
        // The tombstones were the last to come: theirs is hole again. And all of
        // it is free.
        assert!(page.upper() > Page { bytes: &before }.upper());
        assert!(page.garbage() > 0 && page.free() == page.free_for_certain());
    }

    #[test]
    fn a_version_that_loses_the_row_below_gets_its_key() {
        let (mut bytes, mut scratch) = leaf();
        prune(&mut bytes, &mut scratch, &[1]);
        assert_eq!(rows(&bytes)[..2], [0, 1]);
        assert!(!Page { bytes: &bytes }.slot(0).key_below);
    }

    /// One key after the other, each of some versions, the newest first and the
    /// last of them with the key; bodies of these lengths.
    fn versions(of_keys: &[&[usize]]) -> (Vec<u8>, Scratch) {
        let (mut bytes, mut scratch) = leaf();
        let all: Vec<u16> = (0..Page { bytes: &bytes }.slot_count() as u16).collect();
        prune(&mut bytes, &mut scratch, &all);
        let mut slot = 0;
        for (key, lengths) in of_keys.iter().enumerate() {
            for (age, length) in lengths.iter().rev().enumerate() {
                let mut cell = Vec::new();
                let suffix = (age == 0).then_some([b'k', key as u8]);
                let body = vec![(10 * key + age) as u8; *length];
                let suffix = suffix.as_ref().map(<[u8; 2]>::as_slice);
                head(EntryKind::Put as u8, age as u64 + 1).encode(suffix, &body, &mut cell);
                let ops = Vec::from(Ops::new().insert(SlotNumber(slot), age > 0, &cell));
                apply(&mut bytes, &ops, &mut scratch).unwrap();
            }
            slot += lengths.len() as u16;
        }
        (bytes, scratch)
    }

    /// Key, head and body of every slot.
    fn entries(bytes: &[u8]) -> Vec<(Vec<u8>, Head, Vec<u8>)> {
        let page = Page { bytes };
        (0..page.slot_count())
            .map(|slot| {
                let cell = page.leaf_cell(slot, BlockNumber(1)).unwrap();
                let key = page.suffix(slot, BlockNumber(1)).unwrap();
                (key.to_vec(), cell.head, cell.body.to_vec())
            })
            .collect()
    }

    fn frozen(head: Head) -> Head {
        Head {
            flags: head.flags | cell::bit::FROZEN | cell::bit::COMMITTED,
            cid: CommandId(0),
            ..head
        }
    }

    #[test]
    fn what_stays_is_what_it_was_or_frozen_whatever_goes() {
        let mut in_place_times = 0;
        for lengths in [[9, 9, 9], [9, 8, 10], [3, 30, 200], [200, 30, 3]] {
            let (before, mut scratch) = versions(&[&lengths, &lengths[..2], &lengths[1..]]);
            let old = entries(&before);
            for mask in 0..3u32.pow(old.len() as u32) {
                let fate = |slot: usize| mask / 3u32.pow(slot as u32) % 3;
                let of = |wanted| (0..old.len()).filter(move |slot| fate(*slot) == wanted);
                let list = |wanted| -> Vec<SlotNumber> {
                    of(wanted).map(|slot| SlotNumber(slot as u16)).collect()
                };
                let mut bytes = before.clone();
                let ops = Vec::from(Ops::new().prune(&list(1), &list(2)));
                apply(&mut bytes, &ops, &mut scratch).unwrap();
                check(&bytes, BlockNumber(1)).unwrap();
                let expected: Vec<_> = (0..old.len())
                    .filter(|slot| fate(*slot) != 1)
                    .map(|slot| {
                        let (key, head, body) = old[slot].clone();
                        let head = if fate(slot) == 2 { frozen(head) } else { head };
                        (key, head, body)
                    })
                    .collect();
                assert_eq!(entries(&bytes), expected, "{lengths:?} {mask}");
                let page = Page { bytes: &bytes };
                assert_eq!(page.free(), page.free_for_certain());
                in_place_times += u32::from(page.garbage() > 0);
            }
        }
        assert!(in_place_times > 500, "only {in_place_times} in place");
    }

    #[test]
    fn a_full_page_has_room_for_a_version_again_after_each_pruning() {
        let (mut bytes, mut scratch) = versions(&[&[100usize] as &[usize]; 20]);
        let upper = Page { bytes: &bytes }.upper();
        for key in (0..20u16).chain(0..20).chain(3..9) {
            // The row's new version, which is frozen when it is the turn of the
            // next one.
            let mut cell = Vec::new();
            head(EntryKind::Put as u8, 5).encode(None, &[77; 100], &mut cell);
            let ops = Vec::from(Ops::new().insert(SlotNumber(key), true, &cell));
            apply(&mut bytes, &ops, &mut scratch).unwrap();
            assert!(Page { bytes: &bytes }.upper() < upper);
            let ops = Ops::new().prune(&[SlotNumber(key + 1)], &[SlotNumber(key)]);
            apply(&mut bytes, &Vec::from(ops), &mut scratch).unwrap();
            check(&bytes, BlockNumber(1)).unwrap();
            let page = Page { bytes: &bytes };
            assert!(page.upper() >= upper);
            assert!(page.garbage() <= 20);
        }
    }

    #[test]
    fn much_garbage_is_cleared_away() {
        let (mut bytes, mut scratch) = leaf();
        let gone: Vec<u16> = (0..26).collect();
        prune(&mut bytes, &mut scratch, &gone);
        assert_eq!(Page { bytes: &bytes }.garbage(), 0);
    }
}
