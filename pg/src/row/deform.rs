//! From key and payload bytes to datums, column by column and only as far as
//! asked. No call leaves this file but into the key codec.

use pgrx::pg_sys;
use rowref::key::{ColumnForm, KeyValue};

use super::attribute::{Attribute, DirectForm, Source, align_up};
use super::encode::read_count;
use super::varlena::{HEADER_BYTES, SHORT_BYTES_MAX, Shape, long_header, shape, short_header};
use super::{Error, TableLayout};

pub(super) const ENDS_EARLY: Error = Error::MalformedPayload("a column reaches beyond its end");

/// How far a row has been taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// Where the bitmap lies in the payload, if a column is null.
    bitmap: Option<u32>,
    /// Where the columns' bytes end.
    data_len: u32,
    /// Behind the last payload column read.
    offset: u32,
    /// Columns the row has.
    stored: u16,
    /// Whether a null or a value of varying length has made cached offsets wrong.
    slow: bool,
    /// The key column at `key_position`.
    key_next: u16,
    key_position: u32,
}

impl Cursor {
    /// Of no row.
    pub const EMPTY: Cursor = Cursor {
        bitmap: None,
        data_len: 0,
        offset: 0,
        stored: 0,
        slow: false,
        key_next: 0,
        key_position: 0,
    };

    /// Columns the row has.
    pub(super) fn stored(&self) -> usize {
        usize::from(self.stored)
    }

    /// The bytes of its columns.
    pub(super) fn data<'p>(&self, payload: &'p [u8]) -> &'p [u8] {
        &payload[..self.data_len as usize]
    }

    /// Whether the payload column with this number is null.
    pub(super) fn is_null(&self, payload: &[u8], number: usize) -> bool {
        self.bitmap
            .and_then(|start| payload.get(start as usize + number / 8))
            .is_some_and(|byte| byte & (1 << (number % 8)) == 0)
    }
}

/// Memory for values that lie in the key in another form. It must not move
/// while a row is being read, so room is made beforehand
/// ([`TableLayout::arena_bytes`]).
#[derive(Clone, Copy, Debug)]
pub struct Arena {
    /// 8-aligned memory.
    pub start: *mut u8,
    /// Its size.
    pub capacity: usize,
    /// What is taken of it.
    pub used: usize,
}

impl Arena {
    /// No memory, for rows that need none.
    pub const EMPTY: Arena = Arena {
        start: std::ptr::null_mut(),
        capacity: 0,
        used: 0,
    };

    fn take(&mut self, bytes: usize) -> *mut u8 {
        let at = align_up(self.used, 8);
        assert!(
            at + bytes <= self.capacity,
            "room was made for the whole row"
        );
        self.used = at + bytes;
        // SAFETY: within the arena, as just checked.
        unsafe { self.start.add(at) }
    }

    fn copy(&mut self, header: &[u8], bytes: &[u8]) -> *mut u8 {
        let room = self.take(header.len() + bytes.len());
        // SAFETY: `take` has made just this much room.
        unsafe {
            room.copy_from_nonoverlapping(header.as_ptr(), header.len());
            room.add(header.len())
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        room
    }

    fn varlena(&mut self, contents: &[u8]) -> *mut u8 {
        if contents.len() < SHORT_BYTES_MAX {
            self.copy(&[short_header(contents.len() + 1)], contents)
        } else {
            self.copy(&long_header(contents.len() + HEADER_BYTES), contents)
        }
    }
}

/// Fetches a by-value datum as the server's macros do, sign extension included,
/// because core compares whole datums.
///
/// # Safety
/// `length` bytes are at `from`.
#[inline(always)]
pub(super) unsafe fn load(from: *const u8, length: i16) -> pg_sys::Datum {
    // SAFETY: the caller vouches for the bytes; reads need no alignment.
    unsafe {
        pg_sys::Datum::from(match length {
            1 => *from.cast::<i8>() as i64,
            2 => from.cast::<i16>().read_unaligned() as i64,
            4 => from.cast::<i32>().read_unaligned() as i64,
            _ => from.cast::<i64>().read_unaligned(),
        })
    }
}

impl TableLayout {
    /// The arena a row with this key needs at most.
    #[inline]
    pub fn arena_bytes(&self, key: &[u8]) -> usize {
        self.arena_overhead.map_or(0, |overhead| {
            let codec = self.order.layout();
            overhead + key.len() + codec.map_or(0, |codec| codec.compressed_bytes(key))
        })
    }

    /// Begins to take a row apart.
    #[inline]
    pub fn cursor(&self, payload: &[u8]) -> Result<Cursor, Error> {
        let Some((stored, has_nulls, trailer)) = read_count(payload) else {
            return Err(Error::MalformedPayload("it has no trailer"));
        };
        let mut cursor = Cursor {
            bitmap: None,
            data_len: trailer as u32,
            offset: 0,
            stored: stored as u16,
            slow: false,
            key_next: 0,
            key_position: 0,
        };
        if has_nulls {
            let Some(start) = trailer.checked_sub(self.payload_columns_of(stored).div_ceil(8))
            else {
                return Err(Error::MalformedPayload("its null bitmap is cut short"));
            };
            cursor.bitmap = Some(start as u32);
            cursor.data_len = start as u32;
        }
        Ok(cursor)
    }

    /// How many payload columns a row of `stored` columns has. Columns that
    /// this layout does not know yet were added later and are in no key.
    #[inline]
    pub(super) fn payload_columns_of(&self, stored: usize) -> usize {
        let known = self.attributes.len();
        if stored >= known {
            return self.payload_columns + (stored - known);
        }
        self.attributes[..stored]
            .iter()
            .filter(|attribute| matches!(attribute.source, Source::Payload(_)))
            .count()
    }

    /// Reads columns `from .. upto` (numbered from 0) into `values` and
    /// `isnull`; `from` must be where the last call with this cursor ended.
    /// By-reference values point into `key`, `payload`, the arena, or the
    /// layout.
    ///
    /// # Safety
    /// `payload` starts 8-aligned if values are to be handed to the server.
    /// `values` and `isnull` have room for `upto` columns. The arena has
    /// [`TableLayout::arena_bytes`] of room for the whole row.
    #[expect(clippy::too_many_arguments, reason = "the parts live in a C structure")]
    #[inline(always)]
    pub unsafe fn deform(
        &self,
        key: &[u8],
        payload: &[u8],
        cursor: &mut Cursor,
        from: usize,
        upto: usize,
        values: *mut pg_sys::Datum,
        isnull: *mut bool,
        arena: &mut Arena,
    ) -> Result<(), Error> {
        // SAFETY: the caller's contract is that of both.
        unsafe {
            let read = self.deform_direct(key, payload, cursor, from, upto, values, isnull);
            if read == upto {
                return Ok(());
            }
            self.deform_any(key, payload, cursor, read, upto, values, isnull, arena)
        }
    }

    /// Reads columns for as long as there is a short way to them; where it has
    /// stopped. What it finds amiss it leaves to [`TableLayout::deform_any`],
    /// which knows what to say.
    #[expect(clippy::too_many_arguments, reason = "the parts live in a C structure")]
    #[inline(always)]
    unsafe fn deform_direct(
        &self,
        key: &[u8],
        payload: &[u8],
        cursor: &mut Cursor,
        from: usize,
        upto: usize,
        values: *mut pg_sys::Datum,
        isnull: *mut bool,
    ) -> usize {
        let end = upto.min(self.direct.len());
        let Some(last) = end.checked_sub(1).filter(|last| from <= *last) else {
            return from;
        };
        let needed = &self.direct[last];
        let data_len = cursor.data_len as usize;
        let regular = cursor.bitmap.is_none()
            && !cursor.slow
            && end <= usize::from(cursor.stored)
            && data_len <= payload.len()
            && usize::from(needed.payload_bytes) <= data_len
            && usize::from(needed.key_bytes) <= key.len();
        if !regular {
            return from;
        }
        let (key, data) = (key.as_ptr(), payload.as_ptr());
        for at in from..end {
            let way = &self.direct[at];
            let mut start = usize::from(way.offset);
            let width = match way.form {
                DirectForm::Next1 => 1,
                DirectForm::Next2 => 2,
                DirectForm::Next4 => 4,
                DirectForm::Next8 => 8,
                _ => 0,
            };
            if width > 0 {
                start = align_up(cursor.offset as usize, width);
                let behind = start + usize::from(width);
                if behind > data_len {
                    return at;
                }
                cursor.offset = behind as u32;
                cursor.slow = true;
            } else if way.form == DirectForm::NextVarlena {
                // A short one, if any, is not aligned.
                start = cursor.offset as usize;
                if start >= data_len {
                    return at;
                }
            }
            // SAFETY: key and data reach as far as the last column read here
            // demands, which is no less than any before it demands; how far a
            // column behind one of varying length reaches was just tested. The
            // caller has made room for `upto` columns.
            unsafe {
                let number = match way.form {
                    DirectForm::Key2 => {
                        let bits = u16::from_be(key.add(start).cast::<u16>().read_unaligned());
                        i64::from((bits ^ way.flip as u16) as i16)
                    }
                    DirectForm::Key4 => {
                        let bits = u32::from_be(key.add(start).cast::<u32>().read_unaligned());
                        i64::from((bits ^ way.flip as u32) as i32)
                    }
                    DirectForm::Key8 => {
                        let bits = u64::from_be(key.add(start).cast::<u64>().read_unaligned());
                        (bits ^ way.flip) as i64
                    }
                    DirectForm::Value1 | DirectForm::Next1 => {
                        i64::from(*data.add(start).cast::<i8>())
                    }
                    DirectForm::Value2 | DirectForm::Next2 => {
                        i64::from(data.add(start).cast::<i16>().read_unaligned())
                    }
                    DirectForm::Value4 | DirectForm::Next4 => {
                        i64::from(data.add(start).cast::<i32>().read_unaligned())
                    }
                    DirectForm::Value8 | DirectForm::Next8 => {
                        data.add(start).cast::<i64>().read_unaligned()
                    }
                    DirectForm::Reference => data.add(start) as i64,
                    DirectForm::Varlena | DirectForm::NextVarlena => {
                        let first = *data.add(start);
                        let behind = start + usize::from(first >> 1);
                        // Short ones only, which are odd; 1 is a pointer.
                        if first & 1 == 0 || first == 1 || behind > data_len {
                            return at;
                        }
                        cursor.offset = behind as u32;
                        cursor.slow = true;
                        data.add(start) as i64
                    }
                };
                *values.add(at) = pg_sys::Datum::from(number);
                *isnull.add(at) = false;
            }
            if !cursor.slow {
                // No column of varying length came yet: all of it is read.
                cursor.offset = u32::from(way.payload_bytes);
            }
        }
        end
    }

    /// As [`TableLayout::deform`], whatever the row looks like.
    ///
    /// # Safety
    /// As for [`TableLayout::deform`].
    #[expect(clippy::too_many_arguments, reason = "the parts live in a C structure")]
    #[inline(never)]
    unsafe fn deform_any(
        &self,
        key: &[u8],
        payload: &[u8],
        cursor: &mut Cursor,
        from: usize,
        upto: usize,
        values: *mut pg_sys::Datum,
        isnull: *mut bool,
        arena: &mut Arena,
    ) -> Result<(), Error> {
        let data = payload
            .get(..cursor.data_len as usize)
            .ok_or(Error::MalformedPayload("the cursor is another row's"))?;
        let bitmap = cursor.bitmap.map(|start| &payload[start as usize..]);
        let mut offset = cursor.offset as usize;
        let mut slow = cursor.slow;
        let columns = self
            .attributes
            .get(from..upto)
            .ok_or(Error::MalformedPayload(
                "more columns are asked for than the table has",
            ))?;
        for (at, attribute) in (from..).zip(columns) {
            // SAFETY: the caller has made room for `upto` columns.
            let (value, null) = unsafe { (&mut *values.add(at), &mut *isnull.add(at)) };
            let number = match attribute.source {
                Source::Payload(number) => usize::from(number),
                Source::Key(column) => {
                    match self.key_datum(usize::from(column), key, cursor, arena)? {
                        Some(datum) => (*value, *null) = (datum, false),
                        None => (*value, *null) = (pg_sys::Datum::null(), true),
                    }
                    continue;
                }
            };
            if at >= usize::from(cursor.stored) {
                let missing = self.missing[at];
                (*value, *null) = (missing.value, missing.is_null);
                continue;
            }
            if let Some(bitmap) = bitmap
                && bitmap[number / 8] & (1 << (number % 8)) == 0
            {
                (*value, *null) = (pg_sys::Datum::null(), true);
                slow = true;
                continue;
            }
            let start = if !slow && attribute.cached_offset >= 0 {
                attribute.cached_offset as usize
            } else {
                // A byte that is not zero is a short header, never padding.
                let unaligned =
                    attribute.length == -1 && data.get(offset).is_some_and(|first| *first != 0);
                if unaligned {
                    offset
                } else {
                    align_up(offset, attribute.align)
                }
            };
            let rest = data.get(start..).ok_or(ENDS_EARLY)?;
            let size = value_bytes(attribute, rest)?;
            if attribute.length < 0 {
                slow = true;
            }
            *null = false;
            *value = if attribute.by_value {
                // SAFETY: `value_bytes` has found `length` bytes there.
                unsafe { load(rest.as_ptr(), attribute.length) }
            } else {
                rest.as_ptr().into()
            };
            offset = start + size;
        }
        cursor.offset = offset as u32;
        cursor.slow = slow;
        Ok(())
    }

    /// All columns of a key, which may be lossy; `None` for null. The arena has
    /// room for what they need.
    pub(super) fn key_datums(
        &self,
        key: &[u8],
        arena: &mut Arena,
    ) -> Result<Vec<Option<pg_sys::Datum>>, Error> {
        let mut cursor = Cursor::EMPTY;
        (0..self.order.columns().len())
            .map(|column| self.key_datum(column, key, &mut cursor, arena))
            .collect()
    }

    /// A column's datum out of the key; `None` for null.
    fn key_datum(
        &self,
        column: usize,
        key: &[u8],
        cursor: &mut Cursor,
        arena: &mut Arena,
    ) -> Result<Option<pg_sys::Datum>, Error> {
        let layout = self.order.layout().expect("row ids have no columns");
        let position = match self.key_offsets[column] {
            Some(offset) => offset as usize,
            None => {
                // Columns come in the table's order, which need not be the
                // key's: then the key is walked again from its start.
                if column < usize::from(cursor.key_next) {
                    (cursor.key_next, cursor.key_position) = (0, 0);
                }
                while usize::from(cursor.key_next) < column {
                    let next = usize::from(cursor.key_next);
                    let rest = key.get(cursor.key_position as usize..).unwrap_or_default();
                    cursor.key_position += layout.skip(next, rest)? as u32;
                    cursor.key_next += 1;
                }
                cursor.key_position as usize
            }
        };
        let bytes = key.get(position..).unwrap_or_default();
        let mut scratch = Vec::new();
        let (value, taken) = layout.read(column, bytes, &mut scratch)?;
        let spec = &self.order.columns()[column];
        let number = |number: i64| pg_sys::Datum::from(number);
        let datum = match value {
            KeyValue::Null => None,
            KeyValue::Bool(v) => Some(number(i64::from(v))),
            KeyValue::Char(v) => Some(number(i64::from(v as i8))),
            KeyValue::Int2(v) => Some(number(i64::from(v))),
            KeyValue::Int4(v) => Some(number(i64::from(v))),
            KeyValue::Int8(v) => Some(number(v)),
            KeyValue::UInt4(v) => Some(number(i64::from(v as i32))),
            KeyValue::Float4(v) => Some(number(i64::from(v.to_bits() as i32))),
            KeyValue::Float8(v) => Some(number(v.to_bits() as i64)),
            KeyValue::RowId(v) => Some(number(v as i64)),
            KeyValue::Uuid(v) if spec.descending => Some(arena.copy(&[], &v).into()),
            // It lies in the key as it is, and has no alignment.
            KeyValue::Uuid(_) => Some(bytes[taken - 16..].as_ptr().into()),
            KeyValue::Bytes(v) => Some(match spec.form {
                ColumnForm::Name => {
                    let room = arena.take(64);
                    // SAFETY: the codec has refused names beyond 63 bytes.
                    unsafe {
                        room.write_bytes(0, 64);
                        room.copy_from_nonoverlapping(v.as_ptr(), v.len());
                    }
                    room.into()
                }
                ColumnForm::Comparator { .. } if spec.by_value => {
                    // SAFETY: the codec has delimited `length` bytes.
                    unsafe { load(v.as_ptr(), spec.length) }
                }
                ColumnForm::Comparator { .. } => {
                    let short = spec.length == -1 && v.first().is_some_and(|first| first & 1 == 1);
                    if short || (v.as_ptr() as usize).is_multiple_of(usize::from(spec.align)) {
                        v.as_ptr().into()
                    } else {
                        arena.copy(&[], v).into()
                    }
                }
                _ => arena.varlena(v).into(),
            }),
        };
        if self.key_offsets[column].is_none() {
            cursor.key_position += taken as u32;
            cursor.key_next += 1;
        }
        Ok(datum)
    }
}

/// The bytes that a value takes, checked to be there.
#[inline(always)]
pub(super) fn value_bytes(attribute: &Attribute, rest: &[u8]) -> Result<usize, Error> {
    let size = match attribute.length {
        -1 => {
            let long = match rest.first() {
                Some(1) => rest.len() >= 2,
                Some(first) if first & 1 == 1 => true,
                Some(_) => rest.len() >= HEADER_BYTES,
                None => false,
            };
            if !long {
                return Err(ENDS_EARLY);
            }
            // SAFETY: as much of the header as its first byte calls for is there.
            match unsafe { shape(rest.as_ptr()) } {
                Some(
                    Shape::External(size)
                    | Shape::Short(size)
                    | Shape::Plain(size)
                    | Shape::Compressed(size),
                ) => size,
                None => return Err(Error::MalformedPayload("an unknown kind of external value")),
            }
        }
        -2 => match rest.iter().position(|byte| *byte == 0) {
            Some(end) => end + 1,
            None => return Err(ENDS_EARLY),
        },
        length => length as usize,
    };
    if size > rest.len() {
        return Err(ENDS_EARLY);
    }
    Ok(size)
}
