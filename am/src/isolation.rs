//! Whom this access method cannot serve yet: refused on every path, for
//! silence would be a wrong answer.

use pgrx::pg_sys;

/// Refuses SERIALIZABLE: without predicate locks it would be REPEATABLE READ
/// under another name, and say nothing of the write skew it lets through.
#[inline]
pub fn refuse_serializable(_relation: pg_sys::Relation) {
    // SAFETY: a plain variable of this backend.
    if unsafe { pg_sys::XactIsoLevel } == pg_sys::XACT_SERIALIZABLE as i32 {
        pg::error::unsupported(
            "SERIALIZABLE transactions on tables of pg_rowref",
            "Use REPEATABLE READ, or a heap table.",
        );
    }
}
