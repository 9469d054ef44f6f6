//! Replay: the very same `apply` that made the change.

use engine::page::apply::Scratch;
use engine::record::{Record, RecordKind};
use engine::store::LSN_BYTES;
use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary as guarded};
use pgrx::prelude::*;

use super::ReuseNotice;
use super::compress::{Images, is_image, with_images};
use super::describe::{block_data_of, data_of, kind_of};
use crate::ffi;
use crate::store::{apply_in_scratch, with_scratch};
use crate::version::server;

/// The buffers that one record has locked, given up together when all of its
/// pages are changed: a reader on a standby never sees half a record.
struct Locked {
    buffers: [pg_sys::Buffer; Record::BLOCKS_MAX],
    count: usize,
}

impl Drop for Locked {
    fn drop(&mut self) {
        for buffer in &self.buffers[..self.count] {
            if *buffer != 0 {
                // SAFETY: locked and pinned by `redo`, given up once.
                unsafe { ffi::rowref_release(*buffer) };
            }
        }
    }
}

/// Replays one record.
///
/// # Safety
/// Called by the server, with the record it is replaying.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn redo(record: *mut pg_sys::XLogReaderState) {
    // SAFETY: the server's record.
    unsafe {
        let Some(kind) = kind_of(ffi::rowref_record_info(record)) else {
            ffi::panic(
                "pg_rowref met a WAL record of an unknown kind",
                "The log was written by a newer version of pg_rowref.",
            );
        };
        let blocks = ffi::rowref_record_blocks(record);
        if kind == RecordKind::Reuse && blocks == 0 {
            announce_reuse(data_of(record));
            return;
        }
        if kind == RecordKind::RowChange {
            // For logical decoding only; the page's own record came before it.
            return;
        }
        if blocks as usize > Record::BLOCKS_MAX {
            ffi::panic(
                "pg_rowref met a WAL record of too many blocks",
                "The log is corrupt.",
            );
        }
        resolve_conflict(record);
        with_scratch(|scratch| {
            with_images(|images| replay(record, kind, blocks as u8, scratch, images))
        });
    }
}

/// Before any page is touched: queries that could miss what this record
/// removes or freezes end first (rule 30).
unsafe fn resolve_conflict(record: *mut pg_sys::XLogReaderState) {
    // SAFETY: the server's record; block 0 exists, for it has blocks.
    unsafe {
        let Some(horizon) = data_of(record).first_chunk::<4>() else {
            return;
        };
        if !ffi::rowref_in_hot_standby() {
            return;
        }
        let (file, _, _) = server::record_block(record, 0);
        let horizon = pg_sys::TransactionId::from_inner(u32::from_le_bytes(*horizon));
        server::resolve_conflict(horizon, &file);
    }
}

fn announce_reuse(data: &[u8]) {
    let Some(notice) = ReuseNotice::decode(data) else {
        ffi::panic(
            "pg_rowref met a REUSE record that cannot be read",
            "The log is corrupt.",
        );
    };
    // SAFETY: reads the startup process's own state.
    if unsafe { ffi::rowref_in_hot_standby() } {
        server::resolve_conflict_full(notice.stamp, &notice.relation_file());
    }
}

unsafe fn replay(
    record: *mut pg_sys::XLogReaderState,
    kind: RecordKind,
    blocks: u8,
    scratch: &mut Scratch,
    images: &mut Images,
) {
    let mut locked = Locked {
        buffers: [0; Record::BLOCKS_MAX],
        count: 0,
    };
    for id in 0..blocks {
        // SAFETY: the server's record; every buffer that is locked is noted
        // in `locked` at once.
        unsafe {
            let mut init = false;
            if !ffi::rowref_record_has_block(record, id, &mut init) {
                continue;
            }
            let buffer = &mut locked.buffers[locked.count];
            locked.count += 1;
            let page = guarded(|| ffi::rowref_redo_begin(record, id, init, buffer));
            if page.is_null() {
                // Restored from an image, changed already, or gone later on.
                continue;
            }
            let buffer = *buffer;
            let data = block_data_of(record, id);
            let page = std::slice::from_raw_parts_mut(
                page.add(LSN_BYTES),
                pg_sys::BLCKSZ as usize - LSN_BYTES,
            );
            let (file, block, init_fork) = server::record_block(record, id);
            let done = match (is_image(data), init) {
                (false, _) => apply_in_scratch(page, data, scratch),
                (true, true) => images.restore(data, page),
                (true, false) => Err("an image of a block that is not made anew"),
            };
            if let Err(why) = done {
                let [tablespace, database, relation] = server::file_numbers(&file);
                ffi::panic(
                    &format!(
                        "pg_rowref could not replay a change of block {block} of relation \
                         {tablespace}/{database}/{relation}: {why}"
                    ),
                    &format!("The record is of kind {}.", kind.name()),
                );
            }
            guarded(|| ffi::rowref_redo_end(record, buffer, init_fork));
        }
    }
}
