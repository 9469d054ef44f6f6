//! What EXPLAIN shows of a set scan.

use std::ffi::{CStr, CString};

use pgrx::pg_guard;
use pgrx::pg_sys;

use super::plan;
use super::run::SetScanState;

/// The `ExplainCustomScan` callback: the tree by the names of its indexes, the
/// condition of each, and with ANALYZE what each has found.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn explain(
    node: *mut pg_sys::CustomScanState,
    ancestors: *mut pg_sys::List,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: the server's node, whose plan is ours.
    unsafe {
        let scan = (*node).ss.ps.plan.cast::<pg_sys::CustomScan>();
        let conditions = plan::conditions_of(scan);
        let names: Vec<String> = conditions
            .iter()
            .map(|condition| name_of(condition.index))
            .collect();
        let tree = plan::tree_of(scan);
        text(c"Row Set", &tree.describe(&|nth| names[nth].clone()), es);
        let parts = SetScanState::parts(node).filter(|_| (*es).analyze);
        let ancestors = pg_sys::lcons(scan.cast(), ancestors);
        for (nth, condition) in conditions.iter().enumerate() {
            let context =
                pg_sys::set_deparse_context_plan((*es).deparse_cxt, condition.plan, ancestors);
            let words = condition_in_words(condition.readable, context, es);
            let found = parts.as_ref().map_or_else(String::new, |parts| {
                format!(" (references={})", parts.leaves[nth].found)
            });
            let label = CString::new(format!("Index Cond on {}", names[nth]));
            text(&label.unwrap_or_default(), &(words + &found), es);
        }
        if let Some(parts) = parts {
            number(c"Rows Looked Up", parts.rows.references, es);
            if parts.spilled > 0 {
                number(c"Sets Sorted Externally", parts.spilled, es);
            }
        }
    }
}

unsafe fn condition_in_words(
    condition: *mut pg_sys::List,
    context: *mut pg_sys::List,
    es: *mut pg_sys::ExplainState,
) -> String {
    if condition.is_null() {
        return "none".into();
    }
    // SAFETY: an implicit AND of expressions, as a plan has them.
    unsafe {
        let expression = pg_sys::make_ands_explicit(condition);
        let words = pg_sys::deparse_expression(expression.cast(), context, (*es).verbose, false);
        CStr::from_ptr(words).to_string_lossy().into_owned()
    }
}

unsafe fn name_of(index: pg_sys::Oid) -> String {
    // SAFETY: a catalog look-up; null if it was dropped.
    unsafe {
        let name = pg_sys::get_rel_name(index);
        if name.is_null() {
            return index.to_u32().to_string();
        }
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

unsafe fn text(label: &CStr, value: &str, es: *mut pg_sys::ExplainState) {
    let value = CString::new(value).unwrap_or_default();
    // SAFETY: the server copies both.
    unsafe { pg_sys::ExplainPropertyText(label.as_ptr(), value.as_ptr(), es) };
}

unsafe fn number(label: &CStr, value: u64, es: *mut pg_sys::ExplainState) {
    // SAFETY: the server copies the label.
    unsafe {
        pg_sys::ExplainPropertyInteger(label.as_ptr(), std::ptr::null(), value as i64, es);
    }
}
