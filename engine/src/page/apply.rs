//! The one place that writes pages: both the first application of a record
//! and its redo come through [`apply`].
//!
//! Nothing here allocates: rebuilding a page uses the caller's [`Scratch`],
//! for in the server this runs inside a critical section.

mod end;

use super::cell::{EntryKind, InnerCell, LeafCell, bit};
use super::op::{self, Fence, Format, Op};
use super::parts::{LeafParts, suffix_pieces};
use super::prune::in_place;
use super::{
    AT_LOWER, AT_SIZE, AT_SPECIAL, AT_UPPER, HEADER_BYTES, KEY_BELOW, LAYOUT_VERSION, Page,
    PageKind, Position, SLOT_BYTES, SPECIAL_BYTES, flag, head_of, special, u16_at,
};
use crate::store::LSN_BYTES;
use crate::types::BlockNumber;

/// Room to build a page in, of the store's page size, made once.
pub struct Scratch {
    bytes: Box<[u8]>,
}

impl Scratch {
    /// Room for pages of `page_size` bytes.
    pub fn new(page_size: usize) -> Scratch {
        Scratch {
            bytes: vec![0; page_size - LSN_BYTES].into_boxed_slice(),
        }
    }
}

/// Why operations could not be applied: the record and the page do not belong
/// together. A bug before the change is logged, corruption in redo.
pub type Mismatch = &'static str;

/// Applies the encoded operations of one block to its bytes behind the LSN.
///
/// Whatever the operations and the page hold, it answers with `Err` and never
/// panics: redo runs it on what it finds on disk. After an `Err` the page may
/// be half changed.
pub fn apply(bytes: &mut [u8], ops: &[u8], scratch: &mut Scratch) -> Result<(), Mismatch> {
    for op in op::read(ops) {
        let op = op.ok_or("an operation cannot be read")?;
        apply_one(bytes, op, scratch)?;
    }
    Ok(())
}

fn apply_one(bytes: &mut [u8], op: Op<'_>, scratch: &mut Scratch) -> Result<(), Mismatch> {
    let kind = match op {
        Op::Format(_) => PageKind::Deleted,
        // Everything below relies on the header's being in order.
        _ => Page::open(bytes, BlockNumber::NONE)
            .map_err(|_| "the page cannot be read")?
            .kind(),
    };
    let holds_cells = matches!(kind, PageKind::Leaf | PageKind::Inner);
    match op {
        Op::Format(_) | Op::Links { .. } | Op::Flags { .. } => {}
        Op::Meta { .. } if kind != PageKind::Meta => return Err("not a metapage"),
        Op::Meta { .. } => {}
        Op::InsertLike { .. } | Op::Confirm { .. } | Op::End { .. } if kind != PageKind::Leaf => {
            return Err("not a leaf");
        }
        _ if !holds_cells => return Err("a page of this kind holds no cells"),
        _ => {}
    }
    match op {
        Op::Format(format) => PageMut { bytes }.format(&format),
        Op::Insert {
            slot,
            key_below,
            cell,
        } => insert(
            bytes,
            scratch,
            slot as usize,
            key_below,
            [cell, &[], &[], &[]],
        ),
        Op::InsertRun { slot, count, cells } => {
            insert_run(bytes, scratch, slot as usize, count as usize, cells)
        }
        Op::InsertLike {
            slot,
            base,
            prefix,
            suffix,
            header,
            middle,
            key_below,
        } => insert_like(
            bytes, scratch, slot, key_below, base, prefix, suffix, header, middle,
        ),
        Op::Replace { slot, cell } => replace(bytes, scratch, slot as usize, cell),
        Op::Prune { remove, freeze } => prune(bytes, scratch, remove, freeze),
        Op::Confirm { slot } => confirm(bytes, slot as usize),
        Op::End { tombstone, slots } => end::end(bytes, scratch, tombstone, slots),
        Op::Cut {
            keep,
            prefix_len,
            high,
        } => {
            let count = view(bytes).slot_count();
            if keep as usize > count {
                return Err("a cut beyond the last slot");
            }
            let old = scratch_copy(bytes, scratch);
            rebuild(
                bytes,
                old,
                prefix_len as usize,
                old.low(),
                high,
                0..keep as usize,
                |_| false,
            )
        }
        Op::Fences {
            prefix_len,
            low,
            high,
        } => {
            let count = view(bytes).slot_count();
            let old = scratch_copy(bytes, scratch);
            rebuild(bytes, old, prefix_len as usize, low, high, 0..count, |_| {
                false
            })
        }
        Op::Links { left, right } => {
            let mut page = PageMut { bytes };
            if let Some(left) = left {
                page.special_u32(special::LEFT, left.0);
            }
            if let Some(right) = right {
                page.special_u32(special::RIGHT, right.0);
            }
            Ok(())
        }
        Op::Flags { set, clear } => {
            let flags = view(bytes).flags();
            PageMut { bytes }.special_u16(special::FLAGS, (flags & !clear) | set);
            Ok(())
        }
        Op::Meta { body } => {
            let end = HEADER_BYTES + body.len();
            if end > view(bytes).upper() {
                return Err("a metapage body larger than a page");
            }
            let mut page = PageMut { bytes };
            page.put(HEADER_BYTES, body);
            page.u16(AT_LOWER, end as u16);
            Ok(())
        }
        Op::Delete { stamp } => {
            let mut page = PageMut { bytes };
            let special = view(page.bytes).special_at() as u16;
            page.special_u8(special::KIND, PageKind::Deleted as u8);
            page.put(HEADER_BYTES, &stamp.to_le_bytes());
            page.u16(AT_LOWER, (HEADER_BYTES + 8) as u16);
            page.u16(AT_UPPER, special);
            for fence in [special::LOW_LENGTH, special::HIGH_LENGTH, special::PREFIX] {
                page.special_u16(fence, 0);
            }
            page.special_u16(special::GARBAGE, 0);
            Ok(())
        }
    }
}

/// A view without the checks of [`Page::open`]: the page was checked when it
/// was locked, or is being made.
fn view(bytes: &[u8]) -> Page<'_> {
    Page { bytes }
}

struct PageMut<'p> {
    bytes: &'p mut [u8],
}

impl PageMut<'_> {
    fn put(&mut self, absolute: usize, data: &[u8]) {
        let at = absolute - LSN_BYTES;
        self.bytes[at..at + data.len()].copy_from_slice(data);
    }

    fn u16(&mut self, absolute: usize, value: u16) {
        self.put(absolute, &value.to_le_bytes());
    }

    fn special_at(&self) -> usize {
        self.bytes.len() + LSN_BYTES - SPECIAL_BYTES
    }

    fn special_u8(&mut self, at: usize, value: u8) {
        let base = self.special_at();
        self.put(base + at, &[value]);
    }

    fn special_u16(&mut self, at: usize, value: u16) {
        let base = self.special_at();
        self.u16(base + at, value);
    }

    fn special_u32(&mut self, at: usize, value: u32) {
        let base = self.special_at();
        self.put(base + at, &value.to_le_bytes());
    }

    fn format(&mut self, format: &Format<'_>) -> Result<(), Mismatch> {
        // The checksum and the bytes before it are the store's; all else is ours.
        self.bytes.fill(0);
        let size = self.bytes.len() + LSN_BYTES;
        self.u16(AT_LOWER, HEADER_BYTES as u16);
        self.u16(AT_UPPER, (size - SPECIAL_BYTES) as u16);
        self.u16(AT_SPECIAL, (size - SPECIAL_BYTES) as u16);
        self.u16(AT_SIZE, size as u16 | LAYOUT_VERSION);
        self.special_u8(special::KIND, format.kind as u8);
        self.special_u8(special::LEVEL, format.level.0);
        self.special_u16(special::FLAGS, format.flags);
        self.special_u32(special::LEFT, format.left.0);
        self.special_u32(special::RIGHT, format.right.0);
        self.special_u32(special::GENERATION, format.generation);
        self.fences(format.prefix_len as usize, format.low, format.high)
    }

    /// Writes both fences into an empty page.
    fn fences(
        &mut self,
        prefix_len: usize,
        low: Fence<'_>,
        high: Fence<'_>,
    ) -> Result<(), Mismatch> {
        if prefix_len > low.map_or(0, |low| low.key.len()) {
            return Err("a prefix longer than the low fence");
        }
        for (fence, offset, length) in [
            (low, special::LOW_OFFSET, special::LOW_LENGTH),
            (high, special::HIGH_OFFSET, special::HIGH_LENGTH),
        ] {
            let Some(fence) = fence else {
                self.special_u16(offset, 0);
                self.special_u16(length, 0);
                continue;
            };
            let size = fence.encoded_len();
            let at = self.take(size, 0)?;
            self.special_u16(offset, at as u16);
            self.special_u16(length, size as u16);
            match fence.sequence {
                Some(sequence) => {
                    self.put(at, &[1]);
                    self.put(at + 1, &sequence.0.to_le_bytes());
                    self.put(at + 9, fence.key);
                }
                None => {
                    self.put(at, &[0]);
                    self.put(at + 1, fence.key);
                }
            }
        }
        self.special_u16(special::PREFIX, prefix_len as u16);
        Ok(())
    }

    /// Takes `size` bytes off the hole's end, leaving `slots` bytes at its
    /// start; the absolute offset of what was taken.
    fn take(&mut self, size: usize, slots: usize) -> Result<usize, Mismatch> {
        let page = view(self.bytes);
        let (lower, upper) = (page.lower(), page.upper());
        if upper < lower + size + slots {
            return Err("no room on the page");
        }
        self.u16(AT_UPPER, (upper - size) as u16);
        Ok(upper - size)
    }

    fn slot(&mut self, slot: usize, offset: usize, length: u16, head: u32) {
        let mut raw = [0u8; SLOT_BYTES];
        raw[0..2].copy_from_slice(&(offset as u16).to_le_bytes());
        raw[2..4].copy_from_slice(&length.to_le_bytes());
        raw[4..8].copy_from_slice(&head.to_le_bytes());
        self.put(HEADER_BYTES + slot * SLOT_BYTES, &raw);
    }

    /// Opens a gap for `count` slots before `slot`.
    fn open_slots(&mut self, slot: usize, count: usize) {
        let lower = u16_at(self.bytes, AT_LOWER) as usize;
        let from = HEADER_BYTES + slot * SLOT_BYTES - LSN_BYTES;
        self.bytes
            .copy_within(from..lower - LSN_BYTES, from + count * SLOT_BYTES);
        self.u16(AT_LOWER, (lower + count * SLOT_BYTES) as u16);
    }
}

/// The head of the cell that is about to stand in `slot`, of a page on which
/// the slots behind it are already in place.
fn head_for(page: Page<'_>, slot: usize, key_below: bool, cell: &[u8]) -> Result<u32, Mismatch> {
    let suffix = readable(page, key_below, cell)?;
    if key_below {
        if slot + 1 >= page.slot_count() {
            return Err("a cell without a key at the end of a page");
        }
        return Ok(page.slot(slot + 1).head);
    }
    Ok(if page.has(flag::ORDERED) {
        head_of(suffix)
    } else {
        0
    })
}

/// Refuses a cell that nobody could read afterwards; its key behind the page's
/// prefix, if it has one.
fn readable<'c>(page: Page<'_>, key_below: bool, cell: &'c [u8]) -> Result<&'c [u8], Mismatch> {
    match page.kind() {
        PageKind::Leaf => Ok(LeafCell::decode(cell, key_below)
            .ok_or("a leaf cell cannot be read")?
            .suffix
            .unwrap_or(&[])),
        _ if key_below => Err("a downlink without a key"),
        _ => Ok(InnerCell::decode(cell)
            .ok_or("an inner cell cannot be read")?
            .position
            .key),
    }
}

/// Makes the hole large enough, by compaction if garbage makes up for it.
fn make_room(bytes: &mut [u8], scratch: &mut Scratch, need: usize) -> Result<(), Mismatch> {
    let page = view(bytes);
    if page.upper() - page.lower() >= need {
        return Ok(());
    }
    if page.free() < need {
        return Err("no room on the page");
    }
    let old = scratch_copy(bytes, scratch);
    rebuild(
        bytes,
        old,
        old.prefix_len(),
        old.low(),
        old.high(),
        0..old.slot_count(),
        |_| false,
    )?;
    let page = view(bytes);
    if page.upper() - page.lower() < need {
        return Err("the page's count of garbage is wrong");
    }
    Ok(())
}

/// Inserts a cell given in up to four parts.
fn insert(
    bytes: &mut [u8],
    scratch: &mut Scratch,
    slot: usize,
    key_below: bool,
    parts: [&[u8]; 4],
) -> Result<(), Mismatch> {
    if slot > view(bytes).slot_count() {
        return Err("an insertion beyond the last slot");
    }
    let size: usize = parts.iter().map(|part| part.len()).sum();
    make_room(bytes, scratch, size + SLOT_BYTES)?;
    let mut page = PageMut { bytes };
    let at = page.take(size, SLOT_BYTES)?;
    let mut end = at;
    for part in parts {
        page.put(end, part);
        end += part.len();
    }
    page.open_slots(slot, 1);
    let cell = &page.bytes[at - LSN_BYTES..end - LSN_BYTES];
    let head = head_for(view(page.bytes), slot, key_below, cell)?;
    let length = size as u16 | if key_below { KEY_BELOW } else { 0 };
    page.slot(slot, at, length, head);
    Ok(())
}

fn insert_run(
    bytes: &mut [u8],
    scratch: &mut Scratch,
    slot: usize,
    count: usize,
    mut cells: &[u8],
) -> Result<(), Mismatch> {
    if slot > view(bytes).slot_count() {
        return Err("an insertion beyond the last slot");
    }
    // The lengths in front of the cells take two bytes each.
    let size = cells.len() - 2 * count;
    make_room(bytes, scratch, size + count * SLOT_BYTES)?;
    let mut page = PageMut { bytes };
    page.open_slots(slot, count);
    let ordered = view(page.bytes).has(flag::ORDERED);
    let is_leaf = view(page.bytes).kind() == PageKind::Leaf;
    let mut any_below = false;
    // The room for all of them is there; the page says so once they are in.
    let mut at = view(page.bytes).upper();
    for nth in slot..slot + count {
        let (length, rest) = cells.split_first_chunk::<2>().ok_or("a run ends early")?;
        let length = u16::from_le_bytes(*length);
        let key_below = length & KEY_BELOW != 0;
        any_below |= key_below;
        let cell_bytes = (length & !KEY_BELOW) as usize;
        let (cell, rest) = rest
            .split_at_checked(cell_bytes)
            .ok_or("a run ends early")?;
        cells = rest;
        at -= cell.len();
        page.put(at, cell);
        let small = if is_leaf && !key_below {
            LeafCell::decode_small(cell)
        } else {
            None
        };
        let suffix = match small {
            Some(cell) => cell.suffix.unwrap_or(&[]),
            None => readable(view(page.bytes), key_below, cell)?,
        };
        let head = if ordered { head_of(suffix) } else { 0 };
        page.slot(nth, at, length, head);
    }
    page.u16(AT_UPPER, at as u16);
    if !any_below {
        return Ok(());
    }
    // Heads of cells without a key come from the slots behind them.
    for nth in (slot..slot + count).rev() {
        let read = view(page.bytes).slot(nth);
        if read.key_below {
            if nth + 1 >= view(page.bytes).slot_count() {
                return Err("a cell without a key at the end of a page");
            }
            let head = view(page.bytes).slot(nth + 1).head;
            page.slot(nth, read.offset as usize, read.length | KEY_BELOW, head);
        }
    }
    Ok(())
}

#[expect(
    clippy::too_many_arguments,
    reason = "one operation has these operands"
)]
fn insert_like(
    bytes: &mut [u8],
    scratch: &mut Scratch,
    slot: u16,
    key_below: bool,
    base: u16,
    prefix: u16,
    suffix: u16,
    header: &[u8],
    middle: &[u8],
) -> Result<(), Mismatch> {
    if slot as usize > view(bytes).slot_count() {
        return Err("an insertion beyond the last slot");
    }
    if base as usize >= view(bytes).slot_count() {
        return Err("a cell resembles one that is not there");
    }
    let shared = prefix as usize + suffix as usize;
    make_room(
        bytes,
        scratch,
        header.len() + middle.len() + shared + SLOT_BYTES,
    )?;
    // Only the cell is copied aside: this is what every update does.
    let old = view(bytes);
    let like = old.slot(base as usize);
    let raw = old.cell_bytes(like);
    let aside = &mut scratch.bytes[..raw.len()];
    aside.copy_from_slice(raw);
    let body = LeafCell::decode(aside, like.key_below)
        .ok_or("a leaf cell cannot be read")?
        .body;
    if shared > body.len() {
        return Err("a cell resembles a shorter one");
    }
    let (start, end) = (
        &body[..prefix as usize],
        &body[body.len() - suffix as usize..],
    );
    // There is room already, so nothing below needs the scratch page.
    let size = header.len() + middle.len() + shared;
    let mut page = PageMut { bytes };
    let at = page.take(size, SLOT_BYTES)?;
    let mut to = at;
    for part in [header, start, middle, end] {
        page.put(to, part);
        to += part.len();
    }
    page.open_slots(slot as usize, 1);
    let cell = &page.bytes[at - LSN_BYTES..to - LSN_BYTES];
    let head = head_for(view(page.bytes), slot as usize, key_below, cell)?;
    page.slot(
        slot as usize,
        at,
        size as u16 | if key_below { KEY_BELOW } else { 0 },
        head,
    );
    Ok(())
}

/// Takes SPECULATIVE off a version, in place: the cell keeps its length, so
/// that there is always room.
fn confirm(bytes: &mut [u8], slot: usize) -> Result<(), Mismatch> {
    let page = view(bytes);
    if slot >= page.slot_count() {
        return Err("a confirmation beyond the last slot");
    }
    let cell = page.slot(slot);
    let (offset, length) = (cell.offset as usize, cell.length as usize);
    if offset < page.upper() || offset + length > page.special_at() {
        return Err("a slot points outside the page's cells");
    }
    let decoded = page.leaf_cell(slot, BlockNumber::NONE);
    let head = decoded.map_err(|_| "the cell cannot be read")?.head;
    if head.kind() != EntryKind::Put || !head.has(bit::SPECULATIVE) {
        return Err("not a speculative version");
    }
    PageMut { bytes }.put(offset, &[head.flags & !bit::SPECULATIVE]);
    Ok(())
}

/// Refuses a list of slots that do not ascend, or are not there.
fn in_order(list: &[u8], count: usize) -> Result<(), Mismatch> {
    let mut last = None;
    for slot in op::slots(list) {
        if slot as usize >= count || last >= Some(slot) {
            return Err("a list of slots is out of order");
        }
        last = Some(slot);
    }
    Ok(())
}

fn replace(
    bytes: &mut [u8],
    scratch: &mut Scratch,
    slot: usize,
    cell: &[u8],
) -> Result<(), Mismatch> {
    let page = view(bytes);
    if slot >= page.slot_count() {
        return Err("a replacement beyond the last slot");
    }
    let old = page.slot(slot);
    let (offset, length) = (old.offset as usize, old.length as usize);
    if offset < page.upper() || offset + length > page.special_at() {
        return Err("a slot points outside the page's cells");
    }
    readable(page, old.key_below, cell)?;
    let mark = if old.key_below { KEY_BELOW } else { 0 };
    let garbage = page.garbage();
    if cell.len() <= old.length as usize {
        let mut page = PageMut { bytes };
        page.put(old.offset as usize, cell);
        page.slot(
            slot,
            old.offset as usize,
            cell.len() as u16 | mark,
            old.head,
        );
        page.special_u16(
            special::GARBAGE,
            (garbage + old.length as usize - cell.len()) as u16,
        );
        return Ok(());
    }
    // The old cell stays in place until the new one is written, so that the
    // head and, for a compaction between, the key of the group are kept.
    make_room(bytes, scratch, cell.len())?;
    let garbage = view(bytes).garbage();
    let old = view(bytes).slot(slot);
    let mut page = PageMut { bytes };
    let at = page.take(cell.len(), 0)?;
    page.put(at, cell);
    page.slot(slot, at, cell.len() as u16 | mark, old.head);
    page.special_u16(special::GARBAGE, (garbage + old.length as usize) as u16);
    Ok(())
}

fn prune(
    bytes: &mut [u8],
    scratch: &mut Scratch,
    remove: &[u8],
    freeze: &[u8],
) -> Result<(), Mismatch> {
    let count = view(bytes).slot_count();
    for list in [remove, freeze] {
        in_order(list, count)?;
    }
    let mut rest = op::slots(remove).peekable();
    for slot in op::slots(freeze) {
        while rest.next_if(|removed| *removed < slot).is_some() {}
        if rest.peek() == Some(&slot) {
            return Err("a slot is both removed and frozen");
        }
    }
    if in_place(bytes, &mut scratch.bytes, remove, freeze) {
        return Ok(());
    }
    let old = scratch_copy(bytes, scratch);
    let mut removed = op::slots(remove).peekable();
    let mut frozen = op::slots(freeze).peekable();
    let kept = (0..count).filter(move |slot| removed.next_if_eq(&(*slot as u16)).is_none());
    rebuild(
        bytes,
        old,
        old.prefix_len(),
        old.low(),
        old.high(),
        kept,
        move |slot| frozen.next_if_eq(&(slot as u16)).is_some(),
    )
}

fn scratch_copy<'s>(bytes: &[u8], scratch: &'s mut Scratch) -> Page<'s> {
    scratch.bytes.copy_from_slice(bytes);
    Page {
        bytes: &scratch.bytes,
    }
}

/// Writes a page anew from a copy of it: the slots of `kept`, in order, under
/// these fences, with keys encoded for the new prefix. A version whose key was
/// held by a slot that is not kept gets the key itself.
fn rebuild(
    bytes: &mut [u8],
    old: Page<'_>,
    prefix_len: usize,
    low: Fence<'_>,
    high: Fence<'_>,
    kept: impl Iterator<Item = usize>,
    mut freeze: impl FnMut(usize) -> bool,
) -> Result<(), Mismatch> {
    let size = old.size();
    let old_prefix = old.prefix();
    if old_prefix.len() != old.prefix_len() {
        return Err("the page's prefix cannot be read");
    }
    let mut page = PageMut { bytes };
    page.u16(AT_LOWER, HEADER_BYTES as u16);
    page.u16(AT_UPPER, (size - SPECIAL_BYTES) as u16);
    page.special_u16(special::GARBAGE, 0);
    page.fences(prefix_len, low, high)?;
    let ordered = old.has(flag::ORDERED);
    let leaf = old.kind() == PageKind::Leaf;
    let same_prefix = prefix_len == old_prefix.len();
    let mut nth = 0;
    // Written to the page once, at the end.
    let mut room = view(page.bytes).upper();
    let mut kept = kept.peekable();
    // Cells that stay as they are and beside each other are copied together.
    let mut run = Run::default();
    while let Some(slot) = kept.next() {
        let read = old.slot(slot);
        let raw = old.cell_bytes(read);
        let lower = HEADER_BYTES + nth * SLOT_BYTES;
        let freezes = leaf && freeze(slot);
        let (length, head) = if leaf && same_prefix && !read.key_below && !freezes {
            // Most cells stay as they are, and need not be read for that.
            if raw.is_empty() {
                return Err("a leaf cell cannot be read");
            }
            if room < lower + raw.len() + SLOT_BYTES {
                return Err("no room on the page");
            }
            let from = read.offset as usize;
            if from + raw.len() != run.from || room != run.to {
                run.copy(old, &mut page);
                run = Run {
                    from: from + raw.len(),
                    to: room,
                    length: 0,
                };
            }
            run.from = from;
            run.to = room - raw.len();
            run.length += raw.len();
            (raw.len() as u16, read.head)
        } else if leaf {
            let holder = old.key_holder(slot);
            let cell = LeafCell::decode(raw, read.key_below).ok_or("a leaf cell cannot be read")?;
            let suffix = LeafCell::decode(old.cell_bytes(old.slot(holder)), false)
                .and_then(|cell| cell.suffix)
                .ok_or("a key cannot be read")?;
            // The next kept slot still holds the key if it lies before the
            // old holder or is it.
            let below = read.key_below && kept.peek().is_some_and(|next| *next <= holder);
            let mut parts = LeafParts::new(&cell, raw, read.key_below, freezes);
            if !below {
                parts.key(old_prefix, suffix, prefix_len)?;
            }
            let size = parts.size();
            if room < lower + size + SLOT_BYTES {
                return Err("no room on the page");
            }
            parts.write(page.bytes, room - size - LSN_BYTES);
            let head = if ordered {
                suffix_head(old_prefix, suffix, prefix_len)
            } else {
                0
            };
            (size as u16 | if below { KEY_BELOW } else { 0 }, head)
        } else {
            let cell = InnerCell::decode(raw).ok_or("an inner cell cannot be read")?;
            let suffix = cell.position.key;
            let fixed = raw.len() - suffix.len();
            let (pieces, head) = if slot == 0 && cell.position == Position::FIRST {
                // The first downlink's key is the page's lower fence, not what
                // stands behind the prefix here: nothing.
                ((suffix, &[] as &[u8]), read.head)
            } else {
                let head = if ordered {
                    suffix_head(old_prefix, suffix, prefix_len)
                } else {
                    0
                };
                (suffix_pieces(old_prefix, suffix, prefix_len)?, head)
            };
            let size = fixed + pieces.0.len() + pieces.1.len();
            if room < lower + size + SLOT_BYTES {
                return Err("no room on the page");
            }
            page.put(room - size, &raw[..fixed]);
            page.put(room - size + fixed, pieces.0);
            page.put(room - size + fixed + pieces.0.len(), pieces.1);
            (size as u16, head)
        };
        room -= (length & !KEY_BELOW) as usize;
        page.slot(nth, room, length, head);
        nth += 1;
    }
    page.u16(AT_UPPER, room as u16);
    page.u16(AT_LOWER, (HEADER_BYTES + nth * SLOT_BYTES) as u16);
    run.copy(old, &mut page);
    Ok(())
}

/// Bytes of cells that lie beside each other on the old page as on the new one,
/// each before the one whose slot it follows.
#[derive(Default)]
struct Run {
    from: usize,
    to: usize,
    length: usize,
}

impl Run {
    fn copy(&self, old: Page<'_>, page: &mut PageMut<'_>) {
        if self.length > 0 {
            let from = self.from - LSN_BYTES;
            page.put(self.to, &old.bytes[from..from + self.length]);
        }
    }
}

fn suffix_head(old_prefix: &[u8], suffix: &[u8], prefix_len: usize) -> u32 {
    let Ok((first, second)) = suffix_pieces(old_prefix, suffix, prefix_len) else {
        return 0;
    };
    let mut four = [0u8; 4];
    let from_first = first.len().min(4);
    four[..from_first].copy_from_slice(&first[..from_first]);
    let from_second = second.len().min(4 - from_first);
    four[from_first..from_first + from_second].copy_from_slice(&second[..from_second]);
    u32::from_be_bytes(four)
}
