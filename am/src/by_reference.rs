//! Rows by reference: what an index scan hands over whose entries name rows of
//! the table.
//!
//! The row is read by its key under the scan's snapshot. Entries are versioned
//! as their rows are, and by the same transactions, so a snapshot of a
//! statement sees the version of the row that the entry was made for, or a
//! later one of the same columns. Other snapshots judge entry and row at two
//! moments; between them the row may have changed its columns. So the scan is
//! asked once more whether the entry is there: a writer changes the row before
//! it ends the entry, hence a row read between two looks at a living entry has
//! the entry's columns, or its writer still runs and is reported.

use crate::table_am::TableAm;
use engine::BlockNumber;
use engine::mvcc::Snapshot;
use engine::mvcc::batch::{Batch, Row};
use engine::mvcc::fetch::Keys;
use pg::error::OrRaise;
use pg::handoff::{Ahead, Confirm, RowFetch};
use pg::xact::ServerSnapshot;
use pgrx::pg_sys;

/// How many references are asked for in advance at first, and at most.
const REACH_MIN: usize = 4;
const REACH_MAX: usize = 128;
/// How many leaves the store is told of in advance: to find one costs as much as
/// to wait for it, where the references are in no order.
const LEAVES_AHEAD: usize = 0;

/// What is kept from one row of a scan to the next.
pub struct ByReference<A> {
    relation: pg_sys::Relation,
    table: A,
    pg_snapshot: pg_sys::Snapshot,
    snapshot: ServerSnapshot<'static>,
    /// References that the scan has handed over or is about to, in its order;
    /// how many of them it has handed over.
    keys: Keys,
    handed: usize,
    /// How many more are asked for with the next one that is not among them.
    reach: usize,
    /// The rows of the references from `first` on.
    batch: Batch,
    first: usize,
}

impl<A: TableAm> ByReference<A> {
    /// That of a scan.
    ///
    /// # Safety
    /// The hand-off is a live scan's, whose snapshot this is; nobody else
    /// holds the result of an earlier call.
    #[inline]
    pub unsafe fn of<'k>(fetch: &mut RowFetch, snapshot: pg_sys::Snapshot) -> &'k mut Self {
        let relation = fetch.relation();
        // SAFETY: the scan's table stays open and its snapshot alive as long
        // as the scan lasts. The hand-off is a table's of `A`.
        let kept = unsafe {
            fetch.kept(|| {
                let table = crate::open::open::<A>(relation);
                ByReference {
                    relation,
                    pg_snapshot: snapshot,
                    snapshot: ServerSnapshot::from_pg(snapshot, relation),
                    keys: Keys::of_width(table.layout().key_width()),
                    table,
                    handed: 0,
                    reach: 0,
                    batch: Batch::default(),
                    first: 0,
                }
            })
        };
        assert_eq!(
            kept.pg_snapshot, snapshot,
            "a scan has one snapshot as long as it lasts"
        );
        kept
    }

    /// The table.
    pub fn table(&self) -> &A {
        &self.table
    }

    /// Reads the row of a reference, if the snapshot sees one. It stays until
    /// the next call. `ahead` tells what is handed over next: rows of the same
    /// leaf are read together, under a snapshot whose judgement stands.
    #[inline]
    pub fn find(
        &mut self,
        key: &[u8],
        confirm: Option<Confirm>,
        ahead: Option<Ahead>,
    ) -> Option<(Row<'_>, BlockNumber)> {
        if self.handed == self.keys.len() || self.keys.get(self.handed) != key {
            self.ask(key, ahead);
        }
        let at = self.handed;
        self.handed += 1;
        if at < self.first || at - self.first >= self.batch.len() {
            if let ServerSnapshot::Dirty(snapshot) = &self.snapshot {
                // What it found out about another row is not this one's.
                snapshot.reset();
            }
            let (table, batch) = (&self.table, &mut self.batch);
            let done = table.get_run(&mut self.keys, at, LEAVES_AHEAD, &self.snapshot, batch);
            // SAFETY: the relation is open.
            unsafe { done.or_raise(self.relation) };
            self.first = at;
        }
        if self.batch.is_empty() {
            return None;
        }
        // SAFETY: the snapshot is alive, and the scan stands at the entry.
        if confirm.is_some_and(|confirm| !unsafe { self.is_confirmed(confirm) }) {
            return None;
        }
        Some((
            self.batch.row(at - self.first),
            BlockNumber(self.batch.block),
        ))
    }

    /// Begins anew with a reference, and with what follows it: more of it, the
    /// longer the scan goes on.
    fn ask(&mut self, key: &[u8], ahead: Option<Ahead>) {
        // A scan that was begun anew, or turned round, may go on but a little.
        self.reach = if self.handed < self.keys.len() {
            0
        } else {
            (self.reach * 4).clamp(REACH_MIN, REACH_MAX)
        };
        let is_first = self.keys.is_empty();
        self.keys.clear();
        self.batch.clear();
        (self.handed, self.first) = (0, 0);
        self.keys.push(key);
        // A serializable transaction reads no row that it does not return.
        if let Some(ahead) = ahead
            && !is_first
            && self.reach > 0
            && !self.snapshot.is_tracked()
        {
            // SAFETY: the scan stands at the entry.
            unsafe { (ahead.list)(ahead.scan, self.reach, &mut self.keys) };
        }
    }

    /// # Safety
    /// The scan stands at the row's entry.
    #[cold]
    unsafe fn is_confirmed(&self, confirm: Confirm) -> bool {
        // SAFETY: the caller's promise; the snapshot is alive.
        unsafe {
            // What a dirty snapshot has found out about the row is what its
            // user waits by, not what it finds out about the entry.
            let before = *self.pg_snapshot;
            let is_still_there = (confirm.is_still_there)(confirm.scan);
            let now = &mut *self.pg_snapshot;
            now.xmin = before.xmin;
            now.xmax = before.xmax;
            now.speculativeToken = before.speculativeToken;
            is_still_there
        }
    }
}
