//! From datums to key and payload bytes.

use std::ffi::c_char;

use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};
use rowref::key::{ColumnForm, KeyValue};

use super::attribute::{Attribute, Source, align_up};
use super::varlena::{
    HEADER_BYTES, POINTER_BYTES, SHORT_BYTES_MAX, Shape, is_expanded, is_pointer, long_header,
    shape, short_header,
};
use super::{Error, KeyColumnSpec, KeyOrder, TableLayout};

/// Counts of columns from here on do not fit the trailer's last byte.
pub(super) const COUNT_ESCAPE: usize = 127;
/// The bit of a two-byte count that says that a value lies in a TOAST table.
pub(super) const POINTERS: u16 = 0x8000;
/// Bytes of the largest bitmap (`MaxTupleAttributeNumber` columns).
const BITMAP_BYTES_MAX: usize = 1664_usize.div_ceil(8);

/// The key of a row in a table without key columns.
pub fn row_id_key(id: u64) -> [u8; 8] {
    id.to_be_bytes()
}

impl TableLayout {
    /// Appends the key of a row, given all columns of the table. On an error
    /// `out` is as it was. Long values are read in, which may allocate in the
    /// current memory context.
    ///
    /// # Safety
    /// `values` and `isnull` hold the table's columns, valid for their types.
    pub unsafe fn encode_key(
        &self,
        values: &[pg_sys::Datum],
        isnull: &[bool],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        assert!(!self.is_row_id(), "a hidden row id is drawn, not encoded");
        let start = out.len();
        let mut scratch = Vec::new();
        for (column, spec) in self.order.columns().iter().enumerate() {
            let at = spec.attribute as usize - 1;
            // SAFETY: the caller vouches for the values.
            let encoded = unsafe {
                self.order
                    .encode_column(column, values[at], isnull[at], &mut scratch, out)
            };
            if let Err(error) = encoded {
                out.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Appends the payload of a row: all columns that are not read back from
    /// the key. Whatever lies in a TOAST table is read in: so it has to be in
    /// an index, which has none.
    ///
    /// # Safety
    /// As for [`TableLayout::encode_key`].
    pub unsafe fn encode_payload(
        &self,
        values: &[pg_sys::Datum],
        isnull: &[bool],
        out: &mut Vec<u8>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { self.encode_columns::<false>(values, isnull, out) };
    }

    /// As [`TableLayout::encode_payload`], for a table that may have a TOAST
    /// table: pointers go in as they are, but for columns of the key. Returns
    /// whether there are any; if they are not this table's own, the row cannot
    /// be stored so.
    ///
    /// # Safety
    /// As for [`TableLayout::encode_key`].
    #[must_use]
    pub unsafe fn encode_payload_with_pointers(
        &self,
        values: &[pg_sys::Datum],
        isnull: &[bool],
        out: &mut Vec<u8>,
    ) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.encode_columns::<true>(values, isnull, out) }
    }

    /// # Safety
    /// As for [`TableLayout::encode_key`].
    unsafe fn encode_columns<const KEEP_POINTERS: bool>(
        &self,
        values: &[pg_sys::Datum],
        isnull: &[bool],
        out: &mut Vec<u8>,
    ) -> bool {
        let start = out.len();
        let mut bitmap = [0u8; BITMAP_BYTES_MAX];
        let mut has_nulls = false;
        let mut has_pointers = false;
        for (at, attribute) in self.attributes.iter().enumerate() {
            let Source::Payload(number) = attribute.source else {
                continue;
            };
            if isnull[at] || attribute.dropped {
                has_nulls = true;
                continue;
            }
            bitmap[usize::from(number / 8)] |= 1 << (number % 8);
            // SAFETY: the caller vouches for the value.
            unsafe {
                has_pointers |= push_value::<KEEP_POINTERS>(attribute, values[at], start, out);
            }
        }
        if has_nulls {
            out.extend_from_slice(&bitmap[..self.payload_columns.div_ceil(8)]);
        }
        push_count(self.attributes.len(), has_nulls, has_pointers, out);
        has_pointers
    }
}

/// Appends the trailer that [`read_count`] reads from the back.
///
/// A row with values out of line says so in the long form of the count, however
/// few its columns are, so that all other rows say nothing about it.
fn push_count(columns: usize, has_nulls: bool, has_pointers: bool, out: &mut Vec<u8>) {
    let small = if has_pointers {
        COUNT_ESCAPE
    } else {
        columns.min(COUNT_ESCAPE)
    };
    if small == COUNT_ESCAPE {
        let flag = if has_pointers { POINTERS } else { 0 };
        out.extend_from_slice(&(columns as u16 | flag).to_le_bytes());
    }
    out.push((small as u8) << 1 | u8::from(has_nulls));
}

/// The number of columns a payload has, whether a bitmap precedes the trailer,
/// and where the trailer begins.
#[inline]
pub(super) fn read_count(payload: &[u8]) -> Option<(usize, bool, usize)> {
    let (&last, rest) = payload.split_last()?;
    let has_nulls = last & 1 == 1;
    let small = usize::from(last >> 1);
    if small < COUNT_ESCAPE {
        return Some((small, has_nulls, rest.len()));
    }
    let (rest, count) = rest.split_last_chunk::<2>()?;
    Some((
        usize::from(u16::from_le_bytes(*count) & !POINTERS),
        has_nulls,
        rest.len(),
    ))
}

/// Appends one value as heap lays it out, `start` being offset 0. Whether it
/// is a pointer to a TOAST table.
///
/// # Safety
/// `value` is a datum of the column's type.
unsafe fn push_value<const KEEP_POINTERS: bool>(
    attribute: &Attribute,
    value: pg_sys::Datum,
    start: usize,
    out: &mut Vec<u8>,
) -> bool {
    if attribute.by_value {
        pad(start, attribute.align, out);
        let bytes = value.value().to_le_bytes();
        out.extend_from_slice(&bytes[..attribute.length as usize]);
        return false;
    }
    let source = value.cast_mut_ptr::<u8>().cast_const();
    // SAFETY: by the caller, `source` is a whole datum.
    unsafe {
        let size = match attribute.length {
            -1 => return push_varlena::<KEEP_POINTERS>(attribute, source, start, out),
            -2 => std::ffi::CStr::from_ptr(source.cast())
                .to_bytes_with_nul()
                .len(),
            length => length as usize,
        };
        pad(start, attribute.align, out);
        out.extend_from_slice(std::slice::from_raw_parts(source, size));
    }
    false
}

/// # Safety
/// `source` is a whole varlena datum.
unsafe fn push_varlena<const KEEP_POINTERS: bool>(
    attribute: &Attribute,
    source: *const u8,
    start: usize,
    out: &mut Vec<u8>,
) -> bool {
    // SAFETY: by the caller, as many bytes are there as the header says. An
    // expanded object tells its flat size and fills just that many bytes.
    unsafe {
        let slice = |from: *const u8, size| std::slice::from_raw_parts(from, size);
        match shape(source).expect("the server hands over whole datums") {
            Shape::External(_) if is_expanded(source) => {
                let object = pg_sys::DatumGetEOHP(source.into());
                let size = pg_sys::EOH_get_flat_size(object);
                pad(start, attribute.align, out);
                // The flat form is filled in its own, aligned memory: what it
                // is appended to may start anywhere.
                let flat = pg_sys::palloc0(size);
                pg_sys::EOH_flatten_into(object, flat, size);
                out.extend_from_slice(slice(flat.cast(), size));
                pg_sys::pfree(flat);
            }
            // Whose it is the caller finds out. It has no alignment to keep.
            Shape::External(_) if KEEP_POINTERS && !attribute.in_key && is_pointer(source) => {
                out.extend_from_slice(slice(source, POINTER_BYTES));
                return true;
            }
            // A pointer into a TOAST table, which may be gone before this row
            // is: the value itself is stored, compressed as it was.
            Shape::External(_) => {
                let inline = pg_sys::detoast_external_attr(source.cast_mut().cast());
                push_varlena::<false>(attribute, inline.cast::<u8>(), start, out);
                pg_sys::pfree(inline.cast());
            }
            // It has no alignment to keep.
            Shape::Short(size) => {
                out.extend_from_slice(slice(source, size));
            }
            Shape::Plain(size) if attribute.packable && size - HEADER_BYTES < SHORT_BYTES_MAX => {
                out.push(short_header(size - HEADER_BYTES + 1));
                out.extend_from_slice(slice(source.add(HEADER_BYTES), size - HEADER_BYTES));
            }
            Shape::Plain(size) | Shape::Compressed(size) => {
                pad(start, attribute.align, out);
                out.extend_from_slice(slice(source, size));
            }
        }
    }
    false
}

/// Zeros up to the next boundary. They have to be zeros: a reader takes a byte
/// that is not for the header of a short value.
#[inline]
fn pad(start: usize, align: u8, out: &mut Vec<u8>) {
    out.resize(start + align_up(out.len() - start, align), 0);
}

impl KeyOrder {
    /// Appends one key column. `scratch` is room to reuse between calls.
    ///
    /// # Safety
    /// `value` is a datum of the column's type, unless it is null.
    pub unsafe fn encode_column(
        &self,
        column: usize,
        value: pg_sys::Datum,
        is_null: bool,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let layout = self.layout().expect("row ids have no columns");
        let value = if is_null {
            KeyValue::Null
        } else {
            // SAFETY: the caller vouches for the value.
            unsafe { key_value(&self.columns()[column], value, scratch) }
        };
        Ok(layout.encode(column, value, out)?)
    }
}

/// A datum as the codec takes it. Long values are detoasted into the current
/// memory context, and the result may point there.
///
/// # Safety
/// `value` is a datum of the column's type and lives as long as the result.
pub unsafe fn key_value<'v>(
    spec: &KeyColumnSpec,
    value: pg_sys::Datum,
    scratch: &'v mut Vec<u8>,
) -> KeyValue<'v> {
    let bits = value.value();
    match spec.form {
        ColumnForm::Bool => KeyValue::Bool(bits as u8 != 0),
        ColumnForm::Int2 => KeyValue::Int2(bits as i16),
        ColumnForm::Int4 => KeyValue::Int4(bits as i32),
        ColumnForm::Int8 => KeyValue::Int8(bits as i64),
        ColumnForm::UInt4 => KeyValue::UInt4(bits as u32),
        ColumnForm::Float4 => KeyValue::Float4(f32::from_bits(bits as u32)),
        ColumnForm::Float8 => KeyValue::Float8(f64::from_bits(bits as u64)),
        ColumnForm::Char => KeyValue::Char(bits as u8),
        ColumnForm::RowId => KeyValue::RowId(bits as u64),
        // SAFETY: a uuid is sixteen bytes without alignment.
        ColumnForm::Uuid => KeyValue::Uuid(unsafe { *value.cast_mut_ptr::<[u8; 16]>() }),
        // SAFETY: the caller vouches for the value.
        ColumnForm::Bytes | ColumnForm::Text => KeyValue::Bytes(unsafe { contents(value) }),
        // SAFETY: a name is 64 bytes without alignment.
        ColumnForm::Name => {
            KeyValue::Bytes(unsafe { std::slice::from_raw_parts(value.cast_mut_ptr::<u8>(), 64) })
        }
        ColumnForm::Comparator { .. } => {
            scratch.clear();
            // SAFETY: the caller vouches for the value.
            unsafe { push_comparator(spec, value, scratch) };
            KeyValue::Bytes(scratch)
        }
    }
}

/// The contents of a varlena, detoasted if need be.
///
/// # Safety
/// `value` is a varlena datum that lives as long as the result.
unsafe fn contents<'v>(value: pg_sys::Datum) -> &'v [u8] {
    // SAFETY: detoasting yields a short or a plain datum, whose header tells
    // its size.
    unsafe {
        let source = packed(value);
        match shape(source) {
            Some(Shape::Short(size)) => std::slice::from_raw_parts(source.add(1), size - 1),
            Some(Shape::Plain(size)) => {
                std::slice::from_raw_parts(source.add(HEADER_BYTES), size - HEADER_BYTES)
            }
            other => unreachable!("a detoasted datum is neither long nor compressed: {other:?}"),
        }
    }
}

/// The datum without compression or indirection; header short or long.
///
/// # Safety
/// `value` is a varlena datum.
unsafe fn packed(value: pg_sys::Datum) -> *const u8 {
    let source = value.cast_mut_ptr::<u8>();
    // SAFETY: the caller vouches for the datum.
    unsafe {
        match shape(source) {
            Some(Shape::Short(_) | Shape::Plain(_)) => source,
            _ => pg_sys::pg_detoast_datum_packed(source.cast()).cast(),
        }
    }
}

/// Contents longer than this are compressed in keys and in indexes, if it makes
/// them shorter, as B-tree's are.
const COMPRESSED_BYTES_MIN: usize = 512;

/// `TOAST_PGLZ_COMPRESSION`, whatever is set for the column: that it is always
/// the same makes equal values equal bytes.
const PGLZ: c_char = b'p' as c_char;

unsafe extern "C-unwind" {
    fn toast_compress_datum(value: pg_sys::Datum, method: c_char) -> pg_sys::Datum;
}

/// A datum that the server has made smaller.
pub(super) struct Compressed(*mut u8);

impl Compressed {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `compress` has checked that it is such a datum.
        unsafe {
            let size = self.0.cast::<u32>().read_unaligned() >> 2;
            std::slice::from_raw_parts(self.0, size as usize)
        }
    }

    /// The datum, in the memory context that was current.
    pub fn datum(&self) -> pg_sys::Datum {
        self.0.into()
    }
}

/// A detoasted datum, compressed in the current memory context; `None` if it is
/// not long, or would not become shorter.
///
/// # Safety
/// `plain` is a varlena datum with a short or a plain header.
pub(super) unsafe fn compress(plain: *const u8) -> Option<Compressed> {
    // SAFETY: the caller's promise; the function returns nothing or a datum.
    unsafe {
        match shape(plain) {
            Some(Shape::Plain(size)) if size - HEADER_BYTES > COMPRESSED_BYTES_MIN => {}
            _ => return None,
        }
        let value = pg_sys::Datum::from(plain.cast_mut());
        let made = guarded(|| toast_compress_datum(value, PGLZ)).cast_mut_ptr::<u8>();
        (!made.is_null() && matches!(shape(made), Some(Shape::Compressed(_))))
            .then_some(Compressed(made))
    }
}

/// Appends a datum as comparator columns keep it: a whole datum that the
/// comparison function can be given, in one canonical shape.
///
/// # Safety
/// `value` is a datum of the column's type.
unsafe fn push_comparator(spec: &KeyColumnSpec, value: pg_sys::Datum, out: &mut Vec<u8>) {
    if spec.by_value {
        let bytes = value.value().to_le_bytes();
        out.extend_from_slice(&bytes[..spec.length as usize]);
        return;
    }
    // SAFETY: the caller vouches for the datum.
    unsafe {
        match spec.length {
            -1 => {
                let plain = packed(value);
                if !spec.plain
                    && let Some(compressed) = compress(plain)
                {
                    out.extend_from_slice(compressed.bytes());
                    return;
                }
                let contents = contents(plain.cast_mut().into());
                if contents.len() < SHORT_BYTES_MAX && !spec.plain {
                    out.push(short_header(contents.len() + 1));
                } else {
                    out.extend_from_slice(&long_header(contents.len() + HEADER_BYTES));
                }
                out.extend_from_slice(contents);
            }
            -2 => out.extend_from_slice(
                std::ffi::CStr::from_ptr(value.cast_mut_ptr()).to_bytes_with_nul(),
            ),
            length => out.extend_from_slice(std::slice::from_raw_parts(
                value.cast_mut_ptr::<u8>(),
                length as usize,
            )),
        }
    }
}
