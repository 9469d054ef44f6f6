//! An open relation of ours as the engine's versioned store: what tables and
//! indexes, reading or writing, have in common.

use std::cell::Cell;
use std::rc::Rc;

use engine::BlockNumber;
use engine::btree::{Guide, Meta, Tree};
use engine::mvcc::Versioned;
use engine::store::PageStore;
use pgrx::pg_sys;

use crate::error::OrRaise;
use crate::row::{self, IndexLayout, IndexStorage, Places, TableLayout};
use crate::store::{RelationStore, has_storage};
use crate::xact::ServerTransactions;

/// The store that an open relation holds, as one session uses it.
pub struct OpenStore {
    layout: Rc<TableLayout>,
    store: RelationStore,
    transactions: ServerTransactions,
    /// Copies of inner pages. They go with this: as long as it lives the
    /// relation is locked, so that its file does not get shorter.
    guide: Cell<Guide>,
}

/// The engine's view of it.
pub type ServerVersions<'t> = Versioned<'t, RelationStore, TableLayout, ServerTransactions>;

impl OpenStore {
    /// Opens a table of ours, reading the layout from its metapage unless this
    /// process knows it.
    ///
    /// # Safety
    /// `table` is open, and stays so while the result lives.
    pub unsafe fn table(table: pg_sys::Relation) -> OpenStore {
        // SAFETY: the caller's promise.
        unsafe {
            let store = RelationStore::new(table);
            let layout = row::of_relation(table, || -> Result<_, row::Error> {
                let page = store.read(BlockNumber::META).or_raise(table);
                Ok(Meta::decode(&page).or_raise(table).layout)
            })
            .or_raise(table);
            OpenStore::new(layout, store, table)
        }
    }

    /// A store whose layout is known. How far its versions may be pruned is
    /// the horizon of `table`: that of an index is its table's.
    ///
    /// # Safety
    /// The store's relation and `table` are open, and stay so while the result
    /// lives.
    pub unsafe fn new(
        layout: Rc<TableLayout>,
        store: RelationStore,
        table: pg_sys::Relation,
    ) -> OpenStore {
        OpenStore {
            layout,
            store,
            // SAFETY: the caller's promise.
            transactions: unsafe { ServerTransactions::new(table) },
            guide: Cell::default(),
        }
    }

    /// How its rows are laid out.
    #[inline]
    pub fn layout(&self) -> &Rc<TableLayout> {
        &self.layout
    }

    /// Its pages.
    #[inline]
    pub fn store(&self) -> &RelationStore {
        &self.store
    }

    /// The relation.
    #[inline]
    pub fn relation(&self) -> pg_sys::Relation {
        self.store.relation()
    }

    /// Works on the store. Where its root and its rightmost leaf are is kept
    /// with the layout, for the next one who opens it.
    #[inline]
    pub fn with<R>(&self, work: impl FnOnce(&ServerVersions<'_>) -> R) -> R {
        let places = self.layout.places();
        let tree = Tree::with_root(&self.store, &*self.layout, places.root);
        tree.append_near(places.rightmost);
        tree.fill_to(self.layout.fill());
        tree.follow(self.guide.take());
        let result = work(&Versioned {
            tree: &tree,
            transactions: &self.transactions,
        });
        self.guide.set(tree.guide());
        let found = Places {
            root: tree.known_root(),
            rightmost: tree.known_rightmost(),
        };
        if found != places {
            self.layout.set_places(found);
        }
        result
    }
}

/// Where the entries of an open index of ours are.
///
/// # Safety
/// `index` is an open index of ours.
pub unsafe fn storage_of(index: pg_sys::Relation) -> IndexStorage {
    // SAFETY: the caller's promise.
    unsafe {
        row::of_index(index, || -> Result<_, row::Error> {
            if !has_storage(index) {
                return Ok(None);
            }
            let store = RelationStore::new(index);
            let page = store.read(BlockNumber::META).or_raise(index);
            Ok(Some(Meta::decode(&page).or_raise(index).layout))
        })
        .or_raise(index)
    }
}

/// A stored index, open.
pub struct OpenIndex {
    index: Rc<IndexLayout>,
    store: OpenStore,
}

impl OpenIndex {
    /// Opens an index of `table`; `None` if it has no storage, because the
    /// table is organized by its columns.
    ///
    /// # Safety
    /// Both relations are open and stay so while the result lives.
    pub unsafe fn open(index: pg_sys::Relation, table: pg_sys::Relation) -> Option<OpenIndex> {
        // SAFETY: the caller's promise.
        unsafe {
            let IndexStorage::Stored(layout) = storage_of(index) else {
                return None;
            };
            let store = RelationStore::new(index);
            Some(OpenIndex {
                store: OpenStore::new(Rc::clone(layout.layout()), store, table),
                index: layout,
            })
        }
    }

    /// What its entries are made of.
    #[inline]
    pub fn layout(&self) -> &Rc<IndexLayout> {
        &self.index
    }

    /// Its versions.
    #[inline]
    pub fn store(&self) -> &OpenStore {
        &self.store
    }
}
