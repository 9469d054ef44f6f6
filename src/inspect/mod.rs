//! Looking into a relation: `rowref.verify`, and in the folder what shows
//! instead of judging.

mod entries;
mod page;
mod stats;
mod versions;

use am::TableAm;
use engine::BlockNumber;
use engine::btree::Meta;
use engine::btree::check::{Report, check};
use engine::mvcc::cursor::Cursor;
use engine::mvcc::scan::{Direction, Range};
use engine::page::cell::{EntryKind, Head, bit};
use engine::page::{Page, PageKind};
use engine::store::PageStore;
use pg::open::OpenStore;
use pg::row::{self, Arena, IndexLayout, Organization, TableLayout};
use pg::store::RelationStore;
use pg::toast::StoredValues;
use pg::xact::ServerSnapshot;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::rc::Rc;

/// A relation that is open for looking at. On an error the transaction's end
/// closes it.
struct Opened {
    relation: pg_sys::Relation,
    is_index: bool,
}

impl Opened {
    /// Keeps writers out, for a check walks page by page and would take their
    /// work for damage. A standby knows no such lock, and replay holds still
    /// for nobody; there a problem may be a change in passing.
    fn new(relation: pg_sys::Oid) -> Opened {
        // SAFETY: a plain function.
        let lock = if unsafe { pg_sys::RecoveryInProgress() } {
            pg_sys::AccessShareLock
        } else {
            pg_sys::ShareLock
        };
        Opened::with(relation, lock as i32)
    }

    /// Keeps out what changes definitions, and other maintenance, but lets
    /// writers in: what seems to be damage has to be looked at twice.
    fn with_writers(relation: pg_sys::Oid) -> Opened {
        // SAFETY: a plain function.
        let lock = if unsafe { pg_sys::RecoveryInProgress() } {
            pg_sys::AccessShareLock
        } else {
            pg_sys::ShareUpdateExclusiveLock
        };
        Opened::with(relation, lock as i32)
    }

    /// For a look at one page or one key, which is held still while it is
    /// read; others may write before and after.
    fn beside_writers(relation: pg_sys::Oid) -> Opened {
        Opened::with(relation, pg_sys::AccessShareLock as i32)
    }

    fn with(relation: pg_sys::Oid, lock: i32) -> Opened {
        pg::shmem::require_preloaded();
        // SAFETY: in a transaction; an oid that is no relation is an ERROR.
        unsafe {
            // What is looked at is what the transaction has made of it so far.
            pg::pending::settle_all();
            let open = pg_sys::relation_open(relation, lock);
            let is_index = (*(*open).rd_rel).relkind as u8 == pg_sys::RELKIND_INDEX
                && Some((*(*open).rd_rel).relam) == pg::ddl::index_am_oid()
                && pg::store::has_storage(open);
            if !is_index && !pg::ddl::is_ours(open) {
                pg::error::unsupported(
                    "looking into relations of other access methods",
                    "Name a table that was created USING iot, or an index of one; its primary \
                     key has no storage of its own.",
                )
            }
            Opened {
                relation: open,
                is_index,
            }
        }
    }

    /// The relation as a versioned store.
    fn versions(&self) -> OpenStore {
        // SAFETY: the relation is open until `close`.
        unsafe {
            let store = RelationStore::new(self.relation);
            let layout = layout_or_raise(self, &store);
            OpenStore::new(layout, store, self.relation)
        }
    }

    fn close(self) {
        // SAFETY: opened by `new`. Locks are kept to the transaction's end.
        unsafe { pg_sys::relation_close(self.relation, pg_sys::NoLock as i32) };
    }
}

/// As [`layout_of`], for those who can do nothing without.
fn layout_or_raise(opened: &Opened, store: &RelationStore) -> Rc<TableLayout> {
    match layout_of(opened, store) {
        Ok(layout) => layout,
        Err(what) => store.or_raise(Err(engine::Error::corrupt(BlockNumber::META, what))),
    }
}

/// What an entry is, in words.
fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Put => "put",
        EntryKind::Tombstone => "tombstone",
        EntryKind::Moved => "moved",
        EntryKind::MovedPartition => "moved to another partition",
        EntryKind::Lock => "lock",
    }
}

/// The flags of an entry, in words.
fn flag_names(head: Head) -> Vec<&'static str> {
    [
        (bit::FROZEN, "frozen"),
        (bit::COMMITTED, "committed"),
        (bit::ABORTED, "aborted"),
        (bit::KEYS_UPDATED, "keys updated"),
        (bit::SPECULATIVE, "speculative"),
    ]
    .into_iter()
    .filter(|(bits, _)| head.has(*bits))
    .map(|(_, name)| name)
    .collect()
}

/// The command that wrote an entry, as far as it is stored.
fn command_of(head: Head) -> Option<i64> {
    (head.is_version() && !head.has(bit::FROZEN)).then(|| i64::from(head.cid.0))
}

/// The layout that the metapage describes, or what is wrong with it.
fn layout_of(opened: &Opened, store: &RelationStore) -> Result<Rc<TableLayout>, String> {
    let meta = store
        .read(BlockNumber::META)
        .and_then(|page| Meta::decode(&page))
        .map_err(|error| error.to_string())?;
    let organization = Organization::from_bytes(&meta.layout).map_err(|error| error.to_string())?;
    // SAFETY: the relation is open. The cache is passed by, so that what is
    // checked is what the page says.
    unsafe {
        if opened.is_index {
            let index = IndexLayout::new(opened.relation, organization);
            return index
                .map(|index| Rc::clone(index.layout()))
                .map_err(|error| error.to_string());
        }
        Ok(Rc::new(TableLayout::new(opened.relation, organization)))
    }
}

/// Every problem of a relation.
#[pg_extern(sql = false, name = "rowref_verify")]
fn rowref_verify(
    relation: pg_sys::Oid,
    heavy: bool,
) -> TableIterator<'static, (name!(block, i64), name!(problem, String))> {
    let opened = if heavy {
        Opened::with_writers(relation)
    } else {
        Opened::new(relation)
    };
    // SAFETY: open until `close`.
    let store = unsafe { RelationStore::new(opened.relation) };
    let mut problems = Vec::new();
    match layout_of(&opened, &store) {
        Err(what) => problems.push((0, what)),
        Ok(layout) => {
            let report = check_twice(&opened, &store, &layout, heavy);
            let tree = report.problems.into_iter();
            problems.extend(tree.map(|problem| (i64::from(problem.block.0), problem.what)));
            if heavy {
                store.or_raise(verify_rows(&store, &layout, &mut problems));
                if !opened.is_index {
                    verify_stored_values(opened.relation, &layout, &mut problems);
                    entries::verify_indexes(opened.relation, &mut problems);
                }
            }
        }
    }
    opened.close();
    TableIterator::new(problems)
}

/// Checks a tree. With writers about, what seems to be damage may be a change
/// in passing: then they are kept out, and the tree is checked again.
fn check_twice(
    opened: &Opened,
    store: &RelationStore,
    layout: &TableLayout,
    with_writers: bool,
) -> Report {
    let report = check(store, layout);
    // SAFETY: in a transaction.
    let is_final = !with_writers || unsafe { pg_sys::RecoveryInProgress() };
    match report {
        Ok(report) if is_final || report.problems.is_empty() => report,
        report if is_final => store.or_raise(report),
        _ => {
            // SAFETY: the relation is open; the lock goes with the transaction.
            unsafe {
                pg_sys::LockRelationOid((*opened.relation).rd_id, pg_sys::ShareLock as i32);
            }
            store.or_raise(check(store, layout))
        }
    }
}

/// Reads every column of every stored version, dead ones too.
fn verify_rows(
    store: &RelationStore,
    layout: &TableLayout,
    problems: &mut Vec<(i64, String)>,
) -> engine::Result<()> {
    for block in 1..store.block_count()? {
        pgrx::check_for_interrupts!();
        let block = BlockNumber(block);
        let guard = store.read(block)?;
        if Page::is_new(&guard) {
            continue;
        }
        // What is no page, or no entry, the check of the tree has reported.
        let Ok(page) = Page::open(&guard, block) else {
            continue;
        };
        if page.kind() != PageKind::Leaf {
            continue;
        }
        for slot in 0..page.slot_count() {
            let (Ok(cell), Ok(suffix)) = (page.leaf_cell(slot, block), page.suffix(slot, block))
            else {
                continue;
            };
            if cell.head.kind() != EntryKind::Put {
                continue;
            }
            let key = [page.prefix(), suffix].concat();
            if let Err(error) = read_row(layout, &key, cell.body) {
                problems.push((i64::from(block.0), format!("entry {slot}: {error}")));
            }
        }
    }
    Ok(())
}

/// Looks for the stored values of every row that the statement's snapshot sees.
/// Of older versions the TOAST table may have lost them already.
fn verify_stored_values(
    relation: pg_sys::Relation,
    layout: &TableLayout,
    problems: &mut Vec<(i64, String)>,
) {
    // SAFETY: the relation is open, and the snapshot lives as long as the
    // statement that calls this.
    let (stored, table, snapshot) = unsafe {
        (
            StoredValues::open(relation),
            am::open::<am::Iot>(relation),
            ServerSnapshot::from_pg(pg_sys::GetActiveSnapshot(), relation),
        )
    };
    let mut cursor = Cursor::new(Range::default());
    loop {
        pgrx::check_for_interrupts!();
        match table.step(&mut cursor, &snapshot, Direction::Forward) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                // Where it is, the check of the tree has reported.
                problems.push((0, format!("rows cannot be read: {error}")));
                break;
            }
        }
        let row = cursor.row().expect("the cursor stands on a row");
        // A row that cannot be taken apart has been reported.
        for pointer in layout.pointers(row.payload).unwrap_or_default() {
            let problem = match &stored {
                Some(stored) => stored.problem(&pointer),
                None => Some("it has a stored value, and the table no TOAST table".into()),
            };
            if let Some(problem) = problem {
                let column = pointer.column + 1;
                problems.push((
                    i64::from(cursor.block().0),
                    format!("a row's column {column}: {problem}"),
                ));
            }
        }
    }
    if let Some(stored) = stored {
        stored.close();
    }
}

/// Takes a row apart, and its key as far as columns are not read from it.
fn read_row(layout: &TableLayout, key: &[u8], payload: &[u8]) -> Result<(), row::Error> {
    if let Some(codec) = layout.order().layout() {
        let mut rest = key;
        for column in 0..codec.columns().len() {
            rest = &rest[codec.skip(column, rest)?..];
        }
        if !rest.is_empty() {
            return Err(row::Error::MalformedPayload(
                "its key goes on behind its last column",
            ));
        }
    } else if key.len() != 8 {
        return Err(row::Error::MalformedPayload(
            "its row id is not eight bytes long",
        ));
    }
    let columns = layout.attributes().len();
    let mut memory = vec![0u64; layout.arena_bytes(key).div_ceil(8)];
    let mut arena = Arena {
        start: memory.as_mut_ptr().cast(),
        capacity: memory.len() * 8,
        used: 0,
    };
    let mut values = vec![pg_sys::Datum::null(); columns];
    let mut nulls = vec![false; columns];
    let mut cursor = layout.cursor(payload)?;
    // SAFETY: there is room for all columns and for the whole row's arena; the
    // values are not looked at.
    unsafe {
        layout.deform(
            key,
            payload,
            &mut cursor,
            0,
            columns,
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
            &mut arena,
        )
    }
}

/// "row id", or "key (a, b)" in the columns' current names.
fn organization_name(opened: &Opened, layout: &TableLayout) -> String {
    if layout.is_row_id() {
        return "row id".into();
    }
    // Of an index its own columns; how many those are, its descriptor says.
    let columns = layout.organization().columns().iter();
    // SAFETY: the relation is open.
    let own = unsafe { (*(*opened.relation).rd_att).natts };
    let names: Vec<_> = columns
        .take_while(|column| !opened.is_index || i32::from(column.attribute) <= own)
        .map(|column| {
            // SAFETY: the relation is open; names end in a zero byte.
            unsafe {
                let descriptor = &*(*opened.relation).rd_att;
                let at = column.attribute as usize;
                let attribute = &descriptor.attrs.as_slice(at)[at - 1];
                std::ffi::CStr::from_ptr(attribute.attname.data.as_ptr())
                    .to_string_lossy()
                    .into_owned()
            }
        })
        .collect();
    let what = if opened.is_index { "entry" } else { "key" };
    format!("{what} ({})", names.join(", "))
}
