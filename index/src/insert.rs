//! `aminsert`: the entry of a row that the table holds already.
//!
//! It only puts; what ends an entry is written by the table AM, which also says
//! which indexes an updated row has to be entered in (`pg::needs_put`). The
//! entry carries the writer and the command of the row's version, by its handle
//! (rule 13), and not those of the moment: expressions may have run other
//! statements since.

use std::cell::RefCell;

use engine::mvcc::Writer;
use engine::mvcc::batch::Batch;
use engine::mvcc::index::{Admission, Uniqueness};
use engine::page::cell::bit;
use engine::{CommandId, Xid};
use pg::conflict;
use pg::error::{self, OrRaise};
use pg::handles;
use pg::memory::in_temporary_context;
use pg::needs_put::needs_put;
use pg::open::{OpenIndex, OpenStore};
use pg::pending;
use pg::row;
use pg::xact::{DirtySnapshot, wait_for_inserter};
use pgrx::{PgSqlErrorCode, pg_sys};

/// One call of `aminsert`.
pub struct Insertion {
    /// The index.
    pub index: pg_sys::Relation,
    /// Its table.
    pub table: pg_sys::Relation,
    /// The index's columns.
    pub values: *mut pg_sys::Datum,
    /// Which of them are null.
    pub isnull: *mut bool,
    /// The handle of the row's new version.
    pub handle: pg_sys::ItemPointerData,
    /// What to check.
    pub check: pg_sys::IndexUniqueCheck::Type,
}

#[derive(Default)]
struct Room {
    key: Vec<u8>,
    payload: Vec<u8>,
}

/// Puts an entry; false if it may not be unique and was only to be noted.
///
/// # Safety
/// The members are as `aminsert` got them.
pub unsafe fn insert(what: &Insertion) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(index) = OpenIndex::open(what.index, what.table) else {
            return is_in_table(what);
        };
        if conflict::is_taken(what.handle) {
            // There is no row: the table's key has seen to that, and says so.
            return true;
        }
        if (*(*what.index).rd_index).indisexclusion {
            // Core looks for conflicts next, and will find this row.
            conflict::note_own(what.handle);
        }
        let asks = what.check == pg_sys::IndexUniqueCheck::UNIQUE_CHECK_EXISTING;
        if !asks && !needs_put(what.handle, (*what.index).rd_id) {
            return true;
        }
        let lease = handles::resolve(what.handle)
            .filter(|lease| lease.relation == (*what.table).rd_id.to_u32());
        let Some(lease) = lease else {
            error::raise_with(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                "the handle of a row to be indexed has ended".into(),
                None,
                None,
            )
        };
        // The entry may be one that this command has ended and not yet told so.
        pending::settle((*what.index).rd_id);
        thread_local!(static ROOM: RefCell<Room> = RefCell::default());
        // Taken out while it is used: a comparison function may lead back here.
        let mut room = ROOM.take();
        room.key.clear();
        room.payload.clear();
        let layout = index.layout();
        let attributes = layout.attributes();
        let values = std::slice::from_raw_parts(what.values, attributes);
        let isnull = std::slice::from_raw_parts(what.isnull, attributes);
        let columns_len = in_temporary_context(|| {
            let (key, payload) = (&mut room.key, &mut room.payload);
            layout.entry_of(values, isnull, &lease.reference.0, key, payload)
        })
        .or_raise(what.index);
        let writer = Writer {
            xid: Xid(lease.xmin),
            cid: CommandId(lease.cid),
        };
        let nulls_are_distinct = !(*(*what.index).rd_index).indnullsnotdistinct;
        let uniqueness = match what.check {
            _ if nulls_are_distinct && layout.has_null(isnull) => None,
            pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES => Some(Uniqueness::Demanded),
            pg_sys::IndexUniqueCheck::UNIQUE_CHECK_PARTIAL => Some(Uniqueness::Noted),
            pg_sys::IndexUniqueCheck::UNIQUE_CHECK_EXISTING => Some(Uniqueness::Asked),
            _ => None,
        };
        let flags = if conflict::is_speculative(what.handle) {
            conflict::note_entry((*what.index).rd_id, &room.key);
            bit::SPECULATIVE
        } else if lease.cid == handles::FROZEN {
            // COPY FREEZE: an older snapshot sees the row, so the entry as well.
            bit::FROZEN | bit::COMMITTED
        } else {
            0
        };
        let is_unique = match uniqueness {
            None if asks => true,
            None => {
                index
                    .store()
                    .with(|versions| {
                        versions.put_index_entry(writer, &room.key, &room.payload, flags)
                    })
                    .or_raise(what.index);
                true
            }
            Some(uniqueness) => {
                let writer = (writer, flags);
                put_unique(what, &index, writer, &room, columns_len, uniqueness)
            }
        };
        ROOM.set(room);
        is_unique
    }
}

/// The table's own insertion was that of an index without storage: it has put
/// the row under its key and refused a second one. Only an insertion that ON
/// CONFLICT may take back leaves it to us to say that the key is taken.
unsafe fn is_in_table(what: &Insertion) -> bool {
    if !conflict::is_taken(what.handle) {
        return true;
    }
    if what.check != pg_sys::IndexUniqueCheck::UNIQUE_CHECK_PARTIAL {
        // SAFETY: the key is no arbiter, and the relations are open.
        unsafe {
            let described =
                pg_sys::BuildIndexValueDescription(what.index, what.values, what.isnull);
            error::duplicate_key(what.table, what.index, described)
        }
    }
    false
}

/// Puts an entry that nobody else's columns may equal, waiting for whoever is
/// about to put or to end one that do.
unsafe fn put_unique(
    what: &Insertion,
    index: &OpenIndex,
    (writer, flags): (Writer, u8),
    room: &Room,
    columns_len: usize,
    uniqueness: Uniqueness,
) -> bool {
    // SAFETY: the relations are open; between two attempts no page is locked
    // (rule 10).
    unsafe {
        let mut looked_again = false;
        // The entry whose row was not there.
        let mut missed = None;
        loop {
            let admission = index
                .store()
                .with(|versions| {
                    versions.put_unique_entry(
                        writer,
                        &room.key,
                        columns_len,
                        &room.payload,
                        flags,
                        uniqueness,
                    )
                })
                .or_raise(what.index);
            match admission {
                Admission::Unique => return true,
                Admission::Doubtful => return false,
                Admission::Exists(entry) => {
                    let reference = index.layout().reference_of(&entry.key);
                    let reference = reference.map_err(row::Error::from).or_raise(what.index);
                    match row_behind(what.table, reference) {
                        RowBehind::Held(by) => {
                            let again = &mut looked_again;
                            wait_for_inserter(what.table, by, false, again, what.handle);
                            continue;
                        }
                        // Its entry has ended meanwhile: no later than the writer
                        // did who ended the row. Another may be in its place.
                        RowBehind::Gone if missed.as_ref() != Some(&entry) => {
                            missed = Some(entry);
                            continue;
                        }
                        RowBehind::Gone | RowBehind::Stands => {}
                    }
                    let described =
                        pg_sys::BuildIndexValueDescription(what.index, what.values, what.isnull);
                    error::duplicate_key(what.table, what.index, described)
                }
                Admission::Busy {
                    version,
                    speculative,
                } => wait_for_inserter(
                    what.table,
                    version.xmin,
                    speculative,
                    &mut looked_again,
                    what.handle,
                ),
            }
        }
    }
}

/// What stands behind an entry that is live.
enum RowBehind {
    /// A row that nobody is about to change.
    Stands,
    /// One that a running transaction has deleted, or changed in other columns
    /// and may yet delete.
    Held(Xid),
    /// None.
    Gone,
}

/// Looks at the row of an entry, before its columns are said to be taken. A row
/// is deleted first and its entry ends a little later, with those of other rows
/// perhaps; and whoever waits for an answer on heap waits for it here.
///
/// # Safety
/// `table` is open, and no page is locked.
unsafe fn row_behind(table: pg_sys::Relation, reference: &[u8]) -> RowBehind {
    let mut dirty = pg_sys::SnapshotData {
        snapshot_type: pg_sys::SnapshotType::SNAPSHOT_DIRTY,
        ..Default::default()
    };
    // SAFETY: the caller's promise; the snapshot outlives its judge.
    unsafe {
        let rows = OpenStore::table(table);
        let judge = DirtySnapshot::new(&raw mut dirty, table);
        // A running update is no answer yet.
        judge.look_beneath();
        let mut row = Batch::default();
        let is_there = rows
            .with(|versions| versions.get(reference, &judge, &mut row))
            .or_raise(table);
        let found = judge.report();
        match [found.deleter, found.inserter] {
            _ if !is_there => RowBehind::Gone,
            [Xid::NONE, Xid::NONE] => RowBehind::Stands,
            [Xid::NONE, by] | [by, _] => RowBehind::Held(by),
        }
    }
}
