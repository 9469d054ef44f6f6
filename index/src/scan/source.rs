//! The table behind an index scan, opened for reading.

use std::rc::Rc;

use engine::mvcc::Snapshot;
use engine::mvcc::batch::Batch;
use engine::mvcc::scan::{Direction, Place, Range};
use pg::error::{OrRaise, unsupported};
use pg::open::{OpenStore, ServerVersions};
use pg::organize;
use pg::row::TableLayout;
use pg::xact::ServerSnapshot;
use pgrx::pg_sys;

use super::walk::Rows;

/// A table and the snapshot that it is read under. The server keeps both for as
/// long as the scan lasts.
pub struct Source {
    rows: OpenStore,
    snapshot: ServerSnapshot<'static>,
    is_stable: bool,
}

impl Source {
    /// Opens a scan's table.
    ///
    /// # Safety
    /// The descriptor has its table and its snapshot, which outlive the result.
    pub unsafe fn open(descriptor: pg_sys::IndexScanDesc) -> Source {
        // SAFETY: the caller's promise.
        unsafe {
            let table = (*descriptor).heapRelation;
            assert!(
                organize::owns(table),
                "an index is built on a table of ours only"
            );
            let rows = OpenStore::table(table);
            let keys = usize::try_from((*(*(*descriptor).indexRelation).rd_index).indnkeyatts);
            if Ok(rows.layout().order().columns().len()) != keys {
                unsupported(
                    "scanning an index that its table is not organized by",
                    "REINDEX TABLE makes the index and its table agree.",
                );
            }
            let snapshot = ServerSnapshot::from_pg((*descriptor).xs_snapshot, table);
            Source {
                rows,
                is_stable: snapshot.is_stable(),
                snapshot,
            }
        }
    }

    /// How the table's rows are laid out.
    #[inline]
    pub fn layout(&self) -> &Rc<TableLayout> {
        self.rows.layout()
    }

    /// The table.
    pub fn relation(&self) -> pg_sys::Relation {
        self.rows.relation()
    }

    #[inline]
    fn with<R>(&self, work: impl FnOnce(&ServerVersions<'_>) -> engine::Result<R>) -> R {
        let result = self.rows.with(work);
        // SAFETY: the relation is open.
        unsafe { result.or_raise(self.rows.relation()) }
    }
}

impl Rows for Source {
    #[inline]
    fn is_stable(&self) -> bool {
        self.is_stable
    }

    #[inline]
    fn get(&self, key: &[u8], into: &mut Batch) -> bool {
        // A list may name many keys that are not there.
        pgrx::check_for_interrupts!();
        if let ServerSnapshot::Dirty(snapshot) = &self.snapshot {
            // What it found out about another key is not this one's.
            snapshot.reset();
        }
        match &self.snapshot {
            ServerSnapshot::Mvcc(snapshot) => self.with(|store| store.get(key, snapshot, into)),
            snapshot => self.with(|store| store.get(key, snapshot, into)),
        }
    }

    fn next_leaf(
        &self,
        range: &Range,
        direction: Direction,
        place: &mut Place,
        batch: &mut Batch,
    ) -> bool {
        pgrx::check_for_interrupts!();
        match &self.snapshot {
            ServerSnapshot::Mvcc(snapshot) => {
                self.with(|store| store.next_leaf(range, direction, place, snapshot, batch))
            }
            snapshot => {
                self.with(|store| store.next_leaf(range, direction, place, snapshot, batch))
            }
        }
    }
}
