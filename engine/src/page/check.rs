//! What every page promises on its own, checked without reading another.

use super::{HEADER_BYTES, Page, PageKind, SLOT_BYTES, flag, head_of};
use crate::error::{Error, Result};
use crate::types::BlockNumber;

/// Checks that cells and fences lie inside the page, overlap nowhere, decode,
/// that slots carry their keys' heads, and that free space is accounted for. Order is the tree's affair.
pub fn check(bytes: &[u8], block: BlockNumber) -> Result<()> {
    let page = Page::open(bytes, block)?;
    if matches!(page.kind(), PageKind::Meta | PageKind::Deleted) {
        return Ok(());
    }
    let bad = |what: String| Error::Corrupt { block, what };
    let mut extents: Vec<(usize, usize)> = Vec::new();
    for (offset, length, name) in page.fence_extents() {
        if length == 0 {
            continue;
        }
        if offset < page.upper() || offset + length > page.special_at() {
            return Err(bad(format!(
                "the {name} fence lies outside the page's cells"
            )));
        }
        extents.push((offset, length));
    }
    if page.prefix().len() != page.prefix_len() {
        return Err(bad("the prefix is longer than the low fence".into()));
    }
    for nth in 0..page.slot_count() {
        let slot = page.slot(nth);
        let (offset, length) = (slot.offset as usize, slot.length as usize);
        if offset < page.upper() || offset + length > page.special_at() {
            return Err(bad(format!("slot {nth} points outside the page's cells")));
        }
        extents.push((offset, length));
        match page.kind() {
            PageKind::Leaf => {
                page.leaf_cell(nth, block)?;
            }
            _ if slot.key_below => {
                return Err(bad(format!("downlink {nth} has no key")));
            }
            _ => {}
        }
        let suffix = match page.kind() {
            PageKind::Leaf => page.suffix(nth, block)?,
            _ => page.inner_cell(nth, block)?.position.key,
        };
        let head = if page.has(flag::ORDERED) {
            head_of(suffix)
        } else {
            0
        };
        if slot.head != head {
            return Err(bad(format!("slot {nth} carries another key's head")));
        }
    }
    extents.sort_unstable();
    if extents
        .windows(2)
        .any(|pair| pair[0].0 + pair[0].1 > pair[1].0)
    {
        return Err(bad("two cells overlap".into()));
    }
    let used: usize = extents.iter().map(|extent| extent.1).sum();
    let cells = page.special_at() - page.upper();
    if used + page.garbage() != cells {
        return Err(bad(format!(
            "{used} bytes of cells and {} of garbage do not make up {cells}",
            page.garbage()
        )));
    }
    debug_assert!(page.lower() == HEADER_BYTES + page.slot_count() * SLOT_BYTES);
    Ok(())
}
