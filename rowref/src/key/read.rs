//! From key bytes back to column values.
//!
//! Keys come from pages, which may be corrupt, so every byte is checked before
//! it is believed and nothing here panics on any input.

use thiserror::Error;

use super::{ColumnForm, KeyColumn, KeyLayout, KeyValue, NAME_BYTES_MAX, VALUE};

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
        None => (2, usize::from(u16::from_le_bytes(*bytes.first_chunk()?))),
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
    let length = find(bytes, flip).ok_or(ENDS_EARLY)?;
    if flip == 0 {
        return Ok((&bytes[..length], length + 1));
    }
    scratch.clear();
    scratch.extend(bytes[..length].iter().map(|byte| !byte));
    Ok((scratch, length + 1))
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
    let mut position = 0;
    loop {
        let piece = find(&bytes[position..], flip).ok_or(ENDS_EARLY)?;
        let stop = position + piece;
        scratch.extend(bytes[position..stop].iter().map(|byte| byte ^ flip));
        match bytes.get(stop + 1).map(|byte| byte ^ flip) {
            Some(0x00) => return Ok((scratch, stop + 2)),
            Some(0xFF) => scratch.push(0),
            Some(_) => return Err("a NUL in it is not escaped"),
            None => return Err(ENDS_EARLY),
        }
        position = stop + 2;
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
        ColumnForm::Bytes => {
            let mut position = 0;
            loop {
                position += find(&bytes[position..], flip).ok_or(ENDS_EARLY)? + 2;
                match bytes.get(position - 1).map(|byte| byte ^ flip) {
                    Some(0x00) => return Ok(position),
                    Some(0xFF) => {}
                    Some(_) => return Err("a NUL in it is not escaped"),
                    None => return Err(ENDS_EARLY),
                }
            }
        }
        ColumnForm::Comparator { fixed_len } => comparator_value(fixed_len, bytes)
            .map(|(_, length)| length)
            .ok_or(ENDS_EARLY),
        _ => find(bytes, flip).map(|length| length + 1).ok_or(ENDS_EARLY),
    }
}
