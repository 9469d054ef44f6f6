//! What must be known of a column to find it in a row without the catalogs.

use pgrx::pg_sys;
use rowref::key::ColumnForm;

/// Where a column's value is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The key column with this number, from 0.
    Key(u16),
    /// The payload column with this number, from 0: its bit in the bitmap.
    Payload(u16),
}

/// One column of the table, copied out of its descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Attribute {
    /// The type.
    pub type_oid: pg_sys::Oid,
    /// Bytes of a value; -1 for a varlena, -2 for a C string.
    pub length: i16,
    /// The boundary its values start at: 1, 2, 4 or 8 bytes.
    pub align: u8,
    /// Whether the datum is the value and not a pointer to it.
    pub by_value: bool,
    /// Whether a short varlena header may replace the long one (its storage is
    /// not PLAIN).
    pub packable: bool,
    /// Whether it was dropped; new rows hold a null for it.
    pub dropped: bool,
    /// Whether rows that were written before the column existed show a value
    /// for it that the catalog keeps.
    pub has_missing: bool,
    /// Where to read it.
    pub source: Source,
    /// Its offset in the payload when no column before it is null; -1 when a
    /// column of varying length comes first.
    pub cached_offset: i32,
    /// The short way to it, if there is one.
    pub direct: Direct,
}

/// How to read a column in one step from a row that has all columns asked for
/// and no null: nearly all columns of nearly all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direct {
    /// There is none.
    No,
    /// A number at a known place in every key.
    Key(KeyNumber),
    /// A value of fixed width at `cached_offset`, passed by value.
    Value,
    /// A varlena at `cached_offset`; columns behind it have no known place.
    Varlena,
}

/// A number in the key, big-endian, that some bits have to be flipped in to be
/// the datum's: its sign, because bytes sort without one, and all of them in a
/// descending column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyNumber {
    offset: u16,
    width: u8,
    flip: u64,
}

impl KeyNumber {
    /// Of a column that begins at `offset`; `None` for forms that are not just
    /// that.
    pub(super) fn of(form: ColumnForm, descending: bool, offset: u32) -> Option<KeyNumber> {
        let sign = match form {
            ColumnForm::Int2 => 1 << 15,
            ColumnForm::Int4 => 1 << 31,
            ColumnForm::Int8 => 1 << 63,
            ColumnForm::UInt4 => 0,
            _ => return None,
        };
        Some(KeyNumber {
            offset: u16::try_from(offset).ok()?,
            width: form.width_bytes()? as u8,
            flip: sign ^ if descending { u64::MAX } else { 0 },
        })
    }

    /// The number, as wide as a datum; `None` if the key ends before it does.
    #[inline(always)]
    pub(super) fn read(self, key: &[u8]) -> Option<i64> {
        let bytes = key.get(usize::from(self.offset)..)?;
        Some(match self.width {
            2 => i64::from((u16::from_be_bytes(*bytes.first_chunk()?) ^ self.flip as u16) as i16),
            4 => i64::from((u32::from_be_bytes(*bytes.first_chunk()?) ^ self.flip as u32) as i32),
            _ => (u64::from_be_bytes(*bytes.first_chunk()?) ^ self.flip) as i64,
        })
    }
}

impl Attribute {
    /// Copies what matters. `source` and `cached_offset` are settled by
    /// [`settle`] when all columns are known.
    pub(super) fn of(form: &pg_sys::FormData_pg_attribute) -> Attribute {
        Attribute {
            type_oid: form.atttypid,
            length: form.attlen,
            align: align_bytes(form.attalign),
            by_value: form.attbyval,
            packable: form.attstorage as u8 != b'p',
            dropped: form.attisdropped,
            has_missing: form.atthasmissing,
            source: Source::Payload(0),
            cached_offset: -1,
            direct: Direct::No,
        }
    }
}

impl Attribute {
    /// Whether a column described so is read from a row in the same way. The
    /// type counts because the value that the catalog keeps for older rows is
    /// one of it.
    pub(super) fn reads_like(&self, form: &pg_sys::FormData_pg_attribute) -> bool {
        let other = Attribute::of(form);
        self.type_oid == other.type_oid
            && self.length == other.length
            && self.align == other.align
            && self.by_value == other.by_value
            && self.dropped == other.dropped
            && self.has_missing == other.has_missing
    }
}

/// The width of an alignment letter.
pub(super) fn align_bytes(letter: std::ffi::c_char) -> u8 {
    match letter as u8 {
        b'c' => 1,
        b's' => 2,
        b'd' => 8,
        _ => 4,
    }
}

/// The next multiple of a power of two.
#[inline(always)]
pub(super) fn align_up(offset: usize, align: u8) -> usize {
    let mask = usize::from(align) - 1;
    (offset + mask) & !mask
}

impl Attribute {
    /// The short way to a payload column whose place is settled.
    fn direct_payload(&self) -> Direct {
        match self.length {
            _ if self.cached_offset < 0 => Direct::No,
            -1 => Direct::Varlena,
            1.. if self.by_value => Direct::Value,
            _ => Direct::No,
        }
    }
}

/// Numbers the payload columns, those of `attributes` that `key_source` does
/// not place in the key, and finds the offsets that every row without nulls
/// shares.
pub(super) fn settle(attributes: &mut [Attribute], key_source: impl Fn(usize) -> Option<u16>) {
    let mut number = 0;
    let mut offset = Some(0usize);
    for (index, attribute) in attributes.iter_mut().enumerate() {
        if let Some(column) = key_source(index) {
            attribute.source = Source::Key(column);
            continue;
        }
        attribute.source = Source::Payload(number);
        number += 1;
        offset = offset.and_then(|at| {
            let start = align_up(at, attribute.align);
            if attribute.length > 0 {
                attribute.cached_offset = start as i32;
                return Some(start + attribute.length as usize);
            }
            // A value of varying length begins at a known place only if no
            // padding can be there: a short one is not aligned.
            if start == at {
                attribute.cached_offset = start as i32;
            }
            None
        });
        attribute.direct = attribute.direct_payload();
    }
}
