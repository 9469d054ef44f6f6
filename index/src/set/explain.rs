//! What EXPLAIN shows of a set scan.

use std::ffi::{CStr, CString};

use pg::explain::{in_words, number, text};
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
            let words = in_words(condition.readable, condition.plan, ancestors, es);
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
