//! Keys in words and from words, by the types' own input and output functions.

use std::ffi::{CStr, CString};

use pgrx::pg_sys::{self, Datum};
use rowref::key::ColumnForm;

use super::{Arena, Error, TableLayout, row_id_key};

/// What a column's value may take in the arena beyond its bytes in the key: a
/// header, padding, and the zeros of a name.
const COLUMN_BYTES_MAX: usize = 96;

/// A value as its type writes it.
///
/// # Safety
/// `value` is a datum of the type.
unsafe fn written(type_oid: pg_sys::Oid, value: Datum) -> CString {
    let (mut output, mut is_varlena) = (pg_sys::Oid::INVALID, false);
    // SAFETY: the caller's promise; the result ends in a zero byte.
    unsafe {
        pg_sys::getTypeOutputInfo(type_oid, &mut output, &mut is_varlena);
        let text = pg_sys::OidOutputFunctionCall(output, value);
        let copy = CStr::from_ptr(text).to_owned();
        pg_sys::pfree(text.cast());
        copy
    }
}

impl TableLayout {
    /// A key in words: its columns between parentheses, or the row id.
    pub fn describe_key(&self, key: &[u8]) -> Result<String, Error> {
        if self.is_row_id() {
            let id = <[u8; 8]>::try_from(key);
            let id = id.map_err(|_| Error::MalformedPayload("its row id is not eight bytes"))?;
            return Ok(u64::from_be_bytes(id).to_string());
        }
        let columns = self.order().columns();
        let compressed = (self.order().layout()).map_or(0, |codec| codec.compressed_bytes(key));
        let bytes = key.len() + compressed + columns.len() * COLUMN_BYTES_MAX;
        let mut memory = vec![0u64; bytes.div_ceil(8)];
        let mut arena = Arena {
            start: memory.as_mut_ptr().cast(),
            capacity: memory.len() * 8,
            used: 0,
        };
        let mut words = Vec::new();
        for (value, column) in self.key_datums(key, &mut arena)?.into_iter().zip(columns) {
            words.push(match value {
                None => "null".to_owned(),
                Some(value) if column.form == ColumnForm::RowId => value.value().to_string(),
                // SAFETY: the datum was read from a key of such columns, and
                // what it points to lives in the key or in `memory`.
                Some(value) => unsafe { written(column.type_oid.into(), value) }
                    .to_string_lossy()
                    .into_owned(),
            });
        }
        Ok(format!("({})", words.join(", ")))
    }

    /// The key that these values, of whatever types, say: each is written by
    /// its own type and read by that of its column. A row id is one number. In
    /// an index the columns of the reference follow its own. `None` if there
    /// are not as many as the key has columns, or no number.
    ///
    /// # Safety
    /// The values are of these types.
    pub unsafe fn key_of(&self, values: &[(pg_sys::Oid, Datum)]) -> Result<Option<Vec<u8>>, Error> {
        // SAFETY: the caller's promise.
        unsafe {
            if self.is_row_id() {
                let [(type_oid, value)] = values else {
                    return Ok(None);
                };
                let text = written(*type_oid, *value);
                let id = text.to_str().ok().and_then(|text| text.parse().ok());
                return Ok(id.map(|id| row_id_key(id).to_vec()));
            }
            let columns = self.order().columns();
            if columns.len() != values.len() {
                return Ok(None);
            }
            let (mut key, mut scratch) = (Vec::new(), Vec::new());
            for (at, (spec, (type_oid, value))) in columns.iter().zip(values).enumerate() {
                let text = written(*type_oid, *value);
                let value = if spec.form == ColumnForm::RowId {
                    let Some(id) = text.to_str().ok().and_then(|text| text.parse::<u64>().ok())
                    else {
                        return Ok(None);
                    };
                    Datum::from(id)
                } else {
                    let (mut input, mut parameter) = (pg_sys::Oid::INVALID, pg_sys::Oid::INVALID);
                    pg_sys::getTypeInputInfo(spec.type_oid.into(), &mut input, &mut parameter);
                    let text = text.as_ptr().cast_mut();
                    // Values are compared as their operator class does it, so
                    // that a length or scale which they lack does not matter.
                    pg_sys::OidInputFunctionCall(input, text, parameter, -1)
                };
                self.order()
                    .encode_column(at, value, false, &mut scratch, &mut key)?;
            }
            Ok(Some(key))
        }
    }
}
