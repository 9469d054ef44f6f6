//! Rust values owned by a PostgreSQL memory context.
//!
//! The end callbacks of scans are not called when a query fails, but its
//! memory contexts are reset. A value put here is dropped by whichever comes
//! first: [`ContextOwned::take`], or the reset.

use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_void;

thread_local! {
    /// An empty context that was used before, or null.
    static SPARE: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
}

/// Runs `work` in a memory context of its own, which is emptied behind it. The
/// context is kept for the next time: this is called for each row. Within `work`
/// another call finds it taken, and gets another one.
///
/// # Safety
/// What `work` returns does not point into that memory.
pub unsafe fn in_temporary_context<R>(work: impl FnOnce() -> R) -> R {
    /// Empties the context and puts the former one back, however `work` ends.
    struct Back {
        before: pg_sys::MemoryContext,
        used: pg_sys::MemoryContext,
    }
    impl Drop for Back {
        fn drop(&mut self) {
            // SAFETY: the former one was current before, and outlives the work;
            // the others are nobody else's.
            unsafe {
                pg_sys::CurrentMemoryContext = self.before;
                if !(*self.used).isReset || !(*self.used).firstchild.is_null() {
                    pg_sys::MemoryContextReset(self.used);
                }
                let within = SPARE.replace(self.used);
                if !within.is_null() {
                    pg_sys::MemoryContextDelete(within);
                }
            }
        }
    }
    // SAFETY: a context that nobody else has, and that lives on.
    unsafe {
        let mut context = SPARE.replace(std::ptr::null_mut());
        if context.is_null() {
            context = pg_sys::AllocSetContextCreateInternal(
                pg_sys::TopMemoryContext,
                c"rowref temporary".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
        }
        let _back = Back {
            before: pg_sys::CurrentMemoryContext,
            used: context,
        };
        pg_sys::CurrentMemoryContext = context;
        work()
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
