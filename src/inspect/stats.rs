//! What the pages of a relation hold, counted: `rowref.relation_stats`.

use super::{Opened, layout_or_raise, organization_name};
use engine::btree::check::check;
use engine::mvcc::{Transactions, XidStatus};
use engine::page::cell::{EntryKind, Head, bit};
use engine::page::{HEADER_BYTES, Page, PageKind, SLOT_BYTES, SPECIAL_BYTES};
use engine::store::PageStore;
use engine::{BlockNumber, Error};
use pg::error::OrRaise;
use pg::store::RelationStore;
use pg::xact::ServerTransactions;
use pgrx::pg_sys;
use pgrx::prelude::*;

/// Entries by what they are, and the bytes of each kind with their slots.
#[derive(Default)]
struct Kinds {
    versions: i64,
    tombstones: i64,
    locks: i64,
    frozen: i64,
    version_bytes: i64,
    tombstone_bytes: i64,
    lock_bytes: i64,
}

impl Kinds {
    fn count(&mut self, head: Head, bytes: i64) {
        let (entries, sum) = match head.kind() {
            EntryKind::Put => (&mut self.versions, &mut self.version_bytes),
            EntryKind::Lock => (&mut self.locks, &mut self.lock_bytes),
            _ => (&mut self.tombstones, &mut self.tombstone_bytes),
        };
        *entries += 1;
        *sum += bytes;
        self.frozen += i64::from(head.is_version() && head.has(bit::FROZEN));
    }
}

/// Counts the entries of every leaf.
fn kinds_of(store: &RelationStore) -> Result<Kinds, Error> {
    let mut kinds = Kinds::default();
    for block in 1..store.block_count()? {
        pgrx::check_for_interrupts!();
        let block = BlockNumber(block);
        let guard = store.read(block)?;
        if Page::is_new(&guard) {
            continue;
        }
        let page = Page::open(&guard, block)?;
        if page.kind() == PageKind::Leaf {
            for nth in 0..page.slot_count() {
                let bytes = usize::from(page.slot(nth).length) + SLOT_BYTES;
                kinds.count(page.leaf_cell(nth, block)?.head, bytes as i64);
            }
        }
    }
    Ok(kinds)
}

/// Rows: keys whose newest version that did not abort is one. The others'
/// versions no new snapshot sees.
fn rows_of(opened: &Opened) -> i64 {
    // SAFETY: the relation is open.
    unsafe {
        let store = opened.versions();
        let transactions = ServerTransactions::new(opened.relation);
        let aborted = |head: &Head| {
            head.has(bit::ABORTED)
                || !head.has(bit::COMMITTED)
                    && !head.has(bit::FROZEN)
                    && transactions.status(head.xmin) == XidStatus::Aborted
        };
        let mut rows = 0;
        store
            .with(|v| {
                v.each_history(
                    || {
                        pgrx::check_for_interrupts!();
                    },
                    |history| {
                        let newest = history
                            .heads()
                            .iter()
                            .find(|head| head.is_version() && !aborted(head));
                        rows += i64::from(newest.is_some_and(|head| head.kind() == EntryKind::Put));
                        Ok(())
                    },
                )
            })
            .or_raise(opened.relation);
        rows
    }
}

/// What the pages of a relation hold.
#[expect(
    clippy::type_complexity,
    reason = "the macro wants the columns spelled out"
)]
#[pg_extern(sql = false, name = "rowref_relation_stats")]
fn rowref_relation_stats(
    relation: pg_sys::Oid,
) -> TableIterator<
    'static,
    (
        name!(organization, String),
        name!(levels, i32),
        name!(leaf_pages, i64),
        name!(inner_pages, i64),
        name!(deleted_pages, i64),
        name!(new_pages, i64),
        name!(entries, i64),
        name!(free_bytes, i64),
        name!(garbage_bytes, i64),
        name!(incomplete_splits, i64),
        name!(rows, i64),
        name!(versions, i64),
        name!(dead_versions, i64),
        name!(tombstones, i64),
        name!(locks, i64),
        name!(frozen, i64),
        name!(version_bytes, i64),
        name!(tombstone_bytes, i64),
        name!(lock_bytes, i64),
        name!(fill_percent, f64),
    ),
> {
    let opened = Opened::new(relation);
    // SAFETY: open until `close`.
    let store = unsafe { RelationStore::new(opened.relation) };
    let layout = layout_or_raise(&opened, &store);
    let report = store.or_raise(check(&store, &*layout));
    let kinds = store.or_raise(kinds_of(&store));
    let rows = rows_of(&opened);
    let usable = (store.page_size() - HEADER_BYTES - SPECIAL_BYTES) as u64 * report.leaf_pages;
    let used = usable.saturating_sub(report.free_bytes);
    let row = (
        organization_name(&opened, &layout),
        report.depth as i32,
        report.leaf_pages as i64,
        report.inner_pages as i64,
        report.deleted_pages as i64,
        report.new_pages as i64,
        report.entries as i64,
        report.free_bytes as i64,
        report.garbage_bytes as i64,
        report.incomplete_splits as i64,
        rows,
        kinds.versions,
        kinds.versions - rows,
        kinds.tombstones,
        kinds.locks,
        kinds.frozen,
        kinds.version_bytes,
        kinds.tombstone_bytes,
        kinds.lock_bytes,
        (used as f64 / usable.max(1) as f64 * 1000.0).round() / 10.0,
    );
    opened.close();
    TableIterator::once(row)
}
