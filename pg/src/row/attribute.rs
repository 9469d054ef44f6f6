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
    /// Whether it is a column of the key, even if it is read from the payload:
    /// its value is never kept out of line (rule 25).
    pub in_key: bool,
    /// Where to read it.
    pub source: Source,
    /// Its offset in the payload when no column before it is null; -1 when a
    /// column of varying length comes first.
    pub cached_offset: i32,
}

/// How to read a column in one step from a row that has all columns asked for
/// and no null: nearly all columns of nearly all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Direct {
    pub(super) form: DirectForm,
    /// Where it begins, in the key or in the payload, if all rows have it there.
    pub(super) offset: u16,
    /// Bytes that the key must have for this column and all before it.
    pub(super) key_bytes: u16,
    /// Bytes that the payload must have for this column and all before it.
    pub(super) payload_bytes: u16,
    /// What has to be flipped in a number out of the key to get the datum's:
    /// the sign, because bytes sort without one, and all bits of a descending
    /// column.
    pub(super) flip: u64,
}

/// What lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DirectForm {
    /// A big-endian number in the key.
    Key2,
    /// As `Key2`.
    Key4,
    /// As `Key2`.
    Key8,
    /// A datum passed by value in the payload.
    Value1,
    /// As `Value1`.
    Value2,
    /// As `Value1`.
    Value4,
    /// As `Value1`.
    Value8,
    /// A datum of fixed width passed by reference, in the payload.
    Reference,
    /// A varlena in the payload.
    Varlena,
    /// A datum passed by value, as wide as it is aligned, behind whatever column
    /// of the payload comes before it.
    Next1,
    /// As `Next1`.
    Next2,
    /// As `Next1`.
    Next4,
    /// As `Next1`.
    Next8,
    /// A varlena behind whatever column comes before it.
    NextVarlena,
}

/// The columns from the first on that have a short way, up to the first that
/// has none.
pub(super) fn direct_ways(
    attributes: &[Attribute],
    key_column: impl Fn(u16) -> Option<(ColumnForm, bool, u32)>,
) -> Box<[Direct]> {
    let (mut key_bytes, mut payload_bytes) = (0, 0);
    let way = |attribute: &Attribute| {
        let (form, offset, width, flip) = match attribute.source {
            Source::Key(number) => {
                let (form, descending, offset) = key_column(number)?;
                let (form, sign) = match form {
                    ColumnForm::Int2 => (DirectForm::Key2, 1 << 15),
                    ColumnForm::Int4 => (DirectForm::Key4, 1 << 31),
                    ColumnForm::UInt4 => (DirectForm::Key4, 0),
                    ColumnForm::Int8 => (DirectForm::Key8, 1 << 63),
                    _ => return None,
                };
                let width = match form {
                    DirectForm::Key2 => 2,
                    DirectForm::Key4 => 4,
                    _ => 8,
                };
                (
                    form,
                    offset,
                    width,
                    sign ^ if descending { u64::MAX } else { 0 },
                )
            }
            Source::Payload(_) if attribute.cached_offset < 0 => {
                let form = match (attribute.length, attribute.by_value, attribute.align) {
                    (-1, ..) => DirectForm::NextVarlena,
                    (1, true, 1) => DirectForm::Next1,
                    (2, true, 2) => DirectForm::Next2,
                    (4, true, 4) => DirectForm::Next4,
                    (8, true, 8) => DirectForm::Next8,
                    _ => return None,
                };
                // Where it ends shows in the row alone.
                (form, 0, 0, 0)
            }
            Source::Payload(_) => {
                let offset = u32::try_from(attribute.cached_offset).ok()?;
                let (form, width) = match (attribute.length, attribute.by_value) {
                    (-1, _) => (DirectForm::Varlena, 1),
                    (1, true) => (DirectForm::Value1, 1),
                    (2, true) => (DirectForm::Value2, 2),
                    (4, true) => (DirectForm::Value4, 4),
                    (8, true) => (DirectForm::Value8, 8),
                    (width @ 1.., false) => (DirectForm::Reference, width as u16),
                    _ => return None,
                };
                (form, offset, width, 0)
            }
        };
        let offset = u16::try_from(offset).ok()?;
        let needed = match attribute.source {
            Source::Key(_) => &mut key_bytes,
            Source::Payload(_) => &mut payload_bytes,
        };
        *needed = offset.checked_add(width)?.max(*needed);
        Some(Direct {
            form,
            offset,
            key_bytes,
            payload_bytes,
            flip,
        })
    };
    attributes.iter().map_while(way).collect()
}

impl Attribute {
    /// Whether it is read from the payload.
    pub(crate) fn is_in_payload(&self) -> bool {
        matches!(self.source, Source::Payload(_))
    }

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
            in_key: false,
            source: Source::Payload(0),
            cached_offset: -1,
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
pub(crate) fn align_bytes(letter: std::ffi::c_char) -> u8 {
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
    }
}
