//! CREATE INDEX CONCURRENTLY's last part, and REINDEX's: the index, which has
//! been filled by everybody who wrote to the table for a while, gets what it
//! lacks and loses what is stale (rule 17). `engine::mvcc::settle` says why
//! that can be done entry by entry while others write.
//!
//! It is a full outer merge, under core's snapshot, of the entries that the
//! table's rows have (sorted) with those that the index holds.

use std::cmp::Ordering;

use engine::btree::RunEntry;
use engine::compare::Compare;
use engine::mvcc::cursor::Cursor;
use engine::mvcc::index::{Admission, Uniqueness};
use engine::mvcc::scan::{Direction, Edge, Range};
use engine::mvcc::settle::Entered;
use engine::mvcc::{Judgement, Sight, Snapshot, Writer};
use engine::page::cell::{EntryKind, Head};
use engine::store::PageStore;
use engine::{CommandId, Xid};
use pg::entries::{self, Rows, Task};
use pg::error::{self, OrRaise};
use pg::open::OpenIndex;
use pg::slot;
use pg::sort::Item;
use pg::version::server;
use pg::xact::{ServerSnapshot, WaitPolicy, wait_for};
use pgrx::{PgSqlErrorCode, pg_sys};

/// Makes the index equal to the table, as the snapshot sees both. An index
/// without storage is the table.
///
/// # Safety
/// The arguments are those of `index_validate_scan`.
pub unsafe fn validate(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    snapshot: pg_sys::Snapshot,
    state: *mut pg_sys::ValidateIndexState,
) {
    // SAFETY: the caller's promise; both relations and the snapshot outlive
    // this call.
    unsafe {
        let Some(open) = OpenIndex::open(index, table) else {
            return;
        };
        let merge = Merge {
            table,
            index,
            open,
            snapshot: ServerSnapshot::from_pg(snapshot, table),
            is_unique: (*info).ii_Unique,
        };
        let layout = merge.open.layout().clone();
        let order = layout.layout();
        let task = Task {
            rows: Rows::Seen,
            keeps: true,
        };
        pg_sys::PushActiveSnapshot(snapshot);
        let mut gathered = entries::gather(table, index, info, &layout, task);
        pg_sys::PopActiveSnapshot();
        (*state).htups += gathered.rows;
        gathered.sort();
        let mut ahead = Cursor::new(Range::default());
        let mut has_more = merge.step(&mut ahead);
        let mut entries = 0.0;
        let mut missing = Missing::default();
        let merged = gathered.drain(|item| -> std::io::Result<()> {
            pgrx::check_for_interrupts!();
            entries += 1.0;
            let mut stands = false;
            while has_more && !stands {
                let held = ahead.row().expect("the cursor stands on an entry");
                match order.compare(held.key, item.key) {
                    Ordering::Greater => break,
                    Ordering::Equal if held.payload == item.body => stands = true,
                    // It is put right where it is entered.
                    Ordering::Equal => {}
                    Ordering::Less => merge.end_stale(held.key),
                }
                has_more = merge.step(&mut ahead);
            }
            if !stands {
                missing.push(item);
            }
            if missing.is_full() {
                (*state).tups_inserted += merge.enter_all(&mut missing);
            }
            Ok(())
        });
        merged.unwrap_or_else(|error| entries::spill_failed(&error));
        (*state).tups_inserted += merge.enter_all(&mut missing);
        while has_more {
            pgrx::check_for_interrupts!();
            merge.end_stale(ahead.row().expect("the cursor stands on an entry").key);
            has_more = merge.step(&mut ahead);
        }
        // Core has taken the index's statistics when it was empty.
        server::update_relation_statistics(
            index,
            merge.open.store().store().block_count().or_raise(index),
            entries,
            pg_sys::TransactionId::from_inner(0),
            pg_sys::MultiXactId::from_inner(0),
        );
    }
}

struct Merge<'s> {
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    open: OpenIndex,
    snapshot: ServerSnapshot<'s>,
    is_unique: bool,
}

impl Merge<'_> {
    /// The next entry that the snapshot sees in the index.
    fn step(&self, cursor: &mut Cursor) -> bool {
        let stepped = self
            .open
            .store()
            .with(|versions| cursor.step(versions, &self.snapshot, Direction::Forward));
        // SAFETY: the index is open.
        unsafe { stepped.or_raise(self.index) }
    }

    fn end_stale(&self, key: &[u8]) {
        let ended = self
            .open
            .store()
            .with(|versions| versions.end_stale_entry(&self.snapshot, key));
        // SAFETY: the index is open.
        unsafe { ended.or_raise(self.index) }
    }

    /// Puts those of the entries that are missing; how many were.
    fn enter_all(&self, missing: &mut Missing) -> f64 {
        let mut count = 0.0;
        let mut at = 0;
        while at < missing.len() {
            pgrx::check_for_interrupts!();
            let rest = (at..missing.len()).map(|nth| missing.entry(nth));
            let put = self
                .open
                .store()
                .with(|versions| versions.enter_unknown_entries(rest));
            // SAFETY: the index is open.
            let put = unsafe { put.or_raise(self.index) };
            let end = at + put.max(1);
            if put > 0 || self.enter(missing.entry(at)) {
                count += (end - at) as f64;
                if self.is_unique {
                    self.check_run(missing, at..end);
                }
            }
            at = end;
        }
        missing.clear();
        count
    }

    /// Puts an entry if it is missing, or says something else; whether it was so.
    fn enter(&self, entry: RunEntry<'_>) -> bool {
        let entered = self.open.store().with(|versions| {
            versions.enter_missing_entry(&self.snapshot, entry.head, entry.key, entry.body)
        });
        // SAFETY: the index is open.
        match unsafe { entered.or_raise(self.index) } {
            Entered::Stands => false,
            Entered::Put => true,
            Entered::Hindered => error::raise_with(
                PgSqlErrorCode::ERRCODE_INDEX_CORRUPTED,
                "an index could not be completed: an entry lacks its beginning".into(),
                None,
                Some("Drop the index, and create it again."),
            ),
        }
    }

    /// Raises if an entry that was put just now has the columns of another live
    /// one. Whoever puts an entry with the same columns from now on finds these;
    /// who was faster is found here.
    ///
    /// The leaves are read once, from the left: whoever is between his look and
    /// his put holds the first leaf that can have the columns, and is waited
    /// for there. Only entries whose columns stand there twice, for whatever
    /// rows and however long ago, take the closer look of [`Merge::check_unique`].
    fn check_run(&self, missing: &Missing, run: std::ops::Range<usize>) {
        let edge = |nth: usize, after| {
            let key = self.columns_of(missing.entry(nth).key).to_vec();
            Some(Edge { key, after })
        };
        let range = Range {
            from: edge(run.start, false),
            to: edge(run.end - 1, true),
        };
        let compare = self.open.layout().layout();
        let mut own = run.filter(|nth| !missing.is_apart(*nth)).peekable();
        let mut cursor = Cursor::new(range);
        let mut before: Vec<u8> = Vec::new();
        let mut doubtful = Vec::new();
        loop {
            let stepped = self
                .open
                .store()
                .with(|versions| cursor.step(versions, &EverPut, Direction::Forward));
            // SAFETY: the index is open.
            if !unsafe { stepped.or_raise(self.index) } {
                break;
            }
            let columns = self.columns_of(cursor.row().expect("a row").key);
            if before.is_empty() || compare.compare(&before, columns).is_ne() {
                before.clear();
                before.extend_from_slice(columns);
                continue;
            }
            // Those of the run with these columns; others lie before or behind.
            while let Some(nth) = own.peek().copied() {
                let mine = self.columns_of(missing.entry(nth).key);
                match compare.compare(mine, columns) {
                    Ordering::Greater => break,
                    Ordering::Equal => doubtful.push(nth),
                    Ordering::Less => {}
                }
                own.next();
            }
        }
        for nth in doubtful {
            self.check_unique(missing.entry(nth).key);
        }
    }

    /// The index's own columns of an entry.
    fn columns_of<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        let len = self.open.layout().columns_len(key);
        // SAFETY: the index is open.
        let len = unsafe { len.map_err(pg::row::Error::from).or_raise(self.index) };
        &key[..len]
    }

    fn check_unique(&self, key: &[u8]) {
        // SAFETY: the relations are open; no page is locked while waiting.
        unsafe {
            let columns_len = self.columns_of(key).len();
            let nobody = Writer {
                xid: Xid::NONE,
                cid: CommandId(0),
            };
            loop {
                let asked = self.open.store().with(|versions| {
                    let asks = Uniqueness::Asked;
                    versions.put_unique_entry(nobody, key, columns_len, &[], 0, asks)
                });
                match asked.or_raise(self.index) {
                    Admission::Unique | Admission::Doubtful => return,
                    Admission::Busy { version, .. } => {
                        wait_for(
                            self.table,
                            version.xmin,
                            WaitPolicy::Block,
                            slot::INVALID_TID,
                            pg_sys::XLTW_Oper::XLTW_InsertIndexUnique,
                        );
                    }
                    Admission::Exists(_) => {
                        // The row may have ended since; then it may.
                        let ended = self
                            .open
                            .store()
                            .with(|versions| versions.is_entry_ended(key));
                        if ended.or_raise(self.index) {
                            return;
                        }
                        error::index_not_unique(self.table, self.index, std::ptr::null_mut())
                    }
                }
            }
        }
    }
}

/// Sees every entry that was ever put and is still there, live or not.
struct EverPut;

impl Snapshot for EverPut {
    fn judge(&self, version: Head) -> Judgement {
        Judgement::known(if version.kind() == EntryKind::Put {
            Sight::Seen
        } else {
            Sight::TooNew
        })
    }

    fn is_stable(&self) -> bool {
        false
    }
}

/// Entries that the index seems to lack, in order: a few leaves' worth.
#[derive(Default)]
struct Missing {
    bytes: Vec<u8>,
    /// The row's version, where the key and the body end, and whether nulls set
    /// it apart from all others.
    items: Vec<(Head, usize, usize, bool)>,
}

impl Missing {
    const BYTES: usize = 8 * pg_sys::BLCKSZ as usize;

    fn push(&mut self, item: Item<'_>) {
        self.bytes.extend_from_slice(item.key);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(item.body);
        let end = self.bytes.len();
        self.items.push((item.head, middle, end, item.mark));
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= Self::BYTES
    }

    fn len(&self) -> usize {
        self.items.len()
    }

    fn entry(&self, nth: usize) -> RunEntry<'_> {
        let start = nth.checked_sub(1).map_or(0, |before| self.items[before].2);
        let (head, middle, end, _) = self.items[nth];
        RunEntry {
            head,
            key: &self.bytes[start..middle],
            body: &self.bytes[middle..end],
        }
    }

    fn is_apart(&self, nth: usize) -> bool {
        self.items[nth].3
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
    }
}
