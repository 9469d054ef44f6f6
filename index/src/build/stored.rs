//! Building a stored index: the table's histories, turned into those of the
//! entries, sorted, and laid into pages bottom-up.
//!
//! The table's own versions are read, under no snapshot: whoever has an older
//! one finds in the new index what it sees in the table (rule 13), so there is
//! no snapshot that the index is too new for.

use engine::btree::Bulk;
use engine::compare::Compare;
use engine::page::cell::EntryKind;
use pg::entries::{self, Gathered, Rows, Task};
use pg::error::{self, OrRaise};
use pg::evaluate::IndexValues;
use pg::open::OpenStore;
use pg::row::{self, Arena, IndexLayout, Organization};
use pg::sort::{Failure, Item};
use pg::store::RelationStore;
use pgrx::pg_sys;

use super::Built;
use super::progress::{self, Phase};

/// Builds the index that `info` describes into its empty file.
///
/// # Safety
/// Both relations are open and locked so that nobody else writes to the table;
/// `info` is the server's description of the index.
pub unsafe fn build(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
) -> Built {
    // SAFETY: the caller's promise.
    unsafe {
        let organization = {
            let rows = OpenStore::table(table);
            Organization::of_entries(table, index, rows.layout().organization())
        };
        let description = organization.to_bytes();
        let layout = IndexLayout::new(index, organization).or_raise(index);
        progress::enter(Phase::Scan);
        // Others write meanwhile. The index is begun empty, is filled by whoever
        // writes from the next transaction on, and completed in the one after it
        // (the table AM's `index_validate_scan`).
        if (*info).ii_Concurrent {
            rehearse(table, index, info, &layout);
            lay(table, index, &layout, &description, false, None);
            let rows = f64::from((*(*table).rd_rel).reltuples.max(0.0));
            return Built {
                rows,
                entries: rows,
            };
        }
        let task = Task {
            rows: Rows::Histories,
            keeps: true,
        };
        let mut gathered = entries::gather(table, index, info, &layout, task);
        let rows = gathered.rows;
        progress::enter(Phase::Sort);
        gathered.sort();
        progress::enter(Phase::Load);
        let is_unique = (*info).ii_Unique;
        let entries = lay(
            table,
            index,
            &layout,
            &description,
            is_unique,
            Some(gathered),
        );
        Built { rows, entries }
    }
}

/// Lays entries into the index's empty file; how many of them are live.
unsafe fn lay(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    layout: &IndexLayout,
    description: &[u8],
    is_unique: bool,
    gathered: Option<Gathered<'_>>,
) -> f64 {
    // SAFETY: as in `build`.
    unsafe {
        row::forget((*index).rd_id);
        let store = RelationStore::new(index);
        let mut unique = Uniqueness::new(table, index, layout);
        let mut bulk = Bulk::new(&store, &**layout.layout(), description).or_raise(index);
        bulk.fill_to(layout.layout().fill());
        let (mut count, mut live) = (0, 0.0);
        let loaded = gathered.map_or(Ok(()), |gathered| {
            bulk.state_horizon(gathered.horizon);
            gathered.drain(|item| -> std::result::Result<(), Failure> {
                count += 1;
                if count % 1024 == 0 {
                    pgrx::check_for_interrupts!();
                    progress::entries_done(count);
                }
                // Of each entry the newest version counts.
                let is_newest = bulk.add(item.head, item.key, item.body)?;
                if is_newest && item.head.kind() == EntryKind::Put {
                    live += 1.0;
                    if is_unique && !item.mark {
                        unique.check(item);
                    }
                }
                Ok(())
            })
        });
        match loaded.map_err(|failure| failure.raise_common(index, entries::WHAT)) {
            Ok(()) => {}
        }
        bulk.finish().or_raise(index);
        row::forget((*index).rd_id);
        live
    }
}

/// Fails if an index that is being made CONCURRENTLY cannot become one, for two
/// rows are equal or an expression fails. Later it would be found as well; but
/// then everybody who writes would have to fill an index that fails him.
///
/// # Safety
/// As [`build`], under an active snapshot.
unsafe fn rehearse(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    layout: &IndexLayout,
) {
    // SAFETY: the caller's promise; the snapshot is core's until the index is
    // built.
    unsafe {
        let is_unique = (*info).ii_Unique;
        let is_plain = (*info).ii_Expressions.is_null() && (*info).ii_Predicate.is_null();
        if !is_unique && is_plain {
            return;
        }
        let task = Task {
            rows: Rows::Seen,
            keeps: is_unique,
        };
        let mut gathered = entries::gather(table, index, info, layout, task);
        gathered.sort();
        let mut unique = Uniqueness::new(table, index, layout);
        let checked = gathered.drain(|item| -> std::io::Result<()> {
            if !item.mark {
                unique.check(item);
            }
            Ok(())
        });
        checked.unwrap_or_else(|error| entries::spill_failed(&error));
    }
}

/// Makes the init fork of an unlogged index: an empty tree, organized as the
/// one in the main fork. An index without storage has none there either.
///
/// # Safety
/// `index` is open, and its init fork exists and is empty.
pub unsafe fn build_empty(index: pg_sys::Relation) {
    // SAFETY: the caller's promise.
    unsafe {
        let row::IndexStorage::Stored(layout) = pg::open::storage_of(index) else {
            return;
        };
        let store = RelationStore::init_fork(index);
        let order = layout.layout();
        engine::btree::Tree::<'_, _, row::TableLayout>::create(
            &store,
            &order.organization().to_bytes(),
            order.ordered(),
        )
        .or_raise(index);
    }
}

/// Watches entries go by, in order, for two live ones with the same columns.
struct Uniqueness<'l> {
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    layout: &'l IndexLayout,
    /// The columns of the last live entry.
    live: Vec<u8>,
}

impl<'l> Uniqueness<'l> {
    fn new(table: pg_sys::Relation, index: pg_sys::Relation, layout: &'l IndexLayout) -> Self {
        Uniqueness {
            table,
            index,
            layout,
            live: Vec::new(),
        }
    }

    /// Raises if an entry with the same columns is live already.
    unsafe fn check(&mut self, item: Item<'_>) {
        // SAFETY: the relations are open; the entry is one of the layout's.
        unsafe {
            let len = self.layout.columns_len(item.key);
            let len = len.map_err(row::Error::from).or_raise(self.index);
            let columns = &item.key[..len];
            let order = self.layout.layout();
            if !self.live.is_empty() && order.compare(&self.live, columns).is_eq() {
                let described = describe(self.index, self.layout, item);
                error::index_not_unique(self.table, self.index, described);
            }
            self.live.clear();
            self.live.extend_from_slice(columns);
        }
    }
}

/// An entry's columns in words; null where the user may not see them.
unsafe fn describe(
    index: pg_sys::Relation,
    layout: &IndexLayout,
    item: Item<'_>,
) -> *mut std::ffi::c_char {
    // SAFETY: the arena and the arrays have the room that reading asks for,
    // and live on behind the call that needs them.
    unsafe {
        let table = layout.layout();
        let mut payload = vec![0u64; item.body.len().div_ceil(8)];
        let bytes =
            std::slice::from_raw_parts_mut(payload.as_mut_ptr().cast::<u8>(), item.body.len());
        bytes.copy_from_slice(item.body);
        let mut room = vec![0u64; table.arena_bytes(item.key).div_ceil(8) + 8];
        let mut arena = Arena {
            start: room.as_mut_ptr().cast(),
            capacity: room.len() * 8,
            used: 0,
        };
        let mut values = IndexValues::default();
        let mut cursor = table.cursor(bytes).or_raise(index);
        table
            .deform(
                item.key,
                bytes,
                &mut cursor,
                0,
                layout.attributes(),
                values.values.as_mut_ptr(),
                values.isnull.as_mut_ptr(),
                &mut arena,
            )
            .or_raise(index);
        pg_sys::BuildIndexValueDescription(
            index,
            values.values.as_mut_ptr(),
            values.isnull.as_mut_ptr(),
        )
    }
}
