//! Filling new storage with what was collected.

use super::collect::Collected;
use crate::table_am::TableAm;
use crate::unique;
use engine::compare::Compare;
use engine::mvcc::rekey::{Clash, Lives};
use pg::row::{self, TableLayout};
use pg::sort::Item;
use pg::store::RelationStore;
use pg::xact::ServerTransactions;
use pgrx::pg_sys;
use std::rc::Rc;

/// What can go wrong on the way from the sorter to a page: the rows of a key
/// clash, which comes with the key.
type Failure = pg::sort::Failure<(Clash, Vec<u8>)>;

/// What is sorted.
const WHAT: &str = "the rows of a table";

/// Puts the events of one key after the other together.
struct Grouping<'t> {
    order: &'t TableLayout,
    transactions: &'t ServerTransactions,
    lives: Lives,
    count: u64,
}

impl<'t> Grouping<'t> {
    fn new(order: &'t TableLayout, transactions: &'t ServerTransactions) -> Grouping<'t> {
        Grouping {
            order,
            transactions,
            lives: Lives::default(),
            count: 0,
        }
    }

    /// Takes the next event; all of a key's are given to `ended` when the next
    /// key comes.
    fn take(
        &mut self,
        item: Item<'_>,
        ended: &mut impl FnMut(&Lives) -> engine::Result<()>,
    ) -> Result<(), Failure> {
        self.count += 1;
        if self.count.is_multiple_of(1024) {
            pgrx::check_for_interrupts!();
        }
        if self.lives.is_empty() || self.order.compare(self.lives.key(), item.key).is_ne() {
            self.end(ended)?;
            self.lives.begin(item.key);
        }
        self.lives.add(item.head, item.mark, item.body);
        Ok(())
    }

    /// Gives the last key's events to `ended`.
    fn end(&mut self, ended: &mut impl FnMut(&Lives) -> engine::Result<()>) -> Result<(), Failure> {
        if self.lives.is_empty() {
            return Ok(());
        }
        let settled = self.lives.settle(self.transactions);
        settled.map_err(|clash| Failure::Other((clash, self.lives.key().to_vec())))?;
        Ok(ended(&self.lives)?)
    }
}

/// Whether the rows that had the same key did so one after the other. Two that
/// live are no matter of histories: that is found later.
///
/// # Safety
/// `table` is open.
pub unsafe fn is_orderly(table: pg_sys::Relation, collected: &mut Collected<'_>) -> bool {
    if !collected.has_histories {
        return true;
    }
    // SAFETY: the caller's promise.
    let transactions = unsafe { ServerTransactions::new(table) };
    let order = collected.sorter.compare();
    let mut grouping = Grouping::new(order, &transactions);
    let mut nothing = |_: &Lives| Ok(());
    let looked = collected
        .sorter
        .each(|item| grouping.take(item, &mut nothing))
        .and_then(|()| grouping.end(&mut nothing));
    // SAFETY: the caller's promise.
    match looked.map_err(|failure| unsafe { failure.raise_common(table, WHAT) }) {
        Ok(()) | Err((Clash::Duplicate(_), _)) => true,
        Err((Clash::Overlap, _)) => false,
    }
}

/// Fills the new storage of a table, which is empty. Returns the number of rows.
///
/// # Safety
/// `table` is open, `A`'s and new; so is `index` open, the primary key by which
/// it is organized, if it is by one; `to` is the table's layout.
pub unsafe fn fill<A: TableAm>(
    table: pg_sys::Relation,
    index: Option<pg_sys::Relation>,
    to: &Rc<TableLayout>,
    collected: Collected<'_>,
) -> f64 {
    let rows = collected.rows;
    if collected.is_empty {
        // What new storage begins with is an empty table.
        return rows;
    }
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::RelationTruncate(table, 0);
        let store = RelationStore::new(table);
        let transactions = ServerTransactions::new(table);
        let mut grouping = Grouping::new(to, &transactions);
        let next_row_id = collected.next_row_id;
        let horizon = collected.horizon;
        let filled = A::load(
            &store,
            to,
            next_row_id,
            horizon,
            |add| -> Result<(), Failure> {
                let mut add_all = |lives: &Lives| {
                    lives
                        .versions()
                        .try_for_each(|(head, body)| add(head, lives.key(), body))
                };
                collected
                    .sorter
                    .drain(|item| grouping.take(item, &mut add_all))?;
                grouping.end(&mut add_all)
            },
        );
        match filled.map_err(|failure| failure.raise_common(table, WHAT)) {
            Ok(()) => {}
            Err((Clash::Duplicate(payload), key)) => {
                unique::duplicated(table, index, to, &key, &payload)
            }
            Err((Clash::Overlap, _)) => {
                unreachable!("what overlaps was collected without histories")
            }
        }
        row::forget((*table).rd_id);
        rows
    }
}
