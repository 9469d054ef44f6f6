//! A slot's columns, and emptying it: what callers of any kind of slot need.

use pgrx::pg_sys;

/// All columns of the row in a slot of any kind, read out first if need be.
///
/// # Safety
/// `slot` holds a row; the columns live until it is changed.
pub unsafe fn columns<'s>(slot: *mut pg_sys::TupleTableSlot) -> (&'s [pg_sys::Datum], &'s [bool]) {
    // SAFETY: a slot has as many columns as its descriptor says; the ones up
    // to tts_nvalid have been read.
    unsafe {
        let count = (*(*slot).tts_tupleDescriptor).natts;
        if i32::from((*slot).tts_nvalid) < count {
            pg_sys::slot_getsomeattrs_int(slot, count);
        }
        (
            std::slice::from_raw_parts((*slot).tts_values, count as usize),
            std::slice::from_raw_parts((*slot).tts_isnull, count as usize),
        )
    }
}

/// The columns before `end` of the row in a slot of any kind.
///
/// # Safety
/// As for [`columns`]; the slot has that many.
pub unsafe fn columns_upto<'s>(
    slot: *mut pg_sys::TupleTableSlot,
    end: usize,
) -> (&'s [pg_sys::Datum], &'s [bool]) {
    // SAFETY: as for `columns`.
    unsafe {
        if usize::try_from((*slot).tts_nvalid).unwrap_or(0) < end {
            pg_sys::slot_getsomeattrs_int(slot, end as i32);
        }
        (
            std::slice::from_raw_parts((*slot).tts_values, end),
            std::slice::from_raw_parts((*slot).tts_isnull, end),
        )
    }
}

/// Empties a slot of any kind.
///
/// # Safety
/// `slot` is live.
pub unsafe fn clear_any(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: every kind of slot has this callback.
    unsafe {
        let clear = (*(*slot).tts_ops).clear.expect("every slot can be cleared");
        pg_sys::ffi::pg_guard_ffi_boundary(|| clear(slot));
    }
}
