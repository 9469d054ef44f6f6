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

use pgrx::pg_guard;

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
