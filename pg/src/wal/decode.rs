//! Logical decoding: row changes handed to the server's reorder buffer, which
//! puts transactions together and calls the output plugin.

use std::mem;

use engine::record::RecordKind;
use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};
use pgrx::prelude::*;

use super::change::{Action, RowChange};
use super::describe::{data_of, kind_of};
use crate::error;
use crate::ffi;
use crate::version::server;

unsafe extern "C-unwind" {
    fn SnapBuildProcessChange(
        builder: *mut pg_sys::SnapBuild,
        xid: pg_sys::TransactionId,
        lsn: pg_sys::XLogRecPtr,
    ) -> bool;
}

/// The `rm_decode` callback.
///
/// # Safety
/// Called by the server, with the record it is decoding.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn decode(
    context: *mut pg_sys::LogicalDecodingContext,
    buffer: *mut pg_sys::XLogRecordBuffer,
) {
    // SAFETY: the server's context and record.
    unsafe {
        let mut lsn = 0;
        let record = ffi::rowref_decoded_record(buffer, &mut lsn);
        let reorder = (*context).reorder;
        let xid = ffi::rowref_record_xid(record);
        pg_sys::ReorderBufferProcessXid(reorder, xid, lsn);
        if kind_of(ffi::rowref_record_info(record)) != Some(RecordKind::RowChange) {
            return;
        }
        let builder = (*context).snapshot_builder;
        // Changes from before the slot has a whole picture of what runs are
        // not its business. When it only moves on, the snapshot is built all
        // the same, for the slot's catalog_xmin rests on it.
        let wanted = ffi::rowref_decoding_has_snapshot(builder)
            && guarded(|| SnapBuildProcessChange(builder, xid, lsn))
            && !(*context).fast_forward;
        if !wanted {
            return;
        }
        let Some(told) = RowChange::decode(data_of(record)) else {
            error::raise_with(
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                "a row change of pg_rowref in the write-ahead log cannot be read".into(),
                None,
                Some("The log is corrupt, or was written by a newer version of pg_rowref."),
            )
        };
        if told.file[1] != (*(*context).slot).data.database.to_u32() {
            return;
        }
        let origin = ffi::rowref_record_origin(record);
        if (*context).callbacks.filter_by_origin_cb.is_some()
            && pg_sys::filter_by_origin_cb_wrapper(context, origin)
        {
            return;
        }
        let change = pg_sys::ReorderBufferGetChange(reorder);
        (*change).action = match told.action {
            Action::Insert => pg_sys::ReorderBufferChangeType::REORDER_BUFFER_CHANGE_INSERT,
            Action::Update => pg_sys::ReorderBufferChangeType::REORDER_BUFFER_CHANGE_UPDATE,
            Action::Delete => pg_sys::ReorderBufferChangeType::REORDER_BUFFER_CHANGE_DELETE,
        };
        (*change).origin_id = origin;
        let old = tuple(reorder, told.old);
        let new = tuple(reorder, told.new);
        let file = server::file_from_numbers(told.file);
        server::set_row_change(change, file, told.keeps_values, old, new);
        pg_sys::ReorderBufferQueueChange(reorder, xid, lsn, change, false);
    }
}

/// A tuple in the reorder buffer's memory; null for none.
unsafe fn tuple(
    reorder: *mut pg_sys::ReorderBuffer,
    bytes: Option<&[u8]>,
) -> *mut pg_sys::ReorderBufferTupleBuf {
    let Some(bytes) = bytes else {
        return std::ptr::null_mut();
    };
    let header = mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits);
    // SAFETY: the buffer has room for a header and the bytes behind it.
    unsafe {
        let buffer = pg_sys::ReorderBufferGetTupleBuf(reorder, bytes.len() - header);
        let tuple = &mut (*buffer).tuple;
        tuple.t_len = bytes.len() as u32;
        // Neither is known of a row in the log.
        tuple.t_self = crate::slot::INVALID_TID;
        tuple.t_tableOid = pg_sys::InvalidOid;
        tuple
            .t_data
            .cast::<u8>()
            .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        buffer
    }
}
