//! Cells being made for a page, in a row.

use super::insert::RunEntry;
use crate::error::Result;
use crate::page::cell::{Head, InnerCell};
use crate::page::{Page, PageKind, Position};
use crate::types::BlockNumber;

/// The cells of a page as they are, for one `InsertRun` on another page of the
/// same prefix.
pub(super) fn raw_cells(page: Page<'_>) -> impl Iterator<Item = (bool, &[u8])> {
    (0..page.slot_count()).map(move |slot| {
        let slot = page.slot(slot);
        (slot.key_below, page.cell_bytes(slot))
    })
}

/// Encoded cells, for one `InsertRun`.
#[derive(Default)]
pub(super) struct Cells {
    bytes: Vec<u8>,
    ends: Vec<(bool, usize)>,
    key: Vec<u8>,
    /// Whether the first of them will be the first on its page.
    begin_page: bool,
}

impl Cells {
    pub fn new() -> Cells {
        Cells::default()
    }

    /// All the cells of a page, or its first ones.
    pub fn of_page() -> Cells {
        Cells {
            begin_page: true,
            ..Cells::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The cells, each with whether it takes its key from the next slot.
    pub fn iter(&self) -> impl Iterator<Item = (bool, &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |(below, end)| {
            let cell = &self.bytes[start..*end];
            start = *end;
            (*below, cell)
        })
    }

    /// Adds a version; its key is written unless it stands below.
    pub fn leaf(&mut self, head: Head, key: &[u8], prefix_len: usize, below: bool, body: &[u8]) {
        let suffix = (!below).then(|| &key[prefix_len..]);
        head.encode(suffix, body, &mut self.bytes);
        self.ends.push((below, self.bytes.len()));
    }

    /// Adds a version that comes with a whole key.
    pub fn entry(&mut self, entry: &RunEntry<'_>, prefix_len: usize) {
        self.leaf(entry.head, entry.key, prefix_len, false, entry.body);
    }

    /// Adds a downlink; a page's first one has no position of its own.
    pub fn inner(&mut self, child: BlockNumber, position: Position<'_>, prefix_len: usize) {
        let position = if self.begin_page && self.is_empty() {
            Position::FIRST
        } else {
            position
        };
        InnerCell::encode(child, position, prefix_len, &mut self.bytes);
        self.ends.push((false, self.bytes.len()));
    }

    /// Copies what stands in a slot of a page, with its key behind another
    /// prefix. `below` overrides whether its key stands below.
    pub fn copy(
        &mut self,
        page: Page<'_>,
        slot: usize,
        block: BlockNumber,
        prefix_len: usize,
        below: bool,
    ) -> Result<()> {
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        key.extend_from_slice(page.prefix());
        if page.kind() == PageKind::Leaf {
            let cell = page.leaf_cell(slot, block)?;
            if !below {
                key.extend_from_slice(page.suffix(slot, block)?);
            }
            // Without its own key nothing of it is written.
            let prefix_len = prefix_len.min(key.len());
            self.leaf(cell.head, &key, prefix_len, below, cell.body);
        } else {
            let cell = page.inner_cell(slot, block)?;
            key.extend_from_slice(cell.position.key);
            let position = Position {
                key: &key,
                sequence: cell.position.sequence,
            };
            self.inner(cell.child, position, prefix_len);
        }
        self.key = key;
        Ok(())
    }
}
