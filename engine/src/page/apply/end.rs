//! Ending rows: all tombstones of a leaf at once.

use super::{Mismatch, PageMut, Scratch, in_order, make_room, view};
use crate::page::cell::{EntryKind, Head, LeafCell, bit};
use crate::page::op::{self, Tombstone};
use crate::page::{AT_LOWER, AT_UPPER, HEADER_BYTES, KEY_BELOW, Page, SLOT_BYTES};
use crate::store::LSN_BYTES;
use crate::types::Sequence;

/// Puts a tombstone before each of these slots. The cells go into the hole as
/// one piece, and each slot of the page is moved once, whose new place is known:
/// from the last one on, so that nothing has to be copied aside.
pub(super) fn end(
    bytes: &mut [u8],
    scratch: &mut Scratch,
    tombstone: Tombstone,
    slots: &[u8],
) -> Result<(), Mismatch> {
    let page = view(bytes);
    in_order(slots, page.slot_count())?;
    let of_flags = Head {
        flags: tombstone.flags,
        xmin: tombstone.xmin,
        cid: tombstone.cid,
        sequence: Sequence::FIRST,
    };
    if of_flags.kind() != EntryKind::Tombstone || of_flags.has(bit::FROZEN) {
        return Err("rows end by something else than tombstones");
    }
    let count = slots.len() / 2;
    // More room than that need not be counted, and rarely is there less.
    let hole = page.upper() - page.lower();
    if hole < count * (Head::encoded_len_max(0, 0) + SLOT_BYTES) {
        let mut need = count * SLOT_BYTES;
        for slot in op::slots(slots) {
            need += tombstone_on(page, tombstone, slot as usize)?.1;
        }
        make_room(bytes, scratch, need)?;
    }
    let mut page = PageMut { bytes };
    let lower = view(page.bytes).lower();
    let mut room = view(page.bytes).upper();
    let mut behind = lower;
    for (nth, slot) in op::slots(slots).rev().enumerate() {
        let slot = slot as usize;
        // How many tombstones come before this slot, its own included.
        let before = count - nth;
        let from = HEADER_BYTES + slot * SLOT_BYTES;
        let below = view(page.bytes).slot(slot);
        let (cell, length) = tombstone_on(view(page.bytes), tombstone, slot)?;
        page.bytes.copy_within(
            from - LSN_BYTES..behind - LSN_BYTES,
            from - LSN_BYTES + before * SLOT_BYTES,
        );
        behind = from;
        room = room
            .checked_sub(length)
            .filter(|room| *room >= lower + count * SLOT_BYTES)
            .ok_or("no room on the page")?;
        page.put(room, &cell[..length]);
        page.slot(
            slot + before - 1,
            room,
            length as u16 | KEY_BELOW,
            below.head,
        );
    }
    page.u16(AT_LOWER, (lower + count * SLOT_BYTES) as u16);
    page.u16(AT_UPPER, room as u16);
    Ok(())
}

/// The cell that ends the row in a slot, and its length.
#[inline]
fn tombstone_on(
    page: Page<'_>,
    tombstone: Tombstone,
    slot: usize,
) -> Result<([u8; 20], usize), Mismatch> {
    let read = page.slot(slot);
    let row = LeafCell::decode(page.cell_bytes(read), read.key_below)
        .ok_or("a leaf cell cannot be read")?;
    if row.head.kind() != EntryKind::Put {
        return Err("what ends is no row");
    }
    let head = tombstone
        .above(row.head.sequence)
        .ok_or("a version has no successor")?;
    Ok(head.encode_keyless())
}
