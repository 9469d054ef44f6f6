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

/// Refuses to change a table that a publication covers: its changes are not
/// decoded, so that subscribers would miss them without a word.
///
/// # Safety
/// `relation` is open.
#[inline]
pub unsafe fn refuse_published(relation: pg_sys::Relation) {
    // SAFETY: a plain variable, and the caller's promise.
    unsafe {
        if pg_sys::wal_level < pg_sys::WalLevel::WAL_LEVEL_LOGICAL as i32 {
            return;
        }
        let mut description = pg_sys::PublicationDesc::default();
        pg_sys::RelationBuildPublicationDesc(relation, &mut description);
        let actions = description.pubactions;
        if actions.pubinsert || actions.pubupdate || actions.pubdelete {
            pg::error::unsupported(
                "changing a published table",
                "Logical decoding does not see its changes. Drop the table from the publication, \
                 or use a heap table.",
            );
        }
    }
}
