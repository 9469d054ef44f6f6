//! How the index AM reaches the table AM, which it must not import.
//!
//! Building a storage-less primary-key index is organizing its table, and that
//! is the table AM's work. It registers itself here when the library is loaded.

use std::sync::OnceLock;

use pgrx::pg_sys;

/// What the table AM offers to the index AM.
#[derive(Clone, Copy)]
pub struct Organizer {
    /// Whether a relation is a table of ours, organized by a key or a row id.
    pub owns: unsafe fn(table: pg_sys::Relation) -> bool,
    /// Organizes a table of ours by the primary key that `index` describes,
    /// which may be what it is organized by already; returns how many live
    /// rows it has. Called with the lock that `index_build` holds.
    pub organize: unsafe fn(table: pg_sys::Relation, index: pg_sys::Relation) -> f64,
    /// Organizes a table of ours, which is locked exclusively, by hidden row
    /// ids, after its primary key was dropped.
    pub disorganize: unsafe fn(table: pg_sys::Relation),
}

static ORGANIZER: OnceLock<Organizer> = OnceLock::new();

/// Registers the table AM; to be called once, when the library is loaded.
pub fn set(organizer: Organizer) {
    assert!(
        ORGANIZER.set(organizer).is_ok(),
        "one table AM organizes tables"
    );
}

fn organizer() -> &'static Organizer {
    ORGANIZER
        .get()
        .expect("the table AM registers itself when the library is loaded")
}

/// Whether a relation is a table of ours.
///
/// # Safety
/// `table` is an open relation.
pub unsafe fn owns(table: pg_sys::Relation) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (organizer().owns)(table) }
}

/// Organizes a table by hidden row ids.
///
/// # Safety
/// `table` is open, ours, and locked exclusively.
pub unsafe fn by_row_id(table: pg_sys::Relation) {
    // SAFETY: the caller's promise.
    unsafe { (organizer().disorganize)(table) }
}

/// Organizes a table by a primary key and returns how many rows it has.
///
/// # Safety
/// Both relations are open, locked as for an index build, and `table` is ours.
pub unsafe fn call(table: pg_sys::Relation, index: pg_sys::Relation) -> f64 {
    // SAFETY: the caller's promise.
    unsafe { (organizer().organize)(table, index) }
}
