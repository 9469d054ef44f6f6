//! The values of a row that lie in a TOAST table: found in the row's bytes,
//! without a look at them.

use super::attribute::{Source, align_up};
use super::deform::{ENDS_EARLY, value_bytes};
use super::encode::{COUNT_ESCAPE, POINTERS};
use super::varlena::is_pointer;
use super::{Error, TableLayout};

pub use super::varlena::POINTER_BYTES;

/// A pointer to a value in a TOAST table, as a row holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pointer {
    /// The column, numbered from 0.
    pub column: usize,
    /// The datum.
    pub bytes: [u8; POINTER_BYTES],
}

/// Whether a payload says that a value of its row lies in a TOAST table: the
/// trailer does, in the long form of its count.
#[inline]
pub fn has_pointers(payload: &[u8]) -> bool {
    match payload {
        [.., low, high, last] if usize::from(last >> 1) == COUNT_ESCAPE => {
            u16::from_le_bytes([*low, *high]) & POINTERS != 0
        }
        _ => false,
    }
}

impl TableLayout {
    /// The pointers of a row, those of dropped columns included.
    pub fn pointers(&self, payload: &[u8]) -> Result<Vec<Pointer>, Error> {
        let mut found = Vec::new();
        if !has_pointers(payload) {
            return Ok(found);
        }
        let cursor = self.cursor(payload)?;
        let data = cursor.data(payload);
        let mut offset = 0;
        let stored = self.attributes().iter().take(cursor.stored());
        for (column, attribute) in stored.enumerate() {
            let Source::Payload(number) = attribute.source else {
                continue;
            };
            if cursor.is_null(payload, usize::from(number)) {
                continue;
            }
            // A byte that is not zero is a short header, never padding.
            let unaligned =
                attribute.length == -1 && data.get(offset).is_some_and(|first| *first != 0);
            let start = if unaligned {
                offset
            } else {
                align_up(offset, attribute.align)
            };
            let rest = data.get(start..).ok_or(ENDS_EARLY)?;
            let size = value_bytes(attribute, rest)?;
            // SAFETY: `value_bytes` has found a whole varlena there.
            if attribute.length == -1
                && size == POINTER_BYTES
                && unsafe { is_pointer(rest.as_ptr()) }
                && let Some(bytes) = rest.first_chunk()
            {
                found.push(Pointer {
                    column,
                    bytes: *bytes,
                });
            }
            offset = start + size;
        }
        Ok(found)
    }
}
