//! All columns of one row, taken apart outside of a slot.

use std::marker::PhantomData;

use pgrx::pg_sys::Datum;

use super::{Arena, Error, TableLayout};

/// The columns of a row. What they point to is their own, or the layout's.
pub struct Values<'l> {
    values: Vec<Datum>,
    isnull: Vec<bool>,
    /// Payload, key and what key columns need besides; 8-aligned.
    _memory: Vec<u64>,
    layout: PhantomData<&'l TableLayout>,
}

impl<'l> Values<'l> {
    /// Reads a row from copies of its bytes.
    pub fn read(layout: &'l TableLayout, key: &[u8], payload: &[u8]) -> Result<Values<'l>, Error> {
        let columns = layout.attributes().len();
        let (mut values, mut isnull) = (vec![Datum::null(); columns], vec![true; columns]);
        let own = (payload.len() + key.len()).div_ceil(8);
        let mut memory = vec![0u64; own + layout.arena_bytes(key).div_ceil(8)];
        let (bytes, room) = memory.split_at_mut(own);
        let mut arena = Arena {
            start: room.as_mut_ptr().cast(),
            capacity: room.len() * 8,
            used: 0,
        };
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(bytes);
        bytes[..payload.len()].copy_from_slice(payload);
        bytes[payload.len()..][..key.len()].copy_from_slice(key);
        let (payload, rest) = bytes.split_at(payload.len());
        let mut cursor = layout.cursor(payload)?;
        // SAFETY: the payload is aligned; there is room for all columns and in
        // the arena for the whole row.
        unsafe {
            layout.deform(
                &rest[..key.len()],
                payload,
                &mut cursor,
                0,
                columns,
                values.as_mut_ptr(),
                isnull.as_mut_ptr(),
                &mut arena,
            )?;
        }
        Ok(Values {
            values,
            isnull,
            _memory: memory,
            layout: PhantomData,
        })
    }

    /// The columns' datums.
    pub fn values(&self) -> &[Datum] {
        &self.values
    }

    /// Which columns are null.
    pub fn isnull(&self) -> &[bool] {
        &self.isnull
    }
}
