//! From key bytes back to column values.
//!
//! Keys come from pages, which may be corrupt, so every byte is checked before
//! it is believed and nothing here panics on any input.

use thiserror::Error;

use super::tail::{self, HEAD_BYTES};
use super::{
    ColumnForm, KeyColumn, KeyLayout, KeyValue, LONG_LENGTH, NAME_BYTES_MAX, TEXT_GOES_ON, VALUE,
};

/// A key's bytes that no value encodes to: the page they came from is corrupt,
/// or the key is a truncated separator and ends before the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("key column {column} is malformed: {what}")]
pub struct MalformedKey {
    /// Position in the key, from 0.
    pub column: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Bytes of the length behind a tail's number.
const TAIL_LENGTH_BYTES: usize = 4;

const ENDS_EARLY: &str = "the key ends within it";
const BAD_MARKER: &str = "its marker is neither that of a value nor that of a null";

#[cold]
fn malformed(column: usize, what: &'static str) -> MalformedKey {
    MalformedKey { column, what }
}

impl KeyLayout {
    /// Reads the value of `column` from `bytes`, which begin at that column,
    /// and returns it with the number of bytes that it took.
    ///
    /// Ascending text and any other value that lies in the key as it is are
    /// borrowed from it; inverted or escaped ones are laid into `scratch`,
    /// which is left alone otherwise.
    #[inline]
    pub fn read<'v, 'k: 'v>(
        &self,
        column: usize,
        bytes: &'k [u8],
        scratch: &'v mut Vec<u8>,
    ) -> Result<(KeyValue<'v>, usize), MalformedKey> {
        let shape = &self.columns[column];
        let mut value_bytes = bytes;
        if shape.nullable {
            match bytes.split_first() {
                Some((&VALUE, rest)) => value_bytes = rest,
                Some((&marker, _)) if marker == shape.null_marker() => {
                    return Ok((KeyValue::Null, 1));
                }
                Some(_) => return Err(malformed(column, BAD_MARKER)),
                None => return Err(malformed(column, ENDS_EARLY)),
            }
        }
        match read_value(shape, value_bytes, scratch) {
            Ok((value, length)) => Ok((value, length + usize::from(shape.nullable))),
            Err(what) => Err(malformed(column, what)),
        }
    }

    /// The number of bytes that `column` takes in `bytes`, which begin at it.
    #[inline]
    pub fn skip(&self, column: usize, bytes: &[u8]) -> Result<usize, MalformedKey> {
        skip_column(&self.columns[column], bytes).map_err(|what| MalformedKey { column, what })
    }

    /// How many bytes the tails of long values have, which lie compressed in
    /// `key`: so many more than its length may its columns take when they are
    /// read. Of a malformed key the columns count that can be read.
    ///
    /// Nearly every key is too short for any, which costs one comparison.
    #[inline]
    pub fn compressed_bytes(&self, key: &[u8]) -> usize {
        if key.len() <= HEAD_BYTES {
            return 0;
        }
        self.count_compressed(key)
    }

    #[cold]
    fn count_compressed(&self, key: &[u8]) -> usize {
        let mut reader = self.reader(key);
        let mut sum = 0;
        for shape in &self.columns {
            let mut bytes = &key[reader.position()..];
            if reader.skip().is_err() {
                break;
            }
            if shape.nullable {
                if bytes[0] != VALUE {
                    continue;
                }
                bytes = &bytes[1..];
            }
            sum += tail_bytes(shape, bytes).unwrap_or(0);
        }
        sum
    }

    /// Reads `key` column by column.
    pub fn reader<'l, 'k>(&'l self, key: &'k [u8]) -> KeyReader<'l, 'k> {
        KeyReader {
            layout: self,
            key,
            position: 0,
            column: 0,
        }
    }
}

/// A cursor over the columns of one key.
#[derive(Debug, Clone)]
pub struct KeyReader<'l, 'k> {
    layout: &'l KeyLayout,
    key: &'k [u8],
    position: usize,
    column: usize,
}

impl<'l, 'k> KeyReader<'l, 'k> {
    /// The column that is read next.
    #[inline]
    pub fn column(&self) -> usize {
        self.column
    }

    /// Where in the key that column begins.
    #[inline]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Reads the next column; see [`KeyLayout::read`]. Must not be called
    /// after the last one.
    #[inline]
    pub fn read<'v>(&mut self, scratch: &'v mut Vec<u8>) -> Result<KeyValue<'v>, MalformedKey>
    where
        'k: 'v,
    {
        let (value, length) = self
            .layout
            .read(self.column, &self.key[self.position..], scratch)?;
        self.position += length;
        self.column += 1;
        Ok(value)
    }

    /// Passes over the next column. Must not be called after the last one.
    #[inline]
    pub fn skip(&mut self) -> Result<(), MalformedKey> {
        self.position += self.layout.skip(self.column, &self.key[self.position..])?;
        self.column += 1;
        Ok(())
    }
}

#[inline]
fn take<const N: usize>(bytes: &[u8]) -> Result<[u8; N], &'static str> {
    bytes.first_chunk::<N>().copied().ok_or(ENDS_EARLY)
}

/// Reads a value that is there, behind its marker. A descending number costs
/// the same as an ascending one: the inversion is one XOR with a mask.
#[inline(always)]
fn read_value<'v, 'k: 'v>(
    shape: &KeyColumn,
    bytes: &'k [u8],
    scratch: &'v mut Vec<u8>,
) -> Result<(KeyValue<'v>, usize), &'static str> {
    let flip = shape.flip();
    let flip_wide = u64::from_ne_bytes([flip; 8]);
    Ok(match shape.form {
        ColumnForm::Int4 => {
            let bits = u32::from_be_bytes(take(bytes)?) ^ flip_wide as u32 ^ (1 << 31);
            (KeyValue::Int4(bits as i32), 4)
        }
        ColumnForm::Int8 => {
            let bits = u64::from_be_bytes(take(bytes)?) ^ flip_wide ^ (1 << 63);
            (KeyValue::Int8(bits as i64), 8)
        }
        ColumnForm::Int2 => {
            let bits = u16::from_be_bytes(take(bytes)?) ^ flip_wide as u16 ^ (1 << 15);
            (KeyValue::Int2(bits as i16), 2)
        }
        ColumnForm::UInt4 => {
            let bits = u32::from_be_bytes(take(bytes)?) ^ flip_wide as u32;
            (KeyValue::UInt4(bits), 4)
        }
        ColumnForm::Text | ColumnForm::Name => {
            let (text, length) = read_text(flip, bytes, scratch)?;
            if shape.form == ColumnForm::Name && text.len() > NAME_BYTES_MAX {
                return Err("it is longer than a name can be");
            }
            (KeyValue::Bytes(text), length)
        }
        ColumnForm::Bytes => {
            let (value, length) = read_escaped(flip, bytes, scratch)?;
            (KeyValue::Bytes(value), length)
        }
        ColumnForm::Bool => match take::<1>(bytes)?[0] ^ flip {
            0 => (KeyValue::Bool(false), 1),
            1 => (KeyValue::Bool(true), 1),
            _ => return Err("it is neither false nor true"),
        },
        ColumnForm::Char => (KeyValue::Char(take::<1>(bytes)?[0] ^ flip), 1),
        ColumnForm::Uuid => (KeyValue::Uuid(take(bytes)?.map(|byte: u8| byte ^ flip)), 16),
        ColumnForm::RowId => {
            let number = u64::from_be_bytes(take(bytes)?) ^ flip_wide;
            (KeyValue::RowId(number), 8)
        }
        ColumnForm::Float4 => {
            let bits = u32::from_be_bytes(take(bytes)?) ^ flip_wide as u32;
            let bits = if bits >> 31 == 1 {
                bits ^ (1 << 31)
            } else {
                !bits
            };
            (KeyValue::Float4(f32::from_bits(bits)), 4)
        }
        ColumnForm::Float8 => {
            let bits = u64::from_be_bytes(take(bytes)?) ^ flip_wide;
            let bits = if bits >> 63 == 1 {
                bits ^ (1 << 63)
            } else {
                !bits
            };
            (KeyValue::Float8(f64::from_bits(bits)), 8)
        }
        ColumnForm::Comparator { fixed_len } => {
            let (value, length) = comparator_value(fixed_len, bytes).ok_or(ENDS_EARLY)?;
            (KeyValue::Bytes(value), length)
        }
    })
}

/// The datum in a comparator column and the bytes taken, or `None` if the key
/// ends within it.
#[inline]
pub(crate) fn comparator_value(fixed_len: Option<u16>, bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (start, length) = match fixed_len {
        Some(fixed) => (0, usize::from(fixed)),
        None => {
            let low = u16::from_le_bytes(*bytes.first_chunk()?);
            if low & LONG_LENGTH == 0 {
                (2, usize::from(low))
            } else {
                let high = u16::from_le_bytes(*bytes.get(2..)?.first_chunk()?);
                let low = low & !LONG_LENGTH;
                (4, usize::from(low) | usize::from(high) << 15)
            }
        }
    };
    let value = bytes.get(start..start + length)?;
    Some((value, start + length))
}

#[inline]
fn read_text<'v, 'k: 'v>(
    flip: u8,
    bytes: &'k [u8],
    scratch: &'v mut Vec<u8>,
) -> Result<(&'v [u8], usize), &'static str> {
    let Some(length) = text_end(flip, bytes) else {
        return read_long_text(flip, bytes, scratch);
    };
    if flip == 0 {
        return Ok((&bytes[..length], length + 1));
    }
    scratch.clear();
    scratch.extend(bytes[..length].iter().map(|byte| !byte));
    Ok((scratch, length + 1))
}

/// Where a text ends, if it is not a long one.
#[inline]
fn text_end(flip: u8, bytes: &[u8]) -> Option<usize> {
    find(&bytes[..bytes.len().min(HEAD_BYTES + 1)], flip)
}

/// The head of a long text, and what follows it.
fn split_long_text(flip: u8, bytes: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(ENDS_EARLY)?;
    match rest.split_first() {
        Some((mark, tail)) if mark ^ flip == TEXT_GOES_ON => Ok((head, tail)),
        Some(_) => Err("it neither ends nor goes on behind its head"),
        None => Err(ENDS_EARLY),
    }
}

#[cold]
fn read_long_text<'v>(
    flip: u8,
    bytes: &[u8],
    scratch: &'v mut Vec<u8>,
) -> Result<(&'v [u8], usize), &'static str> {
    let (head, tail) = split_long_text(flip, bytes)?;
    scratch.clear();
    scratch.extend(head.iter().map(|byte| byte ^ flip));
    let taken = read_tail(flip, tail, scratch)?;
    Ok((scratch, HEAD_BYTES + 1 + taken))
}

/// Appends the tail of a long value to its head in `value`; the bytes taken.
#[cold]
fn read_tail(flip: u8, bytes: &[u8], value: &mut Vec<u8>) -> Result<usize, &'static str> {
    let mut code = Vec::new();
    let taken = match unescape(flip, bytes, &mut code)? {
        (taken, Stop::End) => taken,
        (_, Stop::GoesOn) => return Err("its compressed part goes on behind its end"),
    };
    let length = tail_length(flip, &bytes[taken..], code.len())?;
    let head = value.clone();
    tail::decode(&head, &code, length, value)?;
    Ok(taken + TAIL_LENGTH_BYTES)
}

/// The length of a tail, which stands behind its number.
fn tail_length(flip: u8, bytes: &[u8], code_bytes: usize) -> Result<usize, &'static str> {
    let length = u32::from_be_bytes(take(bytes)?.map(|byte: u8| byte ^ flip)) as usize;
    if tail::is_plausible(code_bytes, length) {
        Ok(length)
    } else {
        Err("its compressed part has another length")
    }
}

fn read_escaped<'v, 'k: 'v>(
    flip: u8,
    bytes: &'k [u8],
    scratch: &'v mut Vec<u8>,
) -> Result<(&'v [u8], usize), &'static str> {
    let first = find(bytes, flip).ok_or(ENDS_EARLY)?;
    if flip == 0 && bytes.get(first + 1) == Some(&0) {
        return Ok((&bytes[..first], first + 2));
    }
    scratch.clear();
    match unescape(flip, bytes, scratch)? {
        (taken, Stop::End) => Ok((scratch, taken)),
        (taken, Stop::GoesOn) => {
            let tail = read_tail(flip, &bytes[taken..], scratch)?;
            Ok((scratch, taken + tail))
        }
    }
}

/// What comes behind escaped bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Nothing more of the value.
    End,
    /// The tail of a long value.
    GoesOn,
}

/// Appends bytes that are escaped to `out`; how many were taken, what stops
/// them included.
fn unescape(flip: u8, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, Stop), &'static str> {
    let mut position = 0;
    loop {
        let stop = position + find(&bytes[position..], flip).ok_or(ENDS_EARLY)?;
        out.extend(bytes[position..stop].iter().map(|byte| byte ^ flip));
        position = stop + 2;
        match what_stops(flip, bytes, stop)? {
            None => out.push(0),
            Some(what) => return Ok((position, what)),
        }
    }
}

/// What a NUL at `stop` means: `None` if it is a byte of the value.
#[inline]
fn what_stops(flip: u8, bytes: &[u8], stop: usize) -> Result<Option<Stop>, &'static str> {
    match bytes.get(stop + 1).map(|byte| byte ^ flip) {
        Some(0x00) => Ok(Some(Stop::End)),
        Some(0x01) => Ok(Some(Stop::GoesOn)),
        Some(0xFF) => Ok(None),
        Some(_) => Err("a NUL in it is not escaped"),
        None => Err(ENDS_EARLY),
    }
}

/// The bytes that escaped ones take, with what stops them.
fn skip_escaped(flip: u8, bytes: &[u8]) -> Result<(usize, Stop), &'static str> {
    let mut position = 0;
    loop {
        let stop = position + find(&bytes[position..], flip).ok_or(ENDS_EARLY)?;
        position = stop + 2;
        if let Some(what) = what_stops(flip, bytes, stop)? {
            return Ok((position, what));
        }
    }
}

/// The bytes that the tail of a long value takes, and how long it is.
#[cold]
fn skip_tail(flip: u8, bytes: &[u8]) -> Result<(usize, usize), &'static str> {
    match skip_escaped(flip, bytes)? {
        (taken, Stop::End) => {
            let length = tail_length(flip, &bytes[taken..], taken)?;
            Ok((taken + TAIL_LENGTH_BYTES, length))
        }
        (_, Stop::GoesOn) => Err("its compressed part goes on behind its end"),
    }
}

/// The position of the first `wanted` byte. Eight bytes at a time, since text
/// in keys is short: a call of a general search costs more than the search.
#[inline]
fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let wanted_everywhere = u64::from_ne_bytes([wanted; 8]);
    let (chunks, tail) = bytes.as_chunks::<8>();
    for (index, chunk) in chunks.iter().enumerate() {
        // The high bit of the lowest byte that is zero here is set, and of no
        // lower one; borrows can only make mistakes above it.
        let differs = u64::from_le_bytes(*chunk) ^ wanted_everywhere;
        let found = differs.wrapping_sub(LOW) & !differs & HIGH;
        if found != 0 {
            return Some(index * 8 + (found.trailing_zeros() / 8) as usize);
        }
    }
    let position = tail.iter().position(|byte| *byte == wanted)?;
    Some(chunks.len() * 8 + position)
}

#[inline]
fn skip_column(shape: &KeyColumn, bytes: &[u8]) -> Result<usize, &'static str> {
    let (marker, bytes) = if shape.nullable {
        match bytes.split_first() {
            Some((&VALUE, rest)) => (1, rest),
            Some((&marker, _)) if marker == shape.null_marker() => return Ok(1),
            Some(_) => return Err(BAD_MARKER),
            None => return Err(ENDS_EARLY),
        }
    } else {
        (0, bytes)
    };
    let length = match shape.form.width_bytes() {
        Some(width) if width <= bytes.len() => width,
        Some(_) => return Err(ENDS_EARLY),
        None => skip_variable(shape, bytes)?,
    };
    Ok(marker + length)
}

fn skip_variable(shape: &KeyColumn, bytes: &[u8]) -> Result<usize, &'static str> {
    let flip = shape.flip();
    match shape.form {
        ColumnForm::Bytes => match skip_escaped(flip, bytes)? {
            (taken, Stop::End) => Ok(taken),
            (taken, Stop::GoesOn) => Ok(taken + skip_tail(flip, &bytes[taken..])?.0),
        },
        ColumnForm::Text => match text_end(flip, bytes) {
            Some(length) => Ok(length + 1),
            None => {
                let (head, tail) = split_long_text(flip, bytes)?;
                Ok(head.len() + 1 + skip_tail(flip, tail)?.0)
            }
        },
        ColumnForm::Comparator { fixed_len } => comparator_value(fixed_len, bytes)
            .map(|(_, length)| length)
            .ok_or(ENDS_EARLY),
        _ => find(bytes, flip).map(|length| length + 1).ok_or(ENDS_EARLY),
    }
}

/// How long the tail of a value is that lies compressed in its key; 0 for any
/// other.
fn tail_bytes(shape: &KeyColumn, bytes: &[u8]) -> Result<usize, &'static str> {
    let flip = shape.flip();
    let tail = match shape.form {
        ColumnForm::Bytes => match skip_escaped(flip, bytes)? {
            (_, Stop::End) => return Ok(0),
            (taken, Stop::GoesOn) => &bytes[taken..],
        },
        ColumnForm::Text => match text_end(flip, bytes) {
            Some(_) => return Ok(0),
            None => split_long_text(flip, bytes)?.1,
        },
        _ => return Ok(0),
    };
    skip_tail(flip, tail).map(|(_, length)| length)
}
