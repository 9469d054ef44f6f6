//! ON CONFLICT's insertions, which can be taken back (`pg/src/conflict`).

use crate::decoding;
use crate::indexes;
use crate::insert::{count_inserts, encode, name_row, patiently, writer};
use crate::open::open;
use crate::row_handle;
use crate::table_am::TableAm;
use engine::mvcc::Writer;
use engine::mvcc::batch::Batch;
use pg::conflict;
use pg::error::OrRaise;
use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};

/// The `tuple_insert_speculative` callback. Where the key is taken nothing is
/// stored, and the slot says so to the key's `aminsert` (rule 16).
#[pg_guard]
pub unsafe extern "C-unwind" fn insert_speculative<A: TableAm>(
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    cid: pg_sys::CommandId,
    _options: i32,
    _bistate: *mut pg_sys::BulkInsertStateData,
    token: u32,
) {
    // SAFETY: the server's arguments are live.
    unsafe {
        let table = open::<A>(relation);
        let writer = writer(cid);
        let (mut key, mut payload) = (Vec::new(), Vec::new());
        encode(&table, relation, slot, 0, &mut key, &mut payload);
        conflict::announce(writer.xid, token);
        let inserted = patiently(relation, || {
            table.insert_speculative(writer, &key, &payload)
        });
        match inserted {
            Some(written) => {
                name_row(relation, slot, (writer, 0), &key, written);
                conflict::note_row((*slot).tts_tid);
                count_inserts(relation, 1);
            }
            None => {
                conflict::withdraw();
                pg::toast::take_back(relation, table.layout(), &payload).or_raise(relation);
                (*slot).tts_tid = conflict::TAKEN;
                (*slot).tts_tableOid = (*relation).rd_id;
            }
        }
    }
}

/// The `tuple_complete_speculative` callback.
#[pg_guard]
pub unsafe extern "C-unwind" fn complete_speculative<A: TableAm>(
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    _token: u32,
    succeeded: bool,
) {
    // SAFETY: the server's arguments are live.
    unsafe {
        let tid = (*slot).tts_tid;
        if conflict::is_taken(tid) {
            if succeeded {
                lost("its key's index has not reported the conflict");
            }
            return;
        }
        let Some((id, near)) = row_handle::resolve(relation, tid) else {
            lost("its handle is gone");
        };
        let table = open::<A>(relation);
        let id = id.as_ref();
        let mut row = Batch::default();
        if !succeeded {
            let found = table.version(id, near, &mut row);
            if !found.or_raise(relation) {
                lost("it is not in the table");
            }
            let writer = Writer {
                xid: id.xmin,
                cid: row.row(0).head.cid,
            };
            indexes::taken_back(relation, writer);
        }
        let found = table.finish_speculative(id, near, succeeded);
        if !found.or_raise(relation) {
            lost("it is not in the table");
        }
        conflict::withdraw();
        if succeeded {
            decoding::confirmed(&table, relation, (id, near));
        } else {
            let payload = row.row(0).payload;
            pg::toast::take_back(relation, table.layout(), payload).or_raise(relation);
            pg_sys::pgstat_count_heap_delete(relation);
        }
    }
}

/// Something that cannot happen has: the error takes the row back.
fn lost(why: &str) -> ! {
    pg::error::raise_with(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        format!("a row inserted by ON CONFLICT cannot be settled: {why}"),
        None,
        None,
    )
}
