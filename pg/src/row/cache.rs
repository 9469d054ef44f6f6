//! One layout for each table, kept while the table stays what it is.
//!
//! Slots hold bare pointers to layouts (an ERROR may abandon a slot at any
//! moment, and nothing of it would run to give a count back). So a layout that
//! leaves the cache is not freed: it is *retired*, and freed when the next
//! transaction asks for a layout. No slot lives that long.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::pg_guard;
use pgrx::pg_sys;

use super::{Error, IndexLayout, Organization, TableLayout};

struct Cache {
    /// By relation, with the file that the metapage was read from.
    current: RefCell<HashMap<u32, (u32, Rc<TableLayout>)>>,
    /// The same of indexes.
    indexes: RefCell<HashMap<u32, (u32, IndexStorage)>>,
    retired: RefCell<Vec<Rc<TableLayout>>>,
    /// A transaction has ended since `retired` was last emptied.
    ended: Cell<bool>,
    /// Counts invalidations, so that a layout made from what was read before
    /// one is not kept.
    invalidations: Cell<u64>,
}

/// Where the entries of an index are.
#[derive(Clone)]
pub enum IndexStorage {
    /// The index has no storage: its table is organized by its columns.
    Key,
    /// In the index's own file.
    Stored(Rc<IndexLayout>),
}

thread_local! {
    // Leaked, so that nothing is torn down when the process exits: by then the
    // server's memory contexts may be gone.
    static CACHE: &'static Cache = Box::leak(Box::new(Cache {
        current: RefCell::default(),
        indexes: RefCell::default(),
        retired: RefCell::default(),
        ended: Cell::new(false),
        invalidations: Cell::new(0),
    }));
}

fn cache() -> &'static Cache {
    CACHE.with(|cache| *cache)
}

/// Registers the callbacks; to be called once, when the library is loaded.
pub fn init() {
    // SAFETY: both functions live as long as the library, which the server
    // never unloads.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::null());
        pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    if relation == pg_sys::Oid::INVALID {
        let cache = cache();
        cache.invalidations.set(cache.invalidations.get() + 1);
        let mut retired = cache.retired.borrow_mut();
        let all = std::mem::take(&mut *cache.current.borrow_mut());
        retired.extend(all.into_values().map(|(_, layout)| layout));
        let all = std::mem::take(&mut *cache.indexes.borrow_mut());
        retired.extend(all.into_values().filter_map(|(_, index)| index.retire()));
    } else {
        forget(relation);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_ended(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    use pg_sys::XactEvent::*;
    if matches!(
        event,
        XACT_EVENT_COMMIT
            | XACT_EVENT_ABORT
            | XACT_EVENT_PREPARE
            | XACT_EVENT_PARALLEL_COMMIT
            | XACT_EVENT_PARALLEL_ABORT
    ) {
        cache().ended.set(true);
    }
}

/// Drops a table's layout from the cache, for one who has rewritten the
/// description in its metapage without a new file.
pub fn forget(relation: pg_sys::Oid) {
    let cache = cache();
    cache.invalidations.set(cache.invalidations.get() + 1);
    let gone = cache.current.borrow_mut().remove(&relation.to_u32());
    if let Some((_, layout)) = gone {
        cache.retired.borrow_mut().push(layout);
    }
    let gone = cache.indexes.borrow_mut().remove(&relation.to_u32());
    if let Some(layout) = gone.and_then(|(_, index)| index.retire()) {
        cache.retired.borrow_mut().push(layout);
    }
}

impl IndexStorage {
    /// What slots may still point to.
    fn retire(self) -> Option<Rc<TableLayout>> {
        match self {
            IndexStorage::Key => None,
            IndexStorage::Stored(index) => Some(Rc::clone(index.layout())),
        }
    }
}

/// Makes a layout of one's own safe to use in slots: it will live as long as
/// the transaction.
pub fn keep(layout: TableLayout) -> Rc<TableLayout> {
    sweep();
    let layout = Rc::new(layout);
    cache().retired.borrow_mut().push(Rc::clone(&layout));
    layout
}

/// The layout of an open table. On a miss `load` reads the description out of
/// the metapage ([`Organization::from_bytes`]'s argument).
///
/// # Safety
/// `table` is an open relation.
pub unsafe fn of_relation<E: From<Error>>(
    table: pg_sys::Relation,
    load: impl FnOnce() -> Result<Vec<u8>, E>,
) -> Result<Rc<TableLayout>, E> {
    sweep();
    let cache = cache();
    // SAFETY: the relation is open.
    let (relation, file) = unsafe { ((*table).rd_id.to_u32(), crate::store::file_number(table)) };
    if let Some((of_file, layout)) = cache.current.borrow().get(&relation)
        && *of_file == file
    {
        return Ok(Rc::clone(layout));
    }
    // Nothing is borrowed here: reading a page and the catalogs may process
    // invalidations, which come back to this cache.
    let before = cache.invalidations.get();
    let organization = Organization::from_bytes(&load()?)?;
    // SAFETY: the relation is open.
    let layout = Rc::new(unsafe { TableLayout::new(table, organization) });
    if cache.invalidations.get() != before {
        cache.retired.borrow_mut().push(Rc::clone(&layout));
        return Ok(layout);
    }
    let old = cache
        .current
        .borrow_mut()
        .insert(relation, (file, Rc::clone(&layout)));
    if let Some((_, old)) = old {
        cache.retired.borrow_mut().push(old);
    }
    Ok(layout)
}

/// Where the entries of an open index are, and how they are laid out. On a miss
/// `load` reads the description out of the metapage, or finds no metapage:
/// that, and not what the catalogs call the primary key, is the mark of an
/// index without storage (rule 18: REINDEX CONCURRENTLY passes the name on).
///
/// # Safety
/// `index` is an open index.
pub unsafe fn of_index<E: From<Error>>(
    index: pg_sys::Relation,
    load: impl FnOnce() -> Result<Option<Vec<u8>>, E>,
) -> Result<IndexStorage, E> {
    sweep();
    let cache = cache();
    // SAFETY: the relation is open.
    let (relation, file) = unsafe { ((*index).rd_id.to_u32(), crate::store::file_number(index)) };
    if let Some((of_file, storage)) = cache.indexes.borrow().get(&relation)
        && *of_file == file
    {
        return Ok(storage.clone());
    }
    // As in `of_relation`.
    let before = cache.invalidations.get();
    let storage = match load()? {
        None => IndexStorage::Key,
        Some(bytes) => {
            let organization = Organization::from_bytes(&bytes)?;
            // SAFETY: the relation is open.
            let layout = unsafe { IndexLayout::new(index, organization) }?;
            IndexStorage::Stored(Rc::new(layout))
        }
    };
    if cache.invalidations.get() != before {
        cache.retired.borrow_mut().extend(storage.clone().retire());
        return Ok(storage);
    }
    let old = cache
        .indexes
        .borrow_mut()
        .insert(relation, (file, storage.clone()));
    cache
        .retired
        .borrow_mut()
        .extend(old.and_then(|(_, index)| index.retire()));
    Ok(storage)
}

/// Frees what earlier transactions have retired.
fn sweep() {
    let cache = cache();
    if cache.ended.replace(false) {
        // Taken out first: freeing must not happen under the borrow.
        let gone = std::mem::take(&mut *cache.retired.borrow_mut());
        drop(gone);
    }
}
