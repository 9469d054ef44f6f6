//! What an index scan reads: its table, or an index stored beside it.

use std::rc::Rc;

use engine::mvcc::Snapshot;
use engine::mvcc::batch::Batch;
use engine::mvcc::scan::{Direction, Place, Range};
use pg::error::{OrRaise, unsupported};
use pg::open::{OpenIndex, OpenStore, ServerVersions};
use pg::organize;
use pg::pending;
use pg::row::{self, IndexLayout, TableLayout};
use pg::xact::ServerSnapshot;
use pgrx::pg_sys;

use super::walk::Rows;

/// Where the keys of a scan lie.
enum Keys {
    /// In the table, which is organized by the index's columns.
    Table(OpenStore),
    /// In the index.
    Index(OpenIndex),
}

/// A table or an index of it, and the snapshot that it is read under. The server
/// keeps them for as long as the scan lasts.
pub struct Source {
    keys: Keys,
    snapshot: ServerSnapshot<'static>,
    is_stable: bool,
}

impl Source {
    /// Opens what a scan reads.
    ///
    /// # Safety
    /// The descriptor has its table and its snapshot, which outlive the result.
    pub unsafe fn open(descriptor: pg_sys::IndexScanDesc) -> Source {
        // SAFETY: the caller's promise.
        unsafe {
            let (table, index) = ((*descriptor).heapRelation, (*descriptor).indexRelation);
            assert!(
                organize::owns(table),
                "an index is built on a table of ours only"
            );
            let keys = match OpenIndex::open(index, table) {
                Some(index) => Keys::Index(index),
                None => Keys::Table(OpenStore::table(table)),
            };
            if let Keys::Table(rows) = &keys {
                let columns = usize::try_from((*(*index).rd_index).indnkeyatts);
                if Ok(rows.layout().order().columns().len()) != columns {
                    unsupported(
                        "scanning an index that its table is not organized by",
                        "REINDEX TABLE makes the index and its table agree.",
                    );
                }
            }
            let snapshot = ServerSnapshot::from_pg((*descriptor).xs_snapshot, table);
            Source {
                keys,
                is_stable: snapshot.is_stable(),
                snapshot,
            }
        }
    }

    #[inline]
    fn store(&self) -> &OpenStore {
        match &self.keys {
            Keys::Table(rows) => rows,
            Keys::Index(index) => index.store(),
        }
    }

    /// How entries are laid out, unless the keys are the table's.
    #[inline]
    pub fn index(&self) -> Option<&Rc<IndexLayout>> {
        match &self.keys {
            Keys::Table(_) => None,
            Keys::Index(index) => Some(index.layout()),
        }
    }

    /// The table's key in a key.
    #[inline]
    pub fn reference<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        let Keys::Index(index) = &self.keys else {
            return key;
        };
        let reference = index.layout().reference_of(key).map_err(row::Error::from);
        // SAFETY: the relation is open.
        unsafe { reference.or_raise(self.relation()) }
    }

    /// How rows, or entries, are laid out.
    #[inline]
    pub fn layout(&self) -> &Rc<TableLayout> {
        self.store().layout()
    }

    /// The relation that is read.
    #[inline]
    pub fn relation(&self) -> pg_sys::Relation {
        self.store().relation()
    }

    /// What this transaction has deleted and an index may not say yet is said
    /// now, before it is read.
    #[inline]
    fn settle(&self) {
        if pending::is_any()
            && let Keys::Index(index) = &self.keys
        {
            // SAFETY: the relation is open and the snapshot alive; nothing is
            // locked between two pages.
            unsafe {
                let index = (*index.store().relation()).rd_id;
                pending::settle_for(index, &self.snapshot);
            }
        }
    }

    #[inline]
    fn with<R>(&self, work: impl FnOnce(&ServerVersions<'_>) -> engine::Result<R>) -> R {
        let store = self.store();
        // SAFETY: the relation is open.
        unsafe { store.with(work).or_raise(store.relation()) }
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
        self.settle();
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
        self.settle();
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
