//! Pruning without touching the cells: slots go, and what they pointed to is
//! garbage that the next one who needs the room clears away. To move the cells
//! together at once would be to read and write the whole page, of which pruning
//! needs to see little else (`docs/decisions/0013-vacuum-looks-at-slots.md`).

use super::op;
use super::{AT_LOWER, AT_UPPER, HEADER_BYTES, Page, PageKind, SLOT_BYTES, special};
use crate::store::LSN_BYTES;

/// A page of which more than this part is garbage is rebuilt all the same: it
/// would be carried along by whoever reads the page from the disk, and logged
/// with its image.
const GARBAGE_FRACTION: usize = 4;

/// Removes the slots of a list that ascends and names slots of this page.
/// Otherwise nothing was changed, and the page has to be rebuilt: if an entry
/// that stays would lose its key, or if there would be too much garbage.
pub(super) fn drop_slots(bytes: &mut [u8], remove: &[u8]) -> bool {
    let page = Page { bytes };
    if page.kind() != PageKind::Leaf {
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
    let slots = page.slot_bytes();
    let mut removed = op::slots(remove).map(usize::from);
    let mut gone = removed.next();
    for (nth, raw) in slots.iter().enumerate() {
        if gone == Some(nth) {
            gone = removed.next();
            continue;
        }
        let slot = super::Slot::read(raw);
        if slot.key_below && (gone == Some(nth + 1) || nth + 1 == slots.len()) {
            return false;
        }
        used += slot.length as usize;
        lowest = lowest.min(slot.offset as usize);
    }
    // What does not add up is for the rebuild to report.
    let Some(garbage) = (special - lowest).checked_sub(used) else {
        return false;
    };
    if lowest < page.upper() || garbage > page.size() / GARBAGE_FRACTION {
        return false;
    }
    let kept = close(bytes, remove, slots.len());
    put(bytes, AT_LOWER, HEADER_BYTES + kept * SLOT_BYTES);
    put(bytes, AT_UPPER, lowest);
    put(bytes, special + special::GARBAGE, garbage);
    true
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
        let page = Page { bytes: &bytes };
        assert!(!page.slot(0).key_below && page.garbage() == 0);
    }

    #[test]
    fn much_garbage_is_cleared_away() {
        let (mut bytes, mut scratch) = leaf();
        let gone: Vec<u16> = (0..26).collect();
        prune(&mut bytes, &mut scratch, &gone);
        assert_eq!(Page { bytes: &bytes }.garbage(), 0);
    }
}
