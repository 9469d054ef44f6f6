//! What two copies of a page may differ in without one being wrong, blanked
//! for `wal_consistency_checking`.

use engine::BlockNumber;
use engine::page::cell::bit;
use engine::page::{Page, PageKind};
use engine::store::LSN_BYTES;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::ffi;

/// What masked bytes read.
const MASKED: u8 = 0;

/// Masks one page image.
///
/// # Safety
/// Called by the server, with a whole page of its own to write to.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn mask(page: *mut std::ffi::c_char, block: u32) {
    let page = page.cast::<u8>();
    // SAFETY: the server's page, BLCKSZ bytes that nobody else uses.
    let bytes = unsafe {
        ffi::rowref_mask_lsn_and_checksum(page);
        std::slice::from_raw_parts_mut(page.add(LSN_BYTES), pg_sys::BLCKSZ as usize - LSN_BYTES)
    };
    mask_bytes(bytes, BlockNumber(block));
}

/// Masks the hole, hint bits, and the bytes among the cells that nothing
/// refers to: they may hold a hint that one copy has seen and the other not.
fn mask_bytes(bytes: &mut [u8], block: BlockNumber) {
    let copy = bytes.to_vec();
    let Ok(page) = Page::open(&copy, block) else {
        // New, or corrupt: compare every byte.
        return;
    };
    let end = copy.len() + LSN_BYTES - engine::page::SPECIAL_BYTES;
    bytes[page.lower() - LSN_BYTES..end - LSN_BYTES].fill(MASKED);
    if matches!(page.kind(), PageKind::Meta | PageKind::Deleted) {
        return;
    }
    for slot in 0..page.slot_count() {
        let slot = page.slot(slot);
        let start = slot.offset as usize;
        let stop = start + slot.length as usize;
        if start < page.upper() || stop > end {
            continue;
        }
        let range = start - LSN_BYTES..stop - LSN_BYTES;
        bytes[range.clone()].copy_from_slice(&copy[range]);
        if page.kind() == PageKind::Leaf && slot.length > 0 {
            bytes[start - LSN_BYTES] &= !bit::HINTS;
        }
    }
    for (start, length, _) in page.fence_extents() {
        if start >= page.upper() && start + length <= end {
            let range = start - LSN_BYTES..start + length - LSN_BYTES;
            bytes[range.clone()].copy_from_slice(&copy[range]);
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::page::apply::{Scratch, apply};
    use engine::page::cell::Head;
    use engine::page::flag;
    use engine::page::op::{Format, Ops};
    use engine::types::{CommandId, Level, Sequence, SlotNumber, Xid};

    use super::*;

    const SHOWN: usize = 8192 - LSN_BYTES;

    fn cell(key: u8, flags: u8) -> Vec<u8> {
        let head = Head {
            flags,
            xmin: Xid(700),
            cid: CommandId(1),
            sequence: Sequence(1),
        };
        let mut bytes = Vec::new();
        head.encode(Some(&[key]), b"payload", &mut bytes);
        bytes
    }

    /// A leaf of two versions. The second was replaced by a longer one, so that
    /// its old bytes, hints included, are garbage among the cells.
    fn leaf(hints: u8) -> Vec<u8> {
        let mut bytes = vec![0; SHOWN];
        let mut scratch = Scratch::new(8192);
        let make = Ops::new()
            .format(&Format {
                kind: PageKind::Leaf,
                level: Level::LEAF,
                flags: flag::ORDERED,
                left: BlockNumber::NONE,
                right: BlockNumber::NONE,
                generation: 0,
                prefix_len: 0,
                low: None,
                high: None,
            })
            .insert(SlotNumber(0), false, &cell(1, hints))
            .insert(SlotNumber(1), false, &cell(2, hints));
        apply(&mut bytes, make.as_bytes(), &mut scratch).unwrap();
        let longer = [cell(2, 0), vec![9; 30]].concat();
        let replace = Ops::new().replace(SlotNumber(1), &longer);
        apply(&mut bytes, replace.as_bytes(), &mut scratch).unwrap();
        bytes
    }

    fn masked(mut bytes: Vec<u8>) -> Vec<u8> {
        mask_bytes(&mut bytes, BlockNumber(1));
        bytes
    }

    #[test]
    fn hints_in_live_and_in_dead_cells_make_no_difference() {
        let (plain, hinted) = (leaf(0), leaf(bit::COMMITTED));
        assert_ne!(plain, hinted);
        assert_eq!(masked(plain), masked(hinted));
    }

    #[test]
    fn what_the_hole_holds_makes_no_difference() {
        let plain = leaf(0);
        let mut dirty = plain.clone();
        let hole = Page::open(&plain, BlockNumber(1)).unwrap().lower() - LSN_BYTES;
        dirty[hole] = 0xff;
        assert_eq!(masked(plain), masked(dirty));
    }

    #[test]
    fn every_live_byte_makes_a_difference() {
        let plain = leaf(0);
        let page = Page::open(&plain, BlockNumber(1)).unwrap();
        let slot = page.slot(0);
        for at in
            slot.offset as usize - LSN_BYTES + 1..(slot.offset + slot.length) as usize - LSN_BYTES
        {
            let mut changed = plain.clone();
            changed[at] ^= 1;
            assert_ne!(masked(plain.clone()), masked(changed), "byte {at}");
        }
        for at in [plain.len() - 1, 24 - LSN_BYTES, 12 - LSN_BYTES + 1] {
            let mut changed = plain.clone();
            changed[at] ^= 1;
            assert_ne!(masked(plain.clone()), masked(changed), "byte {at}");
        }
    }
}
