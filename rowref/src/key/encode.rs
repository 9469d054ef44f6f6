//! From column values to key bytes.

use thiserror::Error;

use super::tail::{self, HEAD_BYTES};
use super::{
    BYTES_END, BYTES_GO_ON, ColumnForm, KeyColumn, KeyLayout, KeyValue, LONG_LENGTH,
    NAME_BYTES_MAX, TEXT_GOES_ON, VALUE,
};

/// Why a value cannot be put into a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeKeyError {
    /// The column was declared without nulls, or the value is a limit of a
    /// range, which a null cannot be.
    #[error("key column {column} cannot hold a null here")]
    NullNotAllowed {
        /// Position in the key, from 0.
        column: usize,
    },
    /// The value is of another type than the column.
    #[error("key column {column} of form {form:?} was given a value of another type")]
    WrongType {
        /// Position in the key, from 0.
        column: usize,
        /// What the column takes.
        form: ColumnForm,
    },
    /// Text and names end at a NUL in a key, so they cannot contain one.
    #[error("text in key column {column} contains a NUL byte")]
    TextHasNul {
        /// Position in the key, from 0.
        column: usize,
    },
    /// The value is longer than its form can carry, or a fixed-length value
    /// has another length.
    #[error(
        "a value of {length_bytes} bytes does not fit key column {column}, which takes {limit_bytes}"
    )]
    WrongLength {
        /// Position in the key, from 0.
        column: usize,
        /// What was given.
        length_bytes: usize,
        /// What the column takes at most, or exactly if it is fixed.
        limit_bytes: usize,
    },
}

impl KeyLayout {
    /// Appends one column's value to a key. On an error `out` is as it was.
    pub fn encode(
        &self,
        column: usize,
        value: KeyValue<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeKeyError> {
        let start = out.len();
        let encoded = encode_column(self.columns[column], column, value, out);
        if encoded.is_err() {
            out.truncate(start);
        }
        encoded
    }

    /// Appends the values of the leading columns, all of them or fewer.
    pub fn encode_values(
        &self,
        values: &[KeyValue<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeKeyError> {
        let start = out.len();
        for (column, value) in values.iter().enumerate() {
            if let Err(error) = self.encode(column, *value, out) {
                out.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }
}

fn encode_column(
    shape: KeyColumn,
    column: usize,
    value: KeyValue<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeKeyError> {
    if let KeyValue::Null = value {
        if !shape.nullable {
            return Err(EncodeKeyError::NullNotAllowed { column });
        }
        out.push(shape.null_marker());
        return Ok(());
    }
    if shape.nullable {
        out.push(VALUE);
    }
    let start = out.len();
    match (shape.form, value) {
        (ColumnForm::Bool, KeyValue::Bool(v)) => out.push(u8::from(v)),
        (ColumnForm::Char, KeyValue::Char(v)) => out.push(v),
        (ColumnForm::Int2, KeyValue::Int2(v)) => {
            out.extend_from_slice(&(v as u16 ^ (1 << 15)).to_be_bytes())
        }
        (ColumnForm::Int4, KeyValue::Int4(v)) => {
            out.extend_from_slice(&(v as u32 ^ (1 << 31)).to_be_bytes())
        }
        (ColumnForm::Int8, KeyValue::Int8(v)) => {
            out.extend_from_slice(&(v as u64 ^ (1 << 63)).to_be_bytes())
        }
        (ColumnForm::UInt4, KeyValue::UInt4(v)) => out.extend_from_slice(&v.to_be_bytes()),
        (ColumnForm::Float4, KeyValue::Float4(v)) => {
            out.extend_from_slice(&ordered_bits4(v).to_be_bytes())
        }
        (ColumnForm::Float8, KeyValue::Float8(v)) => {
            out.extend_from_slice(&ordered_bits8(v).to_be_bytes())
        }
        (ColumnForm::Uuid, KeyValue::Uuid(v)) => out.extend_from_slice(&v),
        (ColumnForm::RowId, KeyValue::RowId(v)) => out.extend_from_slice(&v.to_be_bytes()),
        (ColumnForm::Bytes, KeyValue::Bytes(v)) => match v.split_at_checked(HEAD_BYTES) {
            Some((head, tail)) if !tail.is_empty() => {
                push_escaped(head, out);
                out.extend_from_slice(&BYTES_GO_ON);
                push_tail(head, tail, out);
            }
            _ => {
                push_escaped(v, out);
                out.extend_from_slice(&BYTES_END);
            }
        },
        (ColumnForm::Text, KeyValue::Bytes(v)) => {
            if v.contains(&0) {
                return Err(EncodeKeyError::TextHasNul { column });
            }
            match v.split_at_checked(HEAD_BYTES) {
                Some((head, tail)) if !tail.is_empty() => {
                    out.extend_from_slice(head);
                    out.push(TEXT_GOES_ON);
                    push_tail(head, tail, out);
                }
                _ => {
                    out.extend_from_slice(v);
                    out.push(0);
                }
            }
        }
        (ColumnForm::Name, KeyValue::Bytes(v)) => {
            let name = v.split(|byte| *byte == 0).next().unwrap_or_default();
            if name.len() > NAME_BYTES_MAX {
                return Err(EncodeKeyError::WrongLength {
                    column,
                    length_bytes: name.len(),
                    limit_bytes: NAME_BYTES_MAX,
                });
            }
            out.extend_from_slice(name);
            out.push(0);
        }
        (ColumnForm::Comparator { fixed_len }, KeyValue::Bytes(v)) => {
            push_comparator(fixed_len, column, v, out)?;
        }
        (form, _) => return Err(EncodeKeyError::WrongType { column, form }),
    }
    if shape.flip() != 0 {
        for byte in &mut out[start..] {
            *byte = !*byte;
        }
    }
    Ok(())
}

/// A NUL becomes `00 FF`; what follows is `00 00`, the end, or `00 01`: each is
/// less than any continuation, and no value's encoding is a prefix of another's.
fn push_escaped(value: &[u8], out: &mut Vec<u8>) {
    out.reserve(value.len() + 2);
    let mut pieces = value.split(|byte| *byte == 0);
    if let Some(first) = pieces.next() {
        out.extend_from_slice(first);
    }
    for piece in pieces {
        out.extend_from_slice(&[0x00, 0xFF]);
        out.extend_from_slice(piece);
    }
}

/// The tail of a long value, behind its head: its number, and its length for
/// whoever makes room for it.
fn push_tail(head: &[u8], tail: &[u8], out: &mut Vec<u8>) {
    let mut code = Vec::new();
    tail::encode(head, tail, &mut code);
    push_escaped(&code, out);
    out.extend_from_slice(&BYTES_END);
    let length = u32::try_from(tail.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
}

fn push_comparator(
    fixed_len: Option<u16>,
    column: usize,
    value: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), EncodeKeyError> {
    let length_bytes = value.len();
    match fixed_len {
        Some(fixed) if length_bytes != usize::from(fixed) => {
            return Err(EncodeKeyError::WrongLength {
                column,
                length_bytes,
                limit_bytes: usize::from(fixed),
            });
        }
        Some(_) => {}
        None => {
            let (low, high) = (length_bytes & 0x7FFF, length_bytes >> 15);
            let Ok(high) = u16::try_from(high) else {
                return Err(EncodeKeyError::WrongLength {
                    column,
                    length_bytes,
                    limit_bytes: (1 << 31) - 1,
                });
            };
            if high == 0 {
                out.extend_from_slice(&(low as u16).to_le_bytes());
            } else {
                out.extend_from_slice(&(low as u16 | LONG_LENGTH).to_le_bytes());
                out.extend_from_slice(&high.to_le_bytes());
            }
        }
    }
    out.extend_from_slice(value);
    Ok(())
}

/// Bits whose unsigned order is PostgreSQL's order of floats. Negative numbers
/// are inverted so that greater magnitude is less; all NaNs become the one
/// positive quiet NaN, which lies above infinity; −0 becomes +0.
fn ordered_bits4(value: f32) -> u32 {
    let bits = if value.is_nan() {
        f32::NAN.to_bits() & (u32::MAX >> 1)
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    if bits >> 31 == 0 {
        bits ^ (1 << 31)
    } else {
        !bits
    }
}

/// As [`ordered_bits4`], for eight bytes.
fn ordered_bits8(value: f64) -> u64 {
    let bits = if value.is_nan() {
        f64::NAN.to_bits() & (u64::MAX >> 1)
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    if bits >> 63 == 0 {
        bits ^ (1 << 63)
    } else {
        !bits
    }
}
