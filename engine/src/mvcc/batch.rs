//! Rows copied out of a page, so that they can be served without a lock.

use crate::page::cell::Head;

/// Memory on an eight-byte boundary: the payload's layout is PostgreSQL's,
/// which aligns values relative to the row's start.
#[derive(Default)]
struct Arena {
    words: Vec<u64>,
    used_bytes: usize,
}

impl Arena {
    /// Room for a row's key and, right behind it, its payload, which then
    /// starts aligned. Returns where the key starts.
    #[inline]
    fn take(&mut self, key_len: usize, payload_len: usize) -> usize {
        let payload = (self.used_bytes + key_len).next_multiple_of(8);
        self.used_bytes = payload + payload_len;
        let words = self.used_bytes.div_ceil(8);
        if self.words.len() < words {
            self.words.resize(words.next_multiple_of(2048), 0);
        }
        payload - key_len
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words)
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.words)
    }
}

/// Where a row's copy lies: `key_len` bytes of key, then the payload.
#[derive(Clone, Copy)]
struct RowAt {
    start: u32,
    key_len: u32,
    payload_len: u32,
    head: Head,
}

/// Rows in key order, copied.
#[derive(Default)]
pub struct Batch {
    arena: Arena,
    rows: Vec<RowAt>,
    /// The page they were read from, for hints to whoever comes back.
    pub block: u32,
}

/// One row of a [`Batch`]; the payload starts on an eight-byte boundary.
#[derive(Clone, Copy, Debug)]
pub struct Row<'b> {
    /// Encoded key.
    pub key: &'b [u8],
    /// Encoded columns.
    pub payload: &'b [u8],
    /// The version's writer, number and flags.
    pub head: Head,
}

impl Batch {
    /// Forgets all rows and keeps the room.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.arena.used_bytes = 0;
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A row by its place.
    #[inline]
    pub fn row(&self, nth: usize) -> Row<'_> {
        let at = &self.rows[nth];
        let bytes = &self.arena.bytes()[at.start as usize..];
        let (key, rest) = bytes.split_at(at.key_len as usize);
        Row {
            key,
            payload: &rest[..at.payload_len as usize],
            head: at.head,
        }
    }

    /// Copies a row, its key in two pieces.
    #[inline]
    pub(crate) fn push(&mut self, prefix: &[u8], suffix: &[u8], payload: &[u8], head: Head) {
        let key_len = prefix.len() + suffix.len();
        let start = self.arena.take(key_len, payload.len());
        let end = start + key_len + payload.len();
        let room = &mut self.arena.bytes_mut()[start..end];
        let (key, rest) = room.split_at_mut(key_len);
        key[..prefix.len()].copy_from_slice(prefix);
        key[prefix.len()..].copy_from_slice(suffix);
        rest.copy_from_slice(payload);
        self.rows.push(RowAt {
            start: start as u32,
            key_len: key_len as u32,
            payload_len: payload.len() as u32,
            head,
        });
    }
}
