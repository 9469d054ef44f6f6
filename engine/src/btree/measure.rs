//! How many bytes things take on a page, before they are written.

use crate::compare::common_prefix_len;
use crate::error::{Error, Result};
use crate::page::cell::{EntryKind, Head, bit};
use crate::page::op::Fence;
use crate::page::{HEADER_BYTES, Page, SPECIAL_BYTES, cell_bytes_max, flag, key_bytes_max};

/// Bytes of a page for fences, slots and cells.
pub(super) const fn usable_bytes(page_size: usize) -> usize {
    page_size - HEADER_BYTES - SPECIAL_BYTES
}

/// Bytes of fences, slots and cells that are in use.
pub(super) fn used_bytes(page: Page<'_>) -> usize {
    usable_bytes(page.size()) - page.free()
}

/// Bytes of an LEB128 number.
#[inline]
pub(super) fn varint_len(value: u64) -> usize {
    if value < 0x80 {
        return 1;
    }
    let bits = (u64::BITS - value.leading_zeros()).max(1) as usize;
    bits.div_ceil(7)
}

/// Bytes of a leaf cell but for its key.
#[inline]
pub(super) fn keyless_len(head: Head, body_len: usize) -> usize {
    let cid = if head.has(bit::FROZEN) {
        0
    } else {
        varint_len(u64::from(head.cid.0))
    };
    let sequence = if head.is_version() {
        varint_len(head.sequence.0)
    } else {
        0
    };
    5 + cid + sequence + body_len
}

/// How much longer than the version before it one with the same body is at
/// most, commonly: it is not frozen, so it has a command id, and its number may
/// take another byte.
pub(super) const VERSION_GROWTH_MAX: usize = 8;

/// Bytes that a key of its own adds to a leaf cell.
#[inline]
pub(super) fn key_len(suffix_len: usize) -> usize {
    varint_len(suffix_len as u64) + suffix_len
}

/// Bytes of the cell of an inner page's first downlink, which has no key: it
/// begins where its page does.
pub(super) const FIRST_DOWNLINK_BYTES: usize = 5;

/// Bytes of a fence.
pub(super) fn fence_len(fence: Fence<'_>) -> usize {
    fence.map_or(0, |position| position.encoded_len())
}

/// The prefix that a page with these fences has (rule 26).
pub(super) fn prefix_len(ordered: bool, low: Fence<'_>, high: Fence<'_>) -> usize {
    match (low, high) {
        (Some(low), Some(high)) if ordered => common_prefix_len(low.key, high.key),
        _ => 0,
    }
}

/// [`prefix_len`] for new fences of an existing page.
pub(super) fn prefix_for(page: Page<'_>, low: Fence<'_>, high: Fence<'_>) -> usize {
    prefix_len(page.has(flag::ORDERED), low, high)
}

/// Refuses keys and rows that no page could hold, before anything changes.
#[inline]
pub fn check_limits(page_size: usize, head: Head, key: &[u8], body: &[u8]) -> Result<()> {
    let limit = key_bytes_max(page_size);
    if key.len() > limit {
        return Err(Error::KeyTooLarge {
            size: key.len(),
            limit,
        });
    }
    let size = keyless_len(head, body.len()) + key_len(key.len());
    let limit = cell_bytes_max(page_size, key.len());
    if size > limit {
        return Err(match head.kind() {
            EntryKind::Moved => Error::MoveTooLarge { size, limit },
            _ => Error::RowTooLarge { size, limit },
        });
    }
    Ok(())
}
