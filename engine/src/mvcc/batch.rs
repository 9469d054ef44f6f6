//! Rows copied out of a page, so that they can be served without a lock.

use crate::page::cell::Head;
use crate::types::{CommandId, Sequence, Xid};

/// What a copy may write behind a row's end: see [`copy_short`].
const SLACK_BYTES: usize = 64;

/// Memory on an eight-byte boundary: the payload's layout is PostgreSQL's,
/// which aligns values relative to the row's start.
#[derive(Default)]
struct Arena {
    words: Vec<u64>,
    used_bytes: usize,
}

impl Arena {
    /// Room for a row's key and, right behind it, its payload, which then
    /// starts aligned. Returns where the key starts. Behind the row there are
    /// at least [`SLACK_BYTES`] more.
    #[inline(always)]
    fn take(&mut self, key_len: usize, payload_len: usize) -> usize {
        let payload = (self.used_bytes + key_len).next_multiple_of(8);
        self.used_bytes = payload + payload_len;
        let words = (self.used_bytes + SLACK_BYTES).div_ceil(8);
        if self.words.len() < words {
            self.grow(words);
        }
        payload - key_len
    }

    #[cold]
    fn grow(&mut self, words: usize) {
        // A batch of one row stays small: one is made for each lookup.
        self.words.resize(words.next_power_of_two(), 0);
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

/// Where a row's copy lies: `key_len` bytes of key, then the payload. The head
/// is in pieces: put together on the stack it would be copied from there in
/// wider loads than it was stored in, which a processor waits for.
#[derive(Clone, Copy)]
struct RowAt {
    start: u32,
    key_len: u32,
    payload_len: u32,
    xmin: Xid,
    cid: CommandId,
    flags: u8,
    sequence: Sequence,
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
            head: Head {
                flags: at.flags,
                xmin: at.xmin,
                cid: at.cid,
                sequence: at.sequence,
            },
        }
    }

    /// Copies a row, its key in two pieces.
    #[inline]
    pub(crate) fn push(&mut self, prefix: &[u8], suffix: &[u8], payload: &[u8], head: Head) {
        let start = self.reserve(prefix.len() + suffix.len(), payload.len(), head);
        let room = &mut self.arena.bytes_mut()[start..];
        let (to_prefix, room) = room.split_at_mut(prefix.len());
        let (to_suffix, room) = room.split_at_mut(suffix.len());
        to_prefix.copy_from_slice(prefix);
        to_suffix.copy_from_slice(suffix);
        room[..payload.len()].copy_from_slice(payload);
    }

    /// Copies a row whose key behind the prefix and whose payload lie one
    /// behind the other at the start of `cell`, `suffix_len` and `payload_len`
    /// bytes. What follows them in `cell` may be read, and is best there.
    #[inline(always)]
    pub(crate) fn push_cell(
        &mut self,
        prefix: &Prefix<'_>,
        cell: &[u8],
        suffix_len: usize,
        payload_len: usize,
        head: Head,
    ) {
        let prefix_len = prefix.bytes.len();
        let start = self.reserve(prefix_len + suffix_len, payload_len, head);
        let room = &mut self.arena.bytes_mut()[start..];
        // In ascending order, because each copy may spoil what follows it.
        match room.first_chunk_mut::<PREFIX_BYTES>() {
            Some(room) if prefix_len <= PREFIX_BYTES => *room = prefix.start,
            _ => room[..prefix_len].copy_from_slice(prefix.bytes),
        }
        copy_short(&mut room[prefix_len..], cell, suffix_len + payload_len);
    }

    /// Notes a row and makes room for it; where its key starts.
    #[inline(always)]
    fn reserve(&mut self, key_len: usize, payload_len: usize, head: Head) -> usize {
        let start = self.arena.take(key_len, payload_len);
        self.rows.push(RowAt {
            start: start as u32,
            key_len: key_len as u32,
            payload_len: payload_len as u32,
            xmin: head.xmin,
            cid: head.cid,
            flags: head.flags,
            sequence: head.sequence,
        });
        start
    }
}

const PREFIX_BYTES: usize = 16;

/// A page's key prefix, made ready to be copied before many rows: a copy of
/// known length is an instruction, one of any length is a call.
pub(crate) struct Prefix<'p> {
    bytes: &'p [u8],
    start: [u8; PREFIX_BYTES],
}

impl<'p> Prefix<'p> {
    pub(crate) fn new(bytes: &'p [u8]) -> Prefix<'p> {
        let mut start = [0; PREFIX_BYTES];
        let len = bytes.len().min(PREFIX_BYTES);
        start[..len].copy_from_slice(&bytes[..len]);
        Prefix { bytes, start }
    }
}

/// Copies `len` bytes, and, where both sides have them, up to 31 more that
/// mean nothing: most rows are short, and a copy of a known length is worth
/// several of a length that has to be asked for.
#[inline(always)]
fn copy_short(to: &mut [u8], from: &[u8], len: usize) {
    let done = match len {
        0..=16 => copy_blocks::<16>(to, from),
        17..=32 => copy_blocks::<32>(to, from),
        33..=64 => copy_blocks::<64>(to, from),
        65..=96 => copy_blocks::<96>(to, from),
        97..=128 => copy_blocks::<128>(to, from),
        _ => false,
    };
    if !done {
        to[..len].copy_from_slice(&from[..len]);
    }
}

/// Copies `N` bytes, sixteen by sixteen, if both sides have them. As numbers,
/// since the compiler makes one call of `memcpy` of several plain copies.
#[inline(always)]
fn copy_blocks<const N: usize>(to: &mut [u8], from: &[u8]) -> bool {
    let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) else {
        return false;
    };
    for (to, from) in to
        .as_chunks_mut::<16>()
        .0
        .iter_mut()
        .zip(from.as_chunks::<16>().0)
    {
        *to = u128::from_ne_bytes(*from).to_ne_bytes();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::cell::bit;
    use proptest::prelude::*;

    const HEAD: Head = Head {
        flags: bit::FROZEN,
        xmin: Xid(3),
        cid: CommandId(0),
        sequence: Sequence(1),
    };

    proptest! {
        #[test]
        fn rows_come_out_as_they_went_in_whatever_lies_behind_them(
            prefix in proptest::collection::vec(any::<u8>(), 0..40),
            rows in proptest::collection::vec(
                (
                    proptest::collection::vec(any::<u8>(), 0..40),
                    proptest::collection::vec(any::<u8>(), 0..200),
                    0usize..80,
                ),
                1..40,
            ),
        ) {
            let mut batch = Batch::default();
            let ready = Prefix::new(&prefix);
            for (suffix, payload, behind) in &rows {
                let cell = [&suffix[..], &payload[..], &vec![0xEE; *behind][..]].concat();
                batch.push_cell(&ready, &cell, suffix.len(), payload.len(), HEAD);
                batch.push(&prefix, suffix, payload, HEAD);
            }
            for (nth, (suffix, payload, _)) in rows.iter().enumerate() {
                for row in [batch.row(2 * nth), batch.row(2 * nth + 1)] {
                    prop_assert_eq!(row.key, [&prefix[..], &suffix[..]].concat());
                    prop_assert_eq!(row.payload, &payload[..]);
                    prop_assert!((row.payload.as_ptr() as usize).is_multiple_of(8));
                }
            }
        }
    }
}
