//! The server's lists, read.

use std::ffi::c_int;
use std::ptr;

use pgrx::pg_sys;

/// The members of a list of nodes.
///
/// # Safety
/// `list` is null or a list of pointers to `T` that stays unchanged.
pub unsafe fn nodes<T>(list: *mut pg_sys::List) -> impl Iterator<Item = *mut T> {
    let cells = cells(list);
    // SAFETY: a list of pointers, by the caller.
    cells.map(|cell| unsafe { (*cell).ptr_value.cast() })
}

/// The members of a list of integers.
///
/// # Safety
/// `list` is null or a list of integers that stays unchanged.
pub unsafe fn integers(list: *mut pg_sys::List) -> impl Iterator<Item = c_int> {
    // SAFETY: a list of integers, by the caller.
    cells(list).map(|cell| unsafe { (*cell).int_value })
}

/// The members of a list of oids.
///
/// # Safety
/// `list` is null or a list of oids that stays unchanged.
pub unsafe fn oids(list: *mut pg_sys::List) -> impl Iterator<Item = pg_sys::Oid> {
    // SAFETY: a list of oids, by the caller.
    cells(list).map(|cell| unsafe { (*cell).oid_value })
}

fn cells(list: *mut pg_sys::List) -> impl Iterator<Item = *mut pg_sys::ListCell> {
    // SAFETY: callers pass null or a list that stays unchanged.
    let (first, count) = unsafe {
        match list.as_ref() {
            Some(list) => (list.elements, usize::try_from(list.length).unwrap_or(0)),
            None => (ptr::null_mut(), 0),
        }
    };
    // SAFETY: a list has as many cells as it says.
    (0..count).map(move |at| unsafe { first.add(at) })
}
