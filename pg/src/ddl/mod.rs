//! Definitions: which tables are ours, and what becomes of commands that define
//! indexes on them. `README.md` beside this file argues it.

mod access;
mod catalog;
mod disguise;
mod dropped;
mod relation;
mod switch;
mod utility;

pub use catalog::index_am_oid;
pub(crate) use disguise::while_disguised;
pub use relation::{
    ask_ours, holds_ours, is_ours, may_fire_after_row, may_hold_ours, register_table_am,
};

/// The index access method's name.
pub const INDEX_AM_NAME: &std::ffi::CStr = c"rowref";

/// Installs the hooks.
///
/// # Safety
/// Called once, from `_PG_init`.
pub unsafe fn install() {
    // SAFETY: as the caller promises.
    unsafe {
        relation::install();
        access::install();
        utility::install();
        dropped::install();
        disguise::install();
        switch::install();
    }
}
