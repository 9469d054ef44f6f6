//! `rowref.verify(table, heavy => true)`: the table against each of its
//! indexes, by one snapshot for both, so that others may go on writing.
//!
//! What each index should hold is made from the rows that the snapshot sees,
//! expressions and predicates included, sorted (in `maintenance_work_mem`, with
//! a temporary file beyond), and set against the entries that the same snapshot
//! sees, in order. Every row has its entry and every entry its row.

use am::TableAm;
use engine::compare::Compare;
use engine::mvcc::cursor::Cursor;
use engine::mvcc::scan::{Direction, Range};
use engine::page::cell::{EntryKind, Head};
use engine::{CommandId, Sequence, Xid};
use pg::evaluate::{Evaluator, IndexValues};
use pg::handles::TemporaryFile;
use pg::memory::in_temporary_context;
use pg::open::OpenIndex;
use pg::row::IndexLayout;
use pg::slot;
use pg::sort::{Item, Sorter};
use pg::xact::ServerSnapshot;
use pgrx::pg_sys;

/// Problems of one index that are told; where there are more, there are many.
const PROBLEMS_MAX: usize = 100;

/// Sets a table against all its stored indexes.
pub fn verify_indexes(relation: pg_sys::Relation, problems: &mut Vec<(i64, String)>) {
    const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: the relation is open and locked, and with it its indexes cannot
    // go away; the snapshot is registered until the end.
    unsafe {
        let _owner = AsOwner::of(relation);
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        pg_sys::PushActiveSnapshot(snapshot);
        let list = pg_sys::RelationGetIndexList(relation);
        let count = list.as_ref().map_or(0, |list| list.length);
        for at in 0..count as usize {
            let oid = (*(*list).elements.add(at)).oid_value;
            let open = pg_sys::index_open(oid, LOCK);
            let form = &*(*open).rd_index;
            if form.indisvalid
                && form.indisready
                && let Some(index) = OpenIndex::open(open, relation)
            {
                let name = std::ffi::CStr::from_ptr((*(*open).rd_rel).relname.data.as_ptr());
                let name = name.to_string_lossy();
                let mut found = 0;
                let mut tell = |block: i64, what: String| {
                    found += 1;
                    if found <= PROBLEMS_MAX {
                        problems.push((block, format!("index \"{name}\": {what}")));
                    }
                };
                in_temporary_context(|| {
                    verify_index(relation, open, &index, snapshot, &mut tell);
                });
                if found > PROBLEMS_MAX {
                    let more = found - PROBLEMS_MAX;
                    problems.push((-1, format!("index \"{name}\": {more} problems more")));
                }
            }
            pg_sys::index_close(open, LOCK);
        }
        pg_sys::PopActiveSnapshot();
        pg_sys::UnregisterSnapshot(snapshot);
    }
}

/// Runs expressions as the table's owner, who wrote them, and with nothing
/// else that a superuser may do: as index builds do.
struct AsOwner {
    user: pg_sys::Oid,
    context: i32,
    nest: i32,
}

impl AsOwner {
    unsafe fn of(relation: pg_sys::Relation) -> AsOwner {
        let (mut user, mut context) = (pg_sys::Oid::INVALID, 0);
        // SAFETY: the relation is open; after an ERROR the transaction's end
        // puts everything back.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            pg_sys::SetUserIdAndSecContext(
                (*(*relation).rd_rel).relowner,
                context | pg_sys::SECURITY_RESTRICTED_OPERATION as i32,
            );
            AsOwner {
                user,
                context,
                nest: pg_sys::NewGUCNestLevel(),
            }
        }
    }
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        // While unwinding the transaction's abort puts everything back.
        if !std::thread::panicking() {
            // SAFETY: what was there before.
            unsafe {
                pg_sys::AtEOXact_GUC(false, self.nest);
                pg_sys::SetUserIdAndSecContext(self.user, self.context);
            }
        }
    }
}

unsafe fn verify_index(
    relation: pg_sys::Relation,
    open: pg_sys::Relation,
    index: &OpenIndex,
    snapshot: pg_sys::Snapshot,
    tell: &mut impl FnMut(i64, String),
) {
    // SAFETY: both relations are open; the snapshot is registered.
    unsafe {
        let layout = index.layout();
        let order = layout.layout();
        let memory = usize::try_from(pg_sys::maintenance_work_mem).unwrap_or(1 << 10) << 10;
        let mut sorter = Sorter::new(&**order, TemporaryFile::of_transaction(), memory);
        if !collect(relation, open, layout, snapshot, &mut sorter, tell) {
            return;
        }
        if let Err(error) = sorter.seal() {
            pgrx::error!("could not sort the entries of an index: {error}");
        }

        let seen = ServerSnapshot::from_pg(snapshot, relation);
        let mut cursor = Cursor::new(Range::default());
        let step = |cursor: &mut Cursor| {
            pgrx::check_for_interrupts!();
            // Where it cannot be read, the check of the index tells.
            index
                .store()
                .with(|versions| cursor.step(versions, &seen, Direction::Forward))
                .unwrap_or_default()
        };
        let mut there = step(&mut cursor);
        let drained = sorter.drain(|item| -> std::io::Result<()> {
            while there {
                let entry = cursor.row().expect("the cursor stands on an entry");
                let block = i64::from(cursor.block().0);
                match order.compare(entry.key, item.key) {
                    std::cmp::Ordering::Less => {
                        tell(block, format!("entry {} has no row", hex(entry.key)));
                        there = step(&mut cursor);
                    }
                    std::cmp::Ordering::Equal => {
                        if entry.payload != item.body {
                            tell(
                                block,
                                format!("entry {} is not what its row says", hex(entry.key)),
                            );
                        }
                        there = step(&mut cursor);
                        return Ok(());
                    }
                    std::cmp::Ordering::Greater => break,
                }
            }
            let reference = layout.reference_of(item.key).unwrap_or(item.key);
            tell(-1, format!("row {} has no entry", hex(reference)));
            Ok(())
        });
        if let Err(error) = drained {
            pgrx::error!("could not sort the entries of an index: {error}");
        }
        while there {
            let entry = cursor.row().expect("the cursor stands on an entry");
            let block = i64::from(cursor.block().0);
            tell(block, format!("entry {} has no row", hex(entry.key)));
            there = step(&mut cursor);
        }
    }
}

/// Makes the entry of each row that the snapshot sees; false if the rows
/// cannot be read, which the check of the table has told.
unsafe fn collect(
    relation: pg_sys::Relation,
    open: pg_sys::Relation,
    layout: &IndexLayout,
    snapshot: pg_sys::Snapshot,
    sorter: &mut Sorter<'_, pg::row::TableLayout, TemporaryFile>,
    tell: &mut impl FnMut(i64, String),
) -> bool {
    // SAFETY: as for the caller.
    unsafe {
        let table = am::open::<am::Iot>(relation);
        let seen = ServerSnapshot::from_pg(snapshot, relation);
        let row_slot = pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &raw const slot::OPS);
        let mut evaluator = Evaluator::new(pg_sys::BuildIndexInfo(open));
        let mut cursor = Cursor::new(Range::default());
        let (mut key, mut body) = (Vec::new(), Vec::new());
        let mut is_whole = true;
        loop {
            pgrx::check_for_interrupts!();
            match table.step(&mut cursor, &seen, Direction::Forward) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    is_whole = false;
                    break;
                }
            }
            let row = cursor.row().expect("the cursor stands on a row");
            slot::store_borrowed(
                row_slot,
                table.layout(),
                row.key,
                row.payload,
                row.head,
                slot::INVALID_TID,
            );
            key.clear();
            body.clear();
            let mut values = IndexValues::default();
            let made = in_temporary_context(|| {
                evaluator.evaluate(row_slot, &mut values).then(|| {
                    let (values, isnull) = (&values.values, &values.isnull);
                    layout.entry_of(values, isnull, row.key, &mut key, &mut body)
                })
            });
            match made {
                None => continue,
                Some(Err(error)) => {
                    let row = hex(row.key);
                    tell(-1, format!("row {row} cannot have an entry: {error}"));
                    continue;
                }
                Some(Ok(_)) => {}
            }
            let head = Head {
                flags: EntryKind::Put as u8,
                xmin: Xid::NONE,
                cid: CommandId(0),
                sequence: Sequence::FIRST,
            };
            let item = Item {
                head,
                key: &key,
                body: &body,
                mark: false,
            };
            if let Err(error) = sorter.add(item) {
                pgrx::error!("could not sort the entries of an index: {error}");
            }
        }
        evaluator.rest();
        pg_sys::ExecDropSingleTupleTableSlot(row_slot);
        is_whole
    }
}

/// Bytes for a message.
fn hex(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(40)];
    let mut text = String::from("\\x");
    for byte in shown {
        text.push_str(&format!("{byte:02x}"));
    }
    if shown.len() < bytes.len() {
        text.push('…');
    }
    text
}
