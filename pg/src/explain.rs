//! What custom nodes say in EXPLAIN.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// A condition of a plan's node in words.
///
/// # Safety
/// `condition` is an implicit AND of `plan`'s, or none; the other arguments are
/// those of an `ExplainCustomScan` callback.
pub unsafe fn in_words(
    condition: *mut pg_sys::List,
    plan: *mut pg_sys::Plan,
    ancestors: *mut pg_sys::List,
    es: *mut pg_sys::ExplainState,
) -> String {
    if condition.is_null() {
        return "none".into();
    }
    // SAFETY: the caller's promise.
    unsafe {
        let context = pg_sys::set_deparse_context_plan((*es).deparse_cxt, plan, ancestors);
        let expression = pg_sys::make_ands_explicit(condition);
        let words = pg_sys::deparse_expression(expression.cast(), context, (*es).verbose, false);
        CStr::from_ptr(words).to_string_lossy().into_owned()
    }
}

/// One property of a node, as text.
///
/// # Safety
/// `es` is an `ExplainCustomScan` callback's.
pub unsafe fn text(label: &CStr, value: &str, es: *mut pg_sys::ExplainState) {
    let value = CString::new(value).unwrap_or_default();
    // SAFETY: the server copies both.
    unsafe { pg_sys::ExplainPropertyText(label.as_ptr(), value.as_ptr(), es) };
}

/// One property of a node, as a number.
///
/// # Safety
/// As for [`text`].
pub unsafe fn number(label: &CStr, value: u64, es: *mut pg_sys::ExplainState) {
    // SAFETY: the server copies the label.
    unsafe {
        pg_sys::ExplainPropertyInteger(label.as_ptr(), std::ptr::null(), value as i64, es);
    }
}
