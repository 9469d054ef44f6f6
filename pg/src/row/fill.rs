//! How full a relation's leaves are to be: `WITH (fillfactor = …)`.

use engine::btree::Fill;
use pgrx::pg_sys;

use crate::list::nodes;

/// What heap tables have where nobody said anything (`HEAP_DEFAULT_FILLFACTOR`).
/// Ours, which take rows in between, have [`Fill::default`] then.
const HEAP_DEFAULT: i32 = 100;

/// What an index's storage parameters begin with (`BTOptions`).
#[repr(C)]
struct IndexOptions {
    header: i32,
    fillfactor: i32,
}

/// The fill of an open table or index of ours.
///
/// # Safety
/// `relation` is open.
pub(super) unsafe fn fill_of(relation: pg_sys::Relation) -> Fill {
    // SAFETY: an open relation's options are null or of its kind's type.
    unsafe {
        let options = (*relation).rd_options;
        if options.is_null() {
            return Fill::default();
        }
        let is_index = (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_INDEX;
        let percent = if is_index {
            (*options.cast::<IndexOptions>()).fillfactor
        } else {
            (*options.cast::<pg_sys::StdRdOptions>()).fillfactor
        };
        if !is_index && percent == HEAP_DEFAULT && !says_fillfactor((*relation).rd_id) {
            return Fill::default();
        }
        Fill::percent(usize::try_from(percent).unwrap_or(0))
    }
}

/// Whether a table's own parameters name the fill factor.
unsafe fn says_fillfactor(table: pg_sys::Oid) -> bool {
    const CACHE: std::ffi::c_int = pg_sys::SysCacheIdentifier::RELOID as std::ffi::c_int;
    // SAFETY: a catalog look-up; what is taken from the row is used before the
    // row is released.
    unsafe {
        let row = pg_sys::SearchSysCache1(CACHE, table.into());
        if row.is_null() {
            return false;
        }
        let mut is_null = true;
        let column = pg_sys::Anum_pg_class_reloptions as pg_sys::AttrNumber;
        let options = pg_sys::SysCacheGetAttr(CACHE, row, column, &mut is_null);
        let says = !is_null
            && nodes::<pg_sys::DefElem>(pg_sys::untransformRelOptions(options))
                .any(|option| std::ffi::CStr::from_ptr((*option).defname) == c"fillfactor");
        pg_sys::ReleaseSysCache(row);
        says
    }
}
