//! Errors raised by what users wrote, where an index calls it: expressions and
//! predicates.
//!
//! pgrx makes a panic of an ERROR and raises it anew where Rust ends; what its
//! report has no room for is lost: the context, the internal query, the names of
//! a column or a constraint. So a callback of ours is asked for its context while
//! the server puts the first error together. It adds nothing, but keeps a copy of
//! what the callbacks further in have added. When the panic passes by, another
//! one is laid down for the second error, which puts it in again.

use std::ffi::c_void;

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    fn rowref_keep_error(argument: *mut c_void);
    fn rowref_pass_on_error();
}

struct Marker {
    callback: pg_sys::ErrorContextCallback,
}

impl Drop for Marker {
    fn drop(&mut self) {
        // SAFETY: pgrx has put back what was in force when it was called, which
        // is this very callback; it goes before its memory does.
        unsafe {
            pg_sys::error_context_stack = self.callback.previous;
            if std::thread::panicking() {
                rowref_pass_on_error();
            }
        }
    }
}

/// Calls something of the server's that runs users' functions. An ERROR in it
/// becomes a panic, as always, but loses nothing on the way.
///
/// # Safety
/// `call` is guarded by pgrx, and may be called.
pub unsafe fn keeping_context<R>(call: impl FnOnce() -> R) -> R {
    // SAFETY: the callback lies in this frame while it is on the stack.
    unsafe {
        let mut marker = Marker {
            callback: pg_sys::ErrorContextCallback {
                previous: pg_sys::error_context_stack,
                callback: Some(rowref_keep_error),
                arg: std::ptr::null_mut(),
            },
        };
        pg_sys::error_context_stack = &raw mut marker.callback;
        let result = call();
        drop(marker);
        result
    }
}
