//! The table behind an index scan, opened for reading.

use std::rc::Rc;

use engine::BlockNumber;
use engine::btree::{Meta, Tree};
use engine::mvcc::batch::Batch;
use engine::mvcc::scan::{Direction, Place, Range};
use engine::mvcc::{Snapshot, Versioned};
use engine::store::PageStore;
use pg::error::{OrRaise, unsupported};
use pg::organize;
use pg::row::{self, Places, TableLayout};
use pg::store::RelationStore;
use pg::xact::{ServerSnapshot, ServerTransactions};
use pgrx::pg_sys;

use super::walk::Rows;

/// A table and the snapshot that it is read under. The server keeps both for as
/// long as the scan lasts.
pub struct Source {
    layout: Rc<TableLayout>,
    store: RelationStore,
    transactions: ServerTransactions,
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
            let store = RelationStore::new(table);
            let layout = row::of_relation(table, || -> Result<_, row::Error> {
                let page = store.read(BlockNumber::META).or_raise(table);
                Ok(Meta::decode(&page).or_raise(table).layout)
            })
            .or_raise(table);
            let keys = usize::try_from((*(*(*descriptor).indexRelation).rd_index).indnkeyatts);
            if Ok(layout.order().columns().len()) != keys {
                unsupported(
                    "scanning an index that its table is not organized by",
                    "REINDEX TABLE makes the index and its table agree.",
                );
            }
            let snapshot = ServerSnapshot::from_pg((*descriptor).xs_snapshot, table);
            Source {
                layout,
                store,
                transactions: ServerTransactions::new(table),
                is_stable: snapshot.is_stable(),
                snapshot,
            }
        }
    }

    /// How the table's rows are laid out.
    #[inline]
    pub fn layout(&self) -> &Rc<TableLayout> {
        &self.layout
    }

    /// The table.
    pub fn relation(&self) -> pg_sys::Relation {
        self.store.relation()
    }

    #[inline]
    fn with<R>(
        &self,
        work: impl FnOnce(
            &Versioned<'_, RelationStore, TableLayout, ServerTransactions>,
        ) -> engine::Result<R>,
    ) -> R {
        let places = self.layout.places();
        let tree = Tree::with_root(&self.store, &*self.layout, places.root);
        let result = work(&Versioned {
            tree: &tree,
            transactions: &self.transactions,
        });
        let root = tree.known_root();
        if root != places.root {
            self.layout.set_places(Places { root, ..places });
        }
        // SAFETY: the relation is open.
        unsafe { result.or_raise(self.store.relation()) }
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
