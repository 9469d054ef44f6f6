//! Columns and system attributes.

use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::{ereport, pg_guard, pg_sys};

use super::RowSlot;
use super::store::grow;
use crate::row::Error;
use crate::unguarded::catching;

/// Not guarded, for it is called for every row (`unguarded`). What it calls
/// returns errors; the two things that call the server, an unreadable row and
/// a larger arena, are guarded by themselves and called where this frame and
/// those of `read_columns` own nothing.
pub(super) unsafe extern "C-unwind" fn getsomeattrs(
    slot: *mut pg_sys::TupleTableSlot,
    natts: std::ffi::c_int,
) {
    // SAFETY: the server passes a slot of ours, and calls this itself.
    unsafe {
        let is_unreadable = catching(|| {
            let row = &mut *slot.cast::<RowSlot>();
            row.read_columns(natts as usize).is_err()
        });
        if is_unreadable {
            raise_unreadable(slot, natts);
        }
    }
}

/// Comes upon the same error once more, guarded this time, and reports it.
#[cold]
#[pg_guard]
unsafe extern "C-unwind" fn raise_unreadable(
    slot: *mut pg_sys::TupleTableSlot,
    natts: std::ffi::c_int,
) {
    // SAFETY: as for `getsomeattrs`; the columns that were read are forgotten
    // and read anew.
    unsafe {
        let slot = &mut *slot.cast::<RowSlot>();
        slot.base.tts_nvalid = 0;
        if let Err(error) = slot.read_columns(natts as usize) {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                format!("a stored row cannot be read: {error}")
            );
        }
    }
}

/// Makes room for what has to be copied out of the key. An ERROR leaves the
/// arena as it was.
#[cold]
#[pg_guard]
unsafe extern "C-unwind" fn enlarge_arena(slot: *mut RowSlot, needed: usize) {
    // SAFETY: the slot is live, and no value of its last row is in use.
    unsafe {
        let slot = &mut *slot;
        slot.arena.start = grow(slot.arena.start, needed, slot.base.tts_mcxt);
        slot.arena.capacity = needed;
    }
}

impl RowSlot {
    /// Reads columns until `upto` of them are valid, or as many as the layout
    /// knows; core fills the rest as missing.
    ///
    /// # Safety
    /// The slot is of our kind.
    #[inline(always)]
    pub(super) unsafe fn read_columns(&mut self, upto: usize) -> Result<(), Error> {
        // SAFETY: a layout in a slot lives as long as the transaction (row/cache.rs).
        let Some(layout) = (unsafe { self.layout.as_ref() }) else {
            // Bare values are all valid from the start.
            return Ok(());
        };
        // SAFETY: the slot holds a row; the server has made room for all
        // columns of the slot's descriptor, and asks for no more of them.
        unsafe {
            let (key, payload) = self.bytes();
            let from = self.base.tts_nvalid as usize;
            let upto = upto.min(layout.attributes().len());
            if from == 0 {
                self.cursor = layout.cursor(payload)?;
                self.arena.used = 0;
                let needed = layout.arena_bytes(key);
                if needed > self.arena.capacity {
                    enlarge_arena(self, needed);
                }
            }
            if from < upto {
                layout.deform(
                    key,
                    payload,
                    &mut self.cursor,
                    from,
                    upto,
                    self.base.tts_values,
                    self.base.tts_isnull,
                    &mut self.arena,
                )?;
                self.base.tts_nvalid = upto as i16;
            }
        }
        Ok(())
    }
}

#[pg_guard]
pub(super) unsafe extern "C-unwind" fn getsysattr(
    slot: *mut pg_sys::TupleTableSlot,
    attribute: std::ffi::c_int,
    isnull: *mut bool,
) -> pg_sys::Datum {
    // SAFETY: the server passes a slot of ours and a place for the flag.
    let slot = unsafe {
        *isnull = false;
        &*slot.cast::<RowSlot>()
    };
    match attribute {
        pg_sys::TableOidAttributeNumber => return slot.base.tts_tableOid.into(),
        pg_sys::SelfItemPointerAttributeNumber => return (&raw const slot.base.tts_tid).into(),
        _ => {}
    }
    if !slot.has_head {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "cannot retrieve a system column in this context"
        );
    }
    match attribute {
        pg_sys::MinTransactionIdAttributeNumber => slot.head.xmin.0.into(),
        // There is no xmax: what supersedes a version is the next version. But
        // see `set_locked`.
        pg_sys::MaxTransactionIdAttributeNumber if slot.was_locked => slot.head.xmin.0.into(),
        pg_sys::MaxTransactionIdAttributeNumber => 0u32.into(),
        // As in heap, one stored number answers for both.
        pg_sys::MinCommandIdAttributeNumber | pg_sys::MaxCommandIdAttributeNumber => {
            slot.head.cid.0.into()
        }
        other => {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                format!("there is no system column {other}")
            );
        }
    }
}
