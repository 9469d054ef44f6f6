//! Rows by reference: what an index scan hands over whose entries name rows of
//! the table.
//!
//! The row is read by its key under the scan's snapshot. Entries are versioned
//! as their rows are, and by the same transactions, so a snapshot of a
//! statement sees the version of the row that the entry was made for, or a
//! later one of the same columns. Other snapshots judge entry and row at two
//! moments; between them the row may have changed its columns. So the scan is
//! asked once more whether the entry is there: a writer changes the row before
//! it ends the entry, hence a row read between two looks at a living entry has
//! the entry's columns, or its writer still runs and is reported.

use crate::table_am::TableAm;
use engine::BlockNumber;
use engine::mvcc::batch::{Batch, Row};
use pg::error::OrRaise;
use pg::handoff::{Confirm, RowFetch};
use pg::xact::ServerSnapshot;
use pgrx::pg_sys;

/// After as many rows in a row on another leaf than the one before, the next
/// is not looked for there first: the references are in no useful order.
const STRAYS_MAX: u8 = 3;

/// What is kept from one row of a scan to the next.
pub struct ByReference<A> {
    relation: pg_sys::Relation,
    table: A,
    pg_snapshot: pg_sys::Snapshot,
    snapshot: ServerSnapshot<'static>,
    batch: Batch,
    /// The leaf of the last row: entries of equal columns are in the order of
    /// their references.
    near: BlockNumber,
    strays: u8,
}

impl<A: TableAm> ByReference<A> {
    /// That of a scan.
    ///
    /// # Safety
    /// The hand-off is a live scan's, whose snapshot this is; nobody else
    /// holds the result of an earlier call.
    #[inline]
    pub unsafe fn of<'k>(fetch: &mut RowFetch, snapshot: pg_sys::Snapshot) -> &'k mut Self {
        let relation = fetch.relation();
        // SAFETY: the scan's table stays open and its snapshot alive as long
        // as the scan lasts. The hand-off is a table's of `A`.
        let kept = unsafe {
            fetch.kept(|| ByReference {
                relation,
                table: crate::open::open::<A>(relation),
                pg_snapshot: snapshot,
                snapshot: ServerSnapshot::from_pg(snapshot, relation),
                batch: Batch::default(),
                near: BlockNumber::NONE,
                strays: 0,
            })
        };
        assert_eq!(
            kept.pg_snapshot, snapshot,
            "a scan has one snapshot as long as it lasts"
        );
        kept
    }

    /// The table.
    pub fn table(&self) -> &A {
        &self.table
    }

    /// Reads the row of a reference, if the snapshot sees one. It stays until
    /// the next call.
    #[inline]
    pub fn find(&mut self, key: &[u8], confirm: Option<Confirm>) -> Option<(Row<'_>, BlockNumber)> {
        self.batch.clear();
        if let ServerSnapshot::Dirty(snapshot) = &self.snapshot {
            // What it found out about another row is not this one's.
            snapshot.reset();
        }
        let near = if self.strays < STRAYS_MAX {
            self.near
        } else {
            BlockNumber::NONE
        };
        let found = self
            .table
            .get_near(key, near, &self.snapshot, &mut self.batch);
        // SAFETY: the relation is open.
        if !unsafe { found.or_raise(self.relation) } {
            return None;
        }
        let block = BlockNumber(self.batch.block);
        self.strays = if block == self.near {
            0
        } else {
            self.strays.saturating_add(1)
        };
        self.near = block;
        // SAFETY: the snapshot is alive, and the scan stands at the entry.
        if confirm.is_some_and(|confirm| !unsafe { self.is_confirmed(confirm) }) {
            return None;
        }
        Some((self.batch.row(0), block))
    }

    /// # Safety
    /// The scan stands at the row's entry.
    #[cold]
    unsafe fn is_confirmed(&self, confirm: Confirm) -> bool {
        // SAFETY: the caller's promise; the snapshot is alive.
        unsafe {
            // What a dirty snapshot has found out about the row is what its
            // user waits by, not what it finds out about the entry.
            let before = *self.pg_snapshot;
            let is_still_there = (confirm.is_still_there)(confirm.scan);
            let now = &mut *self.pg_snapshot;
            now.xmin = before.xmin;
            now.xmax = before.xmax;
            now.speculativeToken = before.speculativeToken;
            is_still_there
        }
    }
}
