//! Rows copied out of a page, so that they can be served without a lock.

use crate::page::cell::Head;

/// Bytes on eight-byte boundaries: the payload's layout is PostgreSQL's, which
/// aligns values relative to the row's start.
#[derive(Default)]
struct Arena {
    words: Vec<u64>,
    used_words: usize,
}

impl Arena {
    fn put(&mut self, pieces: [&[u8]; 2]) -> usize {
        let length = pieces[0].len() + pieces[1].len();
        let words = length.div_ceil(8);
        let start = self.used_words;
        if self.words.len() < start + words {
            self.words.resize((start + words).next_multiple_of(1024), 0);
        }
        self.used_words += words;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words[start..start + words]);
        bytes[..pieces[0].len()].copy_from_slice(pieces[0]);
        bytes[pieces[0].len()..length].copy_from_slice(pieces[1]);
        start
    }

    fn get(&self, start: usize, length: usize) -> &[u8] {
        let bytes: &[u8] = bytemuck::cast_slice(&self.words[start..start + length.div_ceil(8)]);
        &bytes[..length]
    }
}

#[derive(Clone, Copy)]
struct RowAt {
    key: usize,
    key_len: usize,
    payload: usize,
    payload_len: usize,
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
        self.arena.used_words = 0;
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
        Row {
            key: self.arena.get(at.key, at.key_len),
            payload: self.arena.get(at.payload, at.payload_len),
            head: at.head,
        }
    }

    /// Copies a row, its key in two pieces.
    #[inline]
    pub(crate) fn push(&mut self, prefix: &[u8], suffix: &[u8], payload: &[u8], head: Head) {
        let key = self.arena.put([prefix, suffix]);
        let at = self.arena.put([payload, &[]]);
        self.rows.push(RowAt {
            key,
            key_len: prefix.len() + suffix.len(),
            payload: at,
            payload_len: payload.len(),
            head,
        });
    }
}
