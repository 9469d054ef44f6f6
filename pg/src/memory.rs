//! Rust values owned by a PostgreSQL memory context.
//!
//! The end callbacks of scans are not called when a query fails, but its
//! memory contexts are reset. A value put here is dropped by whichever comes
//! first: [`ContextOwned::take`], or the reset.

use pgrx::pg_sys;
use std::ffi::c_void;

/// Runs `work` in a memory context of its own below the current one, which is
/// deleted behind it (after an ERROR together with its parent).
///
/// # Safety
/// What `work` returns does not point into that memory; the name is static.
pub unsafe fn in_temporary_context<R>(
    name: &'static std::ffi::CStr,
    work: impl FnOnce() -> R,
) -> R {
    /// Puts the former context back, however `work` ends.
    struct Back(pg_sys::MemoryContext);
    impl Drop for Back {
        fn drop(&mut self) {
            // SAFETY: it was current before, and outlives the work.
            unsafe { pg_sys::CurrentMemoryContext = self.0 };
        }
    }
    // SAFETY: a plain context below the current one.
    unsafe {
        let context = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            name.as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let result = {
            let _back = Back(pg_sys::CurrentMemoryContext);
            pg_sys::CurrentMemoryContext = context;
            work()
        };
        pg_sys::MemoryContextDelete(context);
        result
    }
}

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
