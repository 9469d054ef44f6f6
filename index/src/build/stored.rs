//! Building a stored index: the table's histories, turned into those of the
//! entries, sorted, and laid into pages bottom-up.
//!
//! The table's own versions are read, under no snapshot: whoever has an older
//! one finds in the new index what it sees in the table (rule 13), so there is
//! no snapshot that the index is too new for.

use engine::btree::Bulk;
use engine::compare::Compare;
use engine::mvcc::cursor::Cursor;
use engine::mvcc::entries::{Entry, derive};
use engine::mvcc::histories::History;
use engine::mvcc::scan::{Direction, Range};
use engine::page::cell::{EntryKind, Head, bit};
use pg::error::{self, OrRaise};
use pg::evaluate::{Evaluator, IndexValues};
use pg::handles::TemporaryFile;
use pg::open::OpenStore;
use pg::row::{self, Arena, IndexLayout, Organization, has_pointers};
use pg::slot;
use pg::sort::{Item, Sorter};
use pg::store::RelationStore;
use pg::toast::StoredValues;
use pg::xact::ServerSnapshot;
use pgrx::pg_sys;

use super::Built;
use super::progress::{self, Phase};

type EntrySorter<'l> = Sorter<'l, row::TableLayout, TemporaryFile>;

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
        let rows = OpenStore::table(table);
        let organization = Organization::of_entries(table, index, rows.layout().organization());
        let description = organization.to_bytes();
        let layout = IndexLayout::new(index, organization).or_raise(index);
        let memory = usize::try_from(pg_sys::maintenance_work_mem).unwrap_or(1 << 10) << 10;
        let order = layout.layout();
        let mut sorter = Sorter::new(&**order, TemporaryFile::of_transaction(), memory);

        progress::enter(Phase::Scan);
        let mut reader = Reader::new(table, index, info, &layout, rows.layout());
        let mut built = Built::default();
        let mut heads = Vec::new();
        let mut leaves = 0;
        progress::blocks_total(rows.store());
        // Others write meanwhile. The index is begun empty, is filled by whoever
        // writes from the next transaction on, and completed in the one after it
        // (the table AM's `index_validate_scan`).
        let is_concurrent = (*info).ii_Concurrent;
        if is_concurrent {
            built.rows = f64::from((*(*table).rd_rel).reltuples.max(0.0));
            rehearse(&rows, &mut reader, info);
        }
        let scanned = rows.with(|versions| {
            if is_concurrent {
                return Ok(());
            }
            versions.each_history(
                || {
                    leaves += 1;
                    progress::blocks_done(leaves);
                    pgrx::check_for_interrupts!();
                },
                |history| {
                    history.kept(versions.transactions, &mut heads);
                    built.rows += f64::from(u8::from(is_live(&heads)));
                    reader.take(history, &heads, &mut sorter);
                    Ok(())
                },
            )
        });
        scanned.or_raise(table);
        reader.end();

        progress::enter(Phase::Sort);
        sorter.seal().unwrap_or_else(|error| spill_failed(&error));
        progress::enter(Phase::Load);
        row::forget((*index).rd_id);
        let store = RelationStore::new(index);
        let is_unique = (*info).ii_Unique;
        let mut unique = Uniqueness::new(table, index, &layout);
        let mut bulk = Bulk::new(&store, &**order, &description).or_raise(index);
        let mut count = 0;
        let loaded = sorter.drain(|item| -> std::result::Result<(), Failure> {
            count += 1;
            if count % 1024 == 0 {
                pgrx::check_for_interrupts!();
                progress::entries_done(count);
            }
            if unique.is_new_entry(item.key) && item.head.kind() == EntryKind::Put {
                built.entries += 1.0;
                if is_unique && !item.mark {
                    unique.check(item);
                }
            }
            bulk.add(item.head, item.key, item.body)?;
            Ok(())
        });
        match loaded {
            Ok(()) => {}
            Err(Failure::Engine(error)) => error::raise_engine(index, error),
            Err(Failure::Spill(error)) => spill_failed(&error),
        }
        bulk.finish().or_raise(index);
        row::forget((*index).rd_id);
        if is_concurrent {
            built.entries = built.rows;
        }
        built
    }
}

/// Fails if an index that is being made CONCURRENTLY cannot become one, for two
/// rows are equal or an expression fails. Later it would be found as well; but
/// then everybody who writes would have to fill an index that fails him.
///
/// # Safety
/// As [`build`], under an active snapshot.
unsafe fn rehearse(rows: &OpenStore, reader: &mut Reader<'_>, info: *mut pg_sys::IndexInfo) {
    // SAFETY: the caller's promise; the snapshot is core's until the index is
    // built.
    unsafe {
        let table = rows.relation();
        let is_unique = (*info).ii_Unique;
        let is_plain = (*info).ii_Expressions.is_null() && (*info).ii_Predicate.is_null();
        if !is_unique && is_plain {
            return;
        }
        let order = reader.layout.layout();
        let memory = usize::try_from(pg_sys::maintenance_work_mem).unwrap_or(1 << 10) << 10;
        let mut sorter = Sorter::new(&**order, TemporaryFile::of_transaction(), memory);
        let snapshot = ServerSnapshot::from_pg(pg_sys::GetActiveSnapshot(), table);
        let mut cursor = Cursor::new(Range::default());
        while rows
            .with(|versions| cursor.step(versions, &snapshot, Direction::Forward))
            .or_raise(table)
        {
            pgrx::check_for_interrupts!();
            let row = cursor.row().expect("the cursor stands on a row");
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = reader.work;
            if let Some((entry, has_null)) = reader.entry(row.key, row.payload, row.head)
                && is_unique
                && !has_null
            {
                let added = sorter.add(Item {
                    head: row.head,
                    key: &entry.key,
                    body: &entry.body,
                    mark: false,
                });
                added.unwrap_or_else(|error| spill_failed(&error));
            }
            pg_sys::CurrentMemoryContext = before;
            pg_sys::MemoryContextReset(reader.work);
        }
        sorter.seal().unwrap_or_else(|error| spill_failed(&error));
        let mut unique = Uniqueness::new(table, reader.index, reader.layout);
        let checked = sorter.drain(|item| -> std::io::Result<()> {
            unique.check(item);
            Ok(())
        });
        checked.unwrap_or_else(|error| spill_failed(&error));
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

/// Whether the newest version kept is a row.
fn is_live(heads: &[Option<Head>]) -> bool {
    heads
        .iter()
        .flatten()
        .find(|head| head.is_version())
        .is_some_and(|head| head.kind() == EntryKind::Put)
}

enum Failure {
    Engine(engine::Error),
    Spill(std::io::Error),
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Failure {
        Failure::Engine(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Spill(error)
    }
}

fn spill_failed(error: &std::io::Error) -> ! {
    error::spill_failed("the entries of an index", error)
}

/// Turns rows into entries.
struct Reader<'l> {
    index: pg_sys::Relation,
    layout: &'l IndexLayout,
    rows: &'l std::rc::Rc<row::TableLayout>,
    slot: *mut pg_sys::TupleTableSlot,
    evaluator: Evaluator,
    /// The table's long values, if there can be any.
    stored: Option<StoredValues>,
    /// For what encoding long values leaves; reset with each row.
    work: pg_sys::MemoryContext,
    /// For the entry of a row with one version.
    room: Entry,
    nulls_distinct: bool,
}

impl<'l> Reader<'l> {
    unsafe fn new(
        table: pg_sys::Relation,
        index: pg_sys::Relation,
        info: *mut pg_sys::IndexInfo,
        layout: &'l IndexLayout,
        rows: &'l std::rc::Rc<row::TableLayout>,
    ) -> Reader<'l> {
        // SAFETY: the relations are open.
        unsafe {
            Reader {
                index,
                layout,
                rows,
                slot: pg_sys::MakeSingleTupleTableSlot((*table).rd_att, &raw const slot::OPS),
                evaluator: Evaluator::new(info),
                stored: StoredValues::open(table),
                work: pg_sys::AllocSetContextCreateInternal(
                    pg_sys::CurrentMemoryContext,
                    c"rowref index build".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                ),
                room: Entry::default(),
                nulls_distinct: !(*info).ii_NullsNotDistinct,
            }
        }
    }

    /// Gives the sorter the versions of the entries of one row.
    unsafe fn take(
        &mut self,
        history: &History,
        heads: &[Option<Head>],
        sorter: &mut EntrySorter<'_>,
    ) {
        // SAFETY: the slot is the table's; no page is locked.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.work;
            // Most rows: one version, whose entry is the row's only one.
            if let [Some(head)] = heads
                && head.kind() == EntryKind::Put
            {
                let mut entry = std::mem::take(&mut self.room);
                let made = self.make(&history.key, history.body(0), *head, &mut entry);
                pg_sys::CurrentMemoryContext = before;
                if let Some(has_null) = made {
                    let kept = head.flags & (bit::FROZEN | bit::COMMITTED);
                    let item = Item {
                        head: Head {
                            flags: EntryKind::Put as u8 | kept,
                            ..*head
                        },
                        key: &entry.key,
                        body: &entry.body,
                        mark: has_null,
                    };
                    sorter
                        .add(item)
                        .unwrap_or_else(|error| spill_failed(&error));
                }
                self.room = entry;
                self.clear_work();
                return;
            }
            let order = self.layout.layout();
            let mut any_null = Vec::new();
            let newest = heads.iter().flatten().find(|head| head.is_version());
            let newest = newest.map(|head| head.sequence);
            let kept = heads.iter().zip(history.entries()).rev();
            let mut versions = Vec::new();
            for (head, (_, payload)) in kept {
                let Some(head) = head.filter(|head| head.is_version()) else {
                    continue;
                };
                let is_row = head.kind() == EntryKind::Put
                    && (newest == Some(head.sequence) || self.is_whole(payload));
                let entry = is_row.then(|| self.entry(&history.key, payload, head));
                let entry = entry.flatten().map(|(entry, has_null)| {
                    any_null.push((entry.key.clone(), has_null));
                    entry
                });
                versions.push((head, entry));
            }
            let mut failed = None;
            derive(
                versions.into_iter(),
                |left, right| order.compare(left, right).is_eq(),
                |head, key, body| {
                    let mark = any_null.iter().any(|(of, null)| *null && of == key);
                    let item = Item {
                        head,
                        key,
                        body,
                        mark,
                    };
                    if let Err(error) = sorter.add(item) {
                        failed.get_or_insert(error);
                    }
                },
            );
            if let Some(error) = failed {
                spill_failed(&error);
            }
            pg_sys::CurrentMemoryContext = before;
            self.clear_work();
        }
    }

    /// Gives back what encoding has left; most rows leave nothing.
    unsafe fn clear_work(&self) {
        // SAFETY: the context is the reader's own.
        unsafe {
            if !(*self.work).isReset || !(*self.work).firstchild.is_null() {
                pg_sys::MemoryContextReset(self.work);
            }
        }
    }

    /// Whether all long values of a superseded version are there. The TOAST
    /// table may have been pruned by a horizon that is newer than the one by
    /// which this version was kept; then nobody sees the version any more.
    fn is_whole(&self, payload: &[u8]) -> bool {
        let Some(stored) = self.stored.as_ref().filter(|_| has_pointers(payload)) else {
            return true;
        };
        let pointers = self.rows.pointers(payload).unwrap_or_default();
        pointers
            .iter()
            .all(|pointer| stored.problem(pointer).is_none())
    }

    /// The entry of one version of a row, and whether a null in it sets it
    /// apart from all others.
    unsafe fn entry(&mut self, key: &[u8], payload: &[u8], head: Head) -> Option<(Entry, bool)> {
        let mut entry = Entry::default();
        // SAFETY: the caller's promise.
        let made = unsafe { self.make(key, payload, head, &mut entry) };
        made.map(|has_null| (entry, has_null))
    }

    /// As [`Reader::entry`], into room that is used again.
    unsafe fn make(
        &mut self,
        key: &[u8],
        payload: &[u8],
        head: Head,
        entry: &mut Entry,
    ) -> Option<bool> {
        // SAFETY: the slot is the table's, and key and payload are a row.
        unsafe {
            slot::store_borrowed(self.slot, self.rows, key, payload, head, slot::INVALID_TID);
            let mut values = IndexValues::default();
            if !self.evaluator.evaluate(self.slot, &mut values) {
                return None;
            }
            entry.key.clear();
            entry.body.clear();
            self.layout
                .entry_of(
                    &values.values,
                    &values.isnull,
                    key,
                    &mut entry.key,
                    &mut entry.body,
                )
                .or_raise(self.index);
            Some(self.nulls_distinct && self.layout.has_null(&values.isnull))
        }
    }

    fn end(mut self) {
        self.evaluator.rest();
        if let Some(stored) = self.stored {
            stored.close();
        }
        // SAFETY: both were made by `new`.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::MemoryContextDelete(self.work);
        }
    }
}

/// Watches entries go by, in order, for two live ones with the same columns.
struct Uniqueness<'l> {
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    layout: &'l IndexLayout,
    /// The key whose versions are passing.
    key: Vec<u8>,
    /// The columns of the last live entry.
    live: Vec<u8>,
}

impl<'l> Uniqueness<'l> {
    fn new(table: pg_sys::Relation, index: pg_sys::Relation, layout: &'l IndexLayout) -> Self {
        Uniqueness {
            table,
            index,
            layout,
            key: Vec::new(),
            live: Vec::new(),
        }
    }

    /// Whether this is another key than the last one: then the entry at hand
    /// is its newest.
    fn is_new_entry(&mut self, key: &[u8]) -> bool {
        if !self.key.is_empty() && self.key == key {
            return false;
        }
        self.key.clear();
        self.key.extend_from_slice(key);
        true
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
        let mut room = vec![0u64; table.arena_bytes(item.key.len()).div_ceil(8) + 8];
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
