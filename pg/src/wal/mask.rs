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
