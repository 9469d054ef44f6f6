//! Taking the rows of a table out of its storage, version by version, each with
//! the key that it is to have.

use crate::open::open;
use crate::table_am::TableAm;
use crate::toast;
use crate::unique;
use engine::btree::check_limits;
use engine::mvcc::Writer;
use engine::mvcc::entries::Entry;
use engine::mvcc::histories::History;
use engine::mvcc::rekey::rekey;
use engine::page::cell::{EntryKind, Head};
use engine::{Sequence, Xid, compare::Compare};
use pg::error::{self, OrRaise};
use pg::handles::TemporaryFile;
use pg::row::{TableLayout, has_pointers, row_id_key};
use pg::slot;
use pg::sort::{Item, Sorter};
use pg::toast::StoredValues;
use pgrx::pg_sys;
use std::rc::Rc;

/// What becomes of the rows' versions.
#[derive(Clone, Copy)]
pub enum Keep {
    /// All that somebody may still need stay, with their writers.
    Histories,
    /// Only the rows that live stay, and become this command's.
    Rows(Writer),
}

/// Versions under their new keys, to be sorted.
pub struct Collected<'l> {
    /// In the order of their new keys; of one key the event that came last
    /// comes first, and each row's are together. A mark says that a row began.
    pub sorter: Sorter<'l, TableLayout, TemporaryFile>,
    /// Whether there is anything but rows of one version.
    pub has_histories: bool,
    /// Whether there is anything at all.
    pub is_empty: bool,
    /// Whether rows have stored values that they do without from now on.
    pub has_values_to_delete: bool,
    /// The first row id that was not given to a row.
    pub next_row_id: u64,
    /// Rows that live.
    pub rows: f64,
    /// The conflict horizon of what was read.
    pub horizon: Xid,
}

/// Collects the rows of one table.
pub struct Collector<'l> {
    table: pg_sys::Relation,
    index: Option<pg_sys::Relation>,
    to: &'l Rc<TableLayout>,
    keep: Keep,
    /// The columns of the new key, counted from 0.
    key_columns: Vec<usize>,
    /// The table's long values, if there can be any.
    stored: Option<StoredValues>,
    slot: *mut pg_sys::TupleTableSlot,
    /// For what encoding long values leaves; reset with each row.
    work: pg_sys::MemoryContext,
    /// Events so far: their numbers are the order in which they came.
    events: u64,
    /// A version was met that cannot be under the new key.
    is_hopeless: bool,
    out: Collected<'l>,
}

impl<'l> Collector<'l> {
    /// # Safety
    /// `table` is open and stays so while the collector lives, and so does
    /// `index`; `to` is a layout of the table.
    pub unsafe fn new(
        table: pg_sys::Relation,
        index: Option<pg_sys::Relation>,
        to: &'l Rc<TableLayout>,
        keep: Keep,
    ) -> Collector<'l> {
        // SAFETY: the caller's promise; slot and context go with the memory
        // context of the moment if an ERROR keeps them from being dropped.
        unsafe {
            let memory = usize::try_from(pg_sys::maintenance_work_mem).unwrap_or(1 << 10) << 10;
            Collector {
                table,
                index,
                to,
                keep,
                key_columns: (to.organization().columns().iter())
                    .map(|column| column.attribute as usize - 1)
                    .collect(),
                stored: StoredValues::open(table),
                slot: pg_sys::MakeSingleTupleTableSlot((*table).rd_att, &raw const slot::OPS),
                work: pg_sys::AllocSetContextCreateInternal(
                    pg_sys::CurrentMemoryContext,
                    c"rowref organize".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                ),
                events: 0,
                is_hopeless: false,
                out: Collected {
                    sorter: Sorter::new(&**to, TemporaryFile::of_transaction(), memory),
                    has_histories: false,
                    is_empty: true,
                    has_values_to_delete: false,
                    next_row_id: 1,
                    horizon: Xid::NONE,
                    rows: 0.0,
                },
            }
        }
    }

    /// Reads the table. `None` if a version that somebody may still need cannot
    /// be under the new key.
    ///
    /// # Safety
    /// `from` is the table, and nobody else writes to it.
    pub unsafe fn collect<A: TableAm>(mut self, from: &A) -> Option<Collected<'l>> {
        // SAFETY: the caller's promise; no page is locked while a row is taken.
        unsafe {
            let read = from.each_history(
                || {
                    pgrx::check_for_interrupts!();
                },
                |history, heads| {
                    if !self.is_hopeless {
                        self.take(from.layout(), history, heads);
                    }
                    Ok(())
                },
            );
            self.out.horizon = read.or_raise(self.table);
            if let Some(stored) = self.stored.take() {
                stored.close();
            }
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::MemoryContextDelete(self.work);
        }
        let sealed = self.out.sorter.seal();
        sealed.unwrap_or_else(|error| error::spill_failed("the rows of a table", &error));
        (!self.is_hopeless).then_some(self.out)
    }

    /// Takes the versions of one row.
    unsafe fn take(&mut self, from: &Rc<TableLayout>, history: &History, heads: &[Option<Head>]) {
        let is_version = |head: &&Head| head.is_version();
        let Some(newest) = heads.iter().flatten().find(is_version).copied() else {
            return;
        };
        let lives = newest.kind() == EntryKind::Put;
        let versions = heads.iter().zip(history.entries());
        let mut entries = Vec::with_capacity(1);
        // SAFETY: the slot is the table's, and no page is locked.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.work;
            for (head, (_, payload)) in versions.rev() {
                let Some(head) = head.filter(|head| head.is_version()) else {
                    continue;
                };
                let is_newest = head.sequence == newest.sequence;
                match self.keep {
                    Keep::Rows(_) if !is_newest => continue,
                    Keep::Rows(writer) => {
                        let head = Head {
                            flags: head.kind() as u8,
                            xmin: writer.xid,
                            cid: writer.cid,
                            ..head
                        };
                        entries.push((head, self.entry(from, &history.key, payload, head, true)));
                    }
                    Keep::Histories => {
                        let entry = self.entry(from, &history.key, payload, head, is_newest);
                        entries.push((head, entry));
                    }
                }
            }
            pg_sys::CurrentMemoryContext = before;
            if !(*self.work).isReset || !(*self.work).firstchild.is_null() {
                pg_sys::MemoryContextReset(self.work);
            }
        }
        if self.is_hopeless {
            return;
        }
        self.out.rows += f64::from(u8::from(lives));
        self.out.has_histories |= entries.len() > 1;
        let (to, events, out) = (self.to, &mut self.events, &mut self.out);
        let before = *events;
        let mut failed = None;
        rekey(
            entries.into_iter(),
            |left, right| to.compare(left, right).is_eq(),
            |event| {
                *events += 1;
                let added = out.sorter.add(Item {
                    head: Head {
                        sequence: Sequence(*events),
                        ..event.head
                    },
                    key: event.key,
                    body: event.body,
                    mark: event.begins,
                });
                if let Err(error) = added {
                    failed.get_or_insert(error);
                }
            },
        );
        if let Some(error) = failed {
            error::spill_failed("the rows of a table", &error);
        }
        if *events > before {
            out.is_empty = false;
            // All of a row's versions had this one.
            out.next_row_id += 1;
        }
    }

    /// A version's new key and payload; `None` if it ends its row, or if nobody
    /// can see it any more. A newest one that cannot be under the new key is an
    /// error; another one makes the whole collection hopeless.
    unsafe fn entry(
        &mut self,
        from: &Rc<TableLayout>,
        key: &[u8],
        payload: &[u8],
        head: Head,
        is_newest: bool,
    ) -> Option<Entry> {
        if head.kind() != EntryKind::Put {
            return None;
        }
        // SAFETY: the slot is the table's; key and payload are a row of `from`.
        unsafe {
            slot::store_borrowed(self.slot, from, key, payload, head, slot::INVALID_TID);
            let (values, isnull) = slot::columns(self.slot);
            let mut entry = Entry::default();
            if self.to.is_row_id() {
                entry
                    .key
                    .extend_from_slice(&row_id_key(self.out.next_row_id));
            } else {
                if let (true, Some(index)) = (is_newest, self.index) {
                    unique::demand_no_nulls(self.table, index, self.slot);
                }
                if !is_newest && !self.can_read_key(from, payload) {
                    return None;
                }
                if self.key_columns.iter().any(|column| isnull[*column]) {
                    self.is_hopeless = true;
                    return None;
                }
                let encoded = self.to.encode_key(values, isnull, &mut entry.key);
                if is_newest {
                    encoded.or_raise(self.table);
                } else if encoded.is_err() {
                    self.is_hopeless = true;
                    return None;
                }
            }
            let _ = (self.to).encode_payload_with_pointers(values, isnull, &mut entry.body);
            if is_newest {
                // A value that was compressed in the key may be too long for a row.
                if self.is_too_long(head, &entry) {
                    let key_bytes = entry.key.len();
                    toast::shorten_kept(self.table, self.to, self.slot, key_bytes, &mut entry.body);
                }
                self.out.has_values_to_delete |= has_pointers(payload)
                    && toast::pointers_not_kept(self.table, from, self.to, payload)
                        .next()
                        .is_some();
            } else {
                self.is_hopeless |= self.is_too_long(head, &entry);
            }
            Some(entry)
        }
    }

    /// Whether a version would not fit a page.
    fn is_too_long(&self, head: Head, entry: &Entry) -> bool {
        // Its number, which is not known yet, may take some more bytes.
        let head = Head {
            sequence: Sequence(u64::from(u32::MAX)),
            ..head
        };
        check_limits(pg_sys::BLCKSZ as usize, head, &entry.key, &entry.body).is_err()
    }

    /// Whether the columns of the new key can be read of a superseded version.
    /// Their values may have gone from the TOAST table, by a horizon that is
    /// newer than the one by which the version was kept; then nobody sees the
    /// version any more.
    fn can_read_key(&self, from: &TableLayout, payload: &[u8]) -> bool {
        let Some(stored) = self.stored.as_ref().filter(|_| has_pointers(payload)) else {
            return true;
        };
        let pointers = from.pointers(payload).unwrap_or_default();
        pointers
            .iter()
            .filter(|pointer| self.key_columns.contains(&pointer.column))
            .all(|pointer| stored.problem(pointer).is_none())
    }
}

/// Deletes the stored values that rows do without under the layout `to`.
///
/// # Safety
/// `table` is open, `A`'s, and nobody else writes to it.
pub unsafe fn delete_values<A: TableAm>(table: pg_sys::Relation, to: &TableLayout) {
    // SAFETY: the caller's promise.
    unsafe {
        let from = open::<A>(table);
        let read = from.each_history(
            || {
                pgrx::check_for_interrupts!();
            },
            |history, heads| {
                let newest = heads
                    .iter()
                    .position(|head| head.is_some_and(Head::is_version));
                if let Some(newest) = newest
                    && heads[newest].is_some_and(|head| head.kind() == EntryKind::Put)
                {
                    let payload = history.body(newest);
                    toast::delete_not_kept(table, from.layout(), to, payload);
                }
                Ok(())
            },
        );
        read.or_raise(table);
    }
}
