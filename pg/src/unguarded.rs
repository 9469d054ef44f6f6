//! The short ways of callbacks that run for every row.
//!
//! `#[pg_guard]` costs as much as such a callback's own work, so these are
//! plain functions. Two things must not happen in one. An ERROR of the server's
//! jumps over the frames between it and the last guard, so nothing with a
//! destructor may be alive where the server is called; a short way calls the
//! server in functions of its own that are guarded. And a Rust panic, a bug of
//! ours, must not unwind into the server's C frames, which would leave its
//! stack of handlers pointing at dead ones: [`catching`] stops it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pgrx::{pg_guard, pg_sys};

/// Functions of the server's, called as they are. What a guard costs is little,
/// but a small statement has made a hundred such calls before it has read a row.
///
/// Those that say so may raise an ERROR, which jumps: to be called in callbacks
/// where nothing with a destructor is alive. The others cannot, given what they
/// have to be given anyway.
pub mod server {
    use super::pg_sys;
    use std::ffi::c_char;

    unsafe extern "C-unwind" {
        /// Frees an allocation.
        pub fn pfree(pointer: *mut std::ffi::c_void);
        /// Raises for want of memory. Zeroed, in the current context.
        pub fn palloc0(bytes: usize) -> *mut std::ffi::c_void;
        /// Raises for want of memory.
        pub fn MemoryContextAlloc(
            context: pg_sys::MemoryContext,
            bytes: usize,
        ) -> *mut std::ffi::c_void;
        /// Raises for want of memory.
        pub fn AllocSetContextCreateInternal(
            parent: pg_sys::MemoryContext,
            name: *const c_char,
            least: usize,
            first: usize,
            largest: usize,
        ) -> pg_sys::MemoryContext;
        /// Has a function called before the context is reset or deleted.
        pub fn MemoryContextRegisterResetCallback(
            context: pg_sys::MemoryContext,
            callback: *mut pg_sys::MemoryContextCallback,
        );
        /// Raises what its callbacks raise.
        pub fn MemoryContextDelete(context: pg_sys::MemoryContext);
        /// An expression with its constant parts evaluated; raises what they raise.
        pub fn eval_const_expressions(
            planner: *mut pg_sys::PlannerInfo,
            expression: *mut pg_sys::Node,
        ) -> *mut pg_sys::Node;
        /// The transaction's id, or 0 if it has none.
        pub fn GetCurrentTransactionIdIfAny() -> pg_sys::TransactionId;
    }
}

type Panic = Box<dyn Any + Send>;

/// Runs the short way of a callback; a panic becomes an ERROR. Nothing is paid
/// for it where there is none.
///
/// # Safety
/// Called by the server, directly or through functions that own nothing: on a
/// panic their frames are jumped over.
#[inline(always)]
pub unsafe fn catching<R>(work: impl FnOnce() -> R) -> R {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => {
            // SAFETY: as the caller promises; this frame owns nothing any more.
            unsafe { raise(Box::into_raw(Box::new(panic))) };
            unreachable!("a guarded panic does not return")
        }
    }
}

/// Panics once more, guarded this time.
#[cold]
#[pg_guard]
unsafe extern "C-unwind" fn raise(panic: *mut Panic) {
    // SAFETY: made by `catching` for this call.
    resume_unwind(*unsafe { Box::from_raw(panic) })
}
