//! Fields of an error that pgrx has no way to set: schema, table, constraint,
//! column.
//!
//! pgrx raises an error where Rust ends, after unwinding. The server then asks
//! its error context callbacks, innermost first, what they have to add; these
//! are meant for the context, but may set any field. So the names are laid down
//! here before the unwinding starts, and one such callback picks them up. It
//! takes itself off the stack by the jump that follows: every handler puts back
//! the callbacks that were in force when it was set up.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    // Called inside errfinish, where pgrx's guard would only be in the way.
    fn err_generic_string(field: c_int, text: *const c_char) -> c_int;
}

type Fields = [(u8, CString); 3];

struct Pending {
    fields: Cell<Option<Box<Fields>>>,
    callback: Cell<pg_sys::ErrorContextCallback>,
}

thread_local! {
    static PENDING: &'static Pending = Box::leak(Box::new(Pending {
        fields: Cell::new(None),
        callback: Cell::new(pg_sys::ErrorContextCallback::default()),
    }));
}

/// Gives the error that is raised next the names of a table and its constraint.
///
/// # Safety
/// The table is open, and the caller raises an error straight away.
pub(super) unsafe fn name_constraint(table: pg_sys::Relation, constraint: &str) {
    // SAFETY: the caller's promise.
    unsafe { name(table, pg_sys::PG_DIAG_CONSTRAINT_NAME, constraint) }
}

/// Gives the error that is raised next the names of a table and its column.
///
/// # Safety
/// The table is open, and the caller raises an error straight away.
pub(super) unsafe fn name_column(table: pg_sys::Relation, column: &str) {
    // SAFETY: the caller's promise.
    unsafe { name(table, pg_sys::PG_DIAG_COLUMN_NAME, column) }
}

unsafe fn name(table: pg_sys::Relation, part_field: u8, part: &str) {
    let text = |text: &str| CString::new(text).unwrap_or_default();
    // SAFETY: the caller's promise; a namespace's name is null or a string.
    let (schema, table) = unsafe {
        let schema = pg_sys::get_namespace_name((*(*table).rd_rel).relnamespace);
        let schema = match schema.is_null() {
            true => CString::default(),
            false => std::ffi::CStr::from_ptr(schema).to_owned(),
        };
        (schema, text(&super::name_of(table)))
    };
    let pending = PENDING.with(|pending| *pending);
    pending.fields.set(Some(Box::new([
        (pg_sys::PG_DIAG_SCHEMA_NAME, schema),
        (pg_sys::PG_DIAG_TABLE_NAME, table),
        (part_field, text(part)),
    ])));
    // SAFETY: the callback lives as long as the process. If it is on the stack
    // still, by an error that never was raised, it is not put there twice: that
    // would make a circle.
    unsafe {
        let ours = pending.callback.as_ptr();
        let mut at = pg_sys::error_context_stack;
        while !at.is_null() && at != ours {
            at = (*at).previous;
        }
        if at.is_null() {
            pending.callback.set(pg_sys::ErrorContextCallback {
                previous: pg_sys::error_context_stack,
                callback: Some(add_fields),
                arg: ptr::null_mut(),
            });
            pg_sys::error_context_stack = ours;
        }
    }
}

unsafe extern "C-unwind" fn add_fields(_argument: *mut c_void) {
    let Some(fields) = PENDING.with(|pending| pending.fields.take()) else {
        return;
    };
    for (field, text) in fields.iter() {
        // SAFETY: called while an error is put together; the text is copied.
        unsafe { err_generic_string(c_int::from(*field), text.as_ptr()) };
    }
}
