//! Rust values owned by a PostgreSQL memory context.
//!
//! The end callbacks of scans are not called when a query fails, but its
//! memory contexts are reset. A value put here is dropped by whichever comes
//! first: [`ContextOwned::take`], or the reset.

use pgrx::pg_sys;
use std::ffi::c_void;

/// A value in a memory context, and the callback that drops it with it.
#[repr(C)]
pub struct ContextOwned<T> {
    callback: pg_sys::MemoryContextCallback,
    value: Option<T>,
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn drop_value<T>(argument: *mut c_void) {
    // SAFETY: the argument is the `ContextOwned<T>` that registered this
    // callback; reset callbacks run before its memory is given back.
    unsafe { (*argument.cast::<ContextOwned<T>>()).value = None }
}

impl<T> ContextOwned<T> {
    /// Moves a value into `context`.
    ///
    /// # Safety
    /// `context` is live; the pointer is used only until it is reset.
    pub unsafe fn new_in(context: pg_sys::MemoryContext, value: T) -> *mut ContextOwned<T> {
        const { assert!(align_of::<T>() <= 8) };
        // SAFETY: allocated here with the size of what is written; palloc
        // aligns to eight bytes.
        unsafe {
            let at = pg_sys::MemoryContextAlloc(context, size_of::<Self>()).cast::<Self>();
            at.write(ContextOwned {
                callback: pg_sys::MemoryContextCallback {
                    func: Some(drop_value::<T>),
                    arg: at.cast(),
                    next: std::ptr::null_mut(),
                },
                value: Some(value),
            });
            pg_sys::MemoryContextRegisterResetCallback(context, &raw mut (*at).callback);
            at
        }
    }

    /// The value, if it was not taken yet.
    pub fn get(&mut self) -> Option<&mut T> {
        self.value.as_mut()
    }

    /// Takes the value out, before the context's reset.
    pub fn take(&mut self) -> Option<T> {
        self.value.take()
    }
}
