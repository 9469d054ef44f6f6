//! Calling what one of our hooks stands before, so that errors pass by it.
//!
//! pgrx's guard makes a panic of an ERROR and raises it anew where Rust ends.
//! Message, detail and hint survive that; the context, the query's text, the
//! cursor position and the names of table, column and constraint do not. Our
//! hooks stand around nearly everything a session does, and would take these
//! from every error. So the next hook, or the server's own function, is called
//! without a guard: an ERROR goes past our frames to the handler it would have
//! had without us. Nothing in those frames may need a destructor; what has to be
//! done on the way goes into [`finally`].

use std::ffi::{c_char, c_int, c_void};
use std::mem::{MaybeUninit, needs_drop};

use pgrx::pg_sys::{self, panic::pgrx_extern_c_guard};

// As pgrx binds them, but without its guard.
unsafe extern "C-unwind" {
    pub(crate) fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
    /// The server's planner.
    pub fn standard_planner(
        query: *mut pg_sys::Query,
        text: *const c_char,
        options: c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
    pub(crate) fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
    pub(crate) fn standard_ExecutorRun(
        query: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
        once: bool,
    );
    pub(crate) fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
    pub(crate) fn standard_ExecutorEnd(query: *mut pg_sys::QueryDesc);

    fn rowref_finally(
        work: unsafe extern "C-unwind" fn(*mut c_void),
        after: unsafe extern "C-unwind" fn(*mut c_void),
        argument: *mut c_void,
    );
}

/// Both halves of a call of [`finally`], and what the first one gave.
struct Call<W, A, R> {
    work: MaybeUninit<W>,
    after: MaybeUninit<A>,
    result: MaybeUninit<R>,
}

/// Calls `work`, then `after`, whether `work` returned or raised an ERROR. The
/// ERROR goes on as it was; a panic in either becomes one.
///
/// # Safety
/// Our frames from here to the server's handler own nothing. (That the two
/// closures own nothing is checked.)
pub unsafe fn finally<R>(work: impl FnOnce() -> R, after: impl FnOnce()) -> R {
    // SAFETY: the caller's promise; `call` lives in this frame, which outlives
    // both callbacks, and each closure is taken out of it once.
    unsafe { finally_with(work, after) }
}

unsafe fn finally_with<W: FnOnce() -> R, A: FnOnce(), R>(work: W, after: A) -> R {
    unsafe extern "C-unwind" fn run_work<W: FnOnce() -> R, A, R>(call: *mut c_void) {
        // SAFETY: `call` is what `finally_with` passed, used once. The guard
        // turns a panic into an ERROR before it could reach the C frames.
        unsafe {
            let call = &mut *call.cast::<Call<W, A, R>>();
            pgrx_extern_c_guard(|| {
                call.result.write((call.work.assume_init_read())());
            });
        }
    }
    unsafe extern "C-unwind" fn run_after<W, A: FnOnce(), R>(call: *mut c_void) {
        // SAFETY: as above.
        unsafe {
            let call = &mut *call.cast::<Call<W, A, R>>();
            pgrx_extern_c_guard(|| (call.after.assume_init_read())());
        }
    }
    const {
        assert!(!needs_drop::<W>() && !needs_drop::<A>() && !needs_drop::<R>());
    }
    let mut call = Call {
        work: MaybeUninit::new(work),
        after: MaybeUninit::new(after),
        result: MaybeUninit::uninit(),
    };
    // SAFETY: the functions take the very type that the pointer is made of; on
    // return the first has written the result.
    unsafe {
        rowref_finally(
            run_work::<W, A, R>,
            run_after::<W, A, R>,
            (&raw mut call).cast(),
        );
        call.result.assume_init()
    }
}
