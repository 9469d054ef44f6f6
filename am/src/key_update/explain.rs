//! What EXPLAIN shows of the node.

use pg::explain::{in_words, number, text};
use pgrx::{pg_guard, pg_sys};

/// The `ExplainCustomScan` callback: the conditions of the scan that a
/// ModifyTable would have had. That one itself stands below, if it was needed.
#[pg_guard]
pub unsafe extern "C-unwind" fn explain(
    node: *mut pg_sys::CustomScanState,
    ancestors: *mut pg_sys::List,
    es: *mut pg_sys::ExplainState,
) {
    // SAFETY: the server's node, whose plan is ours: the first of its parts is
    // a ModifyTable over an index scan.
    unsafe {
        let plan = (*node).ss.ps.plan.cast::<pg_sys::CustomScan>();
        let modify = (*(*(*plan).custom_private).elements).ptr_value;
        let scan = (*modify.cast::<pg_sys::Plan>()).lefttree;
        let ancestors = pg_sys::lcons(plan.cast(), ancestors);
        let indexed = (*scan.cast::<pg_sys::IndexScan>()).indexqualorig;
        text(c"Index Cond", &in_words(indexed, scan, ancestors, es), es);
        if !(*scan).qual.is_null() {
            let words = in_words((*scan).qual, scan, ancestors, es);
            text(c"Filter", &words, es);
            let instrument = (*node).ss.ps.instrument.as_ref().filter(|_| (*es).analyze);
            if let Some(removed) = instrument.map(|instrument| instrument.nfiltered1 as u64)
                && (removed > 0 || (*es).format != pg_sys::ExplainFormat::EXPLAIN_FORMAT_TEXT)
            {
                number(c"Rows Removed by Filter", removed, es);
            }
        }
    }
}
