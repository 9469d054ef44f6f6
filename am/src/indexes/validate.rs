//! CREATE INDEX CONCURRENTLY's last part, and REINDEX's: the index, which has
//! been filled by everybody who wrote to the table for a while, gets what it
//! lacks and loses what is stale (rule 17). `engine::mvcc::settle` says why
//! that can be done entry by entry while others write.
//!
//! It is a full outer merge, under core's snapshot, of the entries that the
//! table's rows have (sorted) with those that the index holds.

use std::cmp::Ordering;

use engine::compare::Compare;
use engine::mvcc::Writer;
use engine::mvcc::cursor::Cursor;
use engine::mvcc::index::{Admission, Uniqueness};
use engine::mvcc::scan::{Direction, Range};
use engine::mvcc::settle::Entered;
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
        let merged = gathered.drain(|item| -> std::io::Result<()> {
            pgrx::check_for_interrupts!();
            entries += 1.0;
            let mut stands = false;
            while has_more && !stands {
                let held = ahead.row().expect("the cursor stands on an entry");
                match order.compare(held.key, item.key) {
                    Ordering::Greater => break,
                    Ordering::Equal if held.payload == item.body => stands = true,
                    _ => merge.end_stale(held.key),
                }
                has_more = merge.step(&mut ahead);
            }
            if !stands && merge.enter(item) {
                (*state).tups_inserted += 1.0;
            }
            Ok(())
        });
        merged.unwrap_or_else(|error| entries::spill_failed(&error));
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

    /// Puts an entry if it is missing; whether it was.
    fn enter(&self, item: Item<'_>) -> bool {
        let entered = self.open.store().with(|versions| {
            versions.enter_missing_entry(&self.snapshot, item.head, item.key, item.body)
        });
        // SAFETY: the index is open.
        match unsafe { entered.or_raise(self.index) } {
            Entered::Stands => return false,
            Entered::Put => {}
            Entered::Hindered => error::raise_with(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "an index could not be completed: a row changed in a way it cannot follow".into(),
                None,
                Some("Drop the index, and create it again."),
            ),
        }
        if self.is_unique && !item.mark {
            // Whoever puts an entry with the same columns from now on finds this
            // one; who was faster is found here.
            self.check_unique(item.key);
        }
        true
    }

    fn check_unique(&self, key: &[u8]) {
        // SAFETY: the relations are open; no page is locked while waiting.
        unsafe {
            let columns_len = self.open.layout().columns_len(key);
            let columns_len = columns_len
                .map_err(pg::row::Error::from)
                .or_raise(self.index);
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
