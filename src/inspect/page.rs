//! One page of a relation: `rowref.page` and `rowref.page_entries`.

use super::{Opened, command_of, flag_names, kind_name, layout_of};
use engine::page::{Page, PageKind, Position, flag};
use engine::store::PageStore;
use engine::{BlockNumber, Error};
use pg::row::TableLayout;
use pg::store::RelationStore;
use pgrx::pg_sys;
use pgrx::prelude::*;

/// A block that the relation has.
fn block_in(store: &RelationStore, block: i64) -> BlockNumber {
    let blocks = store.or_raise(store.block_count());
    match u32::try_from(block) {
        Ok(number) if number < blocks => BlockNumber(number),
        _ => pg::error::raise_with(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("block number {block} is out of range"),
            Some(format!("The relation has {blocks} blocks.")),
            None,
        ),
    }
}

fn page_kind(page: Page<'_>) -> &'static str {
    match page.kind() {
        PageKind::Meta => "meta",
        PageKind::Leaf => "leaf",
        PageKind::Inner => "inner",
        PageKind::Deleted => "deleted",
    }
}

fn page_flags(page: Page<'_>) -> Vec<&'static str> {
    [
        (flag::INCOMPLETE_SPLIT, "incomplete split"),
        (flag::ROOT, "root"),
        (flag::ORDERED, "ordered"),
        (flag::ALL_FROZEN, "all frozen"),
        (flag::ROWS_FROZEN, "rows frozen"),
    ]
    .into_iter()
    .filter(|(flag, _)| page.has(*flag))
    .map(|(_, name)| name)
    .collect()
}

fn block_or_null(block: BlockNumber) -> Option<i64> {
    block.is_some().then(|| i64::from(block.0))
}

/// A version's number, shown as SQL has it.
fn sequence_of(position: Position<'_>) -> Option<i64> {
    position.sequence.map(|sequence| sequence.0 as i64)
}

/// The header of a page, its fences, and how full it is. What a page of its
/// kind does not have is null.
#[expect(
    clippy::type_complexity,
    reason = "the macro wants the columns spelled out"
)]
#[pg_extern(sql = false, name = "rowref_page")]
fn rowref_page(
    relation: pg_sys::Oid,
    block: i64,
) -> TableIterator<
    'static,
    (
        name!(kind, &'static str),
        name!(level, Option<i32>),
        name!(flags, Option<Vec<&'static str>>),
        name!(left_block, Option<i64>),
        name!(right_block, Option<i64>),
        name!(low_key, Option<Vec<u8>>),
        name!(low_sequence, Option<i64>),
        name!(high_key, Option<Vec<u8>>),
        name!(high_sequence, Option<i64>),
        name!(prefix_bytes, Option<i32>),
        name!(slots, Option<i32>),
        name!(free_bytes, Option<i32>),
        name!(garbage_bytes, Option<i32>),
        name!(deleted_xid, Option<i64>),
    ),
> {
    let opened = Opened::beside_writers(relation);
    // SAFETY: open until `close`.
    let store = unsafe { RelationStore::new(opened.relation) };
    let block = block_in(&store, block);
    let row = {
        let guard = store.or_raise(store.read(block));
        if Page::is_new(&guard) {
            (
                "new", None, None, None, None, None, None, None, None, None, None, None, None, None,
            )
        } else {
            let page = match Page::open(&guard, block) {
                Ok(page) => page,
                Err(error) => {
                    drop(guard);
                    store.or_raise(Err(error))
                }
            };
            let in_tree = matches!(page.kind(), PageKind::Leaf | PageKind::Inner);
            let number = |number: usize| in_tree.then_some(number as i32);
            let (low, high) = if in_tree {
                (page.low(), page.high())
            } else {
                (None, None)
            };
            (
                page_kind(page),
                in_tree.then(|| page.level().0.into()),
                in_tree.then(|| page_flags(page)),
                in_tree.then(|| block_or_null(page.left())).flatten(),
                in_tree.then(|| block_or_null(page.right())).flatten(),
                low.map(|low| low.key.to_vec()),
                low.and_then(sequence_of),
                high.map(|high| high.key.to_vec()),
                high.and_then(sequence_of),
                number(page.prefix_len()),
                number(page.slot_count()),
                number(page.free()),
                number(page.garbage()),
                (page.kind() == PageKind::Deleted).then(|| page.deleted_stamp() as i64),
            )
        }
    };
    opened.close();
    TableIterator::once(row)
}

/// An entry of a page as a row of the result.
type Shown = (
    name!(slot, i32),
    name!(kind, &'static str),
    name!(key, Vec<u8>),
    name!(key_columns, Option<String>),
    name!(sequence, Option<i64>),
    name!(xmin, Option<pg_sys::TransactionId>),
    name!(cid, Option<i64>),
    name!(flags, Vec<&'static str>),
    name!(bytes, i32),
    name!(shares_key, bool),
    name!(child_block, Option<i64>),
);

/// The slots of a leaf or an inner page, in order.
#[expect(
    clippy::type_complexity,
    reason = "the macro wants the columns spelled out"
)]
#[pg_extern(sql = false, name = "rowref_page_entries")]
fn rowref_page_entries(
    relation: pg_sys::Oid,
    block: i64,
) -> TableIterator<
    'static,
    (
        name!(slot, i32),
        name!(kind, &'static str),
        name!(key, Vec<u8>),
        name!(key_columns, Option<String>),
        name!(sequence, Option<i64>),
        name!(xmin, Option<pg_sys::TransactionId>),
        name!(cid, Option<i64>),
        name!(flags, Vec<&'static str>),
        name!(bytes, i32),
        name!(shares_key, bool),
        name!(child_block, Option<i64>),
    ),
> {
    let opened = Opened::beside_writers(relation);
    // SAFETY: open until `close`.
    let store = unsafe { RelationStore::new(opened.relation) };
    let block = block_in(&store, block);
    // Without the page: what follows calls the types' output functions.
    let bytes = store.or_raise(store.read(block)).to_vec();
    let mut shown = if Page::is_new(&bytes) {
        Vec::new()
    } else {
        store.or_raise(entries(&bytes, block))
    };
    if let Ok(layout) = layout_of(&opened, &store) {
        for entry in &mut shown {
            entry.3 = columns_of(&layout, entry);
        }
    }
    opened.close();
    TableIterator::new(shown)
}

fn entries(bytes: &[u8], block: BlockNumber) -> Result<Vec<Shown>, Error> {
    let page = Page::open(bytes, block)?;
    let mut shown = Vec::new();
    for nth in 0..page.slot_count() {
        let slot = page.slot(nth);
        let (number, length) = (nth as i32, i32::from(slot.length));
        match page.kind() {
            PageKind::Leaf => {
                let cell = page.leaf_cell(nth, block)?;
                let head = cell.head;
                let key = [page.prefix(), page.suffix(nth, block)?].concat();
                shown.push((
                    number,
                    kind_name(head.kind()),
                    key,
                    None,
                    head.is_version().then_some(head.sequence.0 as i64),
                    Some(head.xmin.0.into()),
                    command_of(head),
                    flag_names(head),
                    length,
                    slot.key_below,
                    None,
                ));
            }
            PageKind::Inner => {
                let cell = page.inner_cell(nth, block)?;
                shown.push((
                    number,
                    "downlink",
                    [page.prefix(), cell.position.key].concat(),
                    None,
                    sequence_of(cell.position),
                    None,
                    None,
                    Vec::new(),
                    length,
                    false,
                    Some(i64::from(cell.child.0)),
                ));
            }
            PageKind::Meta | PageKind::Deleted => break,
        }
    }
    Ok(shown)
}

/// An entry's key in words; a downlink's may be cut off anywhere.
fn columns_of(layout: &TableLayout, entry: &Shown) -> Option<String> {
    if entry.1 == "downlink" {
        return None;
    }
    layout.describe_key(&entry.2).ok()
}
